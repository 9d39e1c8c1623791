#!/usr/bin/env python3
"""Several integrations over one spool: one that is down holds up nobody, and disk is freed behind all."""
import base64
import json
import os
import pathlib
import re
import signal
import socket
import threading
import time

import harness
from harness import BrokerCase, check, integration, murmur2, wait_until

SETTINGS = {"delivery.provenance_headers": True}


class Door(threading.Thread):
    """A port that refuses connections until open() lets them through to `target`."""

    def __init__(self, target):
        super().__init__(daemon=True)
        self.target = target
        self._listener = socket.socket()  # bound from the start, so that nobody else gets the port
        self._listener.bind(("127.0.0.1", 0))
        self.bootstrap = "%s:%d" % self._listener.getsockname()

    def open(self):
        self._listener.listen()
        self.start()

    def run(self):
        while True:
            try:
                inner, _ = self._listener.accept()
            except OSError:
                return
            outer = socket.create_connection(self.target)
            for source, sink in ((inner, outer), (outer, inner)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    @staticmethod
    def _pump(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self._listener.close()


def disk_bytes(agent):
    return sum(status.st_blocks * 512 for _, status in agent.state_files())


class Integrations(BrokerCase):
    def down(self, topic, **fields):
        """An integration whose cluster cannot be reached until the returned door is opened."""
        door = Door(("127.0.0.1", self.broker.ports["SASL_SSL"]))
        self.addCleanup(door.close)
        return door, {**integration(self.broker, topic, name="down", bootstrap_servers=door.bootstrap), **fields}

    def test_one_that_is_down_holds_up_nobody_and_gets_everything_later(self):
        other = self.topic + "-down"
        self.write_topic(other)
        door, down = self.down(other)
        agent = self.agent([integration(self.broker, self.topic, name="up"), down], SETTINGS).start()
        senders = [self.load(agent, seed, limit=3000) for seed in (1, 2)]
        for sender in senders:
            sender.join(120)
            sender.stop()
        members = agent.wait_drained("up")
        verdict = check(self.records(), senders, self.PARTITIONS)
        self.assertEqual((verdict.copies, members["acked"]), (0, verdict.events))
        self.assertEqual(agent.balance("down")["pending"], verdict.events)
        self.assertEqual(self.broker.count(other), 0)
        door.open()
        agent.wait_drained("down")
        self.assertEqual(check(self.records(other), senders, self.PARTITIONS).copies, 0)

    def test_disk_is_freed_only_behind_both(self):
        other = self.topic + "-down"
        self.write_topic(other)
        door, down = self.down(other)
        agent = self.agent([integration(self.broker, self.topic, name="up"), down], SETTINGS).start()

        def send(megabytes):
            for _ in range(megabytes):
                pads = [base64.b64encode(os.urandom(7_500)) for _ in range(100)]  # nothing to compress
                body = b"[" + b",".join(b'{"type":"page","userId":"u","pad":"%s"}' % pad for pad in pads) + b"]"
                status, answer, _ = agent.post("/v1/batch", body)
                self.assertEqual((status, answer["accepted"]), (200, 100))
        send(120)
        agent.wait_drained("up")
        held = disk_bytes(agent)
        self.assertGreater(held, 110_000_000, "freed although one integration still needs it")
        self.assertGreater(agent.metrics()[("signal_agent_spool_bytes",)], 110_000_000)
        door.open()
        agent.wait_drained("down")
        self.assertEqual(self.broker.count(other), 12_000)
        wait_until(lambda: agent.metrics()[("signal_agent_spool_bytes",)] < 5_000_000, "logical bytes freed")
        send(20)
        wait_until(lambda: disk_bytes(agent) < 80_000_000, lambda: f"disk freed, {disk_bytes(agent)} bytes of {held}")

    def test_a_later_integration_starts_at_the_end_unless_it_asks_for_the_oldest(self):
        topics = [self.topic + suffix for suffix in ("-end", "-oldest")]
        for topic in topics:
            self.write_topic(topic)
        door, down = self.down(self.topic)  # holds the events
        agent = self.agent([down], SETTINGS).start()
        before = self.load(agent, 1, limit=200)
        before.join(120)
        before.stop()
        self.assertEqual(agent.terminate(), 0)
        agent.integrations += [integration(self.broker, topics[0], name="end"),
                               {**integration(self.broker, topics[1], name="oldest"), "start": "oldest"}]
        agent.write_config()
        agent.start()
        after = self.load(agent, 2, limit=200)
        after.join(120)
        after.stop()
        agent.wait_drained("end")
        agent.wait_drained("oldest")
        check(self.records(topics[0]), [after], self.PARTITIONS)
        check(self.records(topics[1]), [before, after], self.PARTITIONS)

    def test_without_any_integration_events_are_kept_for_the_first_one(self):
        agent = self.agent([], SETTINGS).start()
        sender = self.load(agent, 1, limit=500)
        sender.join(120)
        sender.stop()
        self.assertEqual(agent.terminate(), 0)
        agent.integrations = [integration(self.broker, self.topic)]
        agent.write_config()
        agent.start()
        members = agent.wait_drained()
        self.assertEqual(check(self.records(), [sender], self.PARTITIONS).events, members["acked"])

    def test_consent_filters_for_one_and_is_counted(self):
        other = self.topic + "-all"
        self.write_topic(other)
        agent = self.agent([integration(self.broker, self.topic, name="consented", consent=["analytics"]),
                            integration(self.broker, other, name="all")]).start()
        granted = b'{"type":"page","context":{"consent":{"categories":{"analytics":true}}}}'
        refused = [b'{"type":"page","context":{"consent":{"categories":{"analytics":false}}}}',
                   b'{"type":"page","context":{"consent":{"categories":{"analytics":"true"}}}}', b'{"type":"page"}']
        status, answer, _ = agent.post("/v1/batch", b"\n".join([granted, *refused]))
        self.assertEqual((status, answer["accepted"]), (200, 4))
        members = agent.wait_drained("consented")
        self.assertEqual((members["acked"], members["filtered"]), (1, 3))
        self.assertEqual([record.value for record in self.records()], [granted])
        self.assertEqual(agent.wait_drained("all")["acked"], 4)
        _, receipt = agent.get(f"/v1/admin/events/{answer['last_seq']}", agent.token())
        self.assertEqual({one["name"]: one["status"] for one in json.loads(receipt)["integrations"]},
                         {"consented": "filtered", "all": "delivered"})

    def test_a_secret_stands_in_no_process_list_and_a_core_file_would_be_empty(self):
        secret = self.directory / "secret"
        secret.write_text(self.broker.password("agent"))
        secret.chmod(0o600)
        agent = self.agent([integration(self.broker, self.topic, sasl_password={"file": str(secret)})]).start()
        agent.post("/v1/p", b'{"userId":"u"}')
        agent.wait_drained()
        process = pathlib.Path(f"/proc/{agent.process.pid}")
        for name in ("cmdline", "environ"):
            text = (process / name).read_bytes()
            self.assertNotIn(secret.read_bytes(), text)
            self.assertNotIn(agent.token().encode(), text)
        self.assertRegex((process / "limits").read_text(), r"Max core file size +0 +0 ")

    def test_watchers_that_read_nothing_cost_bounded_memory_and_hold_up_nothing(self):
        agent = self.agent().start()
        body = b"[" + b",".join([b'{"type":"track","event":"%s","userId":"u"}' % (b"n" * 200)] * 500) + b"]"

        def send(batches):
            for _ in range(batches):
                self.assertEqual(agent.post("/v1/batch", body)[0], 200)
            agent.wait_drained()
        send(120)  # fills the write buffers, which sending alone makes it keep
        time.sleep(3)  # by then what the burst left in the heap is given back; more in it would hide growth
        before = agent.anonymous_bytes()
        watchers = []
        for _ in range(32):
            watcher = socket.socket()
            watcher.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            watcher.connect(agent.admin)
            self.addCleanup(watcher.close)
            watcher.sendall(f"GET /v1/admin/events/live HTTP/1.1\r\nHost: localhost\r\n"
                            f"Authorization: Bearer {agent.token()}\r\n\r\n".encode())
            self.assertEqual(watcher.recv(12), b"HTTP/1.1 200")
            watchers.append(watcher)
        send(120)
        # The ring, and for each watcher what the server keeps at most.
        wait_until(lambda: agent.anonymous_bytes() - before < 32 * 256 * 1024 + 8_000_000,
                   lambda: f"no more than that, {(agent.anonymous_bytes() - before) / 1e6:.1f} MB", every=0.1)
        self.assertEqual(self.broker.count(self.topic), 120_000)

    def test_added_partitions_are_told_with_the_event_behind_which_they_count(self):
        agent = self.agent(settings=SETTINGS).start()
        before = self.load(agent, 1, limit=200)
        before.join(120)
        before.stop()
        agent.wait_drained()
        self.assertNotIn("partition count", agent.log())
        self.broker.admin.call("add_partitions", topic=self.topic, count=6)
        wait_until(lambda: len(self.broker.end_offsets(self.topic)) == 6, "the broker knows them")
        if not harness.FULL_PROOF:  # else the library's own refresh is waited for, three minutes
            agent.integrations[0]["config"]["linger_ms"] = 60  # takes another producer, which asks anew
            agent.write_config()
            agent.process.send_signal(signal.SIGHUP)
            wait_until(lambda: 'msg="producer replaced"' in agent.log(), lambda: f"replaced\n{agent.log_tail()}")
        after = self.load(agent, 2, pause=0.05)
        wait_until(lambda: "partition count" in agent.log(), lambda: f"told\n{agent.log_tail()}", 240, 0.2)
        after.stop()
        agent.wait_drained()
        told = re.findall(r"partition count changed.* before=(\d+) now=(\d+) seq=(\d+)", agent.log())
        self.assertEqual([(old, new) for old, new, _ in told], [("3", "6")], agent.log_tail())
        # It is seen within one look of the first event placed by the new count; none was before.
        last = int(told[0][2])
        records = sorted((int(dict(record.headers)["signal_agent_seq"]), record) for record in self.records())
        wrong = [seq for seq, record in records if seq > last and record.key is not None
                 and record.partition != (murmur2(record.key) & 0x7FFFFFFF) % 6]
        self.assertEqual(wrong, [])
        self.assertGreater(min(seq for seq, record in records if record.partition >= 3), len(before.sent))

    def test_a_changed_field_moves_no_cursor(self):
        agent = self.agent(settings=SETTINGS).start()
        first = self.load(agent, 1, limit=300)
        first.join(120)
        first.stop()
        agent.wait_drained()
        self.assertEqual(agent.terminate(), 0)
        agent.integrations[0]["config"]["linger_ms"] = 50  # the name is the identity, fields may change
        agent.write_config()
        agent.start()
        second = self.load(agent, 2, limit=300)
        second.join(120)
        second.stop()
        agent.wait_drained()
        self.assertEqual(check(self.records(), [first, second], self.PARTITIONS).copies, 0)


if __name__ == "__main__":
    harness.main()
