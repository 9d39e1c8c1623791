"""What every end-to-end test is made of: an agent, a sender that keeps a truth table, a checker.

The agent is the built binary (environment SIGNAL_AGENT), driven as an operator would: a config
file, its log, its ports. The witness is the broker, read back by an independent client.
"""
import contextlib
import ctypes
import http.client
import json
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from dataclasses import dataclass, field
from typing import Optional

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))
import reader  # noqa: E402
from kafka_broker import Broker  # noqa: E402

BINARY = pathlib.Path(os.environ.get("SIGNAL_AGENT", ROOT / "build" / "release" / "signal-agent"))
FULL_PROOF = os.environ.get("SIGNAL_AGENT_PROOF") == "full"
START_SECONDS = 120


def wait_until(condition, what, seconds=120, every=0.02):
    """Polls until `condition()` is true and returns its value; fails naming `what`. The time is a bound for
    what is broken, not a promise: a machine that runs other tests beside this one may be slow."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what() if callable(what) else what}")
        time.sleep(every)


# --- the agent -----------------------------------------------------------------------------------

def toml(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {toml(item)}" for name, item in value.items()) + " }"
    return json.dumps(str(value))  # a JSON string is a TOML basic string


def integration(broker, topic, name="kafka", user="agent", password=None, **config):
    """An [[integration]] as the vendor's document writes it, towards the test broker."""
    return {"catalog": "confluent_cloud", "name": name, "config": {
        "bootstrap_servers": broker.sasl_ssl, "topic": topic, "security_protocol": "SASL_SSL",
        "sasl_mechanism": "PLAIN", "sasl_username": user,
        "sasl_password": broker.password(user) if password is None else password,
        "ssl_ca_file": str(broker.ca_file), **config}}


def plain_integration(broker, topic, name="kafka", **config):
    """The same without TLS and authentication, for what measures speed."""
    return {"catalog": "apache_kafka", "name": name, "config": {
        "bootstrap_servers": broker.plaintext, "topic": topic, "security_protocol": "PLAINTEXT", **config}}


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=60)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Agent:
    """One signal-agent with its own folder. `settings` are dotted keys: {"spool.max_bytes": "1MiB"}."""

    def __init__(self, directory, integrations=(), settings=None, keys=(), state_dir=None, descriptors=None):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.state_dir = pathlib.Path(state_dir or self.directory / "state")
        self.config = self.directory / "agent.toml"
        self.log_file = self.directory / "agent.log"
        self.settings = {"state_dir": self.state_dir, "intake.listen": ["127.0.0.1:0"],
                         "admin.listen": ["127.0.0.1:0", f"unix:{self.directory}/admin.sock"],
                         "spool.min_free_bytes": "16MiB", **(settings or {})}
        self.integrations = list(integrations)
        self.keys = list(keys)
        self.descriptors = descriptors  # (soft, hard) limit of the process
        self.process = None
        self.intake = self.admin = None  # (host, port)
        self._log_from = 0
        self.write_config()

    def write_config(self):
        lines = [f"{name} = {toml(value)}" for name, value in self.settings.items()]
        for key in self.keys:
            lines += ["", "[[intake.key]]", *(f"{name} = {toml(value)}" for name, value in key.items())]
        for one in self.integrations:
            lines += ["", "[[integration]]", *(f"{name} = {toml(value)}" for name, value in one.items()
                                               if name != "config"), "[integration.config]",
                      *(f"{name} = {toml(value)}" for name, value in one["config"].items())]
        temporary = self.config.with_suffix(".new")
        temporary.write_text("\n".join(lines) + "\n")
        temporary.chmod(0o600)
        temporary.rename(self.config)

    def command(self, *arguments, **options):
        """One command of the CLI against this agent; returns the finished process."""
        return subprocess.run([BINARY, *arguments, "--config", self.config], stdin=options.pop("stdin", subprocess.DEVNULL),
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120, **options)

    def start(self, wait=True):
        self._log_from = self.log_file.stat().st_size if self.log_file.exists() else 0
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen([BINARY, "run", "--config", self.config], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, preexec_fn=self._before_exec)
        if wait:
            self.wait_ready()
        return self

    def _before_exec(self):
        _end_with_parent()
        if self.descriptors:
            resource.setrlimit(resource.RLIMIT_NOFILE, self.descriptors)

    def wait_ready(self):
        """It listens and its spool is open."""
        wait_until(lambda: self.listens() and 'msg=ready' in self.log(),
                   lambda: f"agent ready\n{self.log_tail()}", START_SECONDS, 0.005)

    def listens(self):
        """Every listener of this start has been named in the log."""
        found = {}
        for line in self.log().splitlines():
            if "msg=listening" in line and (address := re.search(r"127\.0\.0\.1:(\d+)", line)):
                found["admin" if "listener=admin" in line else "intake"] = ("127.0.0.1", int(address[1]))
        if self.process.poll() is not None:
            raise AssertionError(f"agent ended with {self.process.returncode}\n{self.log_tail()}")
        if len(found) == 2:
            self.intake, self.admin = found["intake"], found["admin"]
        return len(found) == 2

    def log(self):
        """What it logged since the last start."""
        with open(self.log_file, "rb") as log:
            log.seek(self._log_from)
            return log.read().decode(errors="replace")

    def log_tail(self, lines=30):
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-lines:])

    def kill(self):
        self.process.kill()
        self.process.wait()

    def terminate(self, seconds=60):
        """SIGTERM; returns the exit code."""
        self.process.terminate()
        return self.process.wait(seconds)

    def close(self):
        if self.process and self.process.poll() is None:
            self.kill()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.close()

    # what it says

    def get(self, path, token=None):
        connection = http.client.HTTPConnection(*self.admin, timeout=30)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def api(self, method, path, body=None):
        """One call of the management API, over its Unix socket: on TCP a test that waits would meet the rate
        limit. Returns (status, decoded answer)."""
        connection = UnixConnection(self.directory / "admin.sock")
        try:
            connection.request(method, path, body=None if body is None else json.dumps(body))
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None
        finally:
            connection.close()

    def wait_answers(self, path, status):
        """Until GET is answered so. An agent that reopens its spool breaks the connections it has."""
        last = []

        def answered():
            try:
                last[:] = self.get(path)
            except (OSError, http.client.HTTPException) as error:
                last[:] = [repr(error)]
            return last[0] == status
        wait_until(answered, lambda: f"{path} answers {status}: {last}\n{self.log_tail()}")

    def state_files(self):
        """(path, lstat) of every file of the state directory. Some come and go while one looks."""
        for folder, _, names in os.walk(self.state_dir):
            for name in names:
                path = pathlib.Path(folder) / name
                with contextlib.suppress(FileNotFoundError):  # gone since it was listed
                    status = path.lstat()
                    if stat.S_ISREG(status.st_mode):
                        yield path, status

    def spool_state(self):
        return next(dict(key[1:])["state"] for key, value in self.metrics().items()
                    if key[0] == "signal_agent_spool_state" and value == 1)

    def token(self):
        return (self.state_dir / "admin.token").read_text().strip()

    def metrics(self):
        """One scrape: {(name, (label, value), ...): number}, labels sorted."""
        status, text = self.get("/metrics")
        assert status == 200, (status, text)
        found = {}
        for line in text.splitlines():
            if line.startswith("#") or not line.strip():
                continue
            match = re.fullmatch(r'([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)(?: \d+)?', line)
            assert match, f"not a metric: {line!r}"
            labels = tuple(sorted(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match[2] or "")))
            found[(match[1], *labels)] = float(match[3])
        return found

    def balance(self, name="kafka"):
        """The equation of one integration from one scrape, checked; returns its members."""
        label = ("integration", name)
        scrape = {}

        def opened():  # the books are not there before the spool is open
            scrape.clear()
            scrape.update(self.metrics())
            return ("signal_agent_events_stored_total", label) in scrape
        wait_until(opened, lambda: f"books of {name} in /metrics\n{self.log_tail()}")

        def of(metric):
            return int(scrape[f"signal_agent_events_{metric}", label])
        members = {"stored": of("stored_total"), "acked": of("acked_total"), "filtered": of("filtered_total"),
                   "discarded": of("discarded_total"), "buried": of("buried"), "damaged": of("damaged_total"),
                   "pending": of("pending")}
        right = sum(number for member, number in members.items() if member != "stored")
        assert members["stored"] == right, f"{name} does not balance: {members}"
        return members

    def wait_drained(self, name="kafka", seconds=120):
        """Until nothing is pending; the balance must hold at every look."""
        def drained():
            members = self.balance(name)
            return members if members["pending"] == 0 else None
        return wait_until(drained, lambda: f"{name} drained: {self.balance(name)}\n{self.log_tail()}", seconds, 0.1)

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def wait_idle(self, seconds):
        """Until it used less than 3 % of a core for so long; returns the share. It may have had something to
        finish: three looks are enough for that, and not for one that never rests."""
        shares = []
        for _ in range(3):
            before, start = self.cpu_seconds(), time.monotonic()
            time.sleep(seconds)
            shares.append((self.cpu_seconds() - before) / (time.monotonic() - start))
            if shares[-1] < 0.03:
                return shares[-1]
        raise AssertionError(f"not idle, shares of a core: {shares}\n{self.log_tail()}")

    def anonymous_bytes(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]) * 1024

    # intake

    def post(self, path, body, headers=None, timeout=60):
        """One request on its own connection; returns (status, decoded answer, answer headers)."""
        connection = http.client.HTTPConnection(*self.intake, timeout=timeout)
        try:
            connection.request("POST", path, body=body, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read()), dict(answer.getheaders())
        finally:
            connection.close()


def _end_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


# --- what was sent and what became of it -----------------------------------------------------------

@dataclass(slots=True)              # the long proofs hold millions
class Sent:
    """One event of the truth table."""
    message_id: str
    raw: bytes                      # the very bytes that must come back
    key: Optional[bytes]
    headers: list
    state: str = "pending"          # pending: fate unknown; stored: got a 2xx; refused: certainly not stored
    seq: Optional[int] = None       # known when it was answered and not a duplicate
    first_try_ms: int = 0
    answered_ms: int = 0
    tries: int = 0


TYPES = ("track", "page", "identify", "group")
ODDITIES = [
    '"\\u00e4\\ud83d\\ude00 \\/ \\b\\f\\n\\r\\t \\" \\\\"', '"raw ä😀\u2028"', "1e400", "-0.0", "1E-7",
    "123456789012345678901234567890", "0.1000", '{ "a" : [ ] ,\t"a":{}}', "[[[[[[[[1]]]]]]]]", '"\\ud800"', "null",
]


def make_event(source, number, kind=None, size=None):
    """A valid event with odd contents; everything in it comes from `source` (random.Random)."""
    kind = kind or source.choice(TYPES)
    message_id = f"{source.getrandbits(64):016x}-{number}"
    user = source.choice([None, f"user-{source.randrange(40)}", f"üser-{source.randrange(5)}"])
    anonymous = source.choice([None, f"anon-{source.randrange(20)}"])
    members = [f'"messageId":"{message_id}"', f'"type":"{kind}"']
    name = None
    if kind == "track" or source.random() < 0.2:
        name = source.choice(["Order Completed", "a,b=c", "Käse\t", "x"])
        members.append(f'"{"event" if kind == "track" else "name"}":{json.dumps(name)}')
    if user is not None:
        members.append(f'"{source.choice(["userId", "user_id"])}":{json.dumps(user, ensure_ascii=source.random() < 0.5)}')
    if anonymous is not None:
        members.append(f'"anonymousId":{json.dumps(anonymous)}')
    members.append(f'"odd":{source.choice(ODDITIES)}')
    if size is None:
        size = source.choice([0, 0, 30, 300, 1000, 5000])
    members.append(f'"pad":"{"p" * size}"')
    source.shuffle(members)
    glue = source.choice([",", ", ", " ,\t"])
    raw = ("{" + glue.join(members) + "}").encode()
    headers = [("content-type", "application/json"), ("event_type", kind)]
    if name is not None:
        headers.append(("event_name", name))
    key = user or anonymous
    return Sent(message_id, raw, None if key is None else key.encode(), headers)


class Load(threading.Thread):
    """Posts events in batches, one request at a time; what it could not learn the fate of, it sends
    again with the same message id, as a client would. `agent_address()` may change over a restart."""

    def __init__(self, agent, seed, batch=20, pause=0.0, limit=None):
        super().__init__(daemon=True)
        self.agent = agent
        self.source = random.Random(seed)
        self.batch = batch
        self.pause = pause
        self.limit = limit
        self.sent = []              # in the order of their first try
        self.refusals = {}          # code -> count
        self.unknown = 0            # requests whose fate was unknown for a time
        self.error = None
        self.finish = threading.Event()     # no new events, but go on until all have an answer
        self._connection = None

    def run(self):
        try:
            number = 0
            while not self.finish.is_set() and (self.limit is None or number < self.limit):
                count = self.source.randint(1, self.batch)
                events = [make_event(self.source, number + index) for index in range(count)]
                number += count
                self.sent.extend(events)
                self._deliver(events)
                if self.pause:
                    time.sleep(self.pause)
        except Exception as error:  # noqa: BLE001  reported by stop()
            self.error = error
        finally:
            if self._connection is not None:
                self._connection.close()

    def _deliver(self, events):
        body = b"\n".join(event.raw for event in events)
        for event in events:
            event.first_try_ms = int(time.time() * 1000)
        while True:
            for event in events:
                event.tries += 1
            status, answer = self._try(body)
            if status == 200:
                break
            if status is None:
                self.unknown += 1
            else:
                code = answer["error"]["code"]
                self.refusals[code] = self.refusals.get(code, 0) + 1
                if status not in (429, 503):
                    raise AssertionError(f"{status} {answer} for {body[:300]!r}")
            time.sleep(0.02)
        if answer["rejected"]:
            raise AssertionError(f"rejected: {answer} for {body[:300]!r}")
        now = int(time.time() * 1000)
        if answer["accepted"] + answer["duplicates"] != len(events):
            raise AssertionError(f"{answer} for {len(events)} events")
        for event in events:
            event.state, event.answered_ms = "stored", now
        if answer["accepted"] == len(events):
            if answer["last_seq"] - answer["first_seq"] + 1 != len(events):
                raise AssertionError(f"sequence numbers are not contiguous: {answer}")
            for index, event in enumerate(events):
                event.seq = answer["first_seq"] + index

    def _try(self, body):
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection(*self.agent.intake, timeout=30)
            self._connection.request("POST", "/v1/batch", body=body)
            answer = self._connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text)
        except (OSError, http.client.HTTPException):
            if self._connection is not None:
                self._connection.close()
            self._connection = None
            return None, None

    def stop(self, seconds=120):
        """Ends with every event answered; raises what went wrong in the thread."""
        self.finish.set()
        self.join(seconds)
        if self.is_alive():
            raise AssertionError(f"sender still waiting for an answer, refusals {self.refusals}\n{self.agent.log_tail()}")
        if self.error:
            raise self.error


# --- the checker -----------------------------------------------------------------------------------

def murmur2(data):
    """Kafka's own hash of a key, as its Java client computes it."""
    length, mask = len(data), 0xFFFFFFFF
    h = (0x9747B28C ^ length) & mask
    for at in range(0, length - length % 4, 4):
        k = int.from_bytes(data[at:at + 4], "little") * 0x5BD1E995 & mask
        k ^= k >> 24
        h = (h * 0x5BD1E995 & mask) ^ (k * 0x5BD1E995 & mask)
    rest = data[length - length % 4:]
    if rest:
        h ^= int.from_bytes(rest, "little")
        h = h * 0x5BD1E995 & mask
    h ^= h >> 13
    h = h * 0x5BD1E995 & mask
    return h ^ h >> 15


def message_id_of(value):
    return re.search(rb'"messageId":"([^"]*)"', value)[1].decode()


@dataclass
class Verdict:
    records: int = 0
    events: int = 0                 # different ones
    copies: int = 0                 # records beyond the first of an event
    deepest: int = 0                # how many stored events the furthest copy lay behind
    lost: list = field(default_factory=list)


def check(records, senders, partitions, crashes=0, window=10_000, spool_headers=True, clock_slack_ms=50):
    """Holds the records of a topic against the truth tables of `senders`.

    Nothing answered is lost, nothing refused is there, every byte, key, header and timestamp is as
    sent, the partition is that of the key, each partition is in spool order (copies aside), a
    message id has one sequence number, and copies exist only when something crashed: at most
    `window` for each crash. `records` may be read on the way, each partition in order of offset.
    Needs delivery.provenance_headers unless spool_headers is False.
    """
    truth = {event.message_id: event for sender in senders for event in sender.sent}
    verdict = Verdict()
    seq_of, first_in, highest, place, count = {}, {}, {}, {}, {}
    for record in records:
        verdict.records += 1
        message_id = message_id_of(record.value)
        event = truth.get(message_id)
        assert event, f"never sent: {record}"
        assert event.state != "refused", f"refused and yet stored: {record}"
        assert record.value == event.raw, f"changed:\n{event.raw!r}\n{record.value!r}"
        assert record.key == event.key, f"key {record.key} instead of {event.key}: {record}"
        headers = dict(record.headers)
        seq = int(headers["signal_agent_seq"]) if spool_headers else event.seq
        plain = [header for header in record.headers if not header[0].startswith("signal_agent_")]
        assert plain == event.headers, f"{plain} instead of {event.headers}: {record}"
        latest = event.answered_ms or int(time.time() * 1000)
        assert event.first_try_ms - clock_slack_ms <= record.timestamp_ms <= latest + clock_slack_ms, \
            f"timestamp {record.timestamp_ms} not in {event.first_try_ms}..{latest}"
        if event.key is not None:
            wanted = (murmur2(event.key) & 0x7FFFFFFF) % partitions
            assert record.partition == wanted, f"partition {record.partition}, the key's is {wanted}"
        if seq is not None:
            assert seq_of.setdefault(message_id, seq) == seq, \
                f"{message_id} stored twice, as {seq_of[message_id]} and {seq}"
            if event.seq is not None:
                assert event.seq == seq, f"answered as {event.seq}, stored as {seq}"
        if message_id in first_in:
            verdict.copies += 1
            assert first_in[message_id] == record.partition, f"a copy in another partition: {record}"
            verdict.deepest = max(verdict.deepest, count[record.partition] - place[message_id])
            continue
        first_in[message_id] = record.partition
        place[message_id] = count.get(record.partition, 0)
        count[record.partition] = place[message_id] + 1
        if seq is not None:
            assert seq > highest.get(record.partition, 0), \
                f"order broken in partition {record.partition}: {seq} behind {highest[record.partition]}"
            highest[record.partition] = seq
    verdict.events = len(first_in)
    verdict.lost = [event for event in truth.values() if event.state == "stored" and event.message_id not in first_in]
    assert not verdict.lost, f"{len(verdict.lost)} answered events lost, first {verdict.lost[0]}"
    assert verdict.copies <= crashes * window, f"{verdict.copies} copies after {crashes} crashes, window {window}"
    assert verdict.deepest <= window, f"a copy {verdict.deepest} events back, window {window}"
    for sender in senders:  # one sender posts one request at a time, so its own order is the spool's
        seqs = [seq_of[event.message_id] for event in sender.sent if event.message_id in seq_of]
        assert seqs == sorted(seqs), "a sender's own order is not the spool's"
    return verdict


# --- test cases ------------------------------------------------------------------------------------

class BrokerCase(unittest.TestCase):
    """One broker for the class; a folder and a topic for each test."""
    PARTITIONS = 3
    BROKER = {}

    @classmethod
    def setUpClass(cls):
        cls._directory = tempfile.mkdtemp(prefix="signal-agent-e2e-")
        cls.broker = Broker(pathlib.Path(cls._directory) / "broker", **cls.BROKER).start()

    @classmethod
    def tearDownClass(cls):
        cls.broker.close()
        shutil.rmtree(cls._directory, ignore_errors=True)

    def setUp(self):
        if not self.broker.pid:  # an earlier test ended in its outage
            self.broker.start()
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="agent-", dir=self._directory))
        self.topic = f"topic-{self.directory.name}"
        self.broker.create_topic(self.topic, self.PARTITIONS, writer="agent")

    def agent(self, integrations=None, settings=None, name="agent", **options):
        """An agent that ends with the test; started by the caller."""
        if integrations is None:
            integrations = [integration(self.broker, self.topic)]
        agent = Agent(self.directory / name, integrations, settings, **options)
        self.addCleanup(self._close, agent)
        return agent

    def _close(self, agent):
        agent.close()
        outcome = getattr(self, "_outcome", None)
        if outcome and not outcome.success and agent.log_file.exists():
            print(f"--- end of {agent.log_file}\n{agent.log_tail(60)}", file=sys.stderr)

    def load(self, agent, seed=1, **options):
        sender = Load(agent, seed, **options)
        self.addCleanup(sender.finish.set)
        sender.start()
        return sender

    def records(self, topic=None):
        return reader.read(self.broker.plaintext, topic or self.topic)

    def stream(self):
        """The records of its topic for check(), none of them held: a long proof stores millions."""
        return reader.stream(self.broker.plaintext, self.topic)

    def write_topic(self, topic, partitions=None):
        self.broker.create_topic(topic, partitions or self.PARTITIONS, writer="agent")


def main():
    if not BINARY.exists():
        sys.exit(f"{BINARY} is not built (environment SIGNAL_AGENT names it)")
    unittest.main(verbosity=2)
