#!/usr/bin/env python3
"""The systemd unit: systemd itself reads it, its exposure is low, and it keeps what it promises.

usage: test_unit.py SYSTEMD_DIR
"""
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

SYSTEMD = pathlib.Path(sys.argv.pop(1)).resolve()
UNIT = (SYSTEMD / "signal-agent.service").read_text()
MOST_EXPOSED = 12  # tenths; the grade "OK" ends at 4.9


def settings(text):
    """name -> values, in the order of the file."""
    found = {}
    for line in text.splitlines():
        if "=" in line and not line.startswith("#"):
            name, value = line.split("=", 1)
            found.setdefault(name, []).append(value)
    return found


def systemd_analyze(text, *arguments):
    with tempfile.TemporaryDirectory() as folder:
        unit = pathlib.Path(folder) / "signal-agent.service"
        unit.write_text(text)
        return subprocess.run(["systemd-analyze", *arguments, str(unit)], capture_output=True,
                              text=True, timeout=60)


class Unit(unittest.TestCase):
    def test_systemd_understands_every_line(self):
        # The program is not installed where tests run; any other will do for this check.
        text = UNIT.replace("/usr/bin/signal-agent", "/bin/true")
        result = systemd_analyze(text, "verify", "--man=no")
        complaints = [line for line in result.stderr.splitlines() if "signal-agent.service" in line]
        self.assertEqual(complaints, [])
        self.assertEqual(result.returncode, 0, result.stderr)

    def test_a_misspelt_line_would_be_noticed(self):
        result = systemd_analyze(UNIT.replace("WatchdogSec", "WatchdogSecs"), "verify", "--man=no")
        self.assertIn("WatchdogSecs", result.stderr)

    def test_the_exposure_score_stays_low(self):
        result = systemd_analyze(UNIT, "security", "--offline=true", "--no-pager",
                                 f"--threshold={MOST_EXPOSED}")
        self.assertEqual(result.returncode, 0, result.stdout[-400:] + result.stderr)

    def test_a_less_hardened_unit_would_exceed_the_score(self):
        result = systemd_analyze(UNIT.replace("PrivateUsers=yes\n", "").replace("ProtectHome=yes\n", ""),
                                 "security", "--offline=true", "--no-pager",
                                 f"--threshold={MOST_EXPOSED}")
        self.assertNotEqual(result.returncode, 0)

    def test_it_is_supervised_and_never_given_up(self):
        unit = settings(UNIT)
        self.assertEqual(unit["Type"], ["notify"])
        self.assertEqual(unit["Restart"], ["always"])
        self.assertEqual(unit["StartLimitIntervalSec"], ["0"])
        self.assertEqual(unit["TimeoutStartSec"], ["infinity"])
        self.assertNotIn("RestartPreventExitStatus", unit)
        self.assertIn("WatchdogSec", unit)

    def test_a_stop_is_given_longer_than_the_drain_deadline(self):
        knobs = (SYSTEMD.parent / "config" / "settings.h").read_text()
        deadline_ms = int(re.search(r"drain_deadline\{([0-9']+)\}", knobs).group(1).replace("'", ""))
        stop = settings(UNIT)["TimeoutStopSec"][0]
        self.assertTrue(stop.endswith("s"))
        self.assertGreater(int(stop[:-1]) * 1000, 2 * deadline_ms)

    def test_the_user_of_the_unit_is_the_one_sysusers_makes(self):
        line = [line for line in (SYSTEMD / "signal-agent.sysusers").read_text().splitlines()
                if line.startswith("u ")][0]
        self.assertEqual(settings(UNIT)["User"], [line.split()[1]])
        result = subprocess.run(["systemd-sysusers", "--dry-run", str(SYSTEMD / "signal-agent.sysusers")],
                                capture_output=True, text=True, timeout=60)
        self.assertEqual(result.returncode, 0, result.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
