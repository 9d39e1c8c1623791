#!/usr/bin/env python3
"""A disk whose fsyncs fail under the running agent: intake answers 503 with Retry-After, nothing that
was answered is lost, and the agent reopens its spool by itself, with the pid and the ports it had.
"""
import os

import harness
from harness import BrokerCase, wait_until

PRELOAD = os.environ["SIGNAL_AGENT_FAILING_DISK"]
EVENT = b'{"type":"track","event":"x","anonymousId":"a"}'


class FailingDisk(BrokerCase):
    PARTITIONS = 1

    def setUp(self):
        super().setUp()
        self.order = self.directory / "fail"
        self.failing = self.agent(settings={"delivery.provenance_headers": True})
        environment = {"LD_PRELOAD": PRELOAD, "FAILING_DISK_ORDER": str(self.order),
                       "FAILING_DISK_DIR": str(self.failing.state_dir / "spool")}
        os.environ.update(environment)
        self.failing.start()
        for name in environment:
            del os.environ[name]

    def refused(self):
        status, answer, headers = self.failing.post("/v1/events", EVENT)
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
        wait_until(self.refused, "503 SPOOL_FAILED", 30)
        self.assertEqual(self.failing.get("/readyz")[0], 503)
        self.assertEqual(self.failing.get("/healthz")[0], 200)
        wait_until(lambda: self.failing.log().count("re-executing to reopen the spool") >= 2,
                   lambda: f"a second try while the disk still fails\n{self.failing.log_tail()}", 30)
        self.order.unlink()
        wait_until(lambda: self.failing.get("/readyz")[0] == 200,
                   lambda: f"recovered\n{self.failing.log_tail()}", 90)
        sent = len(load.sent)
        wait_until(lambda: len(load.sent) > sent + 100, "traffic after the fault")
        load.stop()
        self.assertIn("SPOOL_FAILED", load.refusals)
        self.assertEqual((pid, intake), (self.failing.process.pid, self.failing.intake))
        self.assertIsNone(self.failing.process.poll())
        self.failing.wait_drained()
        # The events of refused() are not of the truth table; they carry no message id.
        records = [record for record in self.records() if b'"messageId"' in record.value]
        verdict = harness.check(records, [load], self.PARTITIONS, crashes=4)
        print(f"{verdict.events} events, {verdict.copies} copies, refusals {load.refusals}")


if __name__ == "__main__":
    harness.main()
