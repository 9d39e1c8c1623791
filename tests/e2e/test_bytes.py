#!/usr/bin/env python3
"""Every endpoint and container, read back over SASL_SSL: key, value, headers, timestamp, partition."""
import base64
import gzip
import hashlib
import hmac
import json
import pathlib
import socket
import ssl
import time

import harness
import reader
from harness import BrokerCase, murmur2

JSON_HEADERS = ("content-type", "application/json")


def expected(value, kind, name=None, key=None):
    headers = [JSON_HEADERS, ("event_type", kind)]
    if name is not None:
        headers.append(("event_name", name))
    return key, value, headers


class Bytes(BrokerCase):
    def setUp(self):
        super().setUp()
        self.running = self.agent().start()

    def stored(self, body, path="/v1/batch", headers=None, accepted=1):
        status, answer, _ = self.running.post(path, body, headers)
        self.assertEqual(status, 200, answer)
        self.assertEqual((answer["success"], answer["accepted"], answer["rejected"]), (True, accepted, []), answer)
        self.assertEqual(answer["last_seq"] - answer["first_seq"] + 1, accepted)
        return answer

    def read_back(self):
        """(key, value, headers) of all records, over SASL_SSL, in the order of their partitions."""
        self.running.wait_drained()
        records = reader.read(self.broker.sasl_ssl, self.topic, security=reader.sasl_ssl(self.broker))
        for record in records:
            if record.key is not None:
                self.assertEqual(record.partition, (murmur2(record.key) & 0x7FFFFFFF) % self.PARTITIONS)
        return [(record.key, record.value, record.headers) for record in records]

    def assert_topic(self, *wanted):
        self.assertCountEqual(self.read_back(), wanted)

    def test_one_event_on_each_endpoint(self):
        wanted = []
        for path in ("/v1/events", "/v1/batch"):
            value = b'{"type":"track","event":"A b","userId":"u1","anonymousId":"a1","properties":{"n":1}}'
            self.stored(value, path)
            wanted.append(expected(value, "track", "A b", b"u1"))
        for letter, kind in (("t", "track"), ("p", "page"), ("i", "identify"), ("g", "group")):
            event = b',"event":"E"' if kind == "track" else b""
            written = b'{"type":"%s","userId":"u-%s"%s}' % (kind.encode(), letter.encode(), event)
            self.stored(written, f"/v1/{letter}")
            wanted.append(expected(written, kind, "E" if event else None, f"u-{letter}".encode()))
            absent = b' { "anonymousId" : "%s"%s }' % (letter.encode(), event)
            self.stored(absent, f"/v1/{letter}")
            filled = b'{"type":"%s", "anonymousId" : "%s"%s }' % (kind.encode(), letter.encode(), event)
            wanted.append(expected(filled, kind, "E" if event else None, letter.encode()))
        self.assert_topic(*wanted)

    def test_every_container_keeps_the_bytes_of_its_elements(self):
        one = b'{"type":"page","userId":"k","name":"N","x": [1, 2 ,3]}'
        two = b'{ "type" : "identify" , "user_id":"k" ,\t"traits":{"a":"b"} }'
        three = b'{"type":"group","userId":"k","groupId":"g"}'
        parts = [one, two, three]
        containers = [b"[" + b" ,\n ".join(parts) + b"]",
                      b'{"batch":[' + b",".join(parts) + b'],"sentAt":"2026-01-01T00:00:00Z"}',
                      b'{"sentAt":"x", "events" : [ ' + b" , ".join(parts) + b" ] }",
                      b"\n".join(parts),
                      b"\r\n \r\n  " + b"  \r\n\t".join(parts) + b"\r\n\n"]
        wanted = []
        for path in ("/v1/events", "/v1/batch"):
            for body in containers:
                self.stored(body, path, accepted=3)
                wanted += [expected(one, "page", "N", b"k"), expected(two, "identify", None, b"k"),
                           expected(three, "group", None, b"k")]
        self.assertEqual(self.read_back(), wanted)  # one key: one partition, hence the very order

    def test_unusual_json_arrives_byte_for_byte(self):
        bodies = [
            b'{"type":"track","event":"\\u0041\\u00e4\\ud83d\\ude00 \\"q\\" \\\\ \\/ \\n","userId":"k"}',
            '{"type":"track","event":"ä😀\u2028","userId":"k"}'.encode(),
            b'{"type":"page","userId":"k","big":123456789012345678901234567890123456789012345678901234567890}',
            b'{"type":"page","userId":"k","n":[-0,-0.0,1E5,1e-7,0.1000000000000000055511151231257827,1e999,-1e999]}',
            b'{"type":"page","userId":"k","x":1,"x":2,"x":{"x":3,"x":4}}',
            b'\t{\r\n "type"\t:\n"page" ,\r "userId" : "k"  , "e":{} , "a":[ ] }  ',
            b'{"type":"page","userId":"k","lone":"\\ud800 \\udc00","zero":"\\u0000"}',
            b'{"type":"page","userId":"k","context":null,"properties":null,"traits":null,"messageId":null,"timestamp":null}',
            b'{"type":"page","\\u0075serId":"k"}',
            b'{"type":"page","userId":"k","d":' + b"[" * 60 + b"]" * 60 + b"}",
            b'{"type":"page","userId":"k","long":"' + b"x" * 300_000 + b'"}',
        ]
        names = ["A\u00e4\U0001F600 \"q\" \\ / \n", "ä😀\u2028"]
        for body in bodies:
            self.stored(body)
        found = self.read_back()
        self.assertEqual([value for _, value, _ in found], [body.strip() for body in bodies])
        self.assertEqual([key for key, _, _ in found], [b"k"] * len(bodies))
        self.assertEqual([dict(headers).get("event_name") for _, _, headers in found][:2], names)

    def test_the_key_is_the_user_else_the_anonymous_id_else_null(self):
        cases = [(b'"userId":"u","anonymousId":"a"', b"u"), (b'"userId":"","anonymousId":"a"', b"a"),
                 (b'"userId":null,"anonymous_id":"b"', b"b"), (b'"user_id":"u2","anonymousId":"a"', b"u2"),
                 (b'"user_id":"snake","userId":"camel"', b"camel"), (b'"anonymousId":""', None), (b'"x":1', None),
                 ('"userId":"ключ 😀"'.encode(), "ключ 😀".encode()), (b'"userId":"\\u00fc\\n"', "ü\n".encode())]
        for members, _ in cases:
            self.stored(b'{"type":"page",' + members + b"}")
        self.assert_topic(*[expected(b'{"type":"page",' + members + b"}", "page", None, key) for members, key in cases])

    def test_the_timestamp_is_when_it_was_accepted(self):
        before = int(time.time() * 1000)
        self.stored(b'{"type":"page","userId":"k","timestamp":"2020-01-01T00:00:00.000Z"}')
        after = int(time.time() * 1000)
        self.running.wait_drained()
        record, = self.records()
        self.assertTrue(before <= record.timestamp_ms <= after, (before, record.timestamp_ms, after))

    def test_gzip_chunked_expect_and_a_wrong_content_type_change_nothing(self):
        values = [b'{"type":"page","userId":"k","n":%d}' % number for number in range(4)]
        self.stored(gzip.compress(values[0]), headers={"Content-Encoding": "gzip",
                                                       "Content-Type": "application/x-www-form-urlencoded"})
        status, answer, _ = self.running.post("/v1/batch", iter([values[1][:5], values[1][5:]]))  # chunked
        self.assertEqual((status, answer["accepted"]), (200, 1))
        for value, head in ((values[2], b"Expect: 100-continue\r\n"), (values[3], b"Content-Type: text/plain\r\n")):
            with socket.create_connection(self.running.intake, 30) as connection:
                connection.sendall(b"POST /v1/batch HTTP/1.1\r\nHost: a\r\nConnection: close\r\n%sContent-Length: %d\r\n\r\n"
                                   % (head, len(value)))
                if head.startswith(b"Expect"):
                    self.assertTrue(connection.recv(1000).startswith(b"HTTP/1.1 100"))
                connection.sendall(value)
                answer = b"".join(iter(lambda: connection.recv(10_000), b""))
                self.assertIn(b"200 OK", answer)
        self.assertEqual([value for _, value, _ in self.read_back()], values)

    def test_pipelined_requests_are_answered_in_order(self):
        values = [b'{"type":"page","userId":"k","n":%d}' % number for number in range(40)]
        with socket.create_connection(self.running.intake, 30) as connection:
            for value in values:
                connection.sendall(b"POST /v1/events HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (len(value), value))
            stream = connection.makefile("rb")
            seqs = []
            for _ in values:
                self.assertIn(b" 200 ", stream.readline())
                length = 0
                while (line := stream.readline().strip()):
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                seqs.append(json.loads(stream.read(length))["first_seq"])
        self.assertEqual(seqs, sorted(seqs))
        self.assertEqual([value for _, value, _ in self.read_back()], values)

    def test_bad_neighbours_cost_nothing(self):
        good = [b'{"type":"page","userId":"k","n":%d}' % number for number in range(3)]
        body = b"[%s,{\"type\":\"alias\"},%s,17,%s]" % tuple(good)
        status, answer, _ = self.running.post("/v1/batch", body)
        self.assertEqual((status, answer["accepted"]), (200, 3), answer)
        self.assertEqual([(one["index"], one["code"]) for one in answer["rejected"]], [(1, "INVALID_EVENT"), (3, "INVALID_EVENT")])
        self.assertEqual([value for _, value, _ in self.read_back()], good)

    def test_a_message_id_is_stored_once_also_over_a_restart(self):
        value = b'{"type":"page","userId":"k","messageId":"m-1"}'
        first = self.stored(value)
        _, answer, _ = self.running.post("/v1/batch", value)
        self.assertEqual((answer["accepted"], answer["duplicates"], answer["first_seq"]), (0, 1, None), answer)
        self.running.kill()
        self.running.start()
        _, answer, _ = self.running.post("/v1/batch", b"[" + value + b"," + value.replace(b"m-1", b"m-2") + b"]")
        self.assertEqual((answer["accepted"], answer["duplicates"]), (1, 1), answer)
        self.assertGreater(answer["first_seq"], first["last_seq"])
        self.assertEqual([value for _, value, _ in self.read_back()], [value, value.replace(b"m-1", b"m-2")])


class Authentication(BrokerCase):
    KEYS = [{"name": "plain", "key": "k-plain"},
            {"name": "signed", "key": "k-signed", "hmac_secret": "s3cret"},
            {"name": "other", "key": "k-other", "hmac_secret": "0ther"}]
    BODY = b'{"type":"page","userId":"k"}'

    def setUp(self):
        super().setUp()
        self.running = self.agent(keys=self.KEYS).start()

    def sign(self, secret=b"s3cret", at=None, body=None, upper=False):
        at = str(int(time.time() * 1000) if at is None else at)
        digest = hmac.new(secret, at.encode() + b"." + (self.BODY if body is None else body), hashlib.sha256).hexdigest()
        return {"X-Timestamp": at, "X-Signature": "sha256=" + (digest.upper() if upper else digest)}

    def test_what_opens_the_door(self):
        basic = base64.b64encode(b"k-plain:").decode()
        doors = [{"Authorization": "Bearer k-plain"}, {"Authorization": "bearer k-plain"},
                 {"Authorization": f"Basic {basic}"}, {"Authorization": f"BASIC {basic}"}, self.sign(), self.sign(upper=True),
                 {**self.sign(), "Authorization": "Bearer k-signed"}, self.sign(at=int(time.time() * 1000) - 290_000)]
        for headers in doors:
            status, answer, _ = self.running.post("/v1/batch", self.BODY, headers)
            self.assertEqual((status, answer.get("accepted")), (200, 1), (headers, answer))
        self.running.wait_drained()
        self.assertEqual(self.broker.count(self.topic), len(doors))

    def test_what_does_not(self):
        now = int(time.time() * 1000)
        closed = [({}, "INVALID_PIPELINE_KEY"), ({"Authorization": "Bearer wrong"}, "INVALID_PIPELINE_KEY"),
                  ({"Authorization": "Basic !!"}, "INVALID_PIPELINE_KEY"),
                  (self.sign(secret=b"wrong"), "INVALID_SIGNATURE"), (self.sign(body=b"{}"), "INVALID_SIGNATURE"),
                  ({**self.sign(), "Authorization": "Bearer k-other"}, "INVALID_SIGNATURE"),
                  (self.sign(at=now - 310_000), "STALE_TIMESTAMP"), (self.sign(at=now + 310_000), "STALE_TIMESTAMP")]
        for headers, code in closed:
            status, answer, _ = self.running.post("/v1/batch", self.BODY, headers)
            self.assertEqual((status, answer["error"]["code"]), (401, code), headers)
            self.assertTrue(answer["error"]["message"])
        self.assertEqual(self.running.balance()["stored"], 0)

    def test_without_a_key_only_loopback_may_listen(self):
        agent = self.agent(settings={"intake.listen": ["0.0.0.0:0"]}, name="open")
        done = agent.command("run")
        self.assertEqual(done.returncode, 78, done.stderr)
        self.assertIn("intake", done.stderr)


class Listeners(BrokerCase):
    BODY = b'{"type":"page","userId":"k"}'

    def exchange(self, connection):
        connection.sendall(b"POST /v1/batch HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
                           % (len(self.BODY), self.BODY))
        return b"".join(iter(lambda: connection.recv(10_000), b""))

    def test_tls_and_a_unix_socket_take_events_too(self):
        tls = pathlib.Path(self.broker.ca_file).parent
        path = self.directory / "intake.sock"
        agent = self.agent(settings={"intake.listen": ["127.0.0.1:0", f"unix:{path}"],
                                     "intake.tls_certificate": tls / "broker.pem",
                                     "intake.tls_private_key": tls / "broker.key"}).start()
        context = ssl.create_default_context(cafile=self.broker.ca_file)
        with context.wrap_socket(socket.create_connection(agent.intake, 30), server_hostname="127.0.0.1") as connection:
            self.assertIn(b" 200 OK", self.exchange(connection))
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            self.assertIn(b" 200 OK", self.exchange(connection))
        with socket.create_connection(agent.intake, 30) as connection:
            self.assertNotIn(b" 200 OK", self.exchange(connection))
        agent.wait_drained()
        self.assertEqual([record.value for record in self.records()], [self.BODY] * 2)


if __name__ == "__main__":
    harness.main()
