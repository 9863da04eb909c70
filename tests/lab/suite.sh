#!/usr/bin/env bash
# Runs all tests with hosts on this machine, then those that access a host's files once more over SSH. Runs in the lab.
set -uo pipefail
code=0
# More threads than processors, since most tests wait for guests and timeouts.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$(($(nproc) * 2))}
cargo test --locked --workspace --no-fail-fast || code=$?
SNAPDECK_TEST_HOST=remote cargo test --locked --workspace --no-fail-fast --test system -- \
  operations:: sandboxes:: doctor:: console:: push_composed:: pull_delta:: security:: || code=$?
# A short part of `make faults`: a kill of each command, a try of each other fault as long as there is time.
FAULTS_SEED=${FAULTS_SEED:-20} FAULTS_KILLS=1 FAULTS_TRIES=1 FAULTS_SECONDS=${FAULTS_SECONDS:-120} FAULTS_MIXED=1 \
  python3 tests/faults/faults.py || code=$?
exit $code
