#!/usr/bin/env bash
# Runs all tests against hosts on this machine, then those that touch a host's files once more over SSH. Runs in the lab.
set -uo pipefail
code=0
cargo test --locked --workspace --no-fail-fast || code=$?
SNAPDECK_TEST_HOST=remote cargo test --locked --no-fail-fast --test system -- operations:: sandboxes:: doctor:: console:: push_composed:: pull_delta:: ||
  code=$?
exit $code
