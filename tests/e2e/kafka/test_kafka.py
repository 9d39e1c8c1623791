#!/usr/bin/env python3
"""The Producer and the preflight against a real broker: what is stored, how each failure is told,
how it ends. Read back by kcat.

    python3 tests/e2e/kafka/test_kafka.py build/dev/tests/kafka_producer_driver [unittest arguments]
"""
import contextlib
import json
import os
import pathlib
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "support"))
import reader  # noqa: E402
from kafka_broker import Broker, BrokerError, free_ports, make_certificates  # noqa: E402

DRIVER = None
PATIENCE = 90
AGENT = ("WRITE", "DESCRIBE", "DESCRIBE_CONFIGS")


def eventually(condition, patience=PATIENCE):
    """The first true answer of condition(); the last one when the patience is over."""
    deadline = time.monotonic() + patience
    while True:
        answer = condition()
        if answer or time.monotonic() > deadline:
            return answer
        time.sleep(0.05)


class Driver:
    """One producer_driver process."""

    def __init__(self, log):
        self.process = subprocess.Popen([DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=log, text=True)
        self.reports, self.refusals, self.others = [], [], []
        self.news = threading.Condition()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            said = json.loads(line)
            with self.news:
                kind = "reports" if "report" in said else "refusals" if "refused" in said else "others"
                getattr(self, kind).append(said)
                self.news.notify_all()

    def order(self, do, **arguments):
        self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self.process.stdin.flush()

    def ask(self, do, patience=PATIENCE, **arguments):
        with self.news:
            before = len(self.others)
            self.order(do, **arguments)
            if not self.news.wait_for(lambda: len(self.others) > before, patience):
                raise AssertionError(f"no answer to {do}")
            return self.others[before]

    def start(self, config, **options):
        answer = self.ask("start", config=config, **options)
        if not answer["started"]:
            raise AssertionError(answer["text"])

    def health(self):
        return self.ask("health")

    def wait_reports(self, count, patience=PATIENCE):
        with self.news:
            self.news.wait_for(lambda: len(self.reports) >= count, patience)
            return list(self.reports)

    def wait_failure(self, code, patience=PATIENCE):
        """The health once it shows the code."""
        return eventually(lambda: next((h for h in [self.health()] if h["failure"] == code), None), patience)

    def preflight(self, config, **options):
        stages = self.ask("preflight", patience=120, config=config, **options)["stages"]
        return {stage["stage"]: stage for stage in stages}

    def close(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.reader.join()
            self.process.stdout.close()


class RealBroker(unittest.TestCase):
    broker_options = {}

    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.TemporaryDirectory(prefix="signal-agent-kafka-")
        cls.broker = Broker(cls.directory.name, **cls.broker_options).start()

    @classmethod
    def tearDownClass(cls):
        cls.broker.close()
        cls.directory.cleanup()

    def setUp(self):
        self.topic = self.id().rsplit(".", 1)[-1].removeprefix("test_")[:80]
        self.log = tempfile.NamedTemporaryFile("w+", prefix="driver-", suffix=".log")
        self.addCleanup(self.log.close)
        self.driver = Driver(self.log)
        self.addCleanup(self.driver.close)

    def config(self, **changes):
        return {"bootstrap_servers": self.broker.sasl_ssl, "topic": self.topic, "security_protocol": "SASL_SSL",
                "sasl_mechanism": "PLAIN", "sasl_username": "agent", "sasl_password": self.broker.password("agent"),
                "ssl_ca_file": str(self.broker.ca_file), **changes}

    def stored(self):
        return reader.read(self.broker.plaintext, self.topic)


class Delivery(RealBroker):
    def test_records_are_stored_byte_for_byte_where_the_report_says(self):
        self.broker.create_topic(self.topic, partitions=6, writer="agent")
        self.driver.start(self.config())
        headers = {"content-type": "application/json", "event_name": "Über, = \n"}
        values = {token: json.dumps({"type": "track", "n": token, "s": "ä😀\\u0000"}) for token in range(50)}
        for token, value in values.items():
            self.driver.order("send", token=token, value=value, key=f"user {token % 7} ä",
                              headers=headers, timestamp_ms=1700000000000 + token)
        self.driver.order("send", token=50, value="no key", timestamp_ms=1)
        reports = {report["report"]: report for report in self.driver.wait_reports(51)}
        self.assertEqual(len(reports), 51)
        self.assertTrue(all(report["error"] == 0 and report["persisted"] == "yes" for report in reports.values()))
        stored = {(record.partition, record.offset): record for record in self.stored()}
        self.assertEqual(len(stored), 51)
        for token, value in values.items():
            record = stored[reports[token]["partition"], reports[token]["offset"]]
            self.assertEqual(record.value, value.encode())
            self.assertEqual(record.key, f"user {token % 7} ä".encode())
            self.assertEqual(record.timestamp_ms, 1700000000000 + token)
            self.assertEqual(sorted(record.headers), sorted(headers.items()))
        last = stored[reports[50]["partition"], reports[50]["offset"]]
        self.assertEqual((last.key, last.value, last.headers), (None, b"no key", []))
        health = self.driver.health()
        self.assertEqual((health["last_error"], health["partition_count"], health["in_flight"]), (0, 6, 0))
        self.assertTrue(eventually(lambda: self.driver.health()["brokers_up"] == 1))

    def test_keys_go_where_another_murmur2_client_sends_them(self):
        self.broker.create_topic(self.topic, partitions=11, writer="agent")
        keys = [f"user-{n}" for n in range(200)] + ["ä", "😀😀", "a", "ab", "abc", "abcd", "abcde"]
        body = "".join(f"{key}\tother\n" for key in keys)
        subprocess.run(["kcat", "-P", "-b", self.broker.plaintext, "-t", self.topic, "-K", "\t", "-X",
                        "partitioner=murmur2"], input=body.encode(), check=True, timeout=60)
        self.driver.start(self.config())
        for token, key in enumerate(keys):
            self.driver.order("send", token=token, key=key, value="ours")
        self.driver.wait_reports(len(keys))
        places = {}
        for record in self.stored():
            places.setdefault(record.value, {})[record.key] = record.partition
        self.assertEqual(len(places[b"ours"]), len(keys))
        self.assertEqual(places[b"ours"], places[b"other"])

    def test_an_outage_ends_with_everything_stored_once_in_order(self):
        self.broker.create_topic(self.topic, partitions=1, writer="agent")
        self.driver.start(self.config())
        self.driver.order("send", token=0, count=200, value_bytes=100)
        self.driver.wait_reports(200)
        self.broker.kill()
        for token in range(200, 400):
            self.driver.order("send", token=token, value=f"{token}")
        self.assertTrue(self.driver.wait_failure("CONNECTION_FAILED"))
        self.assertEqual(self.driver.health()["in_flight"], 200)
        self.broker.start()
        reports = self.driver.wait_reports(400)
        self.assertEqual({report["error"] for report in reports}, {0})
        self.assertEqual([record.value for record in self.stored()[200:]], [f"{n}".encode() for n in range(200, 400)])
        self.assertEqual(self.driver.health()["failure"], "")

    def test_a_producer_that_lives_on_takes_up_more_partitions_and_fewer(self):
        self.broker.create_topic(self.topic, partitions=3, writer="agent")
        self.driver.start(self.config())
        sent = 0

        def send():
            nonlocal sent
            for _ in range(60):
                self.driver.order("send", token=sent, key=f"user {sent}")
                sent += 1
            reports = self.driver.wait_reports(sent)
            self.assertEqual({report["error"] for report in reports}, {0})
            return {report["partition"] for report in reports[-60:]}

        def look_anew(partitions):
            def known():
                try:
                    return len(self.broker.end_offsets(self.topic)) == partitions
                except BrokerError:
                    return False  # it was made a moment ago
            self.assertTrue(eventually(known))
            seen = self.driver.health()["metadata_ok_ms"]
            self.driver.order("probe")  # the library's own refresh comes every three minutes
            self.assertTrue(eventually(lambda: self.driver.health()["metadata_ok_ms"] > seen))
        self.assertEqual((send(), self.driver.health()["partition_count"]), ({0, 1, 2}, 3))
        self.broker.admin.call("add_partitions", topic=self.topic, count=6)
        look_anew(6)
        self.assertEqual(self.driver.health()["partition_count"], 3, "no record was placed by the new count")
        self.assertEqual((send(), self.driver.health()["partition_count"]), (set(range(6)), 6))
        self.broker.delete_topic(self.topic)
        self.assertTrue(eventually(lambda: self.topic not in self.broker.admin.call("topics")))
        self.broker.create_topic(self.topic, partitions=2)
        look_anew(2)
        self.assertEqual((send(), self.driver.health()["partition_count"]), ({0, 1}, 2))
        time.sleep(2.5)  # two of the library's statistics, which must not move it
        self.assertEqual(self.driver.health()["partition_count"], 2)

    def test_a_black_hole_is_told_and_survived(self):
        self.broker.create_topic(self.topic, partitions=1, writer="agent")
        self.driver.start(self.config())
        self.driver.order("send", token=0)
        self.driver.wait_reports(1)
        self.broker.pause()
        try:
            self.driver.order("send", token=1, count=20)
            # An open request is given up after socket.timeout.ms, a new connection after less.
            self.assertTrue(self.driver.wait_failure("CONNECTION_FAILED"), self.driver.health())
            self.assertEqual(self.driver.health()["in_flight"], 20)
        finally:
            self.broker.resume()
        reports = self.driver.wait_reports(21)
        self.assertEqual([report["error"] for report in reports], [0] * 21)
        self.assertEqual(len(self.stored()), 21)


class Failures(RealBroker):
    def test_wrong_password_never_fails_a_record_and_new_credentials_deliver(self):
        self.broker.create_topic(self.topic, partitions=1, writer="agent")
        self.driver.start(self.config(sasl_password="wrong"))
        self.driver.order("send", token=1, count=5)
        health = self.driver.wait_failure("AUTHENTICATION_FAILED")
        self.assertTrue(health, self.driver.health())
        self.assertIn("Authentication failed", health["last_error_text"])
        self.assertEqual(health["in_flight"], 5)
        time.sleep(3)  # general errors follow the specific one and must not hide it
        self.assertEqual(self.driver.health()["failure"], "AUTHENTICATION_FAILED")
        self.assertEqual(self.driver.reports, [])

        self.driver.ask("credentials", user="agent", password=self.broker.password("agent"))
        began = time.monotonic()
        reports = self.driver.wait_reports(5)
        self.assertLess(time.monotonic() - began, 9, "not only at the library's longest back-off, 10 s")
        self.assertEqual([report["error"] for report in reports], [0] * 5)
        self.assertEqual(len(self.stored()), 5)
        self.assertEqual(self.driver.health()["failure"], "")

    def test_the_probe_tells_when_credentials_are_accepted_without_an_event(self):
        self.broker.create_topic(self.topic, partitions=4, writer="agent")
        self.driver.start(self.config(sasl_password="wrong"))
        self.driver.order("probe")
        self.assertTrue(self.driver.wait_failure("AUTHENTICATION_FAILED"), self.driver.health())
        self.assertEqual(self.driver.health()["metadata_ok_ms"], 0)
        self.driver.ask("credentials", user="agent", password=self.broker.password("agent"))

        def accepted():
            self.driver.order("probe")
            return self.driver.health()["metadata_ok_ms"] > 0
        self.assertTrue(eventually(accepted))
        health = self.driver.health()
        self.assertEqual((health["failure"], health["partition_count"]), ("", 4))
        self.assertEqual(self.stored(), [])

    def test_no_permission_at_all_is_authorization(self):
        self.broker.create_topic(self.topic, partitions=1)
        self.driver.start(self.config())
        self.driver.order("send", token=1)
        told = eventually(lambda: self.driver.reports + self.driver.refusals)[0]
        self.assertEqual((told["verdict"], told["class"], told["code"]),
                         ("halt", "authorization", "TOPIC_AUTHORIZATION_FAILED"))
        self.assertEqual(told.get("persisted", "no"), "no")

    def test_describe_without_write_is_authorization_and_ends_the_instance(self):
        self.broker.create_topic(self.topic, partitions=1)
        self.broker.set_user("reader", "reader-secret")
        self.broker.grant("reader", self.topic, ("DESCRIBE",))
        self.driver.start(self.config(sasl_username="reader", sasl_password="reader-secret"))
        self.driver.order("send", token=1, count=3)
        health = eventually(lambda: next((h for h in [self.driver.health()] if h["fatal_error"]), None))
        self.assertTrue(health, self.driver.health())
        self.assertEqual((health["fatal_error"], health["class"], health["code"], health["fatal"]),
                         (31, "authorization", "TOPIC_AUTHORIZATION_FAILED", True))
        reports = self.driver.wait_reports(3)
        self.assertEqual([(report["persisted"], report["verdict"]) for report in reports], [("no", "retry")] * 3)
        self.driver.order("send", token=4)
        self.assertTrue(eventually(lambda: self.driver.refusals))
        self.assertEqual((self.driver.refusals[0]["error"], self.driver.refusals[0]["fatal"]), (-150, True))
        self.assertEqual(self.stored(), [])

    def test_write_taken_away_under_load_comes_back_by_itself(self):
        self.broker.create_topic(self.topic, partitions=2, writer="agent")
        # WRITE elsewhere, so that the cluster still gives producer ids.
        self.broker.create_topic(self.topic + "-other", partitions=1, writer="agent")
        self.driver.start(self.config())
        sent = 0

        def send_some():
            nonlocal sent
            self.driver.order("send", token=sent, count=20, value_bytes=200)
            sent += 20
            time.sleep(0.02)
        while len(self.driver.reports) < 200:
            send_some()
        self.broker.revoke("agent", self.topic, ("WRITE", "DESCRIBE"))
        deadline = time.monotonic() + PATIENCE
        failed = []
        while not (failed and self.driver.refusals) and time.monotonic() < deadline:
            send_some()
            failed = [report for report in self.driver.reports if report["error"] != 0]
        self.assertTrue(failed)
        self.assertTrue(self.driver.refusals)
        for told in failed + self.driver.refusals:
            self.assertEqual((told["class"], told["code"]), ("authorization", "TOPIC_AUTHORIZATION_FAILED"), told)
            self.assertEqual(told.get("persisted", "no"), "no")

        self.broker.grant("agent", self.topic)
        refused = -1

        def accepted():
            nonlocal sent, refused
            self.driver.order("probe")
            refused, before = len(self.driver.refusals), sum(r["error"] == 0 for r in self.driver.reports)
            send_some()
            time.sleep(0.3)
            return len(self.driver.refusals) == refused and \
                sum(r["error"] == 0 for r in self.driver.reports) > before
        began = time.monotonic()
        self.assertTrue(eventually(accepted))
        print(f"delivery again {time.monotonic() - began:.1f} s after the permission", file=sys.stderr)
        self.assertTrue(eventually(
            lambda: len(self.driver.reports) + len(self.driver.refusals) == sent), self.driver.health())
        good = sum(report["error"] == 0 for report in self.driver.reports)
        self.assertEqual(len(self.stored()), good)

    def test_a_missing_topic_is_told_by_probe_at_once_and_by_report_later(self):
        self.broker.grant("agent", self.topic)
        self.driver.start(self.config())
        self.driver.order("send", token=1)
        self.driver.order("probe")
        self.assertTrue(self.driver.wait_failure("UNKNOWN_TOPIC_OR_PARTITION"), self.driver.health())
        self.assertEqual(self.driver.reports, [], "the report said it first")
        report = self.driver.wait_reports(1)[0]
        self.assertEqual((report["class"], report["code"], report["persisted"]),
                         ("topic_missing", "UNKNOWN_TOPIC_OR_PARTITION", "no"))
        self.broker.create_topic(self.topic, partitions=1)

        def accepted():
            self.driver.order("probe")
            self.driver.order("send", token=2)
            time.sleep(0.5)
            return any(each["error"] == 0 for each in self.driver.reports)
        self.assertTrue(eventually(accepted))

    def test_large_records_take_their_whole_batch_with_them(self):
        self.broker.create_topic(self.topic, partitions=1, writer="agent", config={"max.message.bytes": "20000"})
        self.driver.start(self.config(compression="none"), linger_ms=300)
        for token in range(10):
            self.driver.order("send", token=token, value_bytes=30000 if token in (3, 7) else 100)
        reports = self.driver.wait_reports(10)
        self.assertEqual({(report["class"], report["code"], report["shared"], report["persisted"])
                          for report in reports}, {("size", "MESSAGE_TOO_LARGE", True, "no")})
        self.assertEqual(len(reports), 10)

    def test_a_batch_below_the_limit_isolates_large_records(self):
        self.broker.create_topic(self.topic, partitions=1, writer="agent", config={"max.message.bytes": "20000"})
        self.driver.start(self.config(compression="none", max_message_bytes=20000), linger_ms=300)
        for token in range(10):
            self.driver.order("send", token=token, value_bytes=30000 if token in (3, 7) else 100 + token)
        reports = self.driver.wait_reports(10)
        self.assertEqual(sorted(report["report"] for report in reports if report["error"]), [3, 7])
        self.assertEqual([len(record.value) for record in self.stored()],
                         [100 + token for token in range(10) if token not in (3, 7)])

    def test_the_topics_limit_is_read_when_allowed(self):
        self.broker.create_topic(self.topic, partitions=1, config={"max.message.bytes": "54321"})
        self.broker.grant("agent", self.topic, AGENT)
        self.driver.start(self.config())
        self.assertTrue(eventually(lambda: self.driver.health()["limit"] == 54321), self.driver.health())

    def test_a_certificate_of_an_unknown_authority_is_tls(self):
        with tempfile.TemporaryDirectory() as directory:
            other, _ = make_certificates(pathlib.Path(directory))
            self.driver.start(self.config(ssl_ca_file=str(other)))
            self.driver.order("send", token=1)
            self.assertTrue(self.driver.wait_failure("TLS_FAILED"), self.driver.health())

    def test_a_name_that_does_not_resolve_is_dns(self):
        self.driver.start(self.config(bootstrap_servers="no-such-host.invalid:9092"))
        self.driver.order("send", token=1)
        self.assertTrue(self.driver.wait_failure("DNS_FAILED"), self.driver.health())

    def test_a_closed_port_is_connection(self):
        self.driver.start(self.config(bootstrap_servers=f"127.0.0.1:{free_ports(1)[0]}"))
        self.driver.order("send", token=1)
        self.assertTrue(self.driver.wait_failure("CONNECTION_FAILED"), self.driver.health())
        self.assertEqual(self.driver.reports, [])


class Rotation(RealBroker):
    broker_options = {"reauth_ms": 2000}

    def test_a_key_rotated_under_load_is_revoked_and_nothing_is_lost_or_doubled(self):
        self.broker.set_user("rotating", "one")
        self.broker.create_topic(self.topic, partitions=3, writer="rotating")
        self.driver.start(self.config(sasl_username="rotating", sasl_password="one"))
        sent = 0
        while len(self.driver.reports) < 100:
            self.driver.order("send", token=sent, value=f"{sent}")
            sent += 1
            time.sleep(0.005)
        self.broker.set_user("rotating", "two")
        revoked = False
        while not revoked and sent < 5000:
            self.driver.order("send", token=sent, value=f"{sent}")
            sent += 1
            time.sleep(0.005)
            if sent % 20 == 0:
                revoked = self.driver.health()["failure"] == "CREDENTIALS_REVOKED"
        self.assertTrue(revoked, self.driver.health())
        self.assertTrue(all(report["error"] == 0 for report in self.driver.reports))
        self.assertGreater(self.driver.health()["in_flight"], 0)

        self.driver.ask("credentials", user="rotating", password="two")
        began = time.monotonic()
        reports = self.driver.wait_reports(sent)
        print(f"all delivered {time.monotonic() - began:.1f} s after the new key", file=sys.stderr)
        self.assertEqual({report["error"] for report in reports}, {0})
        self.assertEqual(sorted(int(record.value) for record in self.stored()), list(range(sent)))


class Preflight(RealBroker):
    STAGES = ["dns", "tcp", "tls", "sasl", "topic", "write", "size", "brokers"]

    def check(self, config, **options):
        stages = self.driver.preflight(config, **options)
        self.assertEqual(list(stages), self.STAGES)
        failed = [name for name, stage in stages.items() if stage["state"] == "failed"]
        if failed:
            after = self.STAGES[self.STAGES.index(failed[0]) + 1:]
            self.assertEqual([stages[name]["state"] for name in after], ["skipped"] * len(after))
            self.assertTrue(stages[failed[0]]["remedy"])
        return stages, failed[0] if failed else None

    def fails(self, stage, words, config, **options):
        stages, failed = self.check(config, **options)
        self.assertEqual(failed, stage, stages)
        self.assertIn(words, stages[stage]["detail"])
        return stages[stage]

    def test_all_is_proven_and_nothing_is_left_behind(self):
        self.broker.create_topic(self.topic, partitions=3, config={"max.message.bytes": "300000"})
        self.broker.grant("agent", self.topic, AGENT)
        stages, _ = self.check(self.config())
        self.assertEqual({stage["state"] for stage in stages.values()}, {"passed"}, stages)
        self.assertIn("permitted", stages["write"]["detail"])
        self.assertIn("300000", stages["size"]["detail"])
        self.assertIn("3 partitions", stages["topic"]["detail"])
        self.assertEqual(self.broker.count(self.topic), 0)

    def test_without_the_right_to_read_the_limit_it_says_what_is_not_proven(self):
        self.broker.create_topic(self.topic, partitions=1, writer="agent")
        stages, failed = self.check(self.config())
        self.assertIsNone(failed, stages)
        self.assertEqual((stages["write"]["state"], stages["size"]["state"]), ("warning", "warning"))
        self.assertIn("--write", stages["write"]["remedy"])
        self.assertEqual(self.broker.count(self.topic), 0)

    def test_write_leaves_one_marked_record(self):
        self.broker.create_topic(self.topic, partitions=1, writer="agent")
        stages, failed = self.check(self.config(), write=True)
        self.assertIsNone(failed, stages)
        self.assertEqual(stages["write"]["state"], "passed")
        record, = self.stored()
        self.assertEqual(json.loads(record.value)["event"], "signal-agent check")
        self.assertEqual(dict(record.headers)["event_name"], "signal-agent check")

    def test_wrong_password_fails_sasl(self):
        self.broker.create_topic(self.topic, partitions=1, writer="agent")
        self.fails("sasl", "Authentication failed", self.config(sasl_password="wrong"))

    def test_scram_that_kafka_4_refuses_names_the_library(self):
        self.broker.create_topic(self.topic, partitions=1, writer="agent")
        stages, failed = self.check(self.config(sasl_mechanism="SCRAM-SHA-256"))
        if failed is None:
            return  # a librdkafka that Kafka 4 accepts
        self.assertEqual(failed, "sasl", stages)
        self.assertIn("librdkafka before 2.6.1", stages["sasl"]["remedy"])

    def test_no_permission_fails_topic(self):
        self.broker.create_topic(self.topic, partitions=1)
        stage = self.fails("topic", "authorization failed", self.config())
        self.assertIn("WRITE", stage["remedy"])

    def test_a_missing_topic_fails_topic(self):
        self.broker.grant("agent", self.topic)
        self.fails("topic", "Unknown topic", self.config())

    def test_describe_without_write_anywhere_fails_write(self):
        self.broker.create_topic(self.topic, partitions=1)
        self.broker.set_user("reader", "reader-secret")
        self.broker.grant("reader", self.topic, ("DESCRIBE", "DESCRIBE_CONFIGS"))
        self.fails("write", "Cluster authorization failed",
                   self.config(sasl_username="reader", sasl_password="reader-secret"))

    def test_write_on_another_topic_only_fails_write(self):
        self.broker.create_topic(self.topic, partitions=1)
        self.broker.create_topic(self.topic + "-other", partitions=1)
        self.broker.set_user("elsewhere", "secret")
        self.broker.grant("elsewhere", self.topic, ("DESCRIBE", "DESCRIBE_CONFIGS"))
        self.broker.grant("elsewhere", self.topic + "-other", ("WRITE",))
        config = self.config(sasl_username="elsewhere", sasl_password="secret")
        self.fails("write", "authorization failed", config)
        self.fails("write", "authorization failed", config, write=True)
        self.assertEqual(self.broker.count(self.topic), 0)

    def test_an_unknown_authority_fails_tls(self):
        with tempfile.TemporaryDirectory() as directory:
            other, _ = make_certificates(pathlib.Path(directory))
            self.fails("tls", "certificate refused", self.config(ssl_ca_file=str(other)))

    def test_the_systems_authorities_do_not_know_this_broker(self):
        self.fails("tls", "certificate refused", self.config(ssl_ca_file=""))

    def test_a_certificate_for_another_name_fails_tls(self):
        with tempfile.TemporaryDirectory() as directory:
            key, certificate = f"{directory}/key", f"{directory}/certificate"
            subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-keyout", key,
                            "-out", certificate, "-subj", "/CN=elsewhere.example", "-addext",
                            "subjectAltName=DNS:elsewhere.example"], check=True, capture_output=True)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            with socket.create_server(("127.0.0.1", 0)) as server:
                def serve():
                    connection, _ = server.accept()
                    with contextlib.suppress(OSError):
                        context.wrap_socket(connection, server_side=True).close()
                thread = threading.Thread(target=serve, daemon=True)
                thread.start()
                servers = f"localhost:{server.getsockname()[1]}"
                stage = self.fails("tls", "certificate refused",
                                   self.config(bootstrap_servers=servers, ssl_ca_file=certificate))
                thread.join(10)
            self.assertIn("elsewhere.example", stage["detail"])

    def test_tls_to_a_port_without_it_fails_tls(self):
        self.fails("tls", "", self.config(bootstrap_servers=self.broker.plaintext), timeout_ms=3000)

    def test_plaintext_to_a_tls_port_fails_with_an_answer(self):
        stages, failed = self.check(self.config(bootstrap_servers=self.broker.ssl, security_protocol="PLAINTEXT"),
                                    timeout_ms=3000)
        self.assertEqual(failed, "topic", stages)

    def test_a_black_hole_fails_in_time(self):
        self.broker.create_topic(self.topic, partitions=1, writer="agent")
        self.broker.pause()
        try:
            began = time.monotonic()
            self.fails("tls", "in time", self.config(), timeout_ms=1500)
            self.assertLess(time.monotonic() - began, 10)
        finally:
            self.broker.resume()


class Advertised(RealBroker):
    def test_an_advertised_broker_that_cannot_be_reached_is_named(self):
        self.broker.create_topic(self.topic, partitions=1)
        self.broker.grant("agent", self.topic, AGENT)
        closed = free_ports(1)[0]
        text = self.broker.config.read_text()
        self.broker.stop()
        wrong = text.replace(f"SASL_SSL://{self.broker.sasl_ssl}", f"SASL_SSL://127.0.0.1:{closed}")
        # listeners keep the real port, advertised.listeners get the closed one
        lines = [line if line.startswith("advertised.listeners") else old
                 for line, old in zip(wrong.splitlines(), text.splitlines())]
        self.broker.config.write_text("\n".join(lines) + "\n")
        self.broker.start()
        stages = self.driver.preflight(self.config(), timeout_ms=3000)
        failed = next(stage for stage in stages.values() if stage["state"] == "failed")
        self.assertIn(f"127.0.0.1:{closed}", failed["detail"])
        self.assertIn("cannot be reached", failed["detail"])


if __name__ == "__main__":
    DRIVER = os.path.abspath(sys.argv.pop(1))
    unittest.main(verbosity=2)
