#!/usr/bin/env python3
"""The Debian package: it builds, lintian has nothing to say, it holds what it must, and (with
SIGNAL_AGENT_PROOF=full) another build in another folder gives the same bytes.

usage: test_deb.py SOURCE_DIR
"""
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

SOURCE = pathlib.Path(sys.argv.pop(1)).resolve()
FULL_PROOF = os.environ.get("SIGNAL_AGENT_PROOF") == "full"
BUILD_SECONDS = 3600

MUST_HOLD = {
    "./usr/bin/signal-agent", "./lib/systemd/system/signal-agent.service", "./usr/lib/sysusers.d/signal-agent.conf",
    "./etc/signal-agent/agent.toml", "./etc/signal-agent/conf.d/", "./usr/share/man/man1/signal-agent.1.gz",
    "./usr/share/man/man5/signal-agent.toml.5.gz", "./usr/share/man/man7/signal-agent-operating.7.gz",
    "./usr/share/bash-completion/completions/signal-agent", "./usr/share/zsh/vendor-completions/_signal-agent",
    "./usr/share/fish/vendor_completions.d/signal-agent.fish", "./usr/share/signal-agent/signal-agent.rules.yml",
    "./usr/share/signal-agent/signal-agent.dashboard.json", "./usr/share/doc/signal-agent/copyright",
}


def build(tree):
    """Builds the package of a tree; lintian is part of the script and fails it."""
    for old in (tree / "build").glob("signal-agent_*"):
        old.unlink()
    done = subprocess.run([tree / "packaging" / "build-deb.sh"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=BUILD_SECONDS)
    if done.returncode != 0:
        raise AssertionError(f"build-deb.sh: exit {done.returncode}\n{done.stdout[-4000:]}")
    found = list((tree / "build").glob("signal-agent_*.deb"))
    if len(found) != 1:
        raise AssertionError(f"packages: {found}")
    return found[0], done.stdout


def dpkg_deb(*arguments):
    return subprocess.run(["dpkg-deb", *map(str, arguments)], check=True, capture_output=True, text=True).stdout


class Deb(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.deb, cls.log = build(SOURCE)
        cls.folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        dpkg_deb("--raw-extract", cls.deb, cls.folder / "tree")
        cls.tree = cls.folder / "tree"

    def control(self, name):
        return (self.tree / "DEBIAN" / name).read_text()

    def test_lintian_says_nothing_above_information(self):
        self.assertEqual(re.findall(r"^[EW]: .*", self.log, re.MULTILINE), [])

    def test_it_holds_everything_and_no_more_folders_than_meant(self):
        held = {line.split(maxsplit=5)[5] for line in dpkg_deb("--contents", self.deb).splitlines()}
        self.assertEqual(MUST_HOLD - held, set())
        tops = {name.split("/")[1] for name in held if name != "./"}
        self.assertEqual(tops, {"etc", "lib", "usr"})

    def test_everything_in_it_belongs_to_root_and_is_writable_by_root_alone(self):
        for line in dpkg_deb("--contents", self.deb).splitlines():
            mode, owner = line.split()[:2]
            self.assertEqual(owner, "root/root", line)
            self.assertNotIn("w", mode[5] + mode[8], line)

    def test_the_unit_is_enabled_and_started_by_the_maintainer_scripts(self):
        postinst = self.control("postinst")
        self.assertIn("deb-systemd-helper enable 'signal-agent.service'", postinst)
        self.assertIn("deb-systemd-invoke $_dh_action 'signal-agent.service'", postinst)
        self.assertIn("systemd-sysusers", postinst)
        self.assertLess(postinst.index("systemd-sysusers"), postinst.index("deb-systemd-invoke"),
                        "the user must be there before the service starts")

    def test_the_example_is_a_conffile(self):
        self.assertEqual(self.control("conffiles").split(), ["/etc/signal-agent/agent.toml"])

    def test_only_a_purge_deletes_the_spool(self):
        scripts = {name: self.control(name) for name in ("preinst", "postinst", "prerm", "postrm")
                   if (self.tree / "DEBIAN" / name).exists()}
        deleting = [name for name, text in scripts.items() if "rm -rf" in text]
        self.assertEqual(deleting, ["postrm"])
        before = scripts["postrm"][:scripts["postrm"].index("rm -rf")]
        self.assertIn('"$1" = purge', before[before.rindex("if [ \"$1\""):])

    def test_the_program_is_hardened(self):
        program = str(self.tree / "usr" / "bin" / "signal-agent")
        elf = subprocess.run(["readelf", "--wide", "--file-header", "--program-headers", "--dynamic", program],
                             check=True, capture_output=True, text=True).stdout
        self.assertRegex(elf, r"Type:\s+DYN")
        self.assertIn("GNU_RELRO", elf)
        self.assertIn("BIND_NOW", elf)
        self.assertRegex(elf, r"GNU_STACK.* RW ")

    def test_the_program_tells_no_build_folder(self):
        self.assertNotIn(str(SOURCE).encode(), (self.tree / "usr" / "bin" / "signal-agent").read_bytes())

    def test_the_bill_of_materials_names_every_linked_library(self):
        document = json.loads(self.deb.with_suffix(".spdx.json").read_text())
        names = {part["name"] for part in document["packages"]}
        self.assertLessEqual({"signal-agent", "librocksdb7.8", "librdkafka1", "libssl3", "lit-html"}, names)
        digest = hashlib.sha256(self.deb.read_bytes()).hexdigest()
        self.assertEqual(document["packages"][0]["checksums"][0]["checksumValue"], digest)
        for part in document["packages"]:
            self.assertTrue(part["versionInfo"], part["name"])

    if FULL_PROOF:
        def test_another_build_in_another_folder_gives_the_same_bytes(self):
            other = self.folder / "elsewhere" / "tree"
            shutil.copytree(SOURCE, other, ignore=shutil.ignore_patterns("build", "node_modules"), symlinks=True)
            again, _ = build(other)
            self.assertEqual(hashlib.sha256(again.read_bytes()).hexdigest(),
                             hashlib.sha256(self.deb.read_bytes()).hexdigest())


if __name__ == "__main__":
    unittest.main(verbosity=2)
