"""Site builder hooks: texts that live elsewhere in the repository become pages, and their links stay right.

A page takes in another file, or one section of it, where a link with the title "include" stands alone on a line; and
under a block that asks a command for help stands what the command answers:

    [The limits](../README.md#limits "include")

Links that leave docs/ lead to the page that holds the file they name, else to the file in the repository, whose
address stands in pyproject.toml. mkdocs calls the functions whose names begin with `on_`; what they warn of ends a
strict build.
"""

import logging
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path, PurePosixPath
from typing import Any

ROOT = Path(__file__).parent.parent
PAGES = {
    "README.md": "index.md",
    "README.md#command-line": "command-line.md",
    "README.md#python": "python.md",
    "README.md#figures": "expectations.md",
    "README.md#limits": "expectations.md",
    "README.md#responsible-use": "responsible-use.md",
    "README.md#the-papers-full-model": "full-model.md",
    "README.md#train-it": "training.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "training/README.md": "training.md",
}
"""Which page holds a file, or a section of it."""

INCLUDE = re.compile(r'^\[[^\]]+\]\(([^)\s]+) "include"\)$', re.MULTILINE)
HELP = re.compile(r"^```bash\n(sdtalk [a-z]+ --help)\n```$", re.MULTILINE)
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
LOADED = re.compile(
    r'<(?:script|img|iframe|source)\b[^>]*\bsrc="?(https?:[^"\s>]+)'
    r'|<link\b[^>]*\brel="?stylesheet[^>]*\bhref="?(https?:[^"\s>]+)'
)
log = logging.getLogger("mkdocs.hooks.sdtalk")


def on_config(config: Any) -> Any:
    """Note where the repository is; not as `repo_url`, which the theme has every reader's browser ask about stars."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    address = config.extra["repository"] = project["urls"]["Source"].rstrip("/")
    config.copyright = f'<a href="{address}">{address.partition("//")[2]}</a>'
    return config


def on_page_markdown(markdown: str, config: Any, **_: Any) -> str:
    """Take in what a page names, and turn the links of both."""
    address = config.extra["repository"]

    def taken(found: re.Match) -> str:
        name, _, anchor = (
            os.path.normpath(PurePosixPath("docs", found[1])).replace(os.sep, "/").partition("#")
        )
        text = (ROOT / name).read_text(encoding="utf-8")
        text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)  # a head for the Hub
        return _turned(section(text, anchor) if anchor else text, str(PurePosixPath(name).parent), address)

    parts = re.split(f"({INCLUDE.pattern})", markdown, flags=re.MULTILINE)
    texts = [_turned(own, "docs", address) for own in parts[::3]]
    links = [INCLUDE.sub(taken, link) for link in parts[1::3]]
    whole = "".join(part for pair in zip(texts, [*links, ""], strict=True) for part in pair)
    return HELP.sub(lambda found: f"{found[0]}\n\n```text\n{_help(found[1])}\n```", whole)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Warn of anything that a reader's browser would load from another site."""
    for found in LOADED.finditer(output):
        log.warning("%s loads %s", page.file.src_uri, found[1] or found[2])
    return output


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub and the site make it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def section(markdown: str, anchor: str) -> str:
    """What stands under a heading of the second level, without the heading.

    Raises:
        KeyError: There is no such heading.
    """
    parts = re.split(r"^## (.+)$", markdown, flags=re.MULTILINE)
    return {slug(title): text for title, text in zip(parts[1::2], parts[2::2], strict=True)}[anchor].strip()


def _help(command: str) -> str:
    words = [sys.executable, "-m", *command.split()]
    environment = {**os.environ, "COLUMNS": "100", "PYTHONPATH": str(ROOT)}
    answer = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
    return answer.stdout.strip()


def _turned(markdown: str, folder: str, address: str) -> str:
    """A text of some folder with its links made right for a page in docs/."""

    def link(found: re.Match) -> str:
        text, target = found.groups()
        name, _, anchor = target.partition("#")
        if not name or re.match(r"\w+:", name):
            return found[0]
        path = os.path.normpath(PurePosixPath(folder, name)).replace(os.sep, "/")
        at = f"#{anchor}" if anchor else ""
        if path.startswith("docs/"):
            return f"[{text}]({path.removeprefix('docs/')}{at})"
        if not (ROOT / path).exists():
            log.warning("%s: the link to %s leads nowhere", folder, target)
        if page := PAGES.get(path + at) or PAGES.get(path):
            return f"[{text}]({page})"
        kind = "tree" if (ROOT / path).is_dir() else "blob"
        return f"[{text}]({address}/{kind}/main/{path}{at})"

    return LINK.sub(link, markdown)
