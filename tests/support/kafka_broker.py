#!/usr/bin/env python3
"""A real Apache Kafka broker (one KRaft node) for the tests, on loopback.

    with Broker(directory) as broker:
        broker.create_topic("events", partitions=3, writer="agent")
        ... broker.sasl_ssl, broker.ca_file, broker.password("agent") ...
        broker.kill(); broker.start()        # the same ports, the same data

By hand:  python3 tests/support/kafka_broker.py serve --state DIR
prints its addresses as JSON, then takes AdminPipe requests (one JSON a line) on stdin until it ends.

The jars come through Maven from tests/support/kafka/pom.xml and are kept under build/. Needs a JDK
17, Maven and openssl; beyond that, Python's standard library.

Listeners: PLAINTEXT (the test's own administration: everything is allowed there), SASL_SSL and
SASL_PLAINTEXT (PLAIN from a user file, SCRAM-SHA-256/512), SSL. Principals other than `admin` may
do only what `grant` gave them. SCRAM needs a client that Debian 12 does not have: librdkafka before
2.6.1 repeats its nonce in the last message, which Kafka 4 refuses.
"""
import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCES = pathlib.Path(__file__).resolve().parent / "kafka"
CACHE = pathlib.Path(os.environ.get("SIGNAL_AGENT_TEST_CACHE", ROOT / "build" / "support")) / "kafka"

READY_SECONDS = 90  # a loaded CI machine; an idle one takes 4


class BrokerError(Exception):
    pass


# --- what Java needs ---------------------------------------------------------------------------

def _run(command, **options):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, **options)
    if done.returncode != 0:
        raise BrokerError(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}")
    return done.stdout


def fetch():
    """Jars and compiled helpers, made once; returns the class path. Safe to call from several tests."""
    inputs = [SOURCES / "pom.xml", *sorted(SOURCES.glob("*.java"))]
    stamp = hashlib.sha256(b"".join(path.read_bytes() for path in inputs)).hexdigest()
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        marker = CACHE / "stamp"
        if not marker.exists() or marker.read_text() != stamp:
            for name in ("jars", "classes"):
                shutil.rmtree(CACHE / name, ignore_errors=True)
            _run(["mvn", "-q", "-B", "-f", SOURCES / "pom.xml", "dependency:copy-dependencies",
                  f"-DoutputDirectory={CACHE / 'jars'}"])
            _run(["javac", "-d", CACHE / "classes", "-cp", f"{CACHE / 'jars'}/*",
                  *sorted(SOURCES.glob("*.java"))])
            marker.write_text(stamp)
    return f"{CACHE / 'classes'}:{CACHE / 'jars'}/*"


_reserved = []  # Unix sockets without a file, one for each port this process was given


def free_ports(count):
    """Ports below the ephemeral range: while a broker is down, no outgoing connection may be given
    its port as a source port, else the restart on the same port fails. They stay reserved among all
    that ask here, in other processes too, until this one ends."""
    ports = []
    for _ in range(1000):
        port = random.SystemRandom().randint(15000, 31999)
        with socket.socket() as candidate, contextlib.suppress(OSError):
            candidate.bind(("127.0.0.1", port))
            mark = socket.socket(socket.AF_UNIX)
            try:
                mark.bind(f"\0signal-agent-test-port-{port}")
            except OSError:
                mark.close()
                continue
            _reserved.append(mark)
            ports.append(port)
        if len(ports) == count:
            return ports
    raise BrokerError("no free ports")


def make_certificates(directory):
    """Own CA and a server certificate for 127.0.0.1 and localhost; returns (ca.pem, keystore.pem)."""
    directory.mkdir(parents=True, exist_ok=True)
    ca, ca_key = directory / "ca.pem", directory / "ca.key"
    key, request, certificate = directory / "broker.key", directory / "broker.csr", directory / "broker.pem"
    extensions = directory / "extensions"
    extensions.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth\n")
    _run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-keyout", ca_key,
          "-out", ca, "-subj", "/CN=signal-agent tests"])
    _run(["openssl", "req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", request,
          "-subj", "/CN=broker"])
    _run(["openssl", "x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial",
          "-days", "30", "-extfile", extensions, "-out", certificate])
    keystore = directory / "keystore.pem"
    keystore.write_text(key.read_text() + certificate.read_text() + ca.read_text())
    return ca, keystore


# --- the administration ------------------------------------------------------------------------

class Admin:
    """One living AdminClient process; calls may come from any thread."""

    def __init__(self, bootstrap, log):
        self._process = subprocess.Popen(
            ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx128m",
             f"-Dlog4j2.configurationFile={SOURCES / 'log4j2.properties'}",
             "-cp", fetch(), "AdminPipe", bootstrap],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        self._lock = threading.Lock()

    def call(self, do, **arguments):
        with self._lock:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
            while True:
                line = self._process.stdout.readline()
                if not line:
                    raise BrokerError("the AdminClient process ended")
                if line.startswith("{"):  # not a line of the client's own log
                    break
        answer = json.loads(line)
        if "error" in answer:
            raise BrokerError(f"{do} {arguments}: {answer['error']}")
        return answer["ok"]

    def close(self):
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


# --- the broker --------------------------------------------------------------------------------

class Broker:
    """One node. `benchmark` runs Java with its full compiler (its TLS is three times as fast, its
    start slower). `reauth_ms` makes living SASL connections notice a revoked key within that time;
    it also closes healthy ones of clients that cannot re-authenticate."""

    def __init__(self, directory, reauth_ms=None, benchmark=False, properties=None, users=None):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.class_path = fetch()
        self.benchmark = benchmark
        self._process = None
        self._admin = None
        self._log = open(self.directory / "broker.log", "a")
        names = ("PLAINTEXT", "SASL_SSL", "SASL_PLAINTEXT", "SSL", "CONTROLLER")
        self.ports = dict(zip(names, free_ports(len(names))))
        self.ca_file, keystore = make_certificates(self.directory / "tls")
        self.users = {"admin": "admin-secret", "agent": "agent-secret"}
        self.users.update(users or {})
        self.users_file = self.directory / "users"
        self._write_users()
        self.data = self.directory / "data"
        listeners = ",".join(f"{name}://127.0.0.1:{port}" for name, port in self.ports.items())
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self.ports['CONTROLLER']}",
            "listeners": listeners,
            "advertised.listeners": ",".join(part for part in listeners.split(",") if "CONTROLLER" not in part),
            "listener.security.protocol.map": ",".join(
                f"{name}:{'PLAINTEXT' if name == 'CONTROLLER' else name}" for name in names),
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": str(self.data),
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "1",
            "auto.create.topics.enable": "false",
            "group.initial.rebalance.delay.ms": "0",
            "log.cleaner.dedupe.buffer.size": "4194304",
            "controlled.shutdown.enable": "false",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:admin;User:ANONYMOUS",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(keystore),
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        }
        for listener in ("sasl_ssl", "sasl_plaintext"):
            prefix = f"listener.name.{listener}"
            settings[f"{prefix}.plain.sasl.jaas.config"] = \
                "org.apache.kafka.common.security.plain.PlainLoginModule required;"
            settings[f"{prefix}.plain.sasl.server.callback.handler.class"] = "FileUsers"
            for mechanism in ("scram-sha-256", "scram-sha-512"):
                settings[f"{prefix}.{mechanism}.sasl.jaas.config"] = \
                    "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        if reauth_ms:
            settings["connections.max.reauth.ms"] = str(reauth_ms)
        settings.update(properties or {})
        self.config = self.directory / "server.properties"
        self.config.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        self._format()

    # addresses and credentials

    @property
    def plaintext(self):
        return f"127.0.0.1:{self.ports['PLAINTEXT']}"

    @property
    def sasl_ssl(self):
        return f"127.0.0.1:{self.ports['SASL_SSL']}"

    @property
    def sasl_plaintext(self):
        return f"127.0.0.1:{self.ports['SASL_PLAINTEXT']}"

    @property
    def ssl(self):
        return f"127.0.0.1:{self.ports['SSL']}"

    def password(self, user):
        return self.users[user]

    def addresses(self):
        return {"plaintext": self.plaintext, "sasl_ssl": self.sasl_ssl, "sasl_plaintext": self.sasl_plaintext,
                "ssl": self.ssl, "ca_file": str(self.ca_file), "users": self.users,
                "users_file": str(self.users_file), "log": str(self.directory / "broker.log"),
                "pid": self.pid}

    def set_user(self, user, password):
        """Adds a PLAIN user or changes its password, for every later authentication."""
        self.users[user] = password
        self._write_users()

    def remove_user(self, user):
        del self.users[user]
        self._write_users()

    # the process

    @property
    def pid(self):
        return self._process.pid if self._process else None

    def start(self, wait=True):
        if self._process:
            raise BrokerError("already running")
        jvm = ["-XX:+UseG1GC", "-Xmx1g", "-Xms1g"] if self.benchmark else \
              ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx512m"]
        # stdin is a pipe that only we hold: the broker ends when it closes (FileUsers).
        self._process = subprocess.Popen(
            ["java", *jvm, "-Xshare:auto", f"-Dusers.file={self.users_file}",
             f"-Dlog4j2.configurationFile={SOURCES / 'log4j2.properties'}",
             "-cp", self.class_path, "kafka.Kafka", str(self.config)],
            stdin=subprocess.PIPE, stdout=self._log, stderr=self._log, cwd=self.directory)
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self):
        """Returns when the broker has answered a metadata request."""
        deadline = time.monotonic() + READY_SECONDS
        while not self._listens():
            if self._process.poll() is not None:
                raise BrokerError(f"the broker ended with {self._process.returncode}\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise BrokerError(f"the broker does not listen\n{self.log_tail()}")
            time.sleep(0.05)
        while True:
            try:
                if self.admin.call("ping") > 0:
                    return
            except BrokerError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise
            time.sleep(0.05)

    def stop(self):
        """SIGTERM and wait."""
        self._end(signal.SIGTERM)

    def kill(self):
        """SIGKILL: no farewell to anybody. What it had acknowledged is in the page cache and stays."""
        self._end(signal.SIGKILL)

    def pause(self):
        """A black hole: connections stay up, nothing is answered."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self):
        self._process.send_signal(signal.SIGCONT)

    def close(self):
        if self._admin:
            self._admin.close()
            self._admin = None
        if self._process:
            self.kill()
        self._log.close()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.close()

    def log_tail(self, lines=40):
        return "\n".join((self.directory / "broker.log").read_text(errors="replace").splitlines()[-lines:])

    # administration

    @property
    def admin(self):
        if not self._admin:
            self._admin = Admin(self.plaintext, self._log)
        return self._admin

    def create_topic(self, topic, partitions=3, config=None, writer=None):
        self.admin.call("create_topic", topic=topic, partitions=partitions, config=config or {})
        if writer:
            self.grant(writer, topic)

    def delete_topic(self, topic):
        self.admin.call("delete_topic", topic=topic)

    def configure_topic(self, topic, **config):
        """configure_topic("t", max_message_bytes=1000); None removes the override."""
        self.admin.call("configure_topic", topic=topic,
                        config={name.replace("_", "."): value if value is None else str(value)
                                for name, value in config.items()})

    def end_offsets(self, topic):
        return {int(partition): offset
                for partition, offset in self.admin.call("end_offsets", topic=topic).items()}

    def count(self, topic):
        return sum(self.end_offsets(topic).values())

    def grant(self, user, name, operations=("WRITE", "DESCRIBE"), resource="TOPIC"):
        self.admin.call("grant", user=user, name=name, operations=list(operations), resource=resource)

    def revoke(self, user, name, operations=("WRITE", "DESCRIBE"), resource="TOPIC"):
        self.admin.call("revoke", user=user, name=name, operations=list(operations), resource=resource)

    # inside

    def _java_tool(self, *arguments):
        return _run(["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",
                     f"-Dlog4j2.configurationFile={SOURCES / 'log4j2.properties'}",
                     "-cp", self.class_path, *arguments])

    def _format(self):
        scram = []
        for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
            scram += ["--add-scram", f"{mechanism}=[name=agent,password={self.users['agent']}]"]
        cluster = self._java_tool("kafka.tools.StorageTool", "random-uuid").strip().splitlines()[-1]
        self._java_tool("kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(self.config), *scram)

    def _write_users(self):
        temporary = self.users_file.with_suffix(".new")
        temporary.write_text("".join(f"{user}={password}\n" for user, password in self.users.items()))
        temporary.rename(self.users_file)

    def _listens(self):
        for name in ("PLAINTEXT", "SASL_SSL"):
            try:
                socket.create_connection(("127.0.0.1", self.ports[name]), 1).close()
            except OSError:
                return False
        return True

    def _end(self, how):
        process, self._process = self._process, None
        process.send_signal(how)
        if how != signal.SIGKILL:
            process.send_signal(signal.SIGCONT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdin.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("fetch", help="only get what Java needs")
    serve = verbs.add_parser("serve", help="run one broker until stdin ends or SIGTERM")
    serve.add_argument("--state", required=True, help="folder for its data and log")
    serve.add_argument("--reauth-ms", type=int, help="re-authentication interval of SASL connections")
    serve.add_argument("--benchmark", action="store_true", help="full JIT compiler")
    serve.add_argument("--topic", action="append", default=[], metavar="NAME[:PARTITIONS]",
                       help="create it, writable for `agent`")
    arguments = parser.parse_args()
    if arguments.verb == "fetch":
        print(fetch())
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with Broker(arguments.state, reauth_ms=arguments.reauth_ms, benchmark=arguments.benchmark) as broker:
        for topic in arguments.topic:
            name, _, partitions = topic.partition(":")
            broker.create_topic(name, int(partitions or 3), writer="agent")
        print(json.dumps(broker.addresses()), flush=True)
        interactive = False
        for line in sys.stdin:
            interactive = True
            request = json.loads(line)
            try:
                print(json.dumps({"ok": broker.admin.call(request.pop("do"), **request)}), flush=True)
            except BrokerError as error:
                print(json.dumps({"error": str(error)}), flush=True)
        if not interactive:  # stdin was closed from the start: stay until a signal
            signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
