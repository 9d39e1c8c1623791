#!/usr/bin/env python3
"""The event SDKs the tests send through, installed once under build/ from npm and PyPI at the
versions of clients/package-lock.json and clients/requirements.txt.

    sdks.py fetch        install them
    sdks.send("segment-node", url, key, count)
"""
import fcntl
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
CLIENTS = pathlib.Path(__file__).resolve().parent / "clients"
CACHE = pathlib.Path(os.environ.get("SIGNAL_AGENT_TEST_CACHE", ROOT / "build" / "support")) / "sdks"
NAMES = ("segment-node", "rudderstack-node", "segment-python", "rudderstack-python")


def _run(command, **options):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, **options)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}")
    return done.stdout


def fetch():
    """Installs them when the pins changed; safe to call from several tests. Returns the folder."""
    pins = [CLIENTS / "package.json", CLIENTS / "package-lock.json", CLIENTS / "requirements.txt"]
    stamp = hashlib.sha256(b"".join(path.read_bytes() for path in pins)).hexdigest()
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        marker = CACHE / "stamp"
        if not marker.exists() or marker.read_text() != stamp:
            for path in pins:
                shutil.copy(path, CACHE)
            _run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=CACHE)
            shutil.rmtree(CACHE / "venv", ignore_errors=True)
            _run([sys.executable, "-m", "venv", CACHE / "venv"])
            _run([CACHE / "venv/bin/pip", "install", "-q", "--disable-pip-version-check", "--require-hashes",
                  "--only-binary=:all:", "-r", CACHE / "requirements.txt"])
            marker.write_text(stamp)
    return CACHE


def send(name, url, key, count):
    """Lets the SDK send `count` events of each type to `url` and flush; returns its output."""
    cache = fetch()
    vendor, language = name.split("-")
    arguments = [vendor, url, key, str(count)]
    if language == "node":
        return _run(["node", CLIENTS / "send.cjs", *arguments], timeout=120,
                    env={**os.environ, "NODE_PATH": str(cache / "node_modules")})
    return _run([cache / "venv/bin/python", CLIENTS / "send.py", *arguments], timeout=120)


if __name__ == "__main__":
    if sys.argv[1:] != ["fetch"]:
        sys.exit(__doc__)
    print(fetch())
