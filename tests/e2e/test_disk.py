#!/usr/bin/env python3
"""The spool is full, the disk is full, the disk is read-only: 503 with Retry-After, delivery goes on,
intake recovers by itself. Uses small file systems of its own and therefore needs to mount: run as
root, as continuous integration does."""
import base64
import http.client
import os
import pathlib
import subprocess

import harness
from harness import BrokerCase, check, message_id_of, wait_until

BATCH_BYTES = 100 * 1000


def padded(number, index):
    """An event of a tenth of a batch that no compression makes smaller."""
    pad = base64.b64encode(os.urandom(BATCH_BYTES * 3 // 40 - 60))
    return b'{"type":"page","messageId":"%d-%d","userId":"%d","pad":"%s"}' % (number, index, index, pad)


def run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}: {done.stdout}\nThis test mounts file systems: it needs root "
                             "with CAP_SYS_ADMIN, and cannot prove anything without.")


class Disk(BrokerCase):
    def mount_tmpfs(self, megabytes):
        point = self.directory / "mnt"
        point.mkdir()
        run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", point)
        self.addCleanup(run, "umount", "-l", point)
        return point

    def mount_ext4(self, megabytes):
        image, point = self.directory / "disk.img", self.directory / "mnt"
        point.mkdir()
        with open(image, "wb") as file:
            file.truncate(megabytes << 20)
        run("mkfs.ext4", "-q", image)
        self.mount_image(image, point)
        self.addCleanup(lambda: subprocess.run(["umount", "-l", point], stderr=subprocess.DEVNULL))
        return image, point

    @staticmethod
    def mount_image(image, point):
        run("mount", "-o", "loop,errors=remount-ro", image, point)

    @staticmethod
    def turn_read_only(image):
        """As an error of its own makes ext4 do; only a new mount can be written again."""
        loop = subprocess.run(["losetup", "-n", "-O", "NAME", "-j", image], stdout=subprocess.PIPE, text=True, check=True)
        pathlib.Path(f"/sys/fs/ext4/{pathlib.Path(loop.stdout.strip()).name}/trigger_fs_error").write_text("test")

    def repair(self, agent, image, point):
        """A file system that failed is checked and mounted anew; the agent is killed for that and started again."""
        agent.kill()
        run("umount", point)
        subprocess.run(["e2fsck", "-p", "-f", image], stdout=subprocess.DEVNULL)
        self.mount_image(image, point)
        agent.start()

    def fill(self, agent, limit=5000):
        """Posts until intake refuses; returns what was accepted and the refusal."""
        accepted = []
        for number in range(limit):
            events = [padded(number, index) for index in range(10)]
            status, answer, headers = agent.post("/v1/batch", b"\n".join(events))
            if status != 200:
                return accepted, status, answer["error"]["code"], headers
            self.assertEqual(answer["accepted"], 10)
            accepted += events
        self.fail(f"never refused after {len(accepted)} events")

    def assert_refused(self, status, code, headers, wanted):
        self.assertEqual((status, code), (503, wanted))
        self.assertGreaterEqual(int(headers["Retry-After"]), 1)

    def assert_recovers(self, agent):
        """Intake takes events again by itself."""
        last = []

        def taken():
            try:
                last[:] = agent.post("/v1/batch", b'{"type":"page","messageId":"recovered","userId":"r"}')
            except (OSError, http.client.HTTPException) as error:  # it was just reopening its spool
                last[:] = [repr(error)]
            return last[0] == 200
        wait_until(taken, lambda: f"intake recovered: {last}\n{agent.log_tail()}", every=0.2)
        self.assertEqual(agent.get("/readyz")[0], 200)

    def assert_all_there(self, accepted, crashes=0):
        """Everything answered is in the topic, once, in order for each key, and unchanged."""
        found = {}
        for record in self.records():
            found.setdefault(message_id_of(record.value), []).append(record)
        lost = [event for event in accepted if message_id_of(event) not in found]
        self.assertEqual(lost[:1], [], f"{len(lost)} of {len(accepted)} lost")
        for event in accepted:
            records = found[message_id_of(event)]
            self.assertEqual(records[0].value, event)
            if not crashes:
                self.assertEqual(len(records), 1)
        for key in range(10):
            offsets = [found[message_id_of(event)][0].offset for event in accepted if b'"userId":"%d"' % key in event]
            self.assertEqual(offsets, sorted(offsets))

    def test_a_full_spool_refuses_delivers_and_takes_events_again(self):
        self.broker.stop()
        agent = self.agent(settings={"spool.max_bytes": "4MiB"}).start()
        accepted, status, code, headers = self.fill(agent)
        self.assert_refused(status, code, headers, "SPOOL_FULL")
        self.assertLess(len(accepted) * BATCH_BYTES / 10, 4.5 * (1 << 20))
        self.assertGreater(len(accepted) * BATCH_BYTES / 10, 3 * (1 << 20))
        ready, text = agent.get("/readyz")
        self.assertEqual(ready, 503)
        self.assertIn("SPOOL_FULL", text)
        self.broker.start()
        agent.wait_drained()
        self.assert_recovers(agent)
        agent.wait_drained()
        self.assert_all_there(accepted)

    def test_a_full_spool_drops_the_oldest_where_that_was_asked_for(self):
        self.broker.stop()
        agent = self.agent(settings={"spool.max_bytes": "4MiB", "spool.when_full": "drop_oldest",
                                     "delivery.window_events": 10, "delivery.window_bytes": "1MiB"}).start()
        sent = []
        for number in range(100):
            events = [padded(number, index) for index in range(10)]
            status, answer, _ = agent.post("/v1/batch", b"\n".join(events))
            self.assertEqual((status, answer.get("accepted")), (200, 10), answer)
            sent += events
        discarded = agent.balance()["discarded"]
        self.assertGreater(discarded, 500)
        self.broker.start()
        members = agent.wait_drained()
        self.assertEqual(members["acked"] + members["discarded"], len(sent))
        self.assert_all_there(sent[-200:])
        self.assertEqual(self.broker.count(self.topic), members["acked"])

    def test_a_full_disk_refuses_before_it_hurts_and_recovers_by_itself(self):
        point = self.mount_tmpfs(160)
        self.broker.stop()
        agent = self.agent(settings={"spool.min_free_bytes": "40MiB"}, state_dir=point / "state").start()
        accepted, status, code, headers = self.fill(agent)
        self.assert_refused(status, code, headers, "DISK_FULL")
        free = os.statvfs(point)
        self.assertGreater(free.f_bavail * free.f_frsize, 10 << 20, "the reserve is gone")
        self.broker.start()
        agent.wait_drained()  # the reserve is what cursor writes need
        self.assert_recovers(agent)
        agent.wait_drained()
        self.assert_all_there(accepted)

    def test_a_disk_filled_by_somebody_else_stops_intake_and_nothing_is_lost(self):
        point = self.mount_tmpfs(160)
        self.broker.stop()
        agent = self.agent(settings={"spool.min_free_bytes": "8MiB"}, state_dir=point / "state").start()
        first = [b'{"type":"page","messageId":"a-%d","userId":"1","pad":"%s"}' % (number, b"p" * 1000) for number in range(400)]
        status, answer, _ = agent.post("/v1/batch", b"\n".join(first))
        self.assertEqual((status, answer["accepted"]), (200, 400))
        ballast = point / "ballast"
        with open(ballast, "wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"b" * (1 << 16))
            except OSError:
                pass  # not one byte left
        accepted, status, code, headers = self.fill(agent)
        self.assertEqual(status, 503)
        self.assertIn(code, ("DISK_FULL", "SPOOL_FAILED"))
        self.assertGreaterEqual(int(headers["Retry-After"]), 1)
        agent.wait_answers("/healthz", 200)
        agent.wait_answers("/readyz", 503)
        self.assertIsNone(agent.process.poll(), "the agent ended")
        ballast.unlink()
        self.assert_recovers(agent)
        self.broker.start()
        agent.wait_drained()
        self.assert_all_there(first + accepted)

    def test_a_read_only_disk_at_start_is_a_state_and_not_an_end(self):
        point = self.mount_tmpfs(160)
        (point / "state").mkdir()
        agent = self.agent(state_dir=point / "state").start()
        status, answer, _ = agent.post("/v1/batch", b'{"type":"page","messageId":"1-1","userId":"1"}')
        self.assertEqual(status, 200)
        agent.wait_drained()
        self.assertEqual(agent.terminate(), 0)
        run("mount", "-o", "remount,ro", point)
        agent.start(wait=False)
        wait_until(agent.listens, "listeners")
        status, answer, headers = agent.post("/v1/batch", b'{"type":"page","messageId":"1-2","userId":"1"}')
        self.assert_refused(status, answer["error"]["code"], headers, "SPOOL_FAILED")
        agent.wait_answers("/healthz", 200)
        agent.wait_answers("/readyz", 503)
        wait_until(lambda: "ead-only" in agent.log(), lambda: f"the log names the cause\n{agent.log_tail()}")
        run("mount", "-o", "remount,rw", point)
        self.assert_recovers(agent)
        agent.wait_drained()
        self.assert_all_there([b'{"type":"page","messageId":"1-1","userId":"1"}'])

    def test_a_disk_that_turns_read_only_loses_nothing(self):
        image, point = self.mount_ext4(200)
        agent = self.agent(settings={"delivery.provenance_headers": True, "delivery.window_events": 200},
                           state_dir=point / "state").start()
        sender = self.load(agent, 5)
        wait_until(lambda: self.broker.count(self.topic) > 500, "delivery before")
        self.turn_read_only(image)
        wait_until(lambda: sender.refusals, "a refusal")
        self.assertTrue(set(sender.refusals) <= {"SPOOL_FAILED", "DISK_FULL"}, sender.refusals)
        agent.wait_answers("/readyz", 503)
        self.assertIsNone(agent.process.poll(), "the agent ended")
        self.repair(agent, image, point)
        sender.stop()
        members = agent.wait_drained()
        verdict = check(self.records(), [sender], self.PARTITIONS, crashes=1, window=200)
        self.assertEqual(members["stored"], verdict.events)

    def test_a_disk_that_turned_read_only_lets_one_window_out_and_no_more(self):
        window = 50
        image, point = self.mount_ext4(200)
        agent = self.agent(settings={"delivery.provenance_headers": True, "delivery.window_events": window},
                           state_dir=point / "state").start()
        first = self.load(agent, 6, limit=40)
        first.join(60)
        first.stop()
        agent.wait_drained()
        before = self.broker.count(self.topic)
        self.broker.stop()
        waiting = self.load(agent, 7, limit=400)
        waiting.join(60)
        waiting.stop()
        self.turn_read_only(image)
        status, answer, headers = agent.post("/v1/p", b'{"userId":"u"}')
        self.assert_refused(status, answer["error"]["code"], headers, "SPOOL_FAILED")
        self.broker.start()
        wait_until(lambda: self.broker.count(self.topic) > before,
                   lambda: f"delivery on a read-only disk\n{agent.log_tail()}")
        looks = agent.log().count("the disk takes no writes")
        wait_until(lambda: agent.log().count("the disk takes no writes") >= looks + 2,
                   lambda: f"two more looks at the disk\n{agent.log_tail()}")
        let_out = self.broker.count(self.topic) - before
        self.assertTrue(1 <= let_out <= window, f"{let_out} were let out, the window is {window}")
        self.assertEqual(agent.get("/healthz")[0], 200)
        ready, text = agent.get("/readyz")
        self.assertEqual(ready, 503)
        self.assertIn("SPOOL_FAILED", text)
        shown = agent.command("status")
        self.assertEqual(shown.returncode, 2, shown.stdout + shown.stderr)
        self.assertIn("ead-only", shown.stdout)
        self.assertNotIn("re-executing to reopen the spool", agent.log())
        self.repair(agent, image, point)
        agent.wait_drained()
        records = [record for record in self.records() if b'"messageId"' in record.value]
        verdict = check(records, [first, waiting], self.PARTITIONS, crashes=1, window=window)
        self.assertEqual(verdict.events, len(first.sent) + len(waiting.sent))
        print(f"{let_out} let out on the read-only disk, {verdict.copies} copies")


if __name__ == "__main__":
    harness.main()
