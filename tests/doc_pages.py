"""Pages of the documentation, taken apart for their tests: code blocks, commands, links, headings."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "model_card.md")),
    ROOT / "training" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: The page's path from the root.
        line: Where its fence stands, counted from 1.
        kind: What its fence says it is.
        text: What stands in it.
    """

    page: str
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order, those in lists without their indentation."""
    found, fence, kind, start, text = [], "", "", 0, []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        mark = re.match(r"( *)(`{3,}|~{3,})(.*)$", line)
        if not fence and mark:
            indent, fence, kind = mark.groups()
            start, text, margin = number, [], len(indent)
        elif fence and line.strip() == fence:
            name = page.relative_to(ROOT).as_posix()
            found.append(Block(name, start, kind.strip(), "\n".join(text) + "\n"))
            fence = ""
        elif fence:
            text.append(line[margin:] if not line[:margin].strip() else line)
    assert not fence, f"{page}: the block that begins in line {start} has no end"
    return found


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    text = page.read_text(encoding="utf-8")
    return re.sub(r"^ *(`{3,}|~{3,}).*?^ *\1 *$", "", text, flags=re.MULTILINE | re.DOTALL)


def code_spans(page: Path) -> list[str]:
    """What stands in single backticks, each on one line."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(page))]


def links(page: Path) -> list[str]:
    """Where a page's links and pictures lead, in the repository."""
    text = re.sub(r"`[^`\n]+`", "", prose(page)) + "\n".join(re.findall(r"\[`[^`]+`\]\([^)]+\)", prose(page)))
    return [t for t in re.findall(r"\]\(([^)\s]+)[^)]*\)", text) if not re.match(r"\w+:", t)]


def anchors(page: Path) -> set[str]:
    """The headings of a page, as links name them."""
    titles = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles}
