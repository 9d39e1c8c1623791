#!/usr/bin/env python3
"""From a socket to a real broker: what the agent does beside what its parts alone can do, in one run.

    end_to_end.py [--build DIR] [--seconds N] [--drain N] [--backlog-gb N] [--only PART]...

Parts: single, batches, drain, backlog. Agent, broker and load share the machine, so every figure is
"while it also forwards"; quote the ratios. No thresholds: a reader judges.
"""
import argparse
import itertools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
import harness  # noqa: E402
from harness import Agent, plain_integration, wait_until  # noqa: E402
from kafka_broker import Broker  # noqa: E402

EVENT_BYTES = 1024
PARTITIONS = 6
CONNECTIONS = 64


class Table:
    """Rows of (work, measured, reference, ratio); printed as they come and once more at the end."""

    def __init__(self):
        self.rows = []

    def add(self, work, measured, reference="", ratio=None, reach=""):
        row = (work, measured, reference, "" if ratio is None else f"{ratio:.2f}", reach)
        self.rows.append(row)
        print("   ", " | ".join(part for part in row if part), flush=True)

    def show(self):
        rows = [("work (1,024-byte events)", "measured", "reference, same run", "ratio", "reach"), *self.rows]
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        print()
        for number, row in enumerate(rows):
            print("| " + " | ".join(text.ljust(width) for text, width in zip(row, widths)) + " |")
            if number == 0:
                print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


def rate(number):
    return f"{number / 1000:.1f} k/s" if number < 1e6 else f"{number / 1e6:.2f} M/s"


class Bench:
    def __init__(self, options):
        self.options = options
        self.build = pathlib.Path(options.build).resolve()
        harness.BINARY = pathlib.Path(os.environ.get("SIGNAL_AGENT", self.build / "signal-agent"))
        self.table = Table()
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="signal-agent-bench-", dir=options.directory))
        self.broker = Broker(self.directory / "broker", benchmark=True).start()
        self.topics = 0

    def close(self):
        self.broker.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def topic(self):
        self.topics += 1
        name = f"bench-{self.topics}"
        self.broker.create_topic(name, PARTITIONS)
        return name

    def agent(self, topic, **settings):
        self.topics += 1
        return Agent(self.directory / f"agent-{self.topics}", [plain_integration(self.broker, topic)],
                     {"spool.max_bytes": "60GiB", **{name.replace("__", "."): value for name, value in settings.items()}})

    def load(self, address, batch, seconds=None, events=None):
        """One run of signal_agent_load; its JSON."""
        command = [self.build / "tests" / "signal_agent_load", "--address", f"{address[0]}:{address[1]}",
                   "--connections", str(CONNECTIONS), "--batch", str(batch), "--event-bytes", str(EVENT_BYTES), "--json"]
        command += ["--seconds", str(seconds)] if seconds else ["--events", str(events)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=3600)
        if done.returncode != 0:
            sys.exit(f"{command}: exit {done.returncode}\n{done.stdout}")
        return json.loads(done.stdout.strip().splitlines()[-1])

    def responder(self, batch):
        """An empty epoll responder under the same load: what the machine's loopback allows."""
        process = subprocess.Popen([self.build / "tests" / "signal_agent_epoll_reference"], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, text=True)
        try:
            port = int(re.search(r"(\d+)\s*$", process.stdout.readline())[1])
            return self.load(("127.0.0.1", port), batch, seconds=max(3, self.options.seconds / 2))
        finally:
            process.kill()
            process.wait()

    def log_reference(self):
        """Events per second of an append + fdatasync log, 64 events a sync, on the same disk."""
        record = b"x" * EVENT_BYTES * 64
        path = self.directory / "log"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        written, end = 0, time.monotonic() + 3
        while time.monotonic() < end:
            os.write(descriptor, record)
            os.fdatasync(descriptor)
            written += 64
        os.close(descriptor)
        path.unlink()
        return written / 3

    # parts

    def intake(self, batch):
        what = "single POSTs" if batch == 1 else f"batches of {batch}"
        print(f"{what}, {CONNECTIONS} connections, forwarding meanwhile", flush=True)
        responder = self.responder(batch)
        log_rate = self.log_reference()
        topic = self.topic()
        with self.agent(topic) as agent:
            self.load(agent.intake, batch, seconds=1)  # connections, topic metadata, allocators
            agent.wait_drained()
            before = agent.balance()
            cpu, written, delivered = agent.cpu_seconds(), self.written(agent), self.broker.count(topic)
            run = self.load(agent.intake, batch, seconds=self.options.seconds)
            in_window = self.broker.count(topic) - delivered
            pending = agent.balance()["pending"]
            began = time.monotonic()
            agent.wait_drained(seconds=300)
            drained = time.monotonic() - began
            events = agent.balance()["acked"] - before["acked"]
            cpu = (agent.cpu_seconds() - cpu) / events * 1e6
            written = (self.written(agent) - written) / (events * EVENT_BYTES)
        if run["errors"]:
            sys.exit(f"the load saw errors: {run}")
        events_rate = run["events"] / run["seconds"]
        if batch == 1:
            self.table.add(f"{what}, {CONNECTIONS} connections", rate(events_rate), f"epoll responder {rate(responder['events'] / responder['seconds'])}",
                           events_rate / (responder["events"] / responder["seconds"]), "0.15")
        else:
            self.table.add(f"{what}, {CONNECTIONS} connections", rate(events_rate), f"log, 64 a sync {rate(log_rate)}",
                           events_rate / log_rate, "0.7")
        self.table.add("  p50 / p99 of a request", f"{run['p50_ms']:.1f} / {run['p99_ms']:.1f} ms", "", None, "p99 20 ms" if batch == 1 else "p99 200 ms")
        self.table.add("  delivered meanwhile", f"{100 * in_window / run['events']:.0f} %", f"{pending} left, drained in {drained:.1f} s")
        self.table.add("  CPU from socket to ack", f"{cpu:.1f} us/event", "", None, "20 us" if batch == 1 else "10 us")
        self.table.add("  device bytes per payload byte", f"{written:.2f}", "", None, "1.2 while keeping up")

    @staticmethod
    def written(agent):
        text = pathlib.Path(f"/proc/{agent.process.pid}/io").read_text()
        return int(re.search(r"^write_bytes: (\d+)", text, re.M)[1])

    def drain(self):
        count = self.options.drain
        print(f"an outage with {count} events waiting", flush=True)
        lines = self.directory / "lines"
        with open(lines, "w") as file:
            for number in range(count):
                head = f'{{"type":"page","messageId":"{number:012d}","userId":"user-{number % 5000}","pad":"'
                file.write(head + os.urandom((EVENT_BYTES - len(head) - 2) // 2).hex().ljust(EVENT_BYTES - len(head) - 2, "p") + '"}\n')
        reference_topic = self.topic()
        reference = min(self.kcat(lines, reference_topic) for _ in range(3))

        topic = self.topic()
        agent = self.agent(topic).start()
        idle = agent.anonymous_bytes()
        self.broker.stop()
        self.post_file(agent, lines)
        waiting = agent.anonymous_bytes()
        self.table.add("anonymous memory, idle -> waiting", f"{idle / 1e6:.0f} -> {waiting / 1e6:.0f} MB", f"{count} events", None, "60 MB")
        kept = sum(file.stat().st_blocks * 512 for file in agent.state_dir.rglob("*")
                   if file.is_file() and file.name != "ballast")  # that one is fixed and holds no event
        self.table.add("spool bytes per event", f"{kept / count:.0f}", "", None, "1.1 KB")
        cpu = agent.cpu_seconds()
        self.broker.start()
        began, curve = time.monotonic(), []
        while not curve or curve[-1][1] < count:
            curve.append((time.monotonic() - began, self.broker.count(topic)))
            if curve[-1][0] > 300:
                sys.exit(f"not drained after 300 s: {curve[-1]}\n{agent.log_tail()}")
            time.sleep(0.02)
        whole = curve[-1][0]
        early = next(point for point in curve if point[1] >= count * 0.05)
        late = next(point for point in curve if point[1] >= count * 0.95)
        slope = (late[1] - early[1]) / max(late[0] - early[0], 1e-3)
        agent.wait_drained()
        cpu = (agent.cpu_seconds() - cpu) / count * 1e6
        agent.close()
        shutil.rmtree(agent.directory)
        self.table.add(f"draining {count} events, slope 5-95 %", rate(slope), f"kcat -P {rate(count / reference)}", slope * reference / count, "0.9")
        self.table.add("  from the broker's first answer to the last", f"{whole:.2f} s", f"kcat -P {reference:.2f} s", whole / reference, "1.3 at most")
        self.table.add("  CPU while draining", f"{cpu:.1f} us/event")

    def kcat(self, lines, topic):
        began = time.monotonic()
        subprocess.run(["kcat", "-P", "-b", self.broker.plaintext, "-t", topic, "-l", "-X", "enable.idempotence=true",
                        "-X", "acks=all", "-X", "linger.ms=50", "-X", "compression.codec=lz4", "-X", "partitioner=murmur2_random", lines],
                       stdin=subprocess.DEVNULL, check=True)
        return time.monotonic() - began

    def post_file(self, agent, lines):
        connection = harness.http.client.HTTPConnection(*agent.intake, timeout=60)
        with open(lines, "rb") as file:
            while block := b"".join(itertools.islice(file, 500)):
                connection.request("POST", "/v1/batch", body=block)
                answer = connection.getresponse()
                text = answer.read()
                if answer.status != 200:
                    sys.exit(f"{answer.status} {text[:500]}")
        connection.close()

    def backlog(self):
        gigabytes = self.options.backlog_gb
        print(f"{gigabytes} GB waiting", flush=True)
        topic = self.topic()
        agent = self.agent(topic).start()
        if self.broker.pid:
            self.broker.stop()
        count = int(gigabytes * 1e9 / EVENT_BYTES)
        half = self.load(agent.intake, 100, events=count // 2)
        middle = agent.anonymous_bytes()
        self.load(agent.intake, 100, events=count - count // 2)
        full = agent.anonymous_bytes()
        self.table.add(f"anonymous memory, {gigabytes / 2:g} -> {gigabytes:g} GB waiting", f"{middle / 1e6:.0f} -> {full / 1e6:.0f} MB",
                       f"intake {rate(half['events'] / half['seconds'])}", None, "60 MB, flat")
        agent.kill()
        began = time.monotonic()
        agent.start()
        wait_until(lambda: agent.get("/readyz")[0] == 200, "takes events again", 120, 0.005)
        self.table.add(f"reopen after kill -9, {gigabytes:g} GB waiting", f"{time.monotonic() - began:.2f} s", "", None, "2 s")
        agent.close()
        shutil.rmtree(agent.directory)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=ROOT / "build" / "release")
    parser.add_argument("--directory", default=None, help="where spools and the broker's log lie (a real disk)")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--drain", type=int, default=300_000)
    parser.add_argument("--backlog-gb", type=float, default=2)
    parser.add_argument("--only", action="append", choices=["single", "batches", "drain", "backlog"])
    options = parser.parse_args()
    parts = options.only or ["single", "batches", "drain", "backlog"]
    bench = Bench(options)
    try:
        for part in parts:
            {"single": lambda: bench.intake(1), "batches": lambda: bench.intake(100), "drain": bench.drain,
             "backlog": bench.backlog}[part]()
        bench.table.show()
    finally:
        bench.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
