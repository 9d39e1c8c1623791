#!/usr/bin/env python3
"""kill -9 at random points of intake and delivery while the broker flaps: nothing answered is lost,
order is kept, copies appear only after a crash and never more than one window each.

    SIGNAL_AGENT_KILL_ROUNDS=N   rounds (12; 60 with SIGNAL_AGENT_PROOF=full)
    SIGNAL_AGENT_SEED=N          repeats the choices of a run
"""
import os
import random
import threading
import time

import harness
from harness import FULL_PROOF, BrokerCase, check, wait_until

ROUNDS = int(os.environ.get("SIGNAL_AGENT_KILL_ROUNDS", 60 if FULL_PROOF else 12))
SEED = int(os.environ.get("SIGNAL_AGENT_SEED", random.SystemRandom().randrange(1 << 32)))
WINDOW = 500


class Flapping(threading.Thread):
    """Takes the broker away and brings it back at random until told to end; leaves it running."""

    def __init__(self, broker, source):
        super().__init__(daemon=True)
        self.broker, self.source = broker, source
        self.finish = threading.Event()
        self.flaps = {"kill": 0, "stop": 0, "pause": 0}
        self.error = None

    def run(self):
        try:
            while not self.finish.wait(self.source.uniform(0.5, 3)):
                how = self.source.choice(["kill", "stop", "pause", "pause"])
                self.flaps[how] += 1
                getattr(self.broker, how)()
                self.finish.wait(self.source.uniform(0, 2))
                self.broker.resume() if how == "pause" else self.broker.start()
        except Exception as error:  # noqa: BLE001  reported by stop()
            self.error = error

    def stop(self):
        self.finish.set()
        self.join()
        if self.error:
            raise self.error


class Kill(BrokerCase):
    def test_nothing_is_lost_or_reordered_over_kills_and_a_flapping_broker(self):
        print(f"seed {SEED}, {ROUNDS} rounds (SIGNAL_AGENT_SEED, SIGNAL_AGENT_KILL_ROUNDS)", flush=True)
        source = random.Random(SEED)
        agent = self.agent(settings={"delivery.provenance_headers": True, "delivery.window_events": WINDOW}).start()
        senders = [self.load(agent, source.getrandbits(32), pause=0.01) for _ in range(3)]
        flapping = Flapping(self.broker, random.Random(source.getrandbits(32)))
        flapping.start()
        early = 0
        try:
            for round_number in range(ROUNDS):
                if source.random() < 0.2:  # in the middle of a start
                    early += 1
                    agent.kill()
                    agent.start(wait=False)
                    time.sleep(source.uniform(0, 0.15))
                    agent.kill()
                    agent.start()
                acked = agent.balance()["acked"]
                if source.random() < 0.6:  # in the middle of a delivery, if the broker is there in time
                    patience = time.monotonic() + 5
                    while agent.balance()["acked"] == acked and time.monotonic() < patience:
                        time.sleep(0.005)
                time.sleep(source.choice([0, source.uniform(0, 0.1), source.uniform(0.1, 2)]))
                agent.kill()
                agent.start()
        finally:
            flapping.stop()
        for sender in senders:
            sender.stop()
        members = agent.wait_drained(seconds=180)
        crashes = ROUNDS + 2 * early
        verdict = check(self.records(), senders, self.PARTITIONS, crashes=crashes, window=WINDOW)
        print(f"{crashes} kills, broker {flapping.flaps}, {verdict.events} events, {verdict.copies} copies, "
              f"deepest {verdict.deepest}, {sum(sender.unknown for sender in senders)} requests of unknown fate", flush=True)
        self.assertEqual((members["stored"], members["acked"]), (verdict.events, verdict.events), members)
        self.assertGreater(verdict.events, 50 * ROUNDS, "too little was sent to prove anything")
        self.assertGreater(sum(sender.unknown for sender in senders), 0, "no kill hit a request")

    def test_a_kill_while_a_backlog_drains_repeats_at_most_a_window(self):
        agent = self.agent(settings={"delivery.provenance_headers": True, "delivery.window_events": WINDOW}).start()
        kills, senders = 0, []
        while kills < 2 and len(senders) < 5:  # one that drained before a kill could hit it proves nothing
            self.broker.stop()
            senders.append(self.load(agent, SEED + len(senders), limit=20_000))
            senders[-1].join(120)
            senders[-1].stop()
            self.broker.start()
            while agent.balance()["pending"] > 0 and kills < 8:
                before = self.broker.count(self.topic)
                wait_until(lambda: self.broker.count(self.topic) > before or agent.balance()["pending"] == 0, "delivery",
                           every=0.001)
                agent.kill()
                kills += 1
                agent.start()
        members = agent.wait_drained()
        verdict = check(self.records(), senders, self.PARTITIONS, crashes=kills, window=WINDOW)
        self.assertEqual((members["stored"], members["acked"]), (verdict.events, verdict.events))
        self.assertGreater(kills, 1, "drained before a kill could hit it")
        print(f"{kills} kills while draining {verdict.events} events: {verdict.copies} copies, deepest {verdict.deepest}")


if __name__ == "__main__":
    harness.main()
