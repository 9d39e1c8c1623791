#!/usr/bin/env python3
"""The story packaging/quickstart.sh ends in: it holds, it ends, it leaves nothing behind."""
import pathlib
import subprocess
import tempfile
import unittest

import harness
from harness import BINARY


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


if __name__ == "__main__":
    harness.main()
