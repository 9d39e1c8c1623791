#!/bin/bash
# usage: packaging/quickstart.sh [--no-wait]
# A newcomer's command on Debian 12: installs what is needed to build, builds, and runs the demo
# on an embedded broker. --no-wait ends it after the story.
set -euo pipefail
cd "$(dirname "$0")/.."
packaging/install-dependencies.sh build
echo "building (a few minutes the first time)"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
quietly() { "$@" </dev/null >"$log" 2>&1 || { cat "$log" >&2; exit 1; }; }
quietly cmake --preset release
build=(cmake --build --preset release --target signal-agent --parallel "$(nproc)")
if [ -t 1 ]; then "${build[@]}" </dev/null; else quietly "${build[@]}"; fi
rm -f "$log"
trap - EXIT
exec build/release/signal-agent demo "$@"
