#!/usr/bin/env python3
"""Every metric that an alert or a dashboard panel asks for is in a real scrape of the program.

usage: test_metrics_used.py PROGRAM PACKAGING_DIR
"""
import contextlib
import http.client
import json
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest

PROGRAM, PACKAGING = (pathlib.Path(path).resolve() for path in sys.argv[1:3])
del sys.argv[1:3]
NAME = re.compile(r"\b(signal_agent_[a-z_]+|process_[a-z_]+)\b")
SECONDS = 60

CONFIG = """
state_dir = "{folder}/state"
intake.listen = ["127.0.0.1:0"]
admin.listen = ["127.0.0.1:0", "unix:{folder}/admin.sock"]
[[integration]]
catalog = "apache_kafka"
name = "Nowhere"
[integration.config]
bootstrap_servers = "127.0.0.1:1"
topic = "t"
security_protocol = "PLAINTEXT"
"""


def used():
    """metric name -> where it is asked for"""
    found = {}
    rules = (PACKAGING / "signal-agent.rules.yml").read_text()
    for block in re.split(r"- alert: ", rules)[1:]:
        expression = re.search(r"expr:(.*?)\n        (?:for|labels):", block, re.DOTALL)[1]
        for name in NAME.findall(expression):
            found.setdefault(name, set()).add("alert " + block.split("\n")[0])
    dashboard = json.loads((PACKAGING / "signal-agent.dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            for name in NAME.findall(target["expr"]):
                found.setdefault(name, set()).add("panel " + panel["title"])
    for variable in dashboard["templating"]["list"]:
        for name in NAME.findall(variable.get("definition", "")):
            found.setdefault(name, set()).add("variable " + variable["name"])
    return found


def scrape():
    """The families of a running agent, as one real scrape names them: name -> type."""
    with tempfile.TemporaryDirectory() as folder:
        config = pathlib.Path(folder) / "agent.toml"
        config.write_text(CONFIG.format(folder=folder))
        config.chmod(0o600)
        log = pathlib.Path(folder) / "log"
        with open(log, "wb") as sink:
            agent = subprocess.Popen([PROGRAM, "run", "--config", config], stdin=subprocess.DEVNULL, stdout=sink,
                                     stderr=sink)
        try:
            deadline = time.monotonic() + SECONDS
            while True:
                text = log.read_text()
                address = re.search(r"msg=listening.*listener=admin.*?127\.0\.0\.1:(\d+)", text)
                if address and "msg=ready" in text:
                    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", int(address[1]), timeout=30)) as link:
                        link.request("GET", "/metrics")
                        page = link.getresponse().read().decode()
                    if "signal_agent_events_stored_total{" in page:  # the spool is open
                        return dict(re.findall(r"^# TYPE (\S+) (\S+)$", page, re.MULTILINE))
                if agent.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"no scrape: {agent.poll()}\n{text}")
                time.sleep(0.05)
        finally:
            agent.send_signal(signal.SIGKILL)
            agent.wait()


class MetricsUsed(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.types = scrape()

    def family(self, name):
        if name in self.types:
            return name
        for suffix in ("_bucket", "_sum", "_count"):
            if name.endswith(suffix) and self.types.get(name.removesuffix(suffix)) == "histogram":
                return name.removesuffix(suffix)
        return None

    def test_every_metric_asked_for_exists(self):
        asked = used()
        self.assertGreater(len(asked), 25)
        missing = {name: sorted(where) for name, where in asked.items() if self.family(name) is None}
        self.assertEqual(missing, {})

    def test_rates_are_taken_of_counters_only(self):
        text = (PACKAGING / "signal-agent.rules.yml").read_text() + (PACKAGING / "signal-agent.dashboard.json").read_text()
        rated = set(re.findall(r"(?:rate|increase)\((\w+)", text))
        self.assertTrue(rated)
        for name in rated:
            self.assertIn(self.types[self.family(name)], ("counter", "histogram"), name)


if __name__ == "__main__":
    unittest.main(verbosity=2)
