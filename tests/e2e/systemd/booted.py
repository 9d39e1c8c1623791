"""A Debian 12 root tree with a booted systemd in it, in private namespaces; the network is the caller's.

    with Booted(directory, packages) as system:
        system.run("systemctl", "is-system-running", "--wait")

Needs root, a writable cgroup2 mount and mmdebstrap. The tree is made once per list of packages and
kept as a tarball in the build folder.
"""
import contextlib
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import uuid

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
from harness import wait_until  # noqa: E402

CACHE = pathlib.Path(os.environ.get("SIGNAL_AGENT_TEST_CACHE", ROOT / "build" / "support")) / "debian"
SUITE = "bookworm"
BASE = ["systemd", "systemd-sysv", "dbus", "ca-certificates", "procps"]

# systemd expects a few mounts and nodes of its own; / is shared, or credentials stay invisible to
# services.
PIVOT = r"""
mount --make-rprivate /; mount --bind "$1" "$1"; cd "$1"
mount -t proc proc proc; mount -t sysfs -o ro sysfs sys; mount -t cgroup2 none sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run; mount -t tmpfs tmpfs tmp; mount -t tmpfs -o mode=755 tmpfs dev
for d in null zero full random urandom tty; do touch dev/$d; mount --bind /dev/$d dev/$d; done
mkdir dev/pts dev/shm; mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx; ln -s /proc/self/fd dev/fd; mount -t tmpfs tmpfs dev/shm; touch dev/console
mkdir -p .old; pivot_root . .old
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin sh -c \
  "umount -l /.old; mount --make-rshared /; exec /lib/systemd/systemd --show-status=no"
"""


def cgroup_mount():
    """Where cgroup2 is mounted."""
    found = subprocess.run(["findmnt", "-n", "-o", "TARGET", "-t", "cgroup2"], capture_output=True, text=True)
    return pathlib.Path(found.stdout.splitlines()[0]) if found.stdout.strip() else None


def why_not():
    """Why a system cannot be booted here, or None."""
    if os.geteuid() != 0:
        return "not root"
    for tool in ("mmdebstrap", "unshare", "nsenter"):
        if not shutil.which(tool):
            return f"{tool} is missing"
    mount = cgroup_mount()
    if mount is None or not os.access(mount, os.W_OK):
        return "no writable cgroup2 mount"
    return None


def tree_with(packages):
    """The tarball of a minimal system with these packages, made when missing."""
    wanted = sorted({*BASE, *packages})
    name = hashlib.sha256(" ".join([SUITE, *wanted]).encode()).hexdigest()[:16]
    tarball = CACHE / f"{name}.tar"
    if not tarball.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        partial = tarball.with_suffix(".partial.tar")
        subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(wanted)}", SUITE,
                        str(partial)], check=True, timeout=1800, stdin=subprocess.DEVNULL)
        partial.rename(tarball)
    return tarball


class Booted:
    def __init__(self, directory, packages=()):
        self.root = pathlib.Path(directory) / "root"
        self.packages = packages
        self.cgroup = None
        self.process = None
        self.pid = None  # of the system's systemd, as seen from here

    def __enter__(self):
        self.root.mkdir(parents=True)
        subprocess.run(["tar", "--extract", "--file", str(tree_with(self.packages)), "--directory", str(self.root),
                        "--numeric-owner", "--xattrs"], check=True, timeout=300)
        self._settle_in()
        self.cgroup = cgroup_mount() / f"signal-agent-test-{os.getpid()}"
        self.cgroup.mkdir()
        enter = f'echo $$ > "{self.cgroup}/cgroup.procs"; exec unshare --fork --kill-child --pid --mount --uts --ipc ' \
                '--cgroup bash -ceu "$0" _ "$1"'
        self.process = subprocess.Popen(["bash", "-ceu", enter, PIVOT, str(self.root)], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            self.pid = wait_until(self._child, "the system's first process")
            wait_until(lambda: self._try("systemctl", "is-system-running").stdout.strip() in ("running", "degraded"),
                       lambda: f"booted: {self._state()}", 120, 0.1)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _settle_in(self):
        """A machine of its own: no console, a journal that stays, no waiting for a network to come up."""
        etc = self.root / "etc"
        (etc / "machine-id").write_text(uuid.uuid4().hex + "\n")
        units = etc / "systemd" / "system"
        for unit in ("console-getty.service", "systemd-networkd-wait-online.service"):
            (units / unit).symlink_to("/dev/null")
        (self.root / "var" / "log" / "journal").mkdir(exist_ok=True)
        hosts = etc / "hosts"
        hosts.write_text("127.0.0.1 localhost\n")

    def _child(self):
        if self.process.poll() is not None:
            raise AssertionError(f"the system did not boot: {self.process.stderr.read()}")
        # this shell became unshare, whose only child is the namespace's first process
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        if not children:
            return None
        comm = pathlib.Path(f"/proc/{children[0]}/comm").read_text().strip()
        return int(children[0]) if comm == "systemd" else None

    def _state(self):
        return self._try("systemctl", "--no-pager", "--failed").stdout + self._try("journalctl", "-b", "-n", "40").stdout

    def _try(self, *command, **options):
        return subprocess.run(["nsenter", "--target", str(self.pid), "--mount", "--pid", "--uts", "--ipc", "--cgroup",
                               "--wd=/", "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8",
                               "DEBIAN_FRONTEND=noninteractive", *command],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, **options)

    def run(self, *command, code=0):
        """A command inside, as its root; fails unless it ends with `code`. Gives what it printed."""
        done = self._try(*command)
        assert done.returncode == code, f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}\n" \
                                        f"{self.journal()}"
        return done.stdout + done.stderr

    def journal(self, unit="signal-agent.service", lines=30):
        return self._try("journalctl", "--no-pager", "-u", unit, "-n", str(lines)).stdout

    def path(self, inside):
        return self.root / inside.lstrip("/")

    def __exit__(self, *_):
        if self.process is not None:
            if self.process.poll() is None:
                self.process.kill()  # --kill-child takes the whole system along
            self.process.wait(30)
        if self.cgroup is not None:
            def gone():
                for folder in sorted(self.cgroup.rglob("*"), key=lambda path: -len(path.parts)):
                    if folder.is_dir():
                        with contextlib.suppress(OSError):
                            folder.rmdir()
                with contextlib.suppress(OSError):
                    self.cgroup.rmdir()
                return not self.cgroup.exists()
            wait_until(gone, f"{self.cgroup} gone", every=0.1)
        shutil.rmtree(self.root, ignore_errors=True)
