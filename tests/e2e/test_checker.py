#!/usr/bin/env python3
"""The checker's own tests: it has to see each kind of harm it exists for."""
import random
import unittest

from harness import Load, check, make_event, murmur2
from reader import Record


class Sees(unittest.TestCase):
    PARTITIONS = 2

    def setUp(self):
        source = random.Random(7)
        self.sender = Load(None, 7)
        self.records = []
        ends = [0] * self.PARTITIONS
        for seq in range(1, 301):
            event = make_event(source, seq, size=10)
            event.state, event.seq = "stored", seq
            event.first_try_ms, event.answered_ms = 1_000_000 + seq, 1_000_050 + seq
            self.sender.sent.append(event)
            partition = seq % self.PARTITIONS if event.key is None else \
                (murmur2(event.key) & 0x7FFFFFFF) % self.PARTITIONS
            self.records.append(Record(partition, ends[partition], 1_000_010 + seq, event.key, event.raw,
                                       [*event.headers, ("signal_agent_spool", "s"), ("signal_agent_seq", str(seq))]))
            ends[partition] += 1
        self.records.sort()

    def verdict(self, **options):
        return check(self.records, [self.sender], self.PARTITIONS, **options)

    def harmed(self, text, **options):
        with self.assertRaisesRegex(AssertionError, text):
            self.verdict(**options)

    def test_a_clean_run_passes(self):
        verdict = self.verdict()
        self.assertEqual((verdict.events, verdict.copies), (300, 0))

    def test_a_lost_event(self):
        del self.records[17]
        self.harmed("1 answered events lost")

    def test_an_event_that_was_pending_may_be_missing_or_there(self):
        self.sender.sent[5].state, self.sender.sent[5].seq = "pending", None
        self.sender.sent[5].answered_ms = 0
        self.verdict()
        self.records = [record for record in self.records if record.value != self.sender.sent[5].raw]
        self.verdict()

    def test_a_refused_event_that_was_stored_after_all(self):
        self.sender.sent[5].state = "refused"
        self.harmed("refused and yet stored")

    def test_a_changed_byte(self):
        self.records[3] = self.records[3]._replace(value=self.records[3].value + b" ")
        self.harmed("changed")

    def test_another_key_partition_header_or_timestamp(self):
        keyed = next(index for index, record in enumerate(self.records) if record.key)
        good = self.records[keyed]
        for bad, text in ((good._replace(key=b"other"), "key b'other' instead"),
                          (good._replace(partition=1 - good.partition), "the key's is"),
                          (good._replace(headers=good.headers[1:]), "instead of"),
                          (good._replace(timestamp_ms=1), "timestamp 1 not in")):
            self.records[keyed] = bad
            self.harmed(text)

    def test_two_events_swapped_in_a_partition(self):
        self.records[10], self.records[11] = self.records[11], self.records[10]
        self.harmed("order broken")

    def test_a_copy_without_a_crash_and_copies_within_the_window_after_one(self):
        again = [record._replace(offset=10_000 + record.offset) for record in self.records if record.partition == 1][-4:]
        self.records += again
        self.harmed("4 copies after 0 crashes")
        self.assertEqual(self.verdict(crashes=1, window=4).copies, 4)
        self.harmed("4 copies after 1 crashes, window 3", crashes=1, window=3)

    def test_a_copy_from_too_far_back(self):
        first = next(record for record in self.records if record.partition == 1)
        self.records.append(first._replace(offset=10_000))
        self.harmed("events back, window 20", crashes=1, window=20)

    def test_a_message_id_stored_twice(self):
        record = self.records[-1]
        headers = [*record.headers[:-1], ("signal_agent_seq", "999")]
        self.records.append(record._replace(offset=10_000, headers=headers))
        self.harmed("stored twice", crashes=1)

    def test_an_event_nobody_sent(self):
        self.records.append(self.records[-1]._replace(value=b'{"messageId":"who"}'))
        self.harmed("never sent")


if __name__ == "__main__":
    unittest.main(verbosity=2)
