#!/usr/bin/env python3
"""The manual: every page renders without a complaint, and says all it must.

usage: test_manual.py SOURCE_DIR BUILD_DIR PROGRAM
"""
import pathlib
import re
import subprocess
import sys
import unittest

SOURCE, BUILD, PROGRAM = (pathlib.Path(path).resolve() for path in sys.argv[1:4])
del sys.argv[1:4]
PAGES = ["signal-agent.1", "signal-agent.toml.5", "signal-agent-operating.7"]


def rendered(page):
    result = subprocess.run(["man", "--warnings", "--local-file", str(BUILD / page)],
                            capture_output=True, text=True, timeout=60,
                            env={"MANWIDTH": "200", "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"})
    text = re.sub(r".\x08", "", result.stdout)
    return text, result.stderr


def commands_and_options(*command):
    """Every subcommand path below `command` and every long option, from the program's own help."""
    text = subprocess.run([PROGRAM, *command, "--help"], capture_output=True, text=True, timeout=60).stdout
    options = set(re.findall(r"^  (?:-\w,)?(--[a-z][a-z-]*)", text, re.MULTILINE)) - {"--help"}
    listed = re.search(r"^Subcommands:\n((?:  .*\n|\n)*)", text, re.MULTILINE)
    commands = {command} if command else set()
    for name in re.findall(r"^  ([a-z][a-z-]*) ", listed[1] if listed else "", re.MULTILINE):
        below, more = commands_and_options(*command, name)
        commands |= below
        options |= more
    return commands, options


class Manual(unittest.TestCase):
    def test_every_page_renders_without_a_complaint(self):
        for page in PAGES:
            text, complaints = rendered(page)
            self.assertEqual(complaints, "", page)
            self.assertGreater(len(text), 1000, page)

    def test_the_settings_page_names_every_setting_with_its_default(self):
        text, _ = rendered("signal-agent.toml.5")
        section, missing, seen = "", [], 0
        for line in (SOURCE / "packaging" / "agent.toml").read_text().splitlines():
            if line.startswith("["):
                section = line.strip("[]") + "."
            found = re.match(r"#([a-z_]+) = (.*)", line)
            if not found or line.startswith("#["):
                continue
            if section == "log." and found.group(1) not in ("level", "format"):
                break  # the examples of tables follow
            seen += 1
            entry = f"{section}{found.group(1)} = {found.group(2)}"
            if entry not in text:
                missing.append(entry)
        self.assertGreater(seen, 30)
        self.assertEqual(missing, [])

    def test_the_program_page_names_every_command_and_option(self):
        text, _ = rendered("signal-agent.1")
        commands, options = commands_and_options()
        self.assertGreater(len(commands), 25)
        self.assertGreater(len(options), 20)
        self.assertEqual(sorted(option for option in options if not re.search(option + r"\b", text)), [])
        words = set(re.findall(r"[a-z-]+", text))
        self.assertEqual(sorted(command for command in commands if not words.issuperset(command)), [])

    def test_the_operating_page_holds_every_code_and_heading_of_its_source(self):
        text, _ = rendered("signal-agent-operating.7")
        source = (SOURCE / "OPERATING.md").read_text()
        for code in set(re.findall(r"`([A-Z_]{6,})`", source)):
            self.assertIn(code, text)
        for heading in re.findall(r"^## (.*)$", source, re.MULTILINE):
            self.assertIn(heading.replace("`", "").upper(), text)

    def test_no_mark_of_a_source_is_left_in_a_page(self):
        for page in PAGES:
            text, _ = rendered(page)
            text = text.replace("***", "")  # how secrets are shown
            text = re.sub(r"# .*", "", text)  # remarks inside code
            for mark in ("`", "**", "](", "\\[", "@SETTINGS@", "| ", " |"):
                self.assertNotIn(mark, text, page)


if __name__ == "__main__":
    unittest.main(verbosity=2)
