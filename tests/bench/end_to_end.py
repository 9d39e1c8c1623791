#!/usr/bin/env python3
"""From a socket to a real broker: what the agent does beside what its parts alone can do, in one run.

    end_to_end.py [--build DIR] [--seconds N] [--drain N] [--rounds N] [--backlog-gb N] [--only PART]...

Parts: single, batches, outage, drain, backlog, watchers. Agent, broker and load share the machine, so every figure is
"while it also forwards"; quote the ratios. No thresholds: a reader judges.
"""
import argparse
import contextlib
import itertools
import json
import os
import pathlib
import re
import selectors
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import typing

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
import harness  # noqa: E402
from harness import Agent, plain_integration, wait_until  # noqa: E402
from kafka_broker import Broker, BrokerError  # noqa: E402

EVENT_BYTES = 1024
PARTITIONS = 6
CONNECTIONS = 64
PARTS = ["single", "batches", "outage", "drain", "backlog", "watchers"]


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


class Run(typing.NamedTuple):
    seconds: float
    cpu_us: float  # per event
    first: float = 0.0  # seconds until the first event was there


def median(runs):
    return sorted(runs)[len(runs) // 2]


class Watchers:
    """Live Events streams of an agent, read by one thread as they come."""

    def __init__(self, agent, count):
        self.bytes = 0
        self._selector = selectors.DefaultSelector()
        self._ends = []
        for _ in range(count):
            connection = socket.create_connection(agent.admin)
            connection.sendall(f"GET /v1/admin/events/live HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                               f"Authorization: Bearer {agent.token()}\r\n\r\n".encode())
            head = connection.recv(12)
            if head != b"HTTP/1.1 200":
                sys.exit(f"no live stream: {head}")
            self._selector.register(connection, selectors.EVENT_READ)
            self._ends.append(connection)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._stop.is_set():
            for key, _ in self._selector.select(0.1):
                data = key.fileobj.recv(1 << 18)
                self.bytes += len(data)
                if not data:
                    self._selector.unregister(key.fileobj)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        for connection in self._ends:
            connection.close()
        if self._ends:
            time.sleep(4)  # the agent goes on describing events for a page that reconnects


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

    def outage(self):
        """A backlog sent by the agent, and the same file by kcat, in turns, each to a broker that was just
        started: Java is slow until it has compiled itself."""
        count = self.options.drain
        print(f"an outage with {count} events waiting", flush=True)
        lines, topic, reference_topic = self.random_lines(count), self.topic(), self.topic()
        with self.agent_at_work(topic) as agent:
            self.show_waiting(agent, lines)
            outages, references = [], []
            for last in [False] * (self.options.rounds - 1) + [True]:
                outages.append(self.after_outage(agent, topic, count))
                self.broker.stop()
                self.broker.start()
                references.append(self.kcat(lines, reference_topic))
                if not last:
                    self.broker.stop()
                    self.post_file(agent, lines)
        outage, reference = median(outages), median(references)
        self.table.add(f"an outage over, {count} events waiting", f"{outage.seconds:.2f} s", f"kcat -P {reference.seconds:.2f} s",
                       outage.seconds / reference.seconds, "1.3 at most")
        self.table.add("  of that until the first event", f"{outage.first:.2f} s")

    def drain(self):
        """The same into a broker that is warm, after a pause of the integration."""
        count = self.options.drain
        print(f"draining {count} events", flush=True)
        lines, topic, reference_topic = self.random_lines(count), self.topic(), self.topic()
        keyed = self.keyed_lines(lines)
        for _ in range(4):
            self.kcat(lines, reference_topic)
        with self.agent_at_work(topic) as agent:
            drains, references, alike = [], [], []
            for _ in range(self.options.rounds):
                references.append(self.kcat(lines, reference_topic))
                alike.append(self.kcat(keyed, reference_topic, "-K", "\t", "-H", "content-type=application/json", "-H", "event_type=page"))
                agent.command("integrations", "pause", "kafka")
                self.post_file(agent, lines)
                drains.append(self.after_pause(agent, topic, count))
        drain, reference, same_records = median(drains), median(references), median(alike)
        self.table.add(f"draining {count} events", rate(count / drain.seconds), f"kcat -P {rate(count / reference.seconds)}",
                       reference.seconds / drain.seconds, "0.9")
        self.table.add("  against records with the agent's key and headers", "", f"kcat -P {rate(count / same_records.seconds)}",
                       same_records.seconds / drain.seconds, "")
        self.table.add("  CPU while draining", f"{drain.cpu_us:.1f} us/event", f"kcat -P {reference.cpu_us:.1f} us/event")

    @contextlib.contextmanager
    def agent_at_work(self, topic):
        """One that knows its cluster; its folder goes with it."""
        with self.agent(topic) as agent:
            self.load(agent.intake, 1, events=1000)
            agent.wait_drained()
            yield agent
        shutil.rmtree(agent.directory)

    def show_waiting(self, agent, lines):
        """Stops the broker and posts the file: what the waiting events take."""
        count = self.options.drain
        idle = agent.anonymous_bytes()
        self.broker.stop()
        self.post_file(agent, lines)
        self.table.add("anonymous memory, idle -> waiting", f"{idle / 1e6:.0f} -> {self.calm_memory(agent) / 1e6:.0f} MB",
                       f"{count} events", None, "60 MB")
        kept = sum(file.stat().st_blocks * 512 for file in agent.state_dir.rglob("*")
                   if file.is_file() and file.name != "ballast")  # that one is fixed and holds no event
        self.table.add("spool bytes per event", f"{kept / count:.0f}", "", None, "1.1 KB")

    @staticmethod
    def calm_memory(agent):
        """Anonymous memory once what a burst left in the heap has been given back."""
        time.sleep(3)
        return agent.anonymous_bytes()

    def after_outage(self, agent, topic, count):
        def begin():
            self.broker.start()
            return time.monotonic()
        return self.drained(agent, topic, count, begin)

    def after_pause(self, agent, topic, count):
        def begin():
            began = time.monotonic()
            agent.command("integrations", "resume", "kafka")
            return began
        return self.drained(agent, topic, count, begin)

    def drained(self, agent, topic, count, begin):
        """From the moment `begin` names until the broker has everything, the last `count` events among it."""
        end = agent.balance()["stored"]
        cpu = agent.cpu_seconds()
        began = begin()
        first, last = self.stored(topic, end - count, end, agent.log_tail)
        agent.wait_drained()
        return Run(last - began, (agent.cpu_seconds() - cpu) / count * 1e6, first - began)

    def stored(self, topic, before, end, explain):
        """When the broker had more than `before` events of the topic, and when it had `end` of them. Asking
        costs the broker time, so it is asked seldom before the end is near."""
        began, first = time.monotonic(), None
        while (stored := self.count(topic)) < end:
            now = time.monotonic()
            if first is None and stored > before:
                first = now
            if now - began > 300:
                sys.exit(f"not there after 300 s: {stored} of {end}\n{explain()}")
            time.sleep(0.1 if first is not None and stored < end - (end - before) / 10 else 0.02)
        now = time.monotonic()
        return first or now, now

    def keyed_lines(self, lines):
        """The same with the key that the agent gives each of them, before a tab."""
        keyed = self.directory / "keyed"
        with open(lines) as source, open(keyed, "w") as file:
            for line in source:
                file.write(json.loads(line)["userId"] + "\t" + line)
        return keyed

    def count(self, topic):
        """Events in the topic; a broker that was just started may not know it for a moment."""
        for _ in range(100):
            with contextlib.suppress(BrokerError):
                return self.broker.count(topic)
            time.sleep(0.02)
        return self.broker.count(topic)

    def random_lines(self, count):
        """A file of events that compress as JSON does, one a line."""
        lines = self.directory / "lines"
        with open(lines, "w") as file:
            for number in range(count):
                head = f'{{"type":"page","messageId":"{number:012d}","userId":"user-{number % 5000}","pad":"'
                file.write(head + os.urandom((EVENT_BYTES - len(head) - 2) // 2).hex().ljust(EVENT_BYTES - len(head) - 2, "p") + '"}\n')
        return lines

    def kcat(self, lines, topic, *options):
        """The same file by kcat, timed as the agent is: by asking the broker."""
        before, cpu, began = self.count(topic), os.times(), time.monotonic()
        process = subprocess.Popen(
            ["kcat", "-P", "-b", self.broker.plaintext, "-t", topic, "-l", "-X", "enable.idempotence=true", "-X", "acks=all",
             "-X", "linger.ms=50", "-X", "compression.codec=lz4", "-X", "partitioner=murmur2_random", *options, lines],
            stdin=subprocess.DEVNULL)
        first, last = self.stored(topic, before, before + self.options.drain, lambda: "kcat")
        if process.wait() != 0:
            sys.exit(f"kcat: exit {process.returncode}")
        after = os.times()
        spent = after.children_user + after.children_system - cpu.children_user - cpu.children_system
        return Run(last - began, spent / self.options.drain * 1e6, first - began)

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
        self.broker.stop()
        count = int(gigabytes * 1e9 / EVENT_BYTES)
        half = self.load(agent.intake, 100, events=count // 2)
        busy, middle = agent.anonymous_bytes(), self.calm_memory(agent)
        self.load(agent.intake, 100, events=count - count // 2)
        busy, full = max(busy, agent.anonymous_bytes()), self.calm_memory(agent)
        self.table.add(f"anonymous memory, {gigabytes / 2:g} -> {gigabytes:g} GB waiting", f"{middle / 1e6:.0f} -> {full / 1e6:.0f} MB",
                       f"{busy / 1e6:.0f} MB while they came, intake {rate(half['events'] / half['seconds'])}", None, "60 MB, flat")
        agent.kill()
        began = time.monotonic()
        agent.start()
        wait_until(lambda: agent.get("/readyz")[0] == 200, "takes events again", 120, 0.005)
        self.table.add(f"reopen after kill -9, {gigabytes:g} GB waiting", f"{time.monotonic() - began:.2f} s", "", None, "2 s")
        agent.close()
        shutil.rmtree(agent.directory)
        self.broker.start()

    def watchers(self):
        """Delivery with three Live Events streams open against delivery with none, round by round."""
        rounds, count, burst = 4, 3, 150_000
        print(f"{count} Live Events streams, {rounds} rounds beside as many without", flush=True)
        paced, cpu, slope, told = {0: [], count: []}, {0: [], count: []}, {0: [], count: []}, []
        with self.agent(self.topic()) as agent:
            self.load(agent.intake, 100, events=burst)
            agent.wait_drained()
            for number in range(rounds):
                for open_now in (0, count) if number % 2 else (count, 0):
                    with Watchers(agent, open_now) as streams:
                        delivered, seconds, spent = self.paced(agent, 10_000, 3)
                        paced[open_now].append(delivered / seconds)
                        cpu[open_now].append(spent / delivered * 1e6)
                        slope[open_now].append(self.drain_rate(agent, burst))
                        told += [streams.bytes] * (open_now > 0)
        for work, rates, reach in (("delivered of 10 k/s sent", paced, "0.95"), (f"draining {burst} events", slope, "")):
            measured, without = statistics.median(rates[count]), statistics.median(rates[0])
            spread = f"{min(rates[0]) / without:.2f} to {max(rates[0]) / without:.2f}"
            self.table.add(f"{work}, {count} Live Events streams", rate(measured), f"no stream {rate(without)} ({spread})",
                           measured / without, reach)
        self.table.add("  CPU at 10 k/s", f"{statistics.median(cpu[count]):.1f} us/event",
                       f"no stream {statistics.median(cpu[0]):.1f} us/event")
        self.table.add("  told to the streams", f"{statistics.median(told) / 1e3:.0f} KB a round")

    def paced(self, agent, per_second, seconds):
        """Events delivered while batches of 100 are sent at that rate, the time it took, the CPU it cost."""
        event = '{"type":"page","userId":"user-1","pad":"' + "p" * (EVENT_BYTES - 41) + '"}'
        body = ("[" + ",".join([event] * 100) + "]").encode()
        connection = harness.http.client.HTTPConnection(*agent.intake, timeout=60)
        before, spent, began = agent.balance()["acked"], agent.cpu_seconds(), time.monotonic()
        for number in range(per_second * seconds // 100):
            time.sleep(max(0, began + number * 100 / per_second - time.monotonic()))
            connection.request("POST", "/v1/batch", body=body)
            answer = connection.getresponse()
            if answer.read() and answer.status != 200:
                sys.exit(f"the load saw {answer.status}")
        delivered, seconds = agent.balance()["acked"] - before, time.monotonic() - began
        connection.close()
        agent.wait_drained()
        return delivered, seconds, agent.cpu_seconds() - spent

    def drain_rate(self, agent, count):
        """Delivered per second when that many wait and nothing else is done."""
        agent.command("integrations", "pause", "kafka")
        self.load(agent.intake, 100, events=count)
        acked = agent.balance()["acked"]
        agent.command("integrations", "resume", "kafka")
        curve = [(time.monotonic(), 0)]
        while curve[-1][1] < 0.95 * count:
            time.sleep(0.02)
            curve.append((time.monotonic(), agent.balance()["acked"] - acked))
        began = next(point for point in curve if point[1] >= 0.05 * count)
        agent.wait_drained()
        return (curve[-1][1] - began[1]) / (curve[-1][0] - began[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=ROOT / "build" / "release")
    parser.add_argument("--directory", default=None, help="where spools and the broker's log lie (a real disk)")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--drain", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=3, help="of draining; the median counts")
    parser.add_argument("--backlog-gb", type=float, default=2)
    parser.add_argument("--only", action="append", choices=PARTS)
    options = parser.parse_args()
    parts = options.only or PARTS
    bench = Bench(options)
    try:
        for part in parts:
            {"single": lambda: bench.intake(1), "batches": lambda: bench.intake(100), "drain": bench.drain,
             "outage": bench.outage, "backlog": bench.backlog, "watchers": bench.watchers}[part]()
        bench.table.show()
    finally:
        bench.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
