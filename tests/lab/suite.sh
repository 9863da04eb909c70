#!/usr/bin/env bash
# Runs all tests with hosts on this machine, then those that access a host's files once more over SSH. Runs in the lab.
set -uo pipefail
code=0
# More threads than processors, since most tests wait for guests and timeouts.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$(($(nproc) * 2))}
cargo test --locked --workspace --no-fail-fast || code=$?
SNAPDECK_TEST_HOST=remote cargo test --locked --workspace --no-fail-fast --test system -- \
  operations:: sandboxes:: doctor:: console:: push_composed:: pull_delta:: || code=$?
exit $code
