#!/usr/bin/env python3
"""OPERATING.md has an entry for whatever the program can say to an operator, and no entry for what it
cannot say: alerts, codes, exit codes, warnings and errors of the log.

usage: test_operating.py SOURCE_DIR
"""
import pathlib
import re
import sys
import unittest

SOURCE = pathlib.Path(sys.argv.pop(1)).resolve()
PAGE = (SOURCE / "OPERATING.md").read_text()
ROOMS = ["config", "spool", "kafka", "agent"]
LITERAL = r'"((?:[^"\\\n]|\\.)*)"'
CODE = re.compile(r"[A-Z]+(?:_[A-Z]+)+")
LIBRARIES = {"rocksdb", "kafka library"}  # told in a sentence of its own


def sources():
    for room in ROOMS:
        for path in sorted((SOURCE / room).rglob("*")):
            if path.suffix in (".cc", ".h"):
                yield path.relative_to(SOURCE), re.sub(r"^\s*//.*$", "", path.read_text(), flags=re.MULTILINE)


def section(title):
    return re.search(rf"^## {title}.*?\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)[1]


def named_in_first_cells(text):
    return [name for row in re.findall(r"^\| (.*?) \|", text, re.MULTILINE) for name in re.findall(r"`([^`]+)`", row)]


def codes_of_the_program():
    """Every whole string in capitals with an underscore, wherever answers, failures and audits are made."""
    found = set()
    for path, text in sources():
        if path.parts[0] == "config" or path.parts[1] == "cli":
            continue  # values of settings; codes that others made
        found |= {words for words in re.findall(LITERAL, text) if CODE.fullmatch(words)}
    return found


def lines_of_the_log():
    found = set()
    for _, text in sources():
        # the message, perhaps a choice of two, stands before the fields
        for call in re.findall(rf"log::(?:warn|error)\(((?:{LITERAL}|[^\"{{;])*)", text):
            found |= set(re.findall(LITERAL, call[0]))
        for call in re.findall(rf"log::write\([^;]*?log::Level::k(?:Warn|Error),((?:{LITERAL}|[^\"{{;])*)", text):
            found |= set(re.findall(LITERAL, call[0]))
    return found - LIBRARIES


class Operating(unittest.TestCase):
    def agree(self, program, page):
        self.assertEqual(sorted(set(program) - set(page)), [], "OPERATING.md does not tell of these")
        self.assertEqual(sorted(set(page) - set(program)), [], "OPERATING.md tells of these, the program does not")
        self.assertEqual(sorted({name for name in page if page.count(name) > 1}), [], "told twice")

    def test_every_alert_is_explained(self):
        rules = (SOURCE / "packaging" / "signal-agent.rules.yml").read_text()
        self.agree(re.findall(r"- alert: (\w+)", rules), named_in_first_cells(section("Alerts")))

    def test_every_exit_code_is_explained(self):
        codes = re.findall(r"= (\d+),", (SOURCE / "agent" / "cli" / "exit_codes.h").read_text())
        self.assertGreater(len(codes), 5)
        self.agree(codes, re.findall(r"^\| (\d+) \|", section("Start, stop, exit codes"), re.MULTILINE))
        manual = (SOURCE / "packaging" / "man" / "signal-agent.1.scd").read_text()
        self.agree(codes, re.findall(r"^\*(\d+)\*$", manual, re.MULTILINE))

    def test_every_code_is_explained(self):
        codes = codes_of_the_program()
        self.assertGreater(len(codes), 40)
        page = set(CODE.findall(" ".join(re.findall(r"`([A-Z_]+)`", PAGE)))) - {"STATE_DIRECTORY"}
        self.agree(codes, list(page))

    def test_every_warning_and_error_of_the_log_is_explained(self):
        lines = lines_of_the_log()
        self.assertGreater(len(lines), 40)
        self.agree(lines, named_in_first_cells(section("Log lines")))


if __name__ == "__main__":
    unittest.main(verbosity=2)
