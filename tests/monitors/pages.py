"""What stands in the documentation of monitors, for the tests that compare it."""

import re

from scripts.simulation.processes import REPOSITORY

DOCS = REPOSITORY / "docs"
TEXT = (DOCS / "monitors.md").read_text(encoding="utf-8")
TOPICS = (DOCS / "topics.md").read_text(encoding="utf-8")
type Row = list[str]


def part(title: str, text: str = TEXT) -> str:
    """Return what stands under a heading, up to the next one."""
    found = re.split(rf"^##+ {re.escape(title)}\n", text, flags=re.MULTILINE)
    assert len(found) == 2, title
    return re.split(r"^##+ ", found[1], flags=re.MULTILINE)[0]


def tables(text: str) -> list[list[Row]]:
    """Return the rows of each table, without its head."""
    found: list[list[Row]] = [[]]
    for line in text.splitlines():
        if line.strip().startswith("|"):
            found[-1].append([cell.strip() for cell in line.strip()[1:-1].split("|")])
        elif found[-1]:
            found.append([])
    return [rows[2:] for rows in found if rows]


def codes(text: str) -> list[str]:
    """Return what is written as code."""
    return re.findall(r"`([^`]+)`", text)


def entities(text: str) -> set[str]:
    """Return the names of entities, which are in italics, from a table's cells."""
    return {
        name
        for rows in tables(text)
        for row in rows
        for name in re.findall(r"(?<!\*)\*([^*`]+)\*(?!\*)", " | ".join(row))
    }


def blocks(text: str, language: str) -> list[str]:
    """Return the blocks of code in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
