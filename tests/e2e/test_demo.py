#!/usr/bin/env python3
"""The story packaging/quickstart.sh ends in: it holds, it ends, it leaves nothing behind."""
import pathlib
import signal
import subprocess
import tempfile
import unittest

import harness
from harness import BINARY, wait_until


class Demo(unittest.TestCase):
    def test_the_story_holds_and_ends_with_0(self):
        with tempfile.TemporaryDirectory(prefix="signal-agent-demo-") as directory:
            done = subprocess.run([BINARY, "demo", "--no-wait"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True, timeout=240, cwd=directory,
                                  env={"PATH": "/usr/bin:/bin", "TMPDIR": directory})
            self.assertEqual(done.returncode, 0, done.stdout)
            for word in ("partition", "offset", "away", "dead letter", "balance"):
                self.assertIn(word, done.stdout.lower(), done.stdout)
            self.assertEqual(list(pathlib.Path(directory).iterdir()), [], "left behind")

    def test_what_it_invites_to_try_works_as_pasted(self):
        with tempfile.TemporaryDirectory(prefix="signal-agent-demo-") as directory:
            output = pathlib.Path(directory) / "output"
            with open(output, "wb") as sink:
                demo = subprocess.Popen([BINARY, "demo", "--events", "20"], stdin=subprocess.DEVNULL, stdout=sink,
                                        stderr=subprocess.STDOUT, env={"PATH": "/usr/bin:/bin", "TMPDIR": directory})
            try:
                wait_until(lambda: "admin.token\n" in output.read_text() and " status --config" in output.read_text(),
                           output.read_text, 240, 0.1)
                invitation = output.read_text().split("try it")[1].splitlines()
                commands = [line.strip() for line in invitation if "curl" in line or "status" in line]
                self.assertEqual(len(commands), 3, invitation)
                for command in commands:
                    done = subprocess.run(["sh", "-c", command.replace("curl", "curl --fail --silent")],
                                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
                    self.assertIn(done.returncode, (0, 2), command + done.stdout + done.stderr)  # 2: a dead letter lies there
                    self.assertRegex(done.stdout, '"accepted":1|signal_agent_events_stored_total|dead letter', command)
            finally:
                demo.send_signal(signal.SIGINT)
                self.assertEqual(demo.wait(60), 0, output.read_text())
            output.unlink()
            self.assertEqual(list(pathlib.Path(directory).iterdir()), [], "left behind")


if __name__ == "__main__":
    harness.main()
