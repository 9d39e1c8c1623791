#!/usr/bin/env python3
"""A disk whose fsyncs fail under the running agent: intake answers 503 with Retry-After, nothing that
was answered is lost, what waits is delivered as far as one window, and the agent reopens its spool by
itself as soon as the disk can be written, with the pid and the ports it had.
One that hangs is told of and waited for: the watchdog is fed. A thread that hangs is not.
"""
import http.client
import json
import os
import re
import socket
import threading
import unittest

import harness
from harness import BrokerCase, wait_until

PRELOAD = os.environ["SIGNAL_AGENT_FAILING_DISK"]
EVENT = b'{"type":"track","event":"x","anonymousId":"a"}'


class FailingDisk(BrokerCase):
    PARTITIONS = 1

    WINDOW = 50

    def setUp(self):
        super().setUp()
        self.order = self.directory / "fail"
        self.failing = self.agent(settings={"delivery.provenance_headers": True,
                                            "delivery.window_events": self.WINDOW})
        self.hang = self.directory / "hang"
        self.stop_thread = self.directory / "stop-thread"
        self.manager = self.enterContext(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        self.manager.bind(str(self.directory / "notify"))
        self.fed = 0
        threading.Thread(target=self._listen, daemon=True).start()
        environment = {"LD_PRELOAD": PRELOAD, "FAILING_DISK_ORDER": str(self.order),
                       "FAILING_DISK_DIR": str(self.failing.state_dir / "spool"),
                       "FAILING_DISK_HANG": str(self.hang), "HANGING_THREAD": "http-intake",
                       "HANGING_THREAD_ORDER": str(self.stop_thread),
                       "NOTIFY_SOCKET": str(self.directory / "notify"), "WATCHDOG_USEC": "1000000"}
        os.environ.update(environment)
        self.failing.start()
        for name in environment:
            del os.environ[name]

    def _listen(self):
        """Counts how often the watchdog is fed."""
        while True:
            try:
                self.fed += self.manager.recv(4096).decode().splitlines().count("WATCHDOG=1")
            except OSError:
                return  # the test is over

    def wait_fed(self, times=5):
        enough = self.fed + times
        wait_until(lambda: self.fed >= enough, lambda: f"fed\n{self.failing.log_tail()}", every=0.1)

    def refused(self):
        try:
            status, answer, headers = self.failing.post("/v1/events", EVENT)
        except (OSError, http.client.HTTPException):
            return False  # the connection broke when it reopened its spool
        if status != 503:
            return False
        self.assertEqual(answer["error"]["code"], "SPOOL_FAILED")
        self.assertIn("Retry-After", headers)
        return True

    def test_a_failed_fsync_is_answered_503_and_the_spool_is_reopened(self):
        load = self.load(self.failing, seed=7, batch=10, pause=0.01)
        wait_until(lambda: len(load.sent) > 100, "traffic before the fault")
        pid, intake = self.failing.process.pid, self.failing.intake
        self.order.touch()
        wait_until(self.refused, "503 SPOOL_FAILED")
        self.failing.wait_answers("/readyz", 503)
        self.failing.wait_answers("/healthz", 200)
        wait_until(lambda: self.failing.log().count("the disk takes no writes") >= 2,
                   lambda: f"a second look while the disk still fails\n{self.failing.log_tail()}")
        self.assertNotIn("re-executing to reopen the spool", self.failing.log())
        self.order.unlink()
        self.failing.wait_answers("/readyz", 200)
        sent = len(load.sent)
        wait_until(lambda: len(load.sent) > sent + 100, "traffic after the fault")
        load.stop()
        self.assertIn("SPOOL_FAILED", load.refusals)
        self.assertEqual((pid, intake), (self.failing.process.pid, self.failing.intake))
        self.assertIsNone(self.failing.process.poll())
        self.failing.wait_drained()
        verdict = harness.check(self.known_records(), [load], self.PARTITIONS, crashes=1, window=self.WINDOW)
        print(f"{verdict.events} events, {verdict.copies} copies, refusals {load.refusals}")

    def test_a_disk_that_hangs_is_told_of_and_waited_for(self):
        answers = []
        self.hang.touch()
        client = threading.Thread(target=lambda: answers.append(self.failing.post("/v1/events", EVENT, timeout=300)))
        client.start()
        longest = 75 if harness.FULL_PROOF else 10  # s; a thread may stand still for 60

        def told():
            return [int(seconds) for seconds in
                    re.findall(r'level=error .*msg="the disk does not answer.* seconds=(\d+)', self.failing.log())]
        wait_until(lambda: max(told(), default=0) >= longest, self.failing.log_tail, 120, 0.1)
        self.wait_fed()
        status, body = self.failing.get("/v1/admin/status", self.failing.token())
        self.assertEqual(status, 200)
        self.assertIn("The disk has not answered for ", json.loads(body)["sentence"])
        self.assertEqual(answers, [])
        self.hang.unlink()
        client.join(120)
        self.assertEqual(answers[0][0], 200)
        wait_until(lambda: "the disk answers again" in self.failing.log(), self.failing.log_tail)
        self.wait_fed()
        _, body = self.failing.get("/v1/admin/status", self.failing.token())
        self.assertNotIn("disk", json.loads(body)["sentence"])
        self.assertNotIn("stands still", self.failing.log())
        self.failing.wait_drained()
        self.assertEqual([record.value for record in self.records()], [EVENT])

    @unittest.skipUnless(harness.FULL_PROOF, "a minute of standing still is of the full proof")
    def test_a_thread_that_hangs_starves_the_watchdog(self):
        self.wait_fed()
        self.stop_thread.touch()
        told = 'msg="a thread stands still; the service manager will restart the agent" thread=http-intake threads=1'
        wait_until(lambda: told in self.failing.log(), self.failing.log_tail, 90, 0.1)
        fed = self.fed
        wait_until(lambda: self.failing.log().count(told) >= 2, self.failing.log_tail, 30, 0.1)
        self.assertEqual(self.fed, fed)
        self.stop_thread.unlink()
        self.wait_fed()

    def known_records(self):
        """Without the events of refused(), which are not of the truth table and carry no message id."""
        return [record for record in self.records() if b'"messageId"' in record.value]

    def test_what_waits_is_delivered_as_far_as_one_window_and_the_rest_when_the_disk_is_well(self):
        first = self.load(self.failing, seed=8, limit=40)
        first.join(60)
        first.stop()
        self.failing.wait_drained()
        before = self.broker.count(self.topic)
        self.broker.stop()
        waiting = self.load(self.failing, seed=9, limit=400)
        waiting.join(60)
        waiting.stop()
        self.order.touch()
        wait_until(self.refused, "503 SPOOL_FAILED")
        self.assertIn("SPOOL_FAILED", self.failing.get("/readyz")[1])
        self.broker.start()
        wait_until(lambda: self.broker.count(self.topic) > before,
                   lambda: f"delivery on a failed disk\n{self.failing.log_tail()}")
        looks = self.failing.log().count("the disk takes no writes")
        wait_until(lambda: self.failing.log().count("the disk takes no writes") >= looks + 2,
                   lambda: f"two more looks at the disk\n{self.failing.log_tail()}")
        let_out = self.broker.count(self.topic) - before
        self.assertTrue(1 <= let_out <= self.WINDOW, f"{let_out} were let out, the window is {self.WINDOW}")
        self.assertIn("SPOOL_FAILED", self.failing.get("/readyz")[1])
        self.order.unlink()
        self.failing.wait_answers("/readyz", 200)
        self.failing.wait_drained()
        verdict = harness.check(self.known_records(), [first, waiting], self.PARTITIONS, crashes=1, window=self.WINDOW)
        self.assertEqual(verdict.events, len(first.sent) + len(waiting.sent))
        print(f"{let_out} let out on the failed disk, {verdict.copies} copies")


if __name__ == "__main__":
    harness.main()
