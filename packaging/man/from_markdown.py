#!/usr/bin/env python3
"""Turns OPERATING.md into the scdoc source of signal-agent-operating(7), so that there is one text.

usage: from_markdown.py OPERATING.md > signal-agent-operating.7.scd

Knows what that page uses: headings, paragraphs, tables, code blocks, lists, `code`, **strong**,
*emphasis* and links. Anything else it refuses, rather than printing it wrong.
"""
import re
import sys

HEAD = """signal-agent-operating(7)

# NAME

signal-agent-operating - what to do when something is wrong with signal-agent

# DESCRIPTION
"""
TAIL = """
# SEE ALSO

*signal-agent*(1), *signal-agent.toml*(5)
"""
INLINE = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*|\*([^*]+)\*|\[([^\]]+)\]\(([^)]+)\)")


def literal(text):
    """Text without any meaning to scdoc."""
    return re.sub(r"([_*\\#\[<~`])", r"\\\1", text)


def inline(text):
    out, at = [], 0
    for found in INLINE.finditer(text):
        out.append(literal(text[at:found.start()]))
        code, strong, emphasis, label, target = found.groups()
        if code is not None:
            out.append("*" + literal(code) + "*")
        elif strong is not None:
            out.append("*" + literal(strong) + "*")
        elif emphasis is not None:
            out.append("_" + literal(emphasis) + "_")
        else:
            out.append(literal(label) + ("" if target.startswith("#") else f" ({literal(target)})"))
        at = found.end()
    out.append(literal(text[at:]))
    # A lone full stop or dash at the beginning of a line would open a list.
    return re.sub(r"^([.-])", r"\\\1", "".join(out))


def cells(row):
    return [cell.strip() for cell in row.strip().strip("|").split("|")]


def table(rows):
    """Each row becomes a term with what the other columns say of it."""
    titles = cells(rows[0])
    for row in rows[2:]:
        first, *others = cells(row)
        yield inline(first)
        said = []
        for title, text in zip(titles[1:], others):
            if text in ("", "-"):
                continue
            said.append(text if len(titles) == 2 else f"{title}: {text}")
        yield "\t" + inline(". ".join(part[0].upper() + part[1:] for part in said).rstrip(".") + ".")
        yield ""


def convert(text):
    lines = text.splitlines()
    yield HEAD
    at = 0
    while at < len(lines):
        line = lines[at]
        if line.startswith("```"):
            end = next(i for i in range(at + 1, len(lines)) if lines[i].startswith("```"))
            yield "```"
            yield from lines[at + 1:end]
            yield "```"
            at = end + 1
        elif line.startswith("# "):
            at += 1  # the page's own title
        elif line.startswith("### "):
            yield "## " + inline(line[4:])
            at += 1
        elif line.startswith("## "):
            yield "# " + literal(line[3:].replace("`", "")).upper()
            at += 1
        elif line.startswith("|"):
            end = at
            while end < len(lines) and lines[end].startswith("|"):
                end += 1
            yield from table(lines[at:end])
            at = end
        elif re.match(r"(\d+\.|-) ", line):
            mark = ". " if line[0].isdigit() else "- "
            while at < len(lines) and (re.match(r"(\d+\.|-) ", lines[at]) or lines[at].startswith("  ")):
                item = re.match(r"(?:\d+\.|-) (.*)", lines[at])
                yield mark + inline(item.group(1)) if item else "  " + inline(lines[at].strip())
                at += 1
        elif line.startswith((">", "    ", "\t", "<")):
            sys.exit(f"line {at + 1}: no rule for this: {line}")
        else:
            yield inline(line)
            at += 1
    yield TAIL


def tidy(lines):
    """One blank line between blocks, as scdoc wants it."""
    blank = True
    for line in "\n".join(lines).splitlines():
        if line or not blank:
            yield line
        blank = not line


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as page:
        print("\n".join(tidy(convert(page.read()))))
