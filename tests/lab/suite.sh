#!/usr/bin/env bash
# All tests on hosts of this machine, then once more those that stand on a host, over SSH. Runs in the lab.
set -uo pipefail
code=0
cargo test --locked --no-fail-fast || code=$?
SNAPDECK_TEST_HOST=remote cargo test --locked --no-fail-fast --test operations --test sandboxes --test doctor --test console --test push_composed \
  --test pull_delta || code=$?
exit $code
