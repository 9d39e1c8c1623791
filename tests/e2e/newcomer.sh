#!/bin/bash
# usage: tests/e2e/newcomer.sh [--commands quickstart|tests|both] [--keep DIR]
# Does what a newcomer does: a minimal Debian 12 root, a fresh clone of the committed tree, README's
# two commands in it. Not part of ctest: it needs root, mmdebstrap and the network, and takes as long
# as both commands together.
set -euo pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)
commands=both keep=
while [ $# -gt 0 ]; do
  case $1 in
    --commands) commands=$2; shift 2 ;;
    --keep) keep=$2; shift 2 ;;
    *) sed -n '2,5s/^# //p' "$0" >&2; exit 64 ;;
  esac
done
[ "$(id -u)" -eq 0 ] || { echo "needs root" >&2; exit 77; }
command -v mmdebstrap >/dev/null || { echo "needs mmdebstrap (apt-get install mmdebstrap)" >&2; exit 69; }

root=${keep:-$(mktemp -d)}
[ -n "$keep" ] || trap 'rm -rf --one-file-system "$root"' EXIT
if [ ! -e "$root/etc/debian_version" ]; then
  mmdebstrap --quiet --variant=minbase bookworm "$root"
fi
# A machine behind an inspecting proxy has CAs of its own; the newcomer sits behind the same one.
if compgen -G "/usr/local/share/ca-certificates/*.crt" >/dev/null; then
  install -D -t "$root/usr/local/share/ca-certificates" /usr/local/share/ca-certificates/*.crt
fi
cp /etc/resolv.conf "$root/etc/resolv.conf"
cp /etc/hosts "$root/etc/hosts"
rm -rf "$root/root/signal-agent"
git clone --quiet --no-local "$here" "$root/root/signal-agent"

inside() {
  echo "=== newcomer: $*"
  unshare --mount --pid --fork --kill-child bash -euc '
    root=$1; shift
    mount --make-rprivate /
    mount --bind "$root" "$root"; cd "$root"
    mount -t proc proc proc; mount -t sysfs sysfs sys; mount --rbind /dev dev
    mount -t cgroup2 none sys/fs/cgroup
    mount -t tmpfs -o mode=1777 tmpfs dev/shm 2>/dev/null || true
    mkdir -p .outside; pivot_root . .outside  # chroot would not do: a system booted inside needs roots of its own
    exec env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
      LANG=C.UTF-8 "$@"' _ "$root" "${passed[@]}" sh -c "umount -l /.outside; cd /root/signal-agent && exec $*" </dev/null
}
passed=()
while IFS= read -r name; do
  passed+=("$name=${!name}")
done < <(compgen -e | grep -iE '^(https?|no|all)_proxy$|_CA_CERTS$|^SSL_CERT_FILE$|^PIP_CERT$|^REQUESTS_CA_BUNDLE$' || true)

started=$SECONDS
case $commands in quickstart|both) inside packaging/quickstart.sh --no-wait ;; esac
echo "=== after $((SECONDS - started)) s"
case $commands in tests|both) inside tests/run.sh ;; esac
echo "=== newcomer: done after $((SECONDS - started)) s"
