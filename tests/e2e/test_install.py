#!/usr/bin/env python3
"""The vendor's documented API call, sent by curl as the document writes it, installs an integration on
the running agent; it is sealed on disk, survives a kill, and can be paused, disabled and removed.
"""
import http.client
import json
import subprocess

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

    def api(self, method, path, body=None):
        connection = http.client.HTTPConnection(*self.installed_into.admin, timeout=30)
        connection.request(method, path, body=None if body is None else json.dumps(body),
                           headers={"Authorization": f"Bearer {self.installed_into.token()}"})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, json.loads(text) if text else None

    def books(self, identity):
        return self.api("GET", f"/v1/admin/integrations/{identity}")[1]["books"]

    def wait_books(self, identity, **wanted):
        wait_until(lambda: all(self.books(identity)[name] == number for name, number in wanted.items()),
                   lambda: f"{wanted}: {self.books(identity)}\n{self.installed_into.log_tail()}", 60, 0.1)

    def sent(self, seed, limit=100):
        load = self.load(self.installed_into, seed, limit=limit)
        load.join(60)
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
        for file in self.installed_into.state_dir.rglob("*"):
            if file.is_file():
                self.assertNotIn(secret, file.read_bytes(), file)
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
        found = wait_until(receipt, lambda: f"delivered\n{self.installed_into.log_tail()}", 60, 0.1)
        record = self.records()[0]
        self.assertEqual((found["partition"], found["offset"]), (record.partition, record.offset))


if __name__ == "__main__":
    harness.main()
