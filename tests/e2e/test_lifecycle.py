#!/usr/bin/env python3
"""Start, stop, reload and the command line, as an operator meets them, with a broker behind."""
import gzip
import json
import os
import re
import signal
import subprocess
import time

import harness
from harness import BINARY, BrokerCase, check, integration, wait_until

SETTINGS = {"delivery.provenance_headers": True}


class Lifecycle(BrokerCase):
    def test_sigterm_settles_what_is_in_flight_and_repeats_nothing(self):
        agent = self.agent(settings=SETTINGS).start()
        senders = [self.load(agent, seed) for seed in (1, 2)]
        for _ in range(3):
            start = self.broker.count(self.topic)
            wait_until(lambda: self.broker.count(self.topic) > start + 300, "delivery")
            began = time.monotonic()
            self.assertEqual(agent.terminate(), 0)
            self.assertLess(time.monotonic() - began, 30)
            agent.start()
        for sender in senders:
            sender.stop()
            self.assertTrue(set(sender.refusals) <= {"SHUTTING_DOWN", "SPOOL_FAILED"}, sender.refusals)
        members = agent.wait_drained()
        verdict = check(self.records(), senders, self.PARTITIONS)
        self.assertEqual((verdict.copies, members["stored"]), (0, verdict.events))

    def test_sigterm_in_an_outage_ends_within_the_deadline_and_loses_nothing(self):
        agent = self.agent(settings={**SETTINGS, "delivery.drain_deadline": "2s", "delivery.window_events": 300}).start()
        sender = self.load(agent, 3)
        wait_until(lambda: self.broker.count(self.topic) > 100, "delivery")
        self.broker.kill()
        time.sleep(1)
        began = time.monotonic()
        self.assertEqual(agent.terminate(), 0)
        self.assertLess(time.monotonic() - began, 9, "the default deadline is 10 s")
        agent.start()
        sender.stop()
        self.broker.start()
        members = agent.wait_drained()
        verdict = check(self.records(), [sender], self.PARTITIONS, crashes=1, window=300)
        self.assertEqual(members["stored"], verdict.events)

    def test_sigterm_tells_new_requests_that_it_is_going(self):
        agent = self.agent().start()
        self.broker.pause()
        self.addCleanup(self.broker.resume)
        self.assertEqual(agent.post("/v1/batch", b'{"type":"page"}')[0], 200)
        time.sleep(0.3)  # it is in the library now, so the drain lasts
        connection = harness.http.client.HTTPConnection(*agent.intake, timeout=30)
        connection.request("POST", "/v1/batch", body=b'{"type":"page"}')
        connection.getresponse().read()
        agent.process.terminate()
        seen = set()
        try:
            while agent.process.poll() is None:
                connection.request("POST", "/v1/batch", body=b'{"type":"page"}')
                answer = connection.getresponse()
                body = json.loads(answer.read())
                if answer.status != 200:
                    seen.add((answer.status, body["error"]["code"], answer.getheader("Retry-After") is not None))
        except (OSError, harness.http.client.HTTPException):
            pass
        self.assertTrue(seen <= {(503, "SHUTTING_DOWN", True)}, seen)
        self.broker.resume()
        self.assertEqual(agent.process.wait(120), 0)

    def test_a_reload_brings_new_keys_and_keeps_the_old_ones_when_the_file_is_wrong(self):
        agent = self.agent(keys=[{"name": "one", "key": "k-one"}]).start()

        def status(key):
            return agent.post("/v1/batch", b'{"type":"page"}', {"Authorization": f"Bearer {key}"})[0]
        self.assertEqual((status("k-one"), status("k-two")), (200, 401))
        agent.keys.append({"name": "two", "key": "k-two"})
        agent.write_config()
        agent.process.send_signal(signal.SIGHUP)
        wait_until(lambda: status("k-two") == 200, "the new key works")
        self.assertEqual(status("k-one"), 200)
        good = agent.config.read_text()
        agent.config.write_text(good.replace("intake.listen", "intake.lisen") + "\nx = [")
        agent.process.send_signal(signal.SIGHUP)
        wait_until(lambda: agent.metrics()[("signal_agent_config_reload_success",)] == 0, "the refused reload shows")
        self.assertEqual((status("k-one"), status("k-two")), (200, 200))
        agent.config.write_text(good)
        agent.process.send_signal(signal.SIGHUP)
        wait_until(lambda: agent.metrics()[("signal_agent_config_reload_success",)] == 1, "the repaired one too")
        agent.wait_drained()

    def test_limits_of_size_wait_for_a_restart_and_the_log_says_so(self):
        agent = self.agent(settings={"intake.max_body_bytes": "64KiB", "intake.max_event_bytes": "32KiB"}).start()

        def status(size):
            return agent.post("/v1/p", b'{"userId":"u","pad":"%s"}' % (b"p" * size))[0]

        def unpacked(events):
            """Small on the line and of small events: only what it unpacks to can be too large."""
            body = gzip.compress(b"\n".join([b'{"type":"page","userId":"u","pad":"%s"}' % (b"p" * 20_000)] * events))
            return agent.post("/v1/batch", body, {"Content-Encoding": "gzip"})[0]
        self.assertEqual((status(20_000), status(40_000), status(100_000)), (200, 413, 413))
        self.assertEqual((unpacked(2), unpacked(5)), (200, 413))
        agent.settings.update({"intake.max_body_bytes": "8MiB", "intake.max_event_bytes": "4MiB"})
        agent.write_config()
        agent.process.send_signal(signal.SIGHUP)
        wait_until(lambda: 'msg="configuration reloaded"' in agent.log(), "reloaded")
        for key in ("intake.max_body_bytes", "intake.max_event_bytes"):
            self.assertRegex(agent.log(), rf'setting needs a restart to take effect.* key={key}')
        self.assertEqual((status(20_000), status(40_000), status(100_000)), (200, 413, 413))
        self.assertEqual((unpacked(2), unpacked(5)), (200, 413))
        self.assertEqual(agent.terminate(), 0)
        agent.start()
        # Beyond what the library's own check would have let through before.
        self.assertEqual((status(40_000), status(3_000_000), unpacked(5)), (200, 200, 200))
        self.assertEqual(agent.terminate(), 0)
        agent.settings.update({"intake.max_body_bytes": "64KiB", "intake.max_event_bytes": "32KiB"})
        agent.write_config()
        agent.start()
        self.assertEqual(status(40_000), 413)

    def test_a_rotated_secret_reaches_the_running_producer_with_sighup(self):
        secret = self.directory / "secret"
        secret.write_text("agent-secret")
        secret.chmod(0o600)
        one = integration(self.broker, self.topic)
        one["config"]["sasl_password"] = {"file": str(secret)}
        agent = self.agent([one], SETTINGS).start()
        first = self.load(agent, 1, limit=200)
        first.join(120)
        first.stop()
        agent.wait_drained()
        self.addCleanup(self.broker.set_user, "agent", "agent-secret")
        self.broker.set_user("agent", "rotated")
        secret.write_text("rotated")
        agent.process.send_signal(signal.SIGHUP)
        wait_until(lambda: 'msg="configuration reloaded"' in agent.log(), "reloaded")
        self.broker.kill()  # every connection authenticates anew
        self.broker.start()
        second = self.load(agent, 2, limit=200)
        second.join(120)
        second.stop()
        agent.wait_drained()
        self.assertEqual(check(self.records(), [first, second], self.PARTITIONS).copies, 0)

    def test_an_integration_added_to_the_file_starts_with_a_reload(self):
        other = self.topic + "-added"
        self.write_topic(other)
        agent = self.agent(settings=SETTINGS).start()
        agent.integrations.append(integration(self.broker, other, name="added"))
        agent.write_config()
        agent.process.send_signal(signal.SIGHUP)
        wait_until(lambda: ("signal_agent_events_stored_total", ("integration", "added")) in agent.metrics(), "attached")
        sender = self.load(agent, 2, limit=200)
        sender.join(120)
        sender.stop()
        agent.wait_drained("added")
        check(self.records(other), [sender], self.PARTITIONS)

    def test_a_second_agent_on_the_same_spool_is_told_who_has_it(self):
        agent = self.agent().start()
        second = self.agent(name="second", state_dir=agent.state_dir)
        second.start(wait=False)
        wait_until(lambda: second.process.poll() is not None or "lock" in second.log(), "it says so")
        self.assertRegex(second.log(), r"(?i)lock|in use|another")
        self.assertEqual(agent.post("/v1/batch", b'{"type":"page"}')[0], 200)
        agent.wait_drained()

    def test_send_posts_files_and_exits_0_only_when_all_is_stored(self):
        agent = self.agent().start()
        lines = [b'{"type":"page","messageId":"s-%d","userId":"u"}' % number for number in range(1234)]
        file = self.directory / "events.ndjson"
        file.write_bytes(b"\n".join(lines) + b"\n")
        address = f"{agent.intake[0]}:{agent.intake[1]}"
        done = agent.command("send", "--to", address, str(file))
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        agent.wait_drained()
        self.assertEqual([record.value for record in self.records()], lines)
        file.write_bytes(lines[0].replace(b"s-0", b"t-0") + b'\n{"type":"alias"}\n')
        done = agent.command("send", "--to", address, str(file))
        self.assertNotEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_status_answers_in_its_first_line_and_names_what_is_wrong(self):
        agent = self.agent().start()
        self.assertEqual(agent.post("/v1/batch", b'{"type":"page"}')[0], 200)
        agent.wait_drained()
        well = agent.command("status")
        self.assertEqual(well.returncode, 0, well.stdout + well.stderr)
        as_json = json.loads(agent.command("status", "--json").stdout)
        self.assertIsInstance(as_json, dict)
        self.broker.stop()
        self.addCleanup(lambda: self.broker.pid or self.broker.start())
        self.assertEqual(agent.post("/v1/batch", b'{"type":"page"}')[0], 200)

        def says_so():
            done = agent.command("status")
            return done.stdout.splitlines()[0] != well.stdout.splitlines()[0] and \
                re.search("CONNECTION_FAILED|BROKER_UNAVAILABLE|NOT_DELIVERING", done.stdout)
        wait_until(says_so, lambda: f"status tells of the outage: {agent.command('status').stdout}", every=0.5)
        self.broker.start()
        agent.wait_drained()
        wait_until(lambda: agent.command("status").stdout.splitlines()[0].split(":")[0]
                   == well.stdout.splitlines()[0].split(":")[0],
                   lambda: f"well again: {agent.command('status').stdout}", every=0.5)

    def test_a_wrong_configuration_is_told_whole_and_exits_78(self):
        agent = self.agent()
        agent.config.write_text('intake.lisen = ["127.0.0.1:0"]\nspool.max_bytes = "much"\n[[integration]]\ncatalog = "kafka"\n')
        for arguments in (("run",), ("config", "check")):
            done = agent.command(*arguments)
            self.assertEqual(done.returncode, 78, done.stdout + done.stderr)
            text = done.stdout + done.stderr
            for part in ("agent.toml:1:", "listen", "agent.toml:2:", "much", "agent.toml:3:"):
                self.assertIn(part, text)

    def test_it_runs_without_root(self):
        agent = self.agent()
        for path in (self.directory, agent.directory):
            os.chmod(path, 0o777)
        os.chmod(self._directory, 0o755)
        os.chmod(pathlib_parent(self.broker.ca_file), 0o755)
        os.chmod(agent.config, 0o644)
        binary = agent.directory / "signal-agent"
        binary.write_bytes(BINARY.read_bytes())
        binary.chmod(0o755)
        with open(agent.log_file, "ab") as log:
            agent.process = subprocess.Popen(
                ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", binary, "run",
                 "--config", agent.config], stdin=subprocess.DEVNULL, stdout=log, stderr=log) if os.getuid() == 0 else \
                subprocess.Popen([binary, "run", "--config", agent.config], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        agent.wait_ready()
        self.assertEqual(agent.post("/v1/batch", b'{"type":"page"}')[0], 200)
        agent.wait_drained()
        self.assertEqual(agent.state_dir.stat().st_mode & 0o777, 0o750)
        for file, status in agent.state_files():
            self.assertEqual(status.st_mode & 0o137, 0, f"{file} is open to others")


def pathlib_parent(path):
    return harness.pathlib.Path(path).parent


if __name__ == "__main__":
    harness.main()
