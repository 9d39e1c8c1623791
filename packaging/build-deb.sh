#!/bin/bash
# usage: packaging/build-deb.sh [--no-lintian]
# Builds the Debian package and leaves signal-agent_VERSION_ARCH.deb in build/ (debug symbols and
# .changes in build/deb/), beside it the list of its parts; and, out of the same build, a tarball and,
# where rpmbuild is at hand, an rpm. The same tree gives the same bytes. Needs the groups build and
# package of dependencies.txt.
set -euo pipefail
umask 022
cd "$(dirname "$0")/.."
version=$(dpkg-parsechangelog -l packaging/debian/changelog -S Version)
arch=$(dpkg --print-architecture)
work=$PWD/build/deb
tree=$work/signal-agent-$version

cmake_version=$(sed -nE 's/^project\(signal-agent VERSION ([0-9.]+).*/\1/p' CMakeLists.txt)
if [ "$cmake_version" != "$version" ]; then
  echo "CMakeLists.txt says $cmake_version, packaging/debian/changelog says $version" >&2
  exit 1
fi

# dpkg wants debian/ at the top of the tree; so the tree is put together, without what git ignores.
# The build's own folder in it is kept between runs: only what changed is compiled again.
mkdir -p "$tree"
find "$tree" -mindepth 1 -maxdepth 1 ! -name 'obj-*' -exec rm -rf {} +
if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
  git ls-files -z --cached --others --exclude-standard
else
  find . -path ./build -prune -o -type f -print0
fi | { while IFS= read -r -d '' file; do [ ! -f "$file" ] || printf '%s\0' "$file"; done; } |
  tar --null --files-from=- --create --file=- | tar --extract --directory="$tree"
cp -r packaging/debian "$tree/debian"

# The console's one library comes from npm, pinned by hash; the package's own build has no network.
mkdir -p "$work/npm"
if ! cmp -s agent/admin/web/package-lock.json "$work/npm/package-lock.json"; then
  cp agent/admin/web/package.json "$work/npm/"
  (cd "$work/npm" && cp "$OLDPWD/agent/admin/web/package-lock.json" package-lock.new &&
    mv package-lock.new package-lock.json && npm ci --silent --no-audit --no-fund --ignore-scripts) ||
    { rm -f "$work/npm/package-lock.json"; exit 1; }
fi
cp -r "$work/npm/node_modules" "$tree/agent/admin/web/"

export CCACHE_DIR=${CCACHE_DIR:-$HOME/.cache/ccache}
(cd "$tree" && dpkg-buildpackage --build=binary --no-sign)
cp "$work/signal-agent_${version}_$arch.deb" build/

# Both hold the program as it was linked here, so they are for machines with the same libraries.
export SOURCE_DATE_EPOCH
SOURCE_DATE_EPOCH=$(dpkg-parsechangelog -l packaging/debian/changelog -S Timestamp)
built=("$tree"/obj-*)
folder=signal-agent-$version-$(uname -m)
rm -rf "${work:?}/$folder"
DESTDIR=$work/$folder cmake --install "${built[0]}" --strip >/dev/null
tar --create --directory="$work" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner \
  "$folder" | gzip --no-name -9 > "build/$folder.tar.gz"
if command -v rpmbuild >/dev/null; then
  (cd "${built[0]}" && rm -f ./*.rpm && cpack -G RPM >cpack.log || { cat cpack.log >&2; exit 1; })
  cp "${built[0]}"/*.rpm build/
else
  echo "no rpm: rpmbuild is not here"
fi

packaging/sbom.py "build/signal-agent_${version}_$arch.deb" > "build/signal-agent_${version}_$arch.spdx.json"
if [ "${1:-}" != --no-lintian ]; then
  lintian --fail-on error,warning --info --display-info "build/signal-agent_${version}_$arch.deb"
fi
ls -l build/signal-agent[-_]*
