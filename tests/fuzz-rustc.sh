#!/bin/sh
# Runs rustc for a crate of the workspace, with a counter for each branch (LLVM, "SanitizerCoverage"). src/fuzz reads them.
case $CARGO_PKG_NAME in
snapdeck-fuzz) exec "$@" ;;
esac
exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=3 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
