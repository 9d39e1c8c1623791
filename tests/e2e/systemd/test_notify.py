#!/usr/bin/env python3
"""What the service manager hears: ready when events are taken, not before. The test is the manager."""
import os
import pathlib
import signal
import socket
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import harness  # noqa: E402
from harness import wait_until  # noqa: E402

EVENT = b'{"type":"page"}'


class Notify(unittest.TestCase):
    def setUp(self):
        folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory(prefix="signal-agent-notify.")))
        self.manager = self.enterContext(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        self.manager.bind(str(folder / "notify"))
        self.manager.setblocking(False)
        self.heard = []
        os.environ["NOTIFY_SOCKET"] = str(folder / "notify")
        self.addCleanup(os.environ.pop, "NOTIFY_SOCKET")
        self.agent = harness.Agent(folder / "agent")
        self.addCleanup(self.agent.close)

    def told(self, word):
        """Whether the manager has heard it by now."""
        try:
            while True:
                self.heard += self.manager.recv(4096).decode().splitlines()
        except BlockingIOError:
            return word in self.heard

    def wait_told(self, word):
        wait_until(lambda: self.told(word), lambda: f"{word}; heard {self.heard}\n{self.agent.log_tail()}", every=0.001)

    def post(self):
        return self.agent.post("/v1/batch", EVENT)[0]

    def test_ready_says_that_events_are_taken(self):
        self.agent.start(wait=False)
        self.wait_told("READY=1")
        self.assertTrue(self.agent.listens())
        self.assertEqual(self.post(), 200)

    def test_a_spool_that_cannot_be_opened_withholds_it_over_reloads_until_it_can(self):
        self.agent.start()
        self.assertEqual(self.agent.terminate(), 0)
        self.assertTrue(self.told("STOPPING=1"))
        self.heard.clear()
        current = self.agent.state_dir / "spool" / "db" / "CURRENT"
        right = current.read_text()
        current.write_text("nonsense\n")

        self.agent.start(wait=False)
        wait_until(lambda: "spool failed" in self.agent.log() and self.agent.listens(), self.agent.log_tail)
        self.agent.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "configuration reloaded" in self.agent.log(), self.agent.log_tail)
        self.assertEqual(self.post(), 503)
        self.assertFalse(self.told("READY=1"), self.heard)

        current.write_text(right)
        self.wait_told("READY=1")
        self.assertEqual(self.post(), 200)


if __name__ == "__main__":
    harness.main()
