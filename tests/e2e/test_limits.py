#!/usr/bin/env python3
"""Every limit of intake is reached once, and bad input gets its code and a message that names what is
wrong. No broker: nothing here is about delivery."""
import gzip
import http.client
import json
import os
import pathlib
import shutil
import socket
import tempfile
import unittest

import harness
from harness import Agent, wait_until

PAGE = b'{"type":"page"}'


class Limits(unittest.TestCase):
    SETTINGS = {}
    KEYS = []

    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.mkdtemp(prefix="signal-agent-limits-")
        cls.agent = Agent(pathlib.Path(cls.directory) / "agent", settings=cls.SETTINGS, keys=cls.KEYS).start()

    @classmethod
    def tearDownClass(cls):
        cls.agent.close()
        shutil.rmtree(cls.directory, ignore_errors=True)

    def refused(self, body, status, code, naming="", path="/v1/batch", headers=None):
        got, answer, _ = self.agent.post(path, body, headers)
        short = body if len(body) < 300 else body[:300] + b"..."
        self.assertEqual((got, answer.get("error", {}).get("code")), (status, code), (short, answer))
        self.assertEqual(set(answer), {"error"})
        self.assertEqual(set(answer["error"]), {"code", "message"})
        self.assertIn(naming, answer["error"]["message"])

    def raw(self, request):
        """Bytes in, status line out."""
        with socket.create_connection(self.agent.intake, 30) as connection:
            connection.sendall(request)
            return connection.makefile("rb").readline()


class Defaults(Limits):
    def test_json_that_is_none(self):
        for body in (b"{", b'{"type":"page"', b'{"type":"page",}', b"{'type':'page'}", b'{"type":"page"}x', b"\xef\xbb\xbf" + PAGE,
                     b'{"type":"page","x":NaN}', b'{"type":"page","x":01}', b'{"type":"page","x":"\n"}',
                     b'{"type":"page","x":"\xff"}', b'{"type":"page","x":"\xed\xa0\x80"}', b'{"type":"page","x":"\\x"}',
                     b"nothing"):
            self.refused(body, 400, "INVALID_JSON")

    def test_events_that_are_none(self):
        for body, naming in ((b"{}", "type"), (b'{"type":"alias"}', "alias"), (b'{"type":null}', "type"), (b'{"type":7}', "type"),
                             (b'{"type":"track"}', "event"), (b'{"type":"track","event":""}', "event"),
                             (b'{"type":"track","event":1}', "event"), (b'{"type":"page","userId":7}', "userId"),
                             (b'{"type":"page","anonymous_id":{}}', "anonymous_id"), (b'{"type":"page","messageId":[]}', "messageId"),
                             (b'{"type":"page","timestamp":"yesterday"}', "timestamp"), (b'{"type":"page","timestamp":5}', "timestamp"),
                             (b'{"type":"page","context":"x"}', "context"), (b'{"type":"track","event":"e","properties":[]}', "properties"),
                             (b'{"type":"page","traits":1}', "traits"), (b'{"type":"page","type":"page"}', "type"),
                             (b'{"type":"page","userId":"a","userId":"b"}', "userId"),
                             (b'{"type":"page","userId":"\\ud800"}', "userId"),
                             (b'{"type":"track","event":"\\udc00"}', "event")):
            self.refused(body, 400, "INVALID_EVENT", naming)

    def test_a_path_that_contradicts_the_type(self):
        self.refused(b'{"type":"page"}', 400, "INVALID_EVENT", "track", path="/v1/t")

    def test_containers_with_nothing_in_them(self):
        for body in (b"", b"[]", b'{"batch":[]}', b" \n\r\n"):
            got, answer, _ = self.agent.post("/v1/batch", body)
            self.assertEqual(got, 400, (body, answer))
            self.assertIn(answer["error"]["code"], ("INVALID_JSON", "INVALID_EVENT"))

    def test_500_events_pass_and_501_do_not(self):
        status, answer, _ = self.agent.post("/v1/batch", b"[" + b",".join([PAGE] * 500) + b"]")
        self.assertEqual((status, answer["accepted"]), (200, 500))
        for body in (b"[" + b",".join([PAGE] * 501) + b"]", b"\n".join([PAGE] * 501), b'{"batch":[' + b",".join([PAGE] * 501) + b"]}"):
            self.refused(body, 400, "BATCH_TOO_LARGE", "500")

    def test_a_body_of_8_mib_passes_as_far_as_the_body_goes_and_one_byte_more_does_not(self):
        event = b'{"type":"page","x":"%s"}'
        size = (8 << 20) // 2 - 200
        body = b"[" + event % (b"x" * size) + b"," + event % (b"x" * size) + b"]"
        self.assertEqual(self.agent.post("/v1/batch", body + b" " * ((8 << 20) - len(body)))[0], 200)
        self.refused(body + b" " * ((8 << 20) - len(body) + 1), 413, "PAYLOAD_TOO_LARGE", "8388608")

    def test_a_gzip_bomb_stops_at_the_same_limit(self):
        self.refused(gzip.compress(b" " * (9 << 20)), 413, "PAYLOAD_TOO_LARGE", headers={"Content-Encoding": "gzip"})
        status, answer, _ = self.agent.post("/v1/batch", gzip.compress(PAGE)[:-3], {"Content-Encoding": "gzip"})
        self.assertEqual(status, 400, answer)

    def test_an_event_over_its_limit_costs_only_itself(self):
        big = b'{"type":"page","x":"%s"}' % (b"x" * 8_000_000)
        self.refused(big, 413, "EVENT_TOO_LARGE", "8000000")
        status, answer, _ = self.agent.post("/v1/batch", b"[" + big + b"," + PAGE + b"]")
        self.assertEqual((status, answer["accepted"], answer["rejected"][0]["code"]), (200, 1, "EVENT_TOO_LARGE"), answer)

    def test_nesting_of_64_passes_and_65_does_not(self):
        def nested(levels):  # the event itself is one
            return b'{"type":"page","x":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"
        self.assertEqual(self.agent.post("/v1/events", nested(64))[0], 200)
        got, answer, _ = self.agent.post("/v1/events", nested(66))
        self.assertEqual(got, 400, answer)

    def test_paths_methods_and_encodings_that_do_not_exist(self):
        self.refused(PAGE, 404, "NOT_FOUND", path="/v1/x")
        self.refused(PAGE, 415, "UNSUPPORTED_ENCODING", "br", headers={"Content-Encoding": "br"})
        connection = http.client.HTTPConnection(*self.agent.intake, timeout=30)
        connection.request("GET", "/v1/batch")
        answer = connection.getresponse()
        self.assertEqual(answer.status, 405)
        self.assertIn("POST", answer.getheader("Allow"))
        self.assertTrue(json.loads(answer.read())["error"]["code"])
        connection.close()
        self.assertIn(b" 411 ", self.raw(b"POST /v1/batch HTTP/1.1\r\nHost: a\r\n\r\n"))

    def test_a_header_block_over_32_kib(self):
        self.assertIn(b" 431 ", self.raw(b"POST /v1/batch HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 40_000 + b"\r\n\r\n"))
        self.assertIn(b" 200 ", self.raw(b"POST /v1/batch HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 30_000 +
                                         b"\r\nContent-Length: 15\r\n\r\n" + PAGE))

    def test_what_could_smuggle_a_request_is_refused(self):
        for head in (b"Content-Length: 15\r\nTransfer-Encoding: chunked\r\n", b"Content-Length: 15\r\nContent-Length: 16\r\n",
                     b"Transfer-Encoding: chunked, identity\r\n", b"Content-Length: +15\r\n", b"Content-Length : 15\r\n"):
            self.assertRegex(self.raw(b"POST /v1/batch HTTP/1.1\r\nHost: a\r\n" + head + b"\r\n" + PAGE), rb" (400|411|501) ")


class Tight(Limits):
    SETTINGS = {"intake.max_body_bytes": "1MiB", "intake.max_event_bytes": "10KiB", "intake.max_buffered_bytes": "2MiB",
                "intake.max_batch_events": 3, "intake.max_connections": 8, "intake.dedup_window": 5}
    KEYS = [{"name": "slow", "key": "slow", "rate_limit_per_second": 5}, {"name": "fast", "key": "fast"}]
    FAST = {"Authorization": "Bearer fast"}

    def test_settings_move_the_limits(self):
        self.refused(b" " * ((1 << 20) + 1), 413, "PAYLOAD_TOO_LARGE", headers=self.FAST)
        self.refused(b'{"type":"page","x":"%s"}' % (b"x" * 10_240), 413, "EVENT_TOO_LARGE", headers=self.FAST)
        self.refused(b"\n".join([PAGE] * 4), 400, "BATCH_TOO_LARGE", headers=self.FAST)

    def test_a_key_over_its_rate_is_told_when_to_come_back(self):
        headers = {"Authorization": "Bearer slow"}
        for _ in range(200):
            status, answer, answered = self.agent.post("/v1/batch", b"\n".join([PAGE] * 3), headers)
            if status != 200:
                break
        self.assertEqual((status, answer["error"]["code"]), (429, "RATE_LIMITED"))
        self.assertGreaterEqual(int(answered["Retry-After"]), 1)
        self.assertEqual(self.agent.post("/v1/batch", PAGE, self.FAST)[0], 200)
        wait_until(lambda: self.agent.post("/v1/batch", PAGE, headers)[0] == 200, "the rate allows it again", every=0.2)

    def test_bodies_that_do_not_fit_together_are_put_off(self):
        held = []
        try:
            for _ in range(2):  # each announces 1 MiB and keeps all but the last byte in memory
                connection = socket.create_connection(self.agent.intake, 30)
                connection.sendall(b"POST /v1/batch HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer fast\r\n"
                                   b"Content-Length: 1048576\r\n\r\n" + b" " * 1_048_575)
                held.append(connection)
            # Only when both are in: a third body before that could take the room of one of them.
            wait_until(lambda: self.agent.metrics()[("signal_agent_http_buffered_body_bytes", ("listener", "intake"))] >= 2 << 20,
                       "both bodies in memory")
            status, answer, headers = self.agent.post("/v1/batch", b" " * 100_000 + PAGE, self.FAST)
            self.assertEqual((status, answer["error"]["code"]), (503, "OVERLOADED"))
            self.assertIn("Retry-After", headers)
        finally:
            for connection in held:
                connection.close()
        wait_until(lambda: self.agent.post("/v1/batch", PAGE, self.FAST)[0] == 200, "room again")

    def test_connections_over_the_limit_are_closed_and_counted(self):
        held = [socket.create_connection(self.agent.intake, 30) for _ in range(20)]
        try:
            wait_until(lambda: self.agent.metrics()[("signal_agent_http_connections_refused_total", ("listener", "intake"))] >= 12,
                       "refused connections counted")
        finally:
            for connection in held:
                connection.close()
        wait_until(self.takes_one, "a free place again")

    def takes_one(self):
        try:
            return self.agent.post("/v1/batch", PAGE, self.FAST)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def test_the_dedup_window_is_as_long_as_it_says(self):
        def send(number):
            body = b'{"type":"page","messageId":"w-%d"}' % number
            return self.agent.post("/v1/batch", body, self.FAST)[1]["duplicates"]
        self.assertEqual([send(0), send(0)], [0, 1])
        for number in range(1, 20):
            self.assertEqual(send(number), 0)
        self.assertEqual(send(19), 1)
        self.assertEqual(send(0), 0, "forgotten after the window")


class FewDescriptors(Limits):
    """640 descriptors are the spool's and Kafka's; connections get the others, of what the hard limit gives."""

    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.mkdtemp(prefix="signal-agent-limits-")
        cls.agent = Agent(pathlib.Path(cls.directory) / "agent", descriptors=(256, 700)).start()

    def test_connections_leave_the_spool_its_descriptors(self):
        self.assertIn('msg="the system gives fewer descriptors than intake.max_connections wants" descriptors=700 '
                      'wanted=4096 connections=60', self.agent.log())
        held = [socket.create_connection(self.agent.intake, 30) for _ in range(80)]
        try:
            wait_until(lambda: self.agent.metrics()[("signal_agent_http_connections_refused_total", ("listener", "intake"))] >= 20,
                       "refused connections counted")
            self.assertLess(len(os.listdir(f"/proc/{self.agent.process.pid}/fd")), 200)
        finally:
            for connection in held:
                connection.close()


if __name__ == "__main__":
    harness.main()
