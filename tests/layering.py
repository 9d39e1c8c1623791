#!/usr/bin/env python3
"""Reads the #include lines of the tree and says which rule of the house broke.

    config <- {spool, kafka} <- agent;  inside agent/, http knows no routes,
    and ingest, forward and admin never include each other.

Third-party headers stay in the room that hides them, and no header of ours includes one
(nlohmann excepted where JSON is the subject).
"""
import pathlib
import re
import sys

MAY_SEE = {
    "config": {"config"},
    "spool": {"spool", "config"},
    "kafka": {"kafka", "config"},
    "agent/http": {"agent/http", "config"},
    "agent/ingest": {"agent/ingest", "agent/http", "agent", "spool", "config"},
    "agent/forward": {"agent/forward", "agent", "spool", "kafka", "config"},
    "agent/admin": {"agent/admin", "agent/http", "agent", "spool", "kafka", "config"},
    "agent/cli": {"agent/cli", "agent/http", "agent", "spool", "kafka", "config"},
}
# agent/*.{h,cc} itself may see everything below agent/; but these shared words stay low.
LOW_HEADERS = {"agent/live.h": {"config"}}

# library prefix -> places that may include it (file or folder)
THIRD_PARTY = {
    "rocksdb/": ["spool/"],
    "librdkafka/": ["kafka/"],
    "boost/": ["agent/http/"],
    "simdjson": ["agent/ingest/", "agent/forward/"],
    "toml++/": ["config/load.cc"],
    "spdlog/": ["config/base/log.cc"],
    "openssl/": ["config/", "agent/http/", "agent/ingest/", "kafka/"],
    "CLI/": ["agent/cli/"],
    "systemd/": ["agent/"],
    "zlib.h": ["agent/ingest/"],
}
HEADER_MAY = {"nlohmann/"}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def room_of(path: str) -> str:
    parts = path.split("/")
    if parts[0] == "agent" and len(parts) > 2:
        return "/".join(parts[:2])
    return parts[0]


def faults(root: pathlib.Path):
    sources = [p for top in ("config", "spool", "kafka", "agent")
               for p in sorted((root / top).rglob("*")) if p.suffix in (".h", ".cc")]
    if len(sources) < 10:
        yield f"only {len(sources)} sources found under {root}: the test would prove nothing"
    for path in sources:
        name = path.relative_to(root).as_posix()
        room = room_of(name)
        for number, line in enumerate(path.read_text().splitlines(), 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            kind, target = match.groups()
            if kind == '"':
                if not (root / target).exists():
                    yield f"{name}:{number}: \"{target}\" is not a path from the root"
                    continue
                seen = room_of(target)
                allowed = LOW_HEADERS.get(name) or MAY_SEE.get(room)
                if allowed is not None and seen not in allowed:
                    yield f"{name}:{number}: {room} must not see {target} (it may see {', '.join(sorted(allowed))})"
                if seen == "tests":
                    yield f"{name}:{number}: product code includes a test"
                continue
            for prefix, places in THIRD_PARTY.items():
                if not target.startswith(prefix):
                    continue
                if not any(name.startswith(place) for place in places):
                    yield f"{name}:{number}: <{target}> belongs to {', '.join(places)}"
                if path.suffix == ".h":
                    yield f"{name}:{number}: a header of ours includes <{target}>"


def main() -> int:
    found = list(faults(pathlib.Path(sys.argv[1])))
    for fault in found:
        print(fault)
    print(f"layering: {len(found)} faults")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
