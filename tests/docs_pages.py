"""Reads the documentation: its headings, links and fenced blocks. Knows neither Django nor the host."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"

_FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
_COMMENT = re.compile(r"<!-- (?P<word>\w+): (?P<value>[^>\n]*) -->\n\Z")
_HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


class Block(NamedTuple):
    """A fenced block, and what the comment right before it says of it.

    ``<!-- file: mysite/views.py -->`` makes it a file of the reader's project (with
    ``, append`` it goes to the end of the file), ``<!-- test: skip because ... -->``
    leaves it alone.
    """

    page: Path
    line: int
    language: str
    text: str
    word: str = ""
    value: str = ""

    @property
    def file(self) -> tuple[str, bool] | None:
        """The file that it is, and whether it is added to what is there."""
        if self.word != "file":
            return None
        name, _, how = self.value.partition(", ")
        return name, how == "append"

    @property
    def skipped(self) -> bool:
        return self.word == "test" and self.value.startswith("skip because ")

    def compiled(self):
        """Its code, with the lines of the page in tracebacks."""
        return compile("\n" * self.line + self.text, str(self.page), "exec", dont_inherit=True)

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """Every page for readers: of the host and of its plugins."""
    own = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    return sorted([*own, *DOCS.rglob("*.md"), *ROOT.glob("plugins/*/*.md")])


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    found = []
    for match in _FENCE.finditer(text):
        comment = _COMMENT.search(text, 0, match.start())
        found.append(
            Block(
                page,
                text.count("\n", 0, match.start()) + 1,
                match["language"],
                match["text"],
                comment["word"] if comment else "",
                comment["value"] if comment else "",
            )
        )
    return found


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return _FENCE.sub("", page.read_text())


def headings(page: Path, level: int | None = None) -> list[str]:
    """The texts of its headings, without the marks of code."""
    found = _HEADING.findall(prose(page))
    return [text.replace("`", "") for marks, text in found if level in (None, len(marks))]


def section(page: Path, heading: str) -> str:
    """What stands under a heading, up to the next one of its level or above."""
    text = page.read_text()
    for match in _HEADING.finditer(text):
        if match[2].replace("`", "") == heading:
            rest = text[match.end() :]
            end = re.search(rf"^#{{1,{len(match[1])}}} ", rest, re.MULTILINE)
            return rest[: end.start()] if end else rest
    raise LookupError(f"{page.relative_to(ROOT)} has no heading {heading!r}")


def anchors(page: Path) -> set[str]:
    """The anchors of its headings, as they are made where the pages are read."""
    return {re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-") for text in headings(page)}


def links(page: Path) -> list[str]:
    """Targets of links that lead to a file or a heading here."""
    return [target for target in _LINK.findall(prose(page)) if "://" not in target and not target.startswith("mailto:")]


def first_cells(text: str) -> list[str]:
    """The code in the first column of the tables in ``text``."""
    return re.findall(r"^\| `([^`]+)`", text, re.MULTILINE)
