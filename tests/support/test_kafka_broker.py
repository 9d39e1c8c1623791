#!/usr/bin/env python3
"""The harness's own tests: a witness that misreads would prove anything."""
import pathlib
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import reader  # noqa: E402
from kafka_broker import Broker  # noqa: E402


def produce(broker, topic, user, password, value=b"v", key=None, headers=(), settings=()):
    """One record by kcat over SASL_SSL; returns kcat's error text, empty when it was stored."""
    command = ["kcat", "-P", "-b", broker.sasl_ssl, "-t", topic, "-X", "message.timeout.ms=60000",
               "-X", "security.protocol=SASL_SSL", "-X", "sasl.mechanism=PLAIN", "-X", f"sasl.username={user}",
               "-X", f"sasl.password={password}", "-X", f"ssl.ca.location={broker.ca_file}"]
    for setting in settings:
        command += ["-X", setting]
    for header in headers:
        command += ["-H", header]
    with tempfile.NamedTemporaryFile() as body:
        body.write(value)
        body.flush()
        if key is not None:
            command += ["-k", key]
        done = subprocess.run(command + [body.name], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=120)
    return "" if done.returncode == 0 else done.stdout.decode()


class BrokerHarness(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.TemporaryDirectory(prefix="signal-agent-broker-")
        cls.broker = Broker(cls.directory.name).start()

    @classmethod
    def tearDownClass(cls):
        cls.broker.close()
        cls.directory.cleanup()

    def test_every_byte_of_value_key_and_headers_is_read_back(self):
        self.broker.create_topic("bytes", partitions=1, writer="agent")
        value = bytes(range(256)) + b"\n0 1 2 3 4\n" + "ä😀".encode()
        before = int(time.time() * 1000)
        self.assertEqual(produce(self.broker, "bytes", "agent", "agent-secret", value, key="k ä=1,2",
                                 headers=["event_name=a,b=c\n", "x=y"]), "")
        self.assertEqual(produce(self.broker, "bytes", "agent", "agent-secret", b"no key"), "")
        for bootstrap, security in ((self.broker.plaintext, None),
                                    (self.broker.sasl_ssl, reader.sasl_ssl(self.broker))):
            first, second = reader.read(bootstrap, "bytes", security=security)
            self.assertEqual(first.value, value)
            self.assertEqual(first.key, "k ä=1,2".encode())
            self.assertEqual(first.headers, [("event_name", "a,b=c\n"), ("x", "y")])
            self.assertGreaterEqual(first.timestamp_ms, before)
            self.assertEqual((second.offset, second.key, second.value, second.headers), (1, None, b"no key", []))

    def test_only_what_was_granted_may_be_written(self):
        self.broker.create_topic("closed", partitions=1)
        self.assertIn("authorization failed", produce(self.broker, "closed", "agent", "agent-secret"))
        self.broker.grant("agent", "closed")
        self.assertEqual(produce(self.broker, "closed", "agent", "agent-secret"), "")
        self.broker.revoke("agent", "closed")
        self.assertIn("authorization failed", produce(self.broker, "closed", "agent", "agent-secret"))

    def test_a_key_is_revoked_and_rotated_while_the_broker_runs(self):
        self.broker.create_topic("rotated", partitions=1, writer="temporary")
        self.broker.set_user("temporary", "one")
        self.assertEqual(produce(self.broker, "rotated", "temporary", "one"), "")
        self.broker.set_user("temporary", "two")
        short = ["message.timeout.ms=15000"]  # a refused client tries until then
        self.assertIn("Authentication failed", produce(self.broker, "rotated", "temporary", "one", settings=short))
        self.assertEqual(produce(self.broker, "rotated", "temporary", "two"), "")
        self.broker.remove_user("temporary")
        self.assertIn("Authentication failed", produce(self.broker, "rotated", "temporary", "two", settings=short))

    def test_a_lowered_limit_refuses_a_large_record(self):
        self.broker.create_topic("small", partitions=1, writer="agent", config={"max.message.bytes": "2000"})
        self.assertIn("too large", produce(self.broker, "small", "agent", "agent-secret", b"x" * 3000))
        self.broker.configure_topic("small", max_message_bytes=None)
        self.assertEqual(produce(self.broker, "small", "agent", "agent-secret", b"x" * 3000), "")

    def test_a_killed_broker_comes_back_on_the_same_port_with_its_records(self):
        self.broker.create_topic("kept", partitions=1, writer="agent")
        self.assertEqual(produce(self.broker, "kept", "agent", "agent-secret", b"before"), "")
        self.broker.kill()
        self.assertNotEqual(produce(self.broker, "kept", "agent", "agent-secret",
                                    settings=["message.timeout.ms=500"]), "")
        self.broker.start()
        self.assertEqual(produce(self.broker, "kept", "agent", "agent-secret", b"after"), "")
        self.assertEqual([record.value for record in reader.read(self.broker.plaintext, "kept")],
                         [b"before", b"after"])

    def test_the_other_protocols_write_too(self):
        self.broker.create_topic("others", partitions=1, writer="agent")
        for bootstrap, protocol, mechanism in (
                (self.broker.sasl_ssl, "SASL_SSL", "PLAIN"),
                (self.broker.sasl_plaintext, "SASL_PLAINTEXT", "PLAIN")):
            done = subprocess.run(
                ["kcat", "-P", "-b", bootstrap, "-t", "others", "-X", f"security.protocol={protocol}",
                 "-X", f"sasl.mechanism={mechanism}", "-X", "sasl.username=agent", "-X", "sasl.password=agent-secret",
                 "-X", f"ssl.ca.location={self.broker.ca_file}", "-X", "message.timeout.ms=60000"],
                input=mechanism.encode(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
            self.assertEqual(done.returncode, 0, done.stdout)
        done = subprocess.run(["kcat", "-P", "-b", self.broker.ssl, "-t", "others", "-X", "security.protocol=SSL",
                               "-X", f"ssl.ca.location={self.broker.ca_file}"],
                              input=b"SSL", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertEqual(self.broker.count("others"), 3)


class BrokerLife(unittest.TestCase):
    def test_the_broker_ends_with_the_test_that_started_it(self):
        with tempfile.TemporaryDirectory(prefix="signal-agent-broker-") as directory:
            child = subprocess.Popen(
                [sys.executable, pathlib.Path(__file__).with_name("kafka_broker.py"), "serve", "--state", directory],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            pid = __import__("json").loads(child.stdout.readline())["pid"]
            child.kill()
            child.wait()
            child.stdin.close()
            child.stdout.close()
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                try:
                    state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
                except FileNotFoundError:
                    return
                if state == "Z":
                    return
                time.sleep(0.05)
            self.fail(f"broker {pid} outlived its parent")


if __name__ == "__main__":
    unittest.main(verbosity=2)
