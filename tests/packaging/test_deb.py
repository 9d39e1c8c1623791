#!/usr/bin/env python3
"""The packages: they build, lintian has nothing to say, they hold what they must, and (with
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
import tarfile
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


# The same by the rules of other distributions, in tarball and rpm.
ELSEWHERE = {
    "/usr/bin/signal-agent", "/usr/lib/systemd/system/signal-agent.service", "/usr/lib/sysusers.d/signal-agent.conf",
    "/etc/signal-agent/agent.toml", "/etc/signal-agent/conf.d", "/usr/share/man/man1/signal-agent.1",
    "/usr/share/man/man5/signal-agent.toml.5", "/usr/share/man/man7/signal-agent-operating.7",
    "/usr/share/bash-completion/completions/signal-agent", "/usr/share/zsh/site-functions/_signal-agent",
    "/usr/share/fish/vendor_completions.d/signal-agent.fish", "/usr/share/signal-agent/signal-agent.rules.yml",
    "/usr/share/signal-agent/signal-agent.dashboard.json", "/usr/share/doc/signal-agent/LICENSE",
    "/usr/share/doc/signal-agent/copyright", "/usr/share/doc/signal-agent/README.md",
    "/usr/share/doc/signal-agent/OPERATING.md",
}
KINDS = ("deb", "spdx.json", "tar.gz", "rpm")


def build(tree, **environment):
    """Builds the packages of a tree, by kind; lintian is part of the script and fails it."""
    for old in (tree / "build").glob("signal-agent[-_]*"):
        old.unlink()
    done = subprocess.run(["nice", tree / "packaging" / "build-deb.sh"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=BUILD_SECONDS, env={**os.environ, **environment})
    if done.returncode != 0:
        raise AssertionError(f"build-deb.sh: exit {done.returncode}\n{done.stdout[-4000:]}")
    made = {}
    for kind in KINDS:
        found = list((tree / "build").glob(f"signal-agent[-_]*.{kind}"))
        if len(found) != 1:
            raise AssertionError(f"{kind}: {found}")
        made[kind] = found[0]
    return made, done.stdout


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def output(*command):
    return subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout


def dpkg_deb(*arguments):
    return output("dpkg-deb", *arguments)


def rpm(*arguments):
    return output("rpm", "--query", "--package", *arguments)


class Packages(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.made, cls.log = build(SOURCE)
        cls.deb = cls.made["deb"]
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
        elf = output("readelf", "--wide", "--file-header", "--program-headers", "--dynamic", program)
        self.assertRegex(elf, r"Type:\s+DYN")
        self.assertIn("GNU_RELRO", elf)
        self.assertIn("BIND_NOW", elf)
        self.assertRegex(elf, r"GNU_STACK.* RW ")

    def test_the_program_tells_no_build_folder(self):
        self.assertNotIn(str(SOURCE).encode(), (self.tree / "usr" / "bin" / "signal-agent").read_bytes())

    def test_the_bill_of_materials_names_every_linked_library(self):
        document = json.loads(self.made["spdx.json"].read_text())
        names = {part["name"] for part in document["packages"]}
        self.assertLessEqual({"signal-agent", "librocksdb7.8", "librdkafka1", "libssl3", "lit-html"}, names)
        self.assertEqual(document["packages"][0]["checksums"][0]["checksumValue"], digest(self.deb))
        for part in document["packages"]:
            self.assertTrue(part["versionInfo"], part["name"])

    def test_the_tarball_holds_the_same_by_the_rules_of_other_distributions(self):
        with tarfile.open(self.made["tar.gz"]) as tarball:
            members = tarball.getmembers()
        top = members[0].name
        self.assertRegex(top, r"^signal-agent-[0-9.]+-\w+$")
        self.assertEqual(ELSEWHERE - {member.name.removeprefix(top) for member in members}, set())
        for member in members:
            self.assertEqual((member.uid, member.gid), (0, 0), member.name)
            self.assertFalse(member.mode & 0o7022, f"{member.name}: {member.mode:o}")

    def test_the_rpm_holds_the_same_and_no_folder_of_others(self):
        package = self.made["rpm"]
        held = set(rpm("--list", package).split())
        self.assertEqual(ELSEWHERE - held, set())
        folders = set(rpm("--queryformat", "[%{FILEMODES:perms} %{FILENAMES}\\n]", package).splitlines())
        self.assertEqual({line.split()[1] for line in folders if line.startswith("d")},
                         {"/etc/signal-agent", "/etc/signal-agent/conf.d", "/usr/share/signal-agent",
                          "/usr/share/doc/signal-agent"})
        owners = rpm("--queryformat", "[%{FILEUSERNAME}:%{FILEGROUPNAME}\\n]", package).split()
        self.assertEqual(set(owners), {"root:root"})

    def test_the_rpm_keeps_settings_and_names_the_licence(self):
        package = self.made["rpm"]
        flags = dict(line.split()[::-1] for line in
                     rpm("--queryformat", "[%{FILEFLAGS:fflags} %{FILENAMES}\\n]", package).splitlines() if line[0] != " ")
        self.assertEqual(flags["/etc/signal-agent/agent.toml"], "cn", "%config(noreplace)")
        self.assertIn("l", flags["/usr/share/doc/signal-agent/LICENSE"])
        self.assertIn("l", flags["/usr/share/doc/signal-agent/copyright"])
        self.assertEqual(rpm("--queryformat", "%{LICENSE}", package), "Apache-2.0 AND BSD-3-Clause")
        self.assertIn("accepts events over HTTP", rpm("--queryformat", "%{DESCRIPTION}", package))

    def test_the_rpm_makes_the_user_and_never_deletes_the_spool(self):
        scripts = rpm("--scripts", self.made["rpm"])
        self.assertIn("systemd-sysusers signal-agent.conf", scripts)
        self.assertIn("systemctl preset signal-agent.service", scripts)
        self.assertIn("systemctl try-restart signal-agent.service", scripts)
        self.assertNotIn("rm ", scripts)
        self.assertRegex(scripts, r"(?s)preuninstall.*\$1\" -eq 0 .*disable --now signal-agent.service")

    def test_every_package_names_the_same_maintainer(self):
        contact = dpkg_deb("--field", self.deb, "Maintainer").strip()
        self.assertIn(f" -- {contact}  ", (SOURCE / "packaging" / "debian" / "changelog").read_text())
        self.assertEqual(contact.split(" <")[0], rpm("--queryformat", "%{VENDOR}", self.made["rpm"]))

    if FULL_PROOF:
        def test_another_build_in_another_folder_gives_the_same_bytes(self):
            mine = {kind: digest(path) for kind, path in self.made.items()}
            other = self.folder / "elsewhere" / "tree"
            shutil.copytree(SOURCE, other, ignore=shutil.ignore_patterns("build", "node_modules"), symlinks=True)
            again, _ = build(other, CCACHE_DISABLE="1", TZ="Asia/Kathmandu", LC_ALL="C")
            self.assertEqual({kind: digest(path) for kind, path in again.items()}, mine)


if __name__ == "__main__":
    unittest.main(verbosity=2)
