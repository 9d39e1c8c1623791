#!/usr/bin/env python3
"""The vendor's documented API call, sent by curl as the document writes it, installs an integration on
the running agent; it is sealed on disk, survives a kill, and can be paused, disabled and removed.
"""
import contextlib
import http.client
import json
import os
import re
import subprocess
import threading

import harness
from harness import BrokerCase, check, wait_until


class Install(BrokerCase):
    def setUp(self):
        super().setUp()
        self.installed_into = self.agent(integrations=[], settings={"delivery.provenance_headers": True}).start()

    def curl(self, password=None, name="Confluent Cloud"):
        """The document's call; only address, credentials and (for the test's own CA) trust differ."""
        config = {"bootstrap_servers": self.broker.sasl_ssl, "topic": self.topic, "security_protocol": "SASL_SSL",
                  "sasl_mechanism": "PLAIN", "sasl_username": "agent",
                  "sasl_password": password or self.broker.password("agent"), "ssl_ca_file": str(self.broker.ca_file)}
        address = "%s:%d" % self.installed_into.admin
        done = subprocess.run(
            ["curl", "-s", "-w", "\n%{http_code}", "-X", "POST",
             f"http://{address}/v1/admin/integration-catalog/confluent_cloud/install",
             "-H", f"Authorization: Bearer {self.installed_into.token()}", "-H", "Content-Type: application/json",
             "-d", json.dumps({"name": name, "variant": "default", "config": config, "delivery_mode": "server_side"})],
            stdout=subprocess.PIPE, check=True, text=True)
        body, status = done.stdout.rsplit("\n", 1)
        return int(status), json.loads(body)

    def api(self, *call):
        return self.installed_into.api(*call)

    def books(self, identity):
        return self.api("GET", f"/v1/admin/integrations/{identity}")[1]["books"]

    def wait_books(self, identity, **wanted):
        wait_until(lambda: all(self.books(identity)[name] == number for name, number in wanted.items()),
                   lambda: f"{wanted}: {self.books(identity)}\n{self.installed_into.log_tail()}", every=0.1)

    def sent(self, seed, limit=100):
        load = self.load(self.installed_into, seed, limit=limit)
        load.join(120)
        load.stop()
        return load

    def test_the_documents_curl_installs_and_events_flow(self):
        early = self.sent(seed=1)  # kept while nothing is installed, delivered by the first that is
        status, made = self.curl()
        self.assertEqual((status, made["name"], made["config"]["sasl_password"]), (201, "Confluent Cloud", "***"))
        self.assertEqual(self.curl()[0], 409)
        late = self.sent(seed=2)
        self.wait_books(made["id"], pending=0, acked=len(early.sent) + len(late.sent))
        self.assertEqual(check(self.records(), [early, late], self.PARTITIONS).copies, 0)
        # The secret lies nowhere in clear.
        secret = self.broker.password("agent").encode()
        looked = set()
        for file, _ in self.installed_into.state_files():
            with contextlib.suppress(FileNotFoundError):  # gone since it was seen
                self.assertNotIn(secret, file.read_bytes(), file)
                looked.add(file.name)
        self.assertLessEqual({"integrations.json", "seal.key"}, looked)
        self.assertNotIn(secret.decode(), self.installed_into.log())

    def test_what_is_installed_survives_a_kill_and_obeys_orders(self):
        _, made = self.curl()
        identity = made["id"]
        first = self.sent(seed=3)
        self.wait_books(identity, pending=0)
        self.assertEqual(self.api("POST", f"/v1/admin/integrations/{identity}/pause")[0], 200)
        second = self.sent(seed=4)
        self.installed_into.kill()
        self.installed_into.start()
        self.assertEqual(self.books(identity)["pending"], len(second.sent))
        self.assertTrue(self.api("GET", f"/v1/admin/integrations/{identity}")[1]["paused"])
        self.assertEqual(self.api("DELETE", f"/v1/admin/integrations/{identity}")[0], 409)
        self.assertEqual(self.api("POST", f"/v1/admin/integrations/{identity}/resume")[0], 200)
        self.wait_books(identity, pending=0, acked=len(first.sent) + len(second.sent))
        check(self.records(), [first, second], self.PARTITIONS, crashes=1)
        self.assertEqual(self.api("POST", f"/v1/admin/integrations/{identity}/disable")[0], 200)
        self.sent(seed=5)
        self.assertEqual(self.api("POST", f"/v1/admin/integrations/{identity}/enable")[0], 200)
        self.wait_books(identity, pending=0)
        self.assertEqual(self.api("DELETE", f"/v1/admin/integrations/{identity}")[0], 204)
        self.assertEqual(self.api("GET", f"/v1/admin/integrations/{identity}")[0], 404)
        actions = [entry["action"] for entry in self.api("GET", "/v1/admin/audit-logs")[1]["data"]]
        for action in ("integration.created", "integration.paused", "integration.deleted"):
            self.assertIn(action, actions)

    def test_consent_tightened_by_a_patch_holds_for_dead_letters_that_are_replayed(self):
        agent = self.installed_into
        self.broker.configure_topic(self.topic, max_message_bytes=100_000)
        _, made = self.curl()
        identity = made["id"]

        def event(number, granted, size):
            return b'{"type":"page","messageId":"%d","userId":"u","context":{"consent":{"ads":%s}},"pad":"%s"}' % (
                number, b"true" if granted else b"false", os.urandom(size).hex().encode())

        def post(events):
            return [agent.post("/v1/p", one)[1]["first_seq"] for one in events]
        early = [event(number, number % 2, 10) for number in range(4)]  # nothing was asked for then
        large = [event(number, number % 3 == 0, 150_000) for number in range(4, 13)]
        post(early)
        seqs = dict(zip(large, post(large)))
        granted = [one for one in large if b'"ads":true' in one]
        self.assertEqual((len(granted), len(large)), (3, 9))
        self.wait_books(identity, pending=0, buried=9, acked=4)

        status, changed = self.api("PATCH", f"/v1/admin/integrations/{identity}", {"config": {"consent": ["ads"]}})
        self.assertEqual((status, changed["config"]["consent"]), (200, ["ads"]))
        self.broker.configure_topic(self.topic, max_message_bytes=1_000_000)
        status, answer = self.api("POST", f"/v1/admin/integrations/{identity}/dead-letters/replay", {"all": True})
        self.assertEqual((status, answer), (202, {"count": 9}))
        self.wait_books(identity, pending=0, buried=0, acked=4 + 3, filtered=6)
        books = self.books(identity)
        self.assertEqual(books["stored"], 13)
        self.assertEqual((books["discarded"], books["damaged"]), (0, 0))
        agent.balance("Confluent Cloud")
        self.assertEqual(sorted(record.value for record in self.records()), sorted(early + granted))
        for one, seq in seqs.items():
            receipt = self.api("GET", f"/v1/admin/events/{seq}")[1]["integrations"][0]
            self.assertEqual(receipt["status"], "delivered" if one in granted else "filtered")
        # What was ordered stands in the audit log, what of it was not sent in the log.
        audited = self.api("GET", "/v1/admin/audit-logs?action=dead_letters.replayed")[1]["data"]
        self.assertEqual([entry["details"]["count"] for entry in audited], [9])
        told = re.findall(r'msg="dead letters without consent were not sent[^\n]* count=(\d+)', agent.log())
        self.assertEqual(sum(map(int, told)), 6)

    def test_a_removal_said_yes_to_succeeds_while_events_pour_in(self):
        agent = self.installed_into
        _, made = self.curl()
        identity = made["id"]
        self.broker.stop()
        senders = [self.load(agent, seed, batch=5) for seed in (20, 21, 22)]
        wait_until(lambda: agent.balance("Confluent Cloud")["pending"] > 500, "events wait", 60)
        removed = agent.command("integrations", "remove", "Confluent Cloud", "--yes")
        self.assertEqual(removed.returncode, 0, removed.stderr)
        told = re.match(r'Removed "Confluent Cloud"; ([\d,]+) events discarded', removed.stdout)
        self.assertTrue(told, removed.stdout)
        self.assertEqual(self.api("GET", f"/v1/admin/integrations/{identity}")[0], 404)
        for sender in senders:
            self.assertTrue(sender.is_alive(), "the load ended before the removal")
            sender.stop()
        # Never more than was confirmed; the next one gets all that is kept, what poured in included.
        audited = self.api("GET", "/v1/admin/audit-logs?action=integration.deleted")[1]["data"][0]["details"]
        self.assertEqual(audited["discarded_events"], int(told[1].replace(",", "")))
        self.broker.start()
        self.assertEqual(self.curl()[0], 201)
        members = agent.wait_drained("Confluent Cloud")
        self.assertEqual(members["acked"], sum(len(sender.sent) for sender in senders))
        check(self.records(), senders, self.PARTITIONS)

    def test_a_lost_file_of_integrations_gives_nothing_up(self):
        agent = self.installed_into
        self.broker.configure_topic(self.topic, max_message_bytes=100_000)
        _, made = self.curl()
        identity = made["id"]
        sent = [self.sent(seed=10)]
        self.assertEqual(agent.post("/v1/p", b'{"userId":"u","pad":"%s"}' % os.urandom(150_000).hex().encode())[0], 200)
        self.wait_books(identity, pending=0, buried=1)
        self.assertEqual(self.api("POST", f"/v1/admin/integrations/{identity}/pause")[0], 200)
        sent.append(self.sent(seed=11))
        file, key = (agent.state_dir / name for name in ("integrations.json", "seal.key"))
        good, good_key = file.read_bytes(), key.read_bytes()
        faults = {"truncated": lambda: file.write_bytes(good[:len(good) // 2]), "empty": lambda: file.write_bytes(b""),
                  "missing": file.unlink, "another key": lambda: key.write_bytes(b"k" * len(good_key))}
        for round_, (name, fault) in enumerate(faults.items()):
            with self.subTest(name):
                waiting = sum(len(one.sent) for one in sent[1:])
                self.assertEqual(agent.terminate(), 0)
                fault()
                agent.start()
                orphan = self.api("GET", f"/v1/admin/integrations/{identity}")[1]
                self.assertEqual((orphan["orphaned"], orphan["state"], orphan["name"]), (True, "orphaned", identity))
                self.assertEqual((orphan["books"]["pending"], orphan["books"]["buried"]), (waiting, 1))
                status = self.api("GET", "/v1/admin/status")[1]
                self.assertNotEqual(status["level"], "ok")
                self.assertIn(identity, " ".join(status["notes"]))
                self.assertEqual(self.api("DELETE", f"/v1/admin/integrations/{identity}")[0],
                                 409 if name == "missing" else 503)
                sent.append(self.sent(seed=12 + round_))  # while it is an orphan
                self.assertEqual(agent.terminate(), 0)
                file.write_bytes(good)
                key.write_bytes(good_key)
                agent.start()
                back = self.api("GET", f"/v1/admin/integrations/{identity}")[1]
                self.assertEqual((back["orphaned"], back["name"], back["paused"]), (False, "Confluent Cloud", True))
        self.assertEqual(len(self.api("GET", f"/v1/admin/integrations/{identity}/dead-letters")[1]["data"]), 1)
        self.assertEqual(self.api("POST", f"/v1/admin/integrations/{identity}/resume")[0], 200)
        self.wait_books(identity, pending=0, buried=1, discarded=0, acked=sum(len(one.sent) for one in sent))
        self.assertEqual(check(self.records(), sent, self.PARTITIONS).copies, 0)

    def test_a_removal_gives_up_no_more_than_was_confirmed(self):
        agent = self.installed_into
        _, made = self.curl()
        self.assertEqual(self.api("POST", f"/v1/admin/integrations/{made['id']}/pause")[0], 200)
        sent = self.sent(seed=31)
        count = len(sent.sent)
        self.broker.stop()
        self.assertEqual(self.api("POST", f"/v1/admin/integrations/{made['id']}/resume")[0], 200)
        wait_until(lambda: self.in_flight(made["id"]), "events in the library", every=0.1)
        status, refused = self.api("DELETE", f"/v1/admin/integrations/{made['id']}?confirm={count - 1}")
        self.assertEqual((status, refused["error"]["pending"], refused["error"]["parked"]), (409, count, 0))
        self.assertTrue(self.in_flight(made["id"]))
        answers = []
        thread = threading.Thread(target=lambda: answers.append(
            self.api("DELETE", f"/v1/admin/integrations/{made['id']}?confirm={refused['error']['confirm']}")[0]))
        thread.start()
        file = agent.state_dir / "integrations.json"
        wait_until(lambda: made["id"] in json.loads(file.read_text().split("\n", 1)[1])["removing"], "the order on disk")
        later = self.load(agent, 32, pause=0.01)  # while the removal waits for what the library has, and beyond
        thread.join(120)
        later.stop()
        self.assertEqual(answers, [204])
        self.assertGreater(len(later.sent), 0)
        entry = next(one for one in self.api("GET", "/v1/admin/audit-logs")[1]["data"]
                     if one["action"] == "integration.deleted")
        self.assertEqual(entry["details"]["discarded_events"], count)
        self.assertRegex(agent.log(), rf'msg="integration removed".* discarded={count}\b')
        # Nothing accepted meanwhile is lost: the next one finds it.
        self.broker.start()
        _, next_ = self.curl(name="next")
        self.wait_books(next_["id"], pending=0, acked=count + len(later.sent))

    def test_a_confirmed_removal_is_finished_after_a_kill(self):
        agent = self.installed_into
        _, made = self.curl()
        _, stays = self.curl(name="stays")
        for one in (made, stays):
            self.assertEqual(self.api("POST", f"/v1/admin/integrations/{one['id']}/pause")[0], 200)
        sent = self.sent(seed=30)
        self.broker.stop()
        self.assertEqual(self.api("POST", f"/v1/admin/integrations/{made['id']}/resume")[0], 200)
        # With events in the library a removal waits some seconds for their reports: there it is killed.
        wait_until(lambda: self.in_flight(made["id"]), "events in the library", every=0.1)

        def order():
            try:
                self.api("DELETE", f"/v1/admin/integrations/{made['id']}?confirm={len(sent.sent)}")
            except (OSError, http.client.HTTPException):
                pass  # the kill
        thread = threading.Thread(target=order)
        thread.start()
        file = agent.state_dir / "integrations.json"
        wait_until(lambda: made["id"] in json.loads(file.read_text().split("\n", 1)[1])["removing"], "the order on disk")
        agent.kill()
        thread.join()
        self.assertNotIn("integration removed", agent.log())
        agent.start()
        self.assertIn("integration removal finished", agent.log())
        told = [json.loads(line) for line in (agent.state_dir / "audit.log").read_text().splitlines()]
        told = [entry for entry in told if entry["action"] == "integration.deleted"]
        self.assertEqual([entry["actor"] for entry in told], ["recovery"])
        self.assertEqual([one["id"] for one in self.api("GET", "/v1/admin/integrations")[1]["data"]], [stays["id"]])
        self.assertEqual(self.books(stays["id"])["pending"], len(sent.sent))
        self.assertEqual(json.loads(file.read_text().split("\n", 1)[1])["removing"], {})

    def in_flight(self, identity):
        return self.api("GET", f"/v1/admin/integrations/{identity}")[1]["delivery"]["in_flight_events"]

    def test_every_bad_field_is_named_at_once(self):
        status, answer = self.api("POST", "/v1/admin/integration-catalog/confluent_cloud/install",
                                  {"name": "x", "config": {"security_protocol": "PLAINTEXT", "topik": "t"}})
        self.assertEqual(status, 422)
        text = json.dumps(answer)
        for field in ("bootstrap_servers", "security_protocol", "sasl_password", "topik"):
            self.assertIn(field, text)

    def test_a_test_event_is_shown_delivered(self):
        _, made = self.curl()
        status, answer = self.api("POST", f"/v1/admin/integrations/{made['id']}/test-event")
        self.assertEqual(status, 202)

        def receipt():
            found = self.api("GET", f"/v1/admin/events/{answer['seq']}")[1]["integrations"][0]
            return found if found["status"] == "delivered" else None
        found = wait_until(receipt, lambda: f"delivered\n{self.installed_into.log_tail()}", every=0.1)
        record = self.records()[0]
        self.assertEqual((found["partition"], found["offset"]), (record.partition, record.offset))


if __name__ == "__main__":
    harness.main()
