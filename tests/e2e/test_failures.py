#!/usr/bin/env python3
"""Every row of the troubleshooting table, provoked on a real broker: the operator is told the right
code, problem and remedy; nothing is lost or reordered; and when the cause is gone everything is
delivered without a restart.
"""
import contextlib
import json
import socket
import threading
import time

import harness
from harness import BrokerCase, check, integration, make_event, wait_until
QUICK = {"delivery.provenance_headers": True, "delivery.auth_grace": "2s"}


class BlackHole(threading.Thread):
    """Accepts connections, as many as come, and never says a word."""

    def __init__(self):
        super().__init__(daemon=True)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "%s:%d" % self._listener.getsockname()
        self._kept = []
        self.start()

    def run(self):
        try:
            while True:
                self._kept.append(self._listener.accept())
        except OSError:
            return

    def close(self):
        self._listener.close()


class Failures(BrokerCase):
    BROKER = {"reauth_ms": 3000}

    # vocabulary

    def setUp(self):
        super().setUp()
        self.secret = self.directory / "secret"
        self.set_secret(self.broker.password("agent"))

    def set_secret(self, text):
        self.secret.write_text(text)
        self.secret.chmod(0o600)

    def integration(self, topic=None, user="agent", **config):
        one = integration(self.broker, topic or self.topic, user=user, password="", **config)
        one["config"]["sasl_password"] = {"file": str(self.secret)}
        return one

    def shown(self, agent):
        """The one integration as `status --json` shows it."""
        done = agent.command("status", "--json")
        return json.loads(done.stdout)["integrations"][0]

    def wait_for_failure(self, agent, code, problem):
        """Waits until the operator is told `code`, everywhere in the same words."""
        def told():
            failure = self.shown(agent)["failure"]
            if not failure or failure["code"] != code:
                return None
            return failure if failure["remedy"].split(".")[0] in agent.command("status").stdout else None
        failure = wait_until(told, lambda: f"{code}, told is {self.shown(agent)['failure']}\n"
                             f"{agent.command('status').stdout}\n{agent.log_tail()}", every=0.2)
        self.assertIn(problem, failure["problem"])
        self.assertTrue(failure["causes"] and failure["remedy"] and failure["seen"] and failure["since"], failure)
        wait_until(lambda: code in agent.log(), f"{code} in the log")
        self.assertNotIn(self.secret.read_text(), agent.log())
        return failure

    def dead(self, agent):
        done = agent.command("dead-letters", "list", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = done.stdout.split("\n")  # not splitlines(): an event shown in one may hold U+2028
        return [json.loads(line) for line in lines if line]

    def delivered(self, agent, senders, crashes=0, topic=None):
        """Waits until nothing is pending or buried, then holds the topic against what was sent."""
        def done():
            members = agent.balance()
            return members if members["pending"] == 0 and members["buried"] == 0 else None
        members = wait_until(done, lambda: f"all delivered: {agent.balance()} {self.shown(agent)['failure']}\n"
                             f"{agent.log_tail()}", every=0.1)
        verdict = check(self.records(topic), senders, self.PARTITIONS, crashes=crashes)
        self.assertEqual(members["acked"], verdict.events)
        wait_until(lambda: self.shown(agent)["failure"] is None, "no failure any more")
        return verdict

    def sent(self, agent, seed=1, limit=300):
        """So many events, answered."""
        load = self.load(agent, seed, limit=limit)
        load.join(120)
        load.stop()
        return load

    # no connection

    def test_an_address_where_nothing_listens(self):
        unused = self.enterContext(socket.socket())
        unused.bind(("127.0.0.1", 0))  # and never listens: nobody else can get this port
        agent = self.agent([self.integration(bootstrap_servers="%s:%d" % unused.getsockname())], QUICK).start()
        load = self.sent(agent)
        self.wait_for_failure(agent, "CONNECTION_FAILED", "Connection timeout")
        self.repair(agent, load)

    def test_a_black_hole_that_accepts_and_never_answers(self):
        hole = self.enterContext(contextlib.closing(BlackHole()))
        agent = self.agent([self.integration(bootstrap_servers=hole.address)], QUICK).start()
        load = self.sent(agent)
        self.wait_for_failure(agent, "CONNECTION_FAILED", "Connection timeout")
        self.repair(agent, load)

    def test_a_name_that_does_not_resolve(self):
        agent = self.agent([self.integration(bootstrap_servers="no-such-broker.invalid:9092")], QUICK).start()
        load = self.sent(agent)
        self.wait_for_failure(agent, "DNS_FAILED", "Connection timeout")
        self.repair(agent, load)

    def test_a_certificate_nobody_here_trusts(self):
        one = self.integration()
        del one["config"]["ssl_ca_file"]
        agent = self.agent([one], QUICK).start()
        load = self.sent(agent)
        self.wait_for_failure(agent, "TLS_FAILED", "Connection timeout")
        self.repair(agent, load)

    def repair(self, agent, load):
        """The right address and trust, by a reload."""
        agent.integrations = [self.integration()]
        agent.write_config()
        self.assertEqual(agent.command("reload").returncode, 0)
        self.assertEqual(self.delivered(agent, [load], crashes=1).copies, 0)

    # credentials

    def test_a_wrong_key_from_the_start_costs_at_most_one_dead_letter(self):
        self.set_secret("not-the-secret")
        agent = self.agent([self.integration()], QUICK).start()
        load = self.sent(agent)
        self.wait_for_failure(agent, "AUTHENTICATION_FAILED", "Authentication failure")
        wait_until(lambda: self.shown(agent)["state"] in ("halted", "probing"), "halted")
        self.assertLessEqual(agent.balance()["buried"], 1)
        for letter in self.dead(agent):
            self.assertEqual((letter["reason"], letter["code"]), ("authentication", "AUTHENTICATION_FAILED"))
        later = self.sent(agent, seed=2)  # intake goes on
        agent.wait_idle(5)
        lines = agent.log().count("\n")
        time.sleep(10)  # an open circuit is quiet, too
        self.assertLess(agent.log().count("\n") - lines, 10, agent.log_tail())
        self.set_secret(self.broker.password("agent"))  # noticed without any signal
        self.assertEqual(self.delivered(agent, [load, later], crashes=1).copies, 0)

    def test_a_key_revoked_under_load_is_told_and_replaced_without_a_restart(self):
        self.broker.set_user("rotated", "first-secret")
        self.broker.grant("rotated", self.topic)
        self.set_secret("first-secret")
        agent = self.agent([self.integration(user="rotated")],
                           {**QUICK, "delivery.window_events": 500}).start()
        load = self.load(agent, seed=3, pause=0.005)
        wait_until(lambda: agent.balance()["acked"] > 200, "deliveries with the first key")
        self.broker.set_user("rotated", "second-secret")
        self.wait_for_failure(agent, "CREDENTIALS_REVOKED", "API key expired or revoked")
        wait_until(lambda: self.shown(agent)["state"] in ("halted", "probing"), "halted")
        self.assertLessEqual(agent.balance()["buried"], 500)
        self.set_secret("second-secret")
        load.stop()
        verdict = self.delivered(agent, [load], crashes=1)
        print(f"revoked under load: {verdict.events} events, {verdict.copies} copies")

    # permissions

    def test_no_permission_on_the_topic(self):
        self.broker.set_user("stranger", "stranger-secret")
        self.set_secret("stranger-secret")
        agent = self.agent([self.integration(user="stranger")], QUICK).start()
        load = self.sent(agent)
        self.wait_for_failure(agent, "TOPIC_AUTHORIZATION_FAILED", "TopicAuthorizationException")
        self.assertLessEqual(agent.balance()["buried"], 1)
        self.broker.grant("stranger", self.topic)
        self.assertEqual(self.delivered(agent, [load], crashes=1).copies, 0)

    def test_permission_to_describe_but_not_to_write(self):
        self.broker.set_user("reader", "reader-secret")
        self.broker.grant("reader", self.topic, operations=("DESCRIBE",))
        self.set_secret("reader-secret")
        agent = self.agent([self.integration(user="reader")], QUICK).start()
        load = self.sent(agent)
        self.wait_for_failure(agent, "TOPIC_AUTHORIZATION_FAILED", "TopicAuthorizationException")
        self.assertLessEqual(agent.balance()["buried"], 1)
        self.broker.grant("reader", self.topic, operations=("WRITE",))
        self.assertEqual(self.delivered(agent, [load], crashes=1).copies, 0)

    def test_permission_taken_away_under_load(self):
        agent = self.agent([self.integration()], {**QUICK, "delivery.window_events": 500}).start()
        load = self.load(agent, seed=4, pause=0.005)
        wait_until(lambda: agent.balance()["acked"] > 200, "deliveries while it is permitted")
        self.broker.revoke("agent", self.topic)
        self.wait_for_failure(agent, "TOPIC_AUTHORIZATION_FAILED", "TopicAuthorizationException")
        self.assertLessEqual(agent.balance()["buried"], 500)
        self.broker.grant("agent", self.topic)
        load.stop()
        verdict = self.delivered(agent, [load], crashes=1)
        print(f"permission taken away: {verdict.events} events, {verdict.copies} copies")

    # the topic

    def test_a_topic_that_does_not_exist_yet_holds_everything(self):
        missing = self.topic + "-later"
        self.broker.grant("agent", missing)
        agent = self.agent([self.integration(topic=missing)], QUICK).start()
        load = self.sent(agent)
        self.wait_for_failure(agent, "UNKNOWN_TOPIC_OR_PARTITION", "UnknownTopicOrPartition")
        self.assertEqual(self.dead(agent), [])
        time.sleep(15)  # canaries are refused by the library itself, again and again
        self.assertIsNone(agent.process.poll())
        self.broker.create_topic(missing, self.PARTITIONS)
        self.assertEqual(self.delivered(agent, [load], topic=missing, crashes=1).copies, 0)

    def test_a_topic_deleted_under_load_holds_what_comes_and_delivers_when_it_is_back(self):
        agent = self.agent([self.integration()], QUICK).start()
        self.sent(agent, seed=7)
        agent.wait_drained()
        self.broker.delete_topic(self.topic)
        load = self.sent(agent, seed=8)
        self.wait_for_failure(agent, "UNKNOWN_TOPIC_OR_PARTITION", "UnknownTopicOrPartition")
        self.assertEqual(self.dead(agent), [])
        acked = agent.balance()["acked"]
        self.broker.create_topic(self.topic, self.PARTITIONS)
        wait_until(lambda: agent.balance()["pending"] == 0,
                   lambda: f"all delivered: {agent.balance()}\n{agent.log_tail()}", every=0.1)
        verdict = check(self.records(), [load], self.PARTITIONS, crashes=1)
        self.assertEqual((verdict.events, verdict.copies), (agent.balance()["acked"] - acked, 0))

    # size

    def test_a_message_that_is_too_large_is_parked_alone_and_replayed(self):
        self.broker.configure_topic(self.topic, max_message_bytes=100_000)
        # The limit is on what goes over the wire; padding would compress to nothing.
        agent = self.agent([self.integration(compression="none")], QUICK).start()
        before = self.sent(agent, seed=5, limit=200)
        source = before.source
        large = make_event(source, 1_000_000, size=300_000)
        small = [make_event(source, 1_000_001 + index) for index in range(4)]
        batch = [small[0], small[1], large, small[2], small[3]]
        status, answer, _ = agent.post("/v1/batch", b"\n".join(event.raw for event in batch))
        self.assertEqual((status, answer["accepted"]), (200, 5))
        after = self.sent(agent, seed=6, limit=200)

        def settled():
            members = agent.balance()
            return members["pending"] == 0 and members["buried"] == 1
        wait_until(settled, lambda: f"one parked: {agent.balance()}\n{agent.log_tail()}")
        letters = self.dead(agent)
        self.assertEqual([(letter["reason"], letter["code"]) for letter in letters], [("size", "MESSAGE_TOO_LARGE")])
        seq = letters[0]["seq"]
        told = agent.command("dead-letters", "show", str(seq))
        self.assertIn("MessageSizeTooLarge", told.stdout)
        neighbours = {record.value for record in self.records()}
        self.assertEqual(neighbours, {event.raw for event in before.sent + after.sent + small})
        self.broker.configure_topic(self.topic, max_message_bytes=1_000_000)
        done = agent.command("dead-letters", "replay", str(seq))
        self.assertEqual(done.returncode, 0, done.stderr)
        wait_until(lambda: agent.balance()["buried"] == 0, lambda: f"replayed: {agent.balance()}\n{agent.log_tail()}")
        last = [record for record in self.records() if record.value == large.raw]
        self.assertEqual(len(last), 1)

    # dead letters that are full

    def test_more_large_ones_than_the_dead_letters_hold_wait_for_a_discard_or_a_replay(self):
        self.broker.configure_topic(self.topic, max_message_bytes=100_000)
        agent = self.agent([self.integration(compression="none")], {**QUICK, "dead_letters.max_events": 3}).start()
        before = self.sent(agent, seed=12, limit=100)
        large = [make_event(before.source, 1_000_000 + index, size=300_000) for index in range(5)]
        for event in large:
            status, answer, _ = agent.post("/v1/events", event.raw)
            self.assertEqual((status, answer["accepted"]), (200, 1), answer)
        self.wait_for_failure(agent, "DEAD_LETTERS_FULL", "Dead letters full")
        after = self.sent(agent, seed=13, limit=100)  # intake goes on, delivery does not
        self.assertGreaterEqual(agent.balance()["pending"], 2 + len(after.sent))
        parked = [letter["seq"] for letter in self.dead(agent)]
        self.assertEqual(len(parked), 3)

        done = agent.command("dead-letters", "discard", str(parked[0]), "--confirm", "1")
        self.assertEqual(done.returncode, 0, done.stderr)
        wait_until(lambda: [letter["seq"] for letter in self.dead(agent)] == [*parked[1:], parked[-1] + 1],
                   lambda: f"the fourth took the place: {self.dead(agent)}\n{agent.log_tail()}", every=0.1)

        self.broker.configure_topic(self.topic, max_message_bytes=1_000_000)
        # The first replay makes room for the fifth, which was refused before the limit was raised.
        for what in ("pending", "buried"):
            done = agent.command("dead-letters", "replay", "--all")
            self.assertEqual(done.returncode, 0, done.stderr)
            wait_until(lambda: agent.balance()[what] == 0,
                       lambda: f"nothing {what}: {agent.balance()}\n{agent.log_tail()}", every=0.1)
        self.assertEqual(agent.balance()["discarded"], 1)
        self.assertEqual(sorted(record.value for record in self.records()),
                         sorted(event.raw for event in before.sent + large[1:] + after.sent))

    def test_more_refused_ones_than_the_dead_letters_hold_go_out_in_order_once_permitted(self):
        agent = self.agent([self.integration()], {**QUICK, "dead_letters.max_events": 20,
                                                  "delivery.window_events": 500}).start()
        load = self.load(agent, seed=14, pause=0.005)
        wait_until(lambda: agent.balance()["acked"] > 200, "deliveries while it is permitted")
        self.broker.revoke("agent", self.topic)
        told = self.wait_for_failure(agent, "DEAD_LETTERS_FULL", "Dead letters full")
        self.assertIn("TOPIC_AUTHORIZATION_FAILED", told["seen"])
        wait_until(lambda: agent.balance()["pending"] > 1000, "events that wait")
        buried = agent.balance()["buried"]
        self.assertEqual(buried, 20)
        agent.kill()
        agent.start()
        self.broker.grant("agent", self.topic)
        load.stop()
        verdict = self.delivered(agent, [load], crashes=2)
        print(f"full dead letters: {buried} of {verdict.events} parked, {verdict.copies} copies")


if __name__ == "__main__":
    harness.main()
