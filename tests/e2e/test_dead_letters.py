#!/usr/bin/env python3
"""Ten thousand dead letters: the operator's commands stay quick, a replay keeps the order, kill -9 in
the middle of one loses none, what is discarded is counted, and a stopped spool shows and exports the same.
"""
import json
import time

import harness
from harness import BrokerCase, integration, wait_until

COUNT = 10_000
# No command pages through more than it shows; a loaded machine may still be slow to start a process.
QUICK_SECONDS = 30


def seq_of(record):
    return int(dict(record.headers)["signal_agent_seq"])


class DeadLetters(BrokerCase):
    PARTITIONS = 3

    def expired(self):
        """An agent whose events have all expired into the dead letters while Kafka was away."""
        self.broker.kill()
        agent = self.agent([integration(self.broker, self.topic)],
                           {"spool.max_age": "1s", "delivery.provenance_headers": True,
                            "delivery.window_events": 1000,
                            "intake.listen": ["127.0.0.1:0", f"unix:{self.directory}/intake.sock"]}).start()
        load = self.load(agent, seed=11, batch=500, limit=COUNT)
        load.join(120)
        load.stop()
        stored = len(load.sent)
        time.sleep(1.5)
        self.broker.start()

        def settled():
            members = agent.balance()
            return members if members["pending"] == 0 else None
        members = wait_until(settled, lambda: f"settled: {agent.balance()}\n{agent.log_tail()}", every=0.2)
        self.assertEqual(members["acked"] + members["buried"], stored)
        self.assertGreater(members["buried"], COUNT - 2000)
        return agent, load, members["buried"]

    def quick(self, agent, *arguments):
        began = time.monotonic()
        done = agent.command("dead-letters", *arguments)
        took = time.monotonic() - began
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertLess(took, QUICK_SECONDS, arguments)
        return done.stdout

    def test_ten_thousand_are_listed_replayed_over_a_kill_and_none_is_lost(self):
        agent, load, buried = self.expired()
        first = json.loads(self.quick(agent, "list", "--json").splitlines()[0])
        self.assertEqual(first["code"], "EXPIRED")
        self.quick(agent, "show", str(first["seq"]))
        before = {seq_of(record) for record in self.records()}  # what the library held in the outage
        acked = agent.balance()["acked"]
        self.quick(agent, "replay", "--all")
        wait_until(lambda: agent.balance()["acked"] > acked + 50, lambda: f"replaying: {agent.balance()}", every=0.005)
        agent.kill()
        agent.start()
        wait_until(lambda: agent.balance()["buried"] == 0,
                   lambda: f"replayed: {agent.balance()}\n{agent.log_tail()}", every=0.1)
        records = self.records()
        copies = self.assert_in_order([record for record in records if seq_of(record) not in before])
        self.assertLessEqual(copies, 1000, "more than one window was repeated by one kill")
        self.assertEqual({record.value for record in records}, {event.raw for event in load.sent})
        print(f"{buried} replayed over a kill, {copies} copies")

    def assert_in_order(self, records):
        """Each partition in the order of the spool, copies aside; returns their number."""
        copies, seen = 0, {}
        for record in records:
            latest, known = seen.setdefault(record.partition, [0, set()])
            if seq_of(record) in known:
                copies += 1
                continue
            self.assertGreater(seq_of(record), latest, record)
            known.add(seq_of(record))
            seen[record.partition][0] = seq_of(record)
        return copies

    def test_what_is_discarded_is_confirmed_counted_and_gone(self):
        agent, _, buried = self.expired()
        refused = agent.command("dead-letters", "discard", "--all", "--confirm", str(buried - 1))
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn(str(buried), refused.stderr)
        self.assertEqual(agent.balance()["buried"], buried)
        self.quick(agent, "discard", "--all", "--confirm", str(buried))
        members = agent.balance()
        self.assertEqual((members["buried"], members["discarded"]), (0, buried))

    def test_an_export_can_be_sent_again(self):
        agent, load, buried = self.expired()
        exported = self.quick(agent, "export")
        self.assertEqual(exported.count("\n"), buried)
        seq = json.loads(self.quick(agent, "list", "--json").splitlines()[0])["seq"]
        shown = self.quick(agent, "show", str(seq))
        self.assertEqual(agent.terminate(), 0)
        self.assertEqual(self.quick(agent, "export"), exported, "the stopped spool says something else")
        self.assertEqual(self.quick(agent, "show", str(seq)), shown)
        refused = agent.command("dead-letters", "discard", "--all", "--confirm", str(buried))
        self.assertNotEqual(refused.returncode, 0, "discarded from a stopped spool")
        agent.start()
        file = self.directory / "dead.ndjson"
        file.write_text(exported)
        self.quick(agent, "discard", "--all", "--confirm", str(buried))
        sent = agent.command("send", str(file))
        self.assertEqual(sent.returncode, 0, sent.stderr)


if __name__ == "__main__":
    harness.main()
