#!/usr/bin/env python3
"""Reads a topic back with kcat, an independent client, byte for byte.

Values and keys come length-prefixed, so no byte in them can be mistaken for framing. Headers come
from a second pass in kcat's JSON form: its text form does not escape them. JSON carries text only,
which is what the agent's headers are.
"""
import json
import os
import subprocess
import sys
from typing import NamedTuple, Optional


class Record(NamedTuple):
    partition: int
    offset: int
    timestamp_ms: int
    key: Optional[bytes]        # None: null key
    value: Optional[bytes]
    headers: Optional[list]     # [(name, value), ...] in the order of the record; None: not asked for


class ReaderError(Exception):
    pass


def _consume(bootstrap, topic, security, form):
    command = ["kcat", "-C", "-q", "-e", "-u", "-b", bootstrap, "-t", topic, "-o", "beginning",
               "-X", "check.crcs=true"]
    for name, value in (security or {}).items():
        command += ["-X", f"{name}={value}"]
    done = subprocess.run(command + form, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=300)
    if done.returncode != 0:
        raise ReaderError(f"kcat: exit {done.returncode}: {done.stderr.decode(errors='replace')}")
    return done.stdout


def sasl_ssl(broker, user="admin"):
    """kcat's settings for reading over SASL_SSL/PLAIN; give broker.sasl_ssl as bootstrap."""
    return {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN", "sasl.username": user,
            "sasl.password": broker.password(user), "ssl.ca.location": broker.ca_file}


def read(bootstrap, topic, headers=True, security=None):
    """All records of the topic, by partition and offset."""
    raw = _consume(bootstrap, topic, security, ["-f", r"%p %o %T %K %S\n%k%s\n"])
    records, at = [], 0
    while at < len(raw):
        end = raw.index(b"\n", at)
        partition, offset, timestamp, key_length, value_length = map(int, raw[at:end].split())
        key_end = end + 1 + max(key_length, 0)
        value_end = key_end + max(value_length, 0)
        if raw[value_end:value_end + 1] != b"\n":
            raise ReaderError(f"framing lost at byte {at} of {len(raw)}")
        records.append(Record(partition, offset, timestamp,
                              None if key_length < 0 else raw[end + 1:key_end],
                              None if value_length < 0 else raw[key_end:value_end], None))
        at = value_end + 1
    records.sort(key=lambda record: (record.partition, record.offset))
    return _with_headers(records, bootstrap, topic, security) if headers else records


def _with_headers(records, bootstrap, topic, security):
    found = {}
    for line in _consume(bootstrap, topic, security, ["-J"]).splitlines():
        message = json.loads(line.decode(errors="replace"))  # values may be anything; headers are text
        flat = message.get("headers", [])
        found[message["partition"], message["offset"]] = list(zip(flat[::2], flat[1::2]))
    missing = [record for record in records if (record.partition, record.offset) not in found]
    if missing:
        raise ReaderError(f"second pass misses {len(missing)} records, first {missing[0]}")
    return [record._replace(headers=found[record.partition, record.offset]) for record in records]


def main():
    """reader.py BOOTSTRAP TOPIC: a line of JSON per record, for people."""
    try:
        for record in read(sys.argv[1], sys.argv[2]):
            print(json.dumps({**record._asdict(),
                              "key": record.key and record.key.decode(errors="backslashreplace"),
                              "value": record.value and record.value.decode(errors="backslashreplace")}))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
