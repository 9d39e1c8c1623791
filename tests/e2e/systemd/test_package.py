#!/usr/bin/env python3
"""The Debian package's life on a clean, booted Debian 12: install, deliver, crash, hang, reload, upgrade,
remove, install again, purge. The broker is real and outside; both share a network of their own.

The package is build/signal-agent_*.deb (environment SIGNAL_AGENT_DEB); packaging/build-deb.sh makes it.
Where no system can be booted (it takes root and cgroup2) the test says why and ends with 77.
"""
import concurrent.futures
import contextlib
import http.client
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import booted  # noqa: E402
from harness import Broker, integration, reader, toml, wait_until  # noqa: E402
import kafka_broker  # noqa: E402

ROOT = booted.ROOT
TOPIC = "packaged"
STATE = "/var/lib/signal-agent"


def package():
    if "SIGNAL_AGENT_DEB" in os.environ:
        return pathlib.Path(os.environ["SIGNAL_AGENT_DEB"]).resolve()
    found = sorted((ROOT / "build").glob("signal-agent_*.deb"))
    return found[-1] if found else None


def dependencies(deb):
    """The names of what the package needs, the first of each choice."""
    depends = subprocess.run(["dpkg-deb", "--field", str(deb), "Depends"], check=True, capture_output=True, text=True)
    return [re.match(r"[a-z0-9.+-]+", choice.strip())[0] for choice in depends.stdout.split(",")]


def newer(deb, folder):
    """The same package with a higher version, as an upgrade."""
    tree, out = folder / "newer", folder / "newer.deb"
    subprocess.run(["dpkg-deb", "--raw-extract", str(deb), str(tree)], check=True)
    control = tree / "DEBIAN" / "control"
    control.write_text(re.sub(r"^Version: (.*)$", r"Version: \1+upgrade", control.read_text(), flags=re.MULTILINE))
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", str(tree), str(out)], check=True, stdout=subprocess.DEVNULL)
    return out


class Package(unittest.TestCase):
    """One story; each test is its next chapter, so they run in the order of their names."""

    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory(prefix="signal-agent-deb.")))
        cls.deb = package()
        cls.broker = cls.enterClassContext(Broker(cls.folder / "broker"))
        cls.broker.create_topic(TOPIC, writer="agent")
        cls.system = cls.enterClassContext(booted.Booted(cls.folder, dependencies(cls.deb)))
        cls.sent = []

    # what an operator does

    def install(self, deb):
        target = self.system.path("/root/package.deb")
        target.write_bytes(deb.read_bytes())
        return self.system.run("dpkg", "--install", "/root/package.deb")

    def show(self, name):
        return self.system.run("systemctl", "show", "--value", "--property", name, "signal-agent").strip()

    def active(self):
        return self.show("ActiveState") == "active"

    def wait_active(self):
        wait_until(self.active, lambda: f"signal-agent active\n{self.system.journal()}", every=0.1)
        wait_until(self.answers, lambda: f"signal-agent answers\n{self.system.journal()}", every=0.1)

    @staticmethod
    def answers():
        try:
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", 8084, timeout=5)) as connection:
                connection.request("GET", "/readyz")
                return connection.getresponse().status == 200
        except OSError:
            return False

    def next_events(self, count):
        return [json.dumps({"type": "track", "event": "Packaged", "userId": "u", "messageId": f"m{number}"})
                for number in range(len(self.sent), len(self.sent) + count)]

    @staticmethod
    def post_batch(events):
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", 8080, timeout=30)) as connection:
            connection.request("POST", "/v1/batch", body="[" + ",".join(events) + "]")
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def post(self, count):
        """So many events; each must be answered as stored."""
        events = self.next_events(count)
        status, body = self.post_batch(events)
        self.assertEqual((status, body.get("accepted")), (200, count), body)
        self.sent.extend(events)

    def post_until(self, stop):
        """A client that sends again whatever was not answered; how often it had to."""
        again = 0
        while not stop.is_set():
            events = self.next_events(5)
            try:
                status, body = self.post_batch(events)
            except (OSError, http.client.HTTPException):
                status = None  # stopping, or not there
            if status == 200:
                self.assertEqual(body["accepted"] + body["duplicates"], 5, body)
                self.sent.extend(events)
            else:
                self.assertIn(status, (None, 503))
                again += 1
                time.sleep(0.02)
        return again

    def wait_delivered(self):
        """Exactly what was sent, once and in order (one key, so one partition)."""
        def values():
            return [record.value.decode() for record in reader.read(self.broker.plaintext, TOPIC)]
        wait_until(lambda: len(values()) >= len(self.sent), lambda: f"{len(self.sent)} delivered\n{self.system.journal()}",
                   every=0.5)
        self.assertEqual(values(), self.sent)

    # the story

    def test_01_installing_starts_and_enables_it_under_its_own_user(self):
        self.install(self.deb)
        self.wait_active()
        self.assertEqual(self.system.run("systemctl", "is-enabled", "signal-agent").strip(), "enabled")
        pid = self.show("MainPID")
        self.assertEqual(self.system.run("ps", "-o", "user=", "-p", pid).strip(), "signal-agent")
        self.assertEqual(self.system.run("stat", "-c", "%U %a", STATE).split(), ["signal-agent", "750"])

    def test_02_a_reload_brings_an_integration_in_and_events_reach_the_broker(self):
        self.post(3)  # before there is any destination: they are kept
        one = integration(self.broker, TOPIC, name="Packaged", ssl_ca_file="/etc/signal-agent/ca.pem")
        self.system.path("/etc/signal-agent/ca.pem").write_bytes(self.broker.ca_file.read_bytes())
        self.system.path("/etc/signal-agent/secret").write_text(one["config"]["sasl_password"] + "\n")
        self.system.run("chown", "root:signal-agent", "/etc/signal-agent/secret")
        self.system.run("chmod", "0640", "/etc/signal-agent/secret")
        one["config"]["sasl_password"] = {"file": "secret"}
        lines = ["[[integration]]", f"catalog = {toml(one['catalog'])}", f"name = {toml(one['name'])}",
                 "[integration.config]", *(f"{name} = {toml(value)}" for name, value in one["config"].items())]
        # relative paths are relative to the file that names them
        text = "\n".join(lines).replace('"secret"', '"../secret"')
        self.system.path("/etc/signal-agent/conf.d/10-packaged.toml").write_text(text + "\n")
        self.system.run("signal-agent", "config", "check")
        self.system.run("systemctl", "reload", "signal-agent")
        self.post(2)
        self.wait_delivered()

    def test_03_a_faulty_reload_fails_with_the_fault_and_changes_nothing(self):
        bad = self.system.path("/etc/signal-agent/conf.d/20-bad.toml")
        bad.write_text("[intake]\nmax_bodi_bytes = 1\n")
        self.system.run("systemctl", "reload", "signal-agent", code=1)
        self.assertIn("max_body_bytes", self.system.journal())
        bad.unlink()
        self.system.run("systemctl", "reload", "signal-agent")
        self.post(1)
        self.wait_delivered()

    def test_04_the_journal_knows_priority_and_fields(self):
        entries = [json.loads(line) for line in
                   self.system.run("journalctl", "-u", "signal-agent", "-o", "json", "--no-pager").splitlines()
                   if line.startswith("{")]
        ready = [entry for entry in entries if str(entry.get("MESSAGE", "")).startswith("listening")]
        self.assertTrue(ready, self.system.journal())
        self.assertEqual(ready[0]["PRIORITY"], "6")
        self.assertTrue(any(name.startswith("SIGNAL_AGENT_") for name in ready[0]), ready[0])

    def test_05_kill_9_is_repaired_within_seconds_and_loses_nothing(self):
        pid = self.show("MainPID")
        self.system.run("kill", "-9", pid)
        wait_until(lambda: self.show("MainPID") not in (pid, "0"), "a new process", every=0.1)
        self.wait_active()
        self.post(2)
        self.wait_delivered()

    def test_06_the_watchdog_is_fed_and_replaces_an_agent_that_hangs(self):
        self.system.run("mkdir", "-p", "/etc/systemd/system/signal-agent.service.d")
        self.system.path("/etc/systemd/system/signal-agent.service.d/quick.conf").write_text(
            "[Service]\nWatchdogSec=3s\nTimeoutAbortSec=2s\n")
        self.system.run("systemctl", "daemon-reload")
        self.system.run("systemctl", "restart", "signal-agent")
        self.wait_active()
        pid = self.show("MainPID")
        for _ in range(4):  # twice in its time, so these reach beyond it
            before = self.show("WatchdogTimestampMonotonic")
            wait_until(lambda: self.show("WatchdogTimestampMonotonic") != before, "fed", every=0.1)
        self.assertEqual(self.show("MainPID"), pid)
        self.system.run("kill", "-STOP", pid)
        wait_until(lambda: self.show("MainPID") not in (pid, "0"), lambda: f"replaced\n{self.system.journal()}", every=0.2)
        self.wait_active()
        self.system.path("/etc/systemd/system/signal-agent.service.d/quick.conf").unlink()
        self.system.run("systemctl", "daemon-reload")
        self.post(1)
        self.wait_delivered()

    def test_07_an_upgrade_restarts_it_and_keeps_settings_and_spool(self):
        conffile = self.system.path("/etc/signal-agent/agent.toml")
        conffile.write_text(conffile.read_text() + "# mine\n")
        pid = self.show("MainPID")
        self.install(newer(self.deb, self.folder))
        self.wait_active()
        self.assertNotEqual(self.show("MainPID"), pid)
        self.assertTrue(conffile.read_text().endswith("# mine\n"))
        self.post(2)
        self.wait_delivered()

    def test_08_an_upgrade_under_load_loses_repeats_and_reorders_nothing(self):
        pid = self.show("MainPID")
        stop, sender = threading.Event(), concurrent.futures.ThreadPoolExecutor(1)
        load = sender.submit(self.post_until, stop)
        try:
            wait_until(lambda: load.done() or len(self.sent) > 200, "load", every=0.05)
            self.install(newer(self.deb, pathlib.Path(tempfile.mkdtemp(dir=self.folder))))
            self.wait_active()
            here = len(self.sent)
            wait_until(lambda: load.done() or len(self.sent) > here + 200, "load after the upgrade", every=0.05)
        finally:
            stop.set()
            sender.shutdown()
        self.assertGreater(load.result(), 0, "the upgrade was not noticed: no request was ever refused")
        self.assertNotEqual(self.show("MainPID"), pid)
        self.wait_delivered()

    def test_09_a_disabled_service_stays_disabled_over_an_upgrade(self):
        self.system.run("systemctl", "disable", "signal-agent")
        self.install(newer(self.deb, pathlib.Path(tempfile.mkdtemp(dir=self.folder))))
        self.system.run("systemctl", "is-enabled", "signal-agent", code=1)
        self.system.run("systemctl", "enable", "signal-agent")

    def test_10_removing_keeps_settings_and_spool_and_installing_again_continues(self):
        self.wait_active()
        self.broker.kill()
        self.post(4)  # nobody takes them now
        said = self.system.run("dpkg", "--remove", "signal-agent")
        self.assertIn("the spool stays", said)
        self.assertFalse(self.answers())
        self.system.run("test", "-d", f"{STATE}/spool")
        self.system.run("test", "-e", "/etc/signal-agent/agent.toml")
        self.install(self.deb)
        self.wait_active()
        self.broker.start()
        self.wait_delivered()

    def test_11_a_purge_says_what_it_deletes_and_leaves_no_state(self):
        self.broker.kill()
        self.post(3)
        said = self.system.run("dpkg", "--purge", "signal-agent")
        self.assertIn(f"deleting {STATE}", said)
        self.assertRegex(said, r"signal-agent:   .*\d", "what a purge deletes is said in numbers")
        self.system.run("test", "-e", STATE, code=1)
        self.system.run("test", "-e", "/etc/signal-agent/agent.toml", code=1)
        self.system.run("test", "-e", "/etc/signal-agent/secret")  # the operator's own file stays
        self.system.run("systemctl", "cat", "signal-agent", code=1)

    def test_12_nothing_of_it_failed_meanwhile(self):
        failed = self.system.run("systemctl", "--failed", "--plain", "--no-legend")
        self.assertNotIn("signal-agent", failed)


if __name__ == "__main__":
    reason = booted.why_not() or (None if package() else "no package in build/; packaging/build-deb.sh makes it")
    if reason:
        print(f"not run: {reason}")
        sys.exit(77)
    if "SIGNAL_AGENT_OWN_NETWORK" not in os.environ:
        # What comes from outside is fetched now: the story has fixed ports, so it gets a network of its
        # own, which the booted system shares.
        kafka_broker.fetch()
        booted.tree_with(dependencies(package()))
        os.execvpe("unshare", ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$0" "$@"', sys.executable, *sys.argv],
                   {**os.environ, "SIGNAL_AGENT_OWN_NETWORK": "yes"})
    unittest.main(verbosity=2, failfast=True)
