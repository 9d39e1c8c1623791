#!/usr/bin/env python3
"""Reads a topic back with kcat, an independent client, byte for byte.

Values and keys come length-prefixed, so no byte in them can be mistaken for framing. Headers come
from a second kcat beside it, in JSON: the text form does not escape them. JSON carries text only,
which is what the agent's headers are.
"""
import contextlib
import json
import os
import subprocess
import sys
import threading
from typing import NamedTuple, Optional


class Record(NamedTuple):
    partition: int
    offset: int
    timestamp_ms: int
    key: Optional[bytes]        # None: null key
    value: Optional[bytes]
    headers: list               # [(name, value), ...] in the order of the record


class ReaderError(Exception):
    pass


SECONDS = 900   # for one partition: a reader that hangs ends, millions of records are checked on the way


@contextlib.contextmanager
def _kcat(bootstrap, security, *arguments, follows=False):
    """The standard output of one kcat, as it comes; what it complains of goes to standard error. One that
    follows its topic is ended by leaving it."""
    command = ["kcat", "-q", "-b", bootstrap, *arguments]
    for name, value in (security or {}).items():
        command += ["-X", f"{name}={value}"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=1 << 20) as process:
        hangs = threading.Timer(SECONDS, process.kill)
        hangs.start()
        try:
            yield process.stdout
            if follows:
                return
            process.stdout.read()
            if process.wait() != 0:
                raise ReaderError(f"exit {process.returncode} of {' '.join(command)}")
        finally:
            hangs.cancel()
            process.kill()


def sasl_ssl(broker, user="admin"):
    """kcat's settings for reading over SASL_SSL/PLAIN; give broker.sasl_ssl as bootstrap."""
    return {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN", "sasl.username": user,
            "sasl.password": broker.password(user), "ssl.ca.location": broker.ca_file}


def read(bootstrap, topic, security=None):
    """All records of the topic, by partition and offset."""
    return list(stream(bootstrap, topic, security))


def stream(bootstrap, topic, security=None):
    """The same, one at a time: nothing is held, so a topic may have millions."""
    with _kcat(bootstrap, security, "-L", "-J", "-t", topic) as listing:
        partitions = [entry["partition"] for entry in json.loads(listing.read())["topics"][0]["partitions"]]
    if not partitions:
        raise ReaderError(f"no topic {topic} at {bootstrap}")
    for partition in sorted(partitions):
        what = ["-C", "-u", "-t", topic, "-p", str(partition), "-o", "beginning", "-X", "check.crcs=true"]
        with _kcat(bootstrap, security, *what, "-e", "-f", r"%p %o %T %K %S\n%k%s\n") as framed, \
                _kcat(bootstrap, security, *what, "-J", follows=True) as described:
            yield from _joined(framed, described)


def _joined(framed, described):
    for frame in framed:
        partition, offset, timestamp, key_length, value_length = map(int, frame.split())
        key = framed.read(key_length) if key_length >= 0 else None
        value = framed.read(value_length) if value_length >= 0 else None
        if framed.read(1) != b"\n":
            raise ReaderError(f"framing lost at offset {offset} of partition {partition}")
        line = described.readline()
        if not line:
            raise ReaderError(f"the second pass ends before offset {offset} of partition {partition}")
        message = json.loads(line.decode(errors="replace"))  # values may be anything; headers are text
        if message["offset"] != offset:
            raise ReaderError(f"the second pass has offset {message['offset']} instead of {offset}")
        flat = message.get("headers", [])
        yield Record(partition, offset, timestamp, key, value, list(zip(flat[::2], flat[1::2])))


def main():
    """reader.py BOOTSTRAP TOPIC: a line of JSON per record, for people."""
    try:
        for record in stream(sys.argv[1], sys.argv[2]):
            print(json.dumps({**record._asdict(),
                              "key": record.key and record.key.decode(errors="backslashreplace"),
                              "value": record.value and record.value.decode(errors="backslashreplace")}))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
