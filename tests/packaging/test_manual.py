#!/usr/bin/env python3
"""The manual: every page renders without a complaint, and says all it must.

usage: test_manual.py SOURCE_DIR BUILD_DIR
"""
import pathlib
import re
import subprocess
import sys
import unittest

SOURCE, BUILD = (pathlib.Path(path) for path in sys.argv[1:3])
del sys.argv[1:3]
PAGES = ["signal-agent.1", "signal-agent.toml.5", "signal-agent-operating.7"]


def rendered(page):
    result = subprocess.run(["man", "--warnings", "--local-file", str(BUILD / page)],
                            capture_output=True, text=True, timeout=60,
                            env={"MANWIDTH": "200", "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"})
    text = re.sub(r".\x08", "", result.stdout)
    return text, result.stderr


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
