#!/bin/bash
# usage: tests/run.sh [ctest options]      e.g. tests/run.sh -L e2e, tests/run.sh -R layering
# Sets up a Debian 12 machine, builds the release preset and runs every test.
#   SIGNAL_AGENT_PROOF=full        the long proofs too (hours)
#   SIGNAL_AGENT_KILL_ROUNDS=N     rounds of the kill -9 loop
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null

started=$SECONDS
stage() { printf '\n=== %s (after %d s)\n' "$*" $((SECONDS - started)); }

stage "packages of Debian"
packaging/install-dependencies.sh build package test

stage "build"
cmake --preset release
cmake --build --preset release --parallel "$(nproc)"

stage "packages of Maven, npm and PyPI"
python3 tests/support/kafka_broker.py fetch >/dev/null
python3 tests/e2e/sdks.py fetch >/dev/null

stage "tests"
# One more than there are cores: the tests on a real broker run one after the other and mostly wait.
ctest --preset release --parallel $(($(nproc) + 1)) --no-tests=error "$@"
if skipped=$(grep '^not run: ' build/release/Testing/Temporary/LastTest.log); then
  printf '\nNOT EVERYTHING WAS TESTED:\n%s\n' "$skipped"
fi
