#!/usr/bin/env python3
"""The broker is away: intake goes on, the agent is quiet, and afterwards all is delivered once, in order.

SIGNAL_AGENT_PROOF=full stretches the outages from seconds to minutes.
"""
import concurrent.futures
import time

import harness
from harness import FULL_PROOF, BrokerCase, check, wait_until

OUTAGE_SECONDS = 300 if FULL_PROOF else 12
IDLE_SECONDS = 60 if FULL_PROOF else 10
WRITE_BUFFERS = 32 << 20  # of the spool; a slow machine takes its time to fill them
SETTINGS = {"delivery.provenance_headers": True}


class Outage(BrokerCase):
    def assert_idles(self, agent):
        """Nobody sends, the broker is away: below 3 % of a core."""
        print(f"idle in an outage: {100 * agent.wait_idle(IDLE_SECONDS):.2f} % of a core")

    def outage(self, away, back):
        agent = self.agent(settings=SETTINGS).start()
        senders = [self.load(agent, seed) for seed in (1, 2, 3)]
        wait_until(lambda: self.broker.count(self.topic) > 200, "delivery before the outage")

        away()
        began = time.monotonic()
        at_start = sum(len(sender.sent) for sender in senders)
        time.sleep(OUTAGE_SECONDS / 2)
        half = agent.anonymous_bytes()
        to_fill = max(0, WRITE_BUFFERS - sum(len(event.raw) for sender in senders for event in list(sender.sent)))
        time.sleep(OUTAGE_SECONDS / 2)
        for sender in senders:
            sender.stop()
        accepted = sum(len(sender.sent) for sender in senders) - at_start
        rate = accepted / (time.monotonic() - began)
        full = agent.anonymous_bytes()
        self.assertGreater(agent.balance()["pending"], accepted // 2)
        self.assertEqual([sender.refusals for sender in senders], [{}, {}, {}])
        self.assertEqual([sender.unknown for sender in senders], [0, 0, 0])
        self.assertLess(full, 60 << 20, "anonymous memory with a backlog")
        self.assertLess(full - half, (12 << 20) + to_fill, "memory grows with the backlog")
        self.assert_idles(agent)
        lines = len(agent.log().splitlines())
        self.assertLess(lines, 100 + OUTAGE_SECONDS, "the outage fills the log")

        back()
        members = agent.wait_drained()
        verdict = check(self.stream(), senders, self.PARTITIONS)
        self.assertEqual(verdict.copies, 0)
        self.assertEqual((members["acked"], members["stored"]), (verdict.events, verdict.events))
        print(f"{accepted} events accepted in an outage of {OUTAGE_SECONDS} s ({rate:.0f}/s), "
              f"{half >> 20} -> {full >> 20} MB anonymous, {lines} log lines")

    def test_a_dead_broker_costs_nothing_but_time(self):
        self.outage(self.broker.kill, self.broker.start)

    def test_a_black_hole_costs_nothing_but_time(self):
        self.addCleanup(self.broker.resume)  # else a failure here leaves it stopped for the others
        self.outage(self.broker.pause, self.broker.resume)

    def test_an_agent_that_starts_into_an_outage_takes_events_and_delivers_them_later(self):
        self.broker.stop()
        agent = self.agent(settings=SETTINGS).start()
        sender = self.load(agent, 4, limit=2000)
        sender.join(120)
        sender.stop()
        self.assertEqual(agent.get("/readyz")[0], 200)
        self.assertEqual(agent.balance()["pending"], len(sender.sent))
        self.broker.start()
        agent.wait_drained()
        self.assertEqual(check(self.records(), [sender], self.PARTITIONS).copies, 0)

    def test_the_memory_of_a_burst_is_given_back(self):
        self.broker.stop()
        agent = self.agent().start()
        body = b"[" + b",".join([b'{"type":"track","event":"e","userId":"u","pad":"%s"}' % (b"p" * 1000)] * 500) + b"]"

        def post():
            for _ in range(12):
                self.assertEqual(agent.post("/v1/batch", body)[0], 200)
        with concurrent.futures.ThreadPoolExecutor(24) as pool:
            done = [pool.submit(post) for _ in range(24)]
        for one in done:
            one.result()
        peak = agent.anonymous_bytes()
        wait_until(lambda: agent.anonymous_bytes() < 45 << 20, "memory is given back")
        self.assertEqual(agent.balance()["pending"], 24 * 12 * 500)
        print(f"anonymous memory after a burst: {peak >> 20} MB, then {agent.anonymous_bytes() >> 20} MB")

    def test_a_backlog_outlives_restarts_of_the_agent_and_keeps_its_order(self):
        self.broker.stop()
        agent = self.agent(settings=SETTINGS)
        senders = []
        for seed in range(3):
            agent.start()
            senders.append(self.load(agent, seed, limit=1000))
            senders[-1].join(120)
            senders[-1].stop()
            agent.balance()
            agent.kill()
        agent.start()
        self.broker.start()
        members = agent.wait_drained()
        verdict = check(self.records(), senders, self.PARTITIONS)
        self.assertEqual((verdict.copies, members["acked"]), (0, verdict.events))


if __name__ == "__main__":
    harness.main()
