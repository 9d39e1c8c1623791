#!/bin/bash
# usage: packaging/install-dependencies.sh GROUP...
# Installs the Debian packages of these groups of packaging/dependencies.txt that are missing.
# Asks apt for nothing when nothing is missing; needs root or sudo otherwise.
set -euo pipefail
cd "$(dirname "$0")"

missing=()
while read -r group package unless command; do
  [[ " $* " == *" $group "* ]] || continue
  if [ "${unless:-}" = unless ] && command -v "$command" >/dev/null; then continue; fi
  state=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)
  [ "$state" = "install ok installed" ] || missing+=("$package")
done < <(grep -v '^#' dependencies.txt)

if [ ${#missing[@]} -eq 0 ]; then exit 0; fi
echo "installing: ${missing[*]}"
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "not root and no sudo: install them by hand, then run this again" >&2; exit 77; }
  as_root=(sudo)
fi
# RUNLEVEL=1: services that come along (prometheus) are installed, not started.
apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -qq -o Dpkg::Use-Pty=0 -o Acquire::Retries=3)
"${apt[@]}" update </dev/null || echo "apt-get update had errors; going on with what is known" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
"${apt[@]}" install --yes --no-install-recommends "${missing[@]}" </dev/null >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
