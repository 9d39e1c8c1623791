#!/bin/bash
# usage: tests/bench/run.sh [options of end_to_end.py]
# Builds the release preset and prints every table of the house, each with its reference from the
# same run. Takes minutes; wants a machine that does nothing else. --backlog-gb 10 for the large one.
set -euo pipefail
cd "$(dirname "$0")/../.."
packaging/install-dependencies.sh build test
cmake --preset release >/dev/null
cmake --build --preset release --parallel "$(nproc)"
for program in spool_bench http_bench producer_bench forward_bench parking_bench; do
  printf '\n=== %s\n' "$program"
  "build/release/tests/$program"
done
printf '\n=== end to end\n'
exec python3 tests/bench/end_to_end.py "$@"
