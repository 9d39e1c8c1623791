#!/usr/bin/env python3
"""Segment's and RudderStack's own SDKs, unmodified, deliver what they sent, byte for byte.

A relay between SDK and agent keeps the bytes that went over the wire: they are the truth the
topic is held against.
"""
import gzip
import http.client
import http.server
import json
import threading

import harness
import sdks
from harness import BrokerCase


class Relay(http.server.ThreadingHTTPServer):
    """Hands every request on to the agent, keeps request and answer."""
    daemon_threads = True

    def __init__(self, target):
        super().__init__(("127.0.0.1", 0), RelayHandler)
        self.target = target
        self.exchanges = []  # (path, headers, body, status, answer)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class RelayHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self._body()
        connection = http.client.HTTPConnection(*self.server.target, timeout=30)
        headers = {name: value for name, value in self.headers.items()
                   if name.lower() not in ("host", "connection", "transfer-encoding", "content-length")}
        connection.request("POST", self.path, body=body, headers=headers)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        self.server.exchanges.append((self.path, dict(self.headers), body, answer.status, text))
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _body(self):
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"]))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def log_message(self, *_):
        pass


def slices(body):
    """The exact bytes of each element of {"batch":[...]}."""
    text = body.decode()
    decoder = json.JSONDecoder()
    at = text.index("[", text.index('"batch"')) + 1
    found = []
    while True:
        while text[at] in " \t\r\n,":
            at += 1
        if text[at] == "]":
            return found
        _, end = decoder.raw_decode(text, at)
        found.append(text[at:end].encode())
        at = end


class Sdks(BrokerCase):
    COUNT = 5  # of each of the four types

    def deliver(self, name):
        agent = self.agent(keys=[{"name": "sdk", "key": "the-write-key"}]).start()
        relay = Relay(agent.intake)
        self.addCleanup(relay.server_close)
        self.addCleanup(relay.shutdown)
        sdks.send(name, relay.url, "the-write-key", self.COUNT)
        self.assertTrue(relay.exchanges, "the SDK sent nothing")
        for path, _, body, status, answer in relay.exchanges:
            self.assertEqual((path, status), ("/v1/batch", 200), (body[:500], answer))
        sent = []  # several requests are under way at once: the agent's order is the spool's
        for _, headers, body, _, answer in sorted(relay.exchanges, key=lambda one: json.loads(one[4])["first_seq"]):
            if headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            sent += slices(body)
        self.assertEqual(len(sent), 4 * self.COUNT)
        agent.wait_drained()
        records = self.records()
        self.assertEqual(sorted(record.value for record in records), sorted(sent))
        for record in records:
            event = json.loads(record.value)
            self.assertEqual(record.key, (event.get("userId") or event.get("anonymousId")).encode())
            self.assertEqual(dict(record.headers)["event_type"], event["type"])
        for partition in range(self.PARTITIONS):
            stored = [record.value for record in records if record.partition == partition]
            self.assertEqual(stored, [value for value in sent if value in set(stored)])
        return relay.exchanges

    def test_segment_for_node_delivers_unchanged(self):
        self.deliver("segment-node")

    def test_rudderstack_for_node_delivers_unchanged_its_gzip_labelled_as_a_form(self):
        for _, headers, *_ in self.deliver("rudderstack-node"):
            self.assertEqual(headers.get("Content-Encoding"), "gzip", "the SDK changed: this no longer tests gzip")

    def test_segment_for_python_delivers_unchanged(self):
        self.deliver("segment-python")

    def test_rudderstack_for_python_delivers_unchanged(self):
        self.deliver("rudderstack-python")


if __name__ == "__main__":
    harness.main()
