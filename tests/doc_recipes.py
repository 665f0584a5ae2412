"""Recipes of CONTRIBUTING.md, followed: a copy of the repository with the files they add and the lines they change."""

import re
from pathlib import Path

from doc_pages import ROOT, Block

PARTS = ("sdtalk", "training", "tests", "examples", "benchmarks", "pyproject.toml")


def files_of(blocks: list[Block]) -> dict[str, str]:
    """New files by their paths: Python blocks whose first line names one."""
    found = {}
    for block in blocks:
        if block.kind == "python" and (name := re.match(r"# ([\w/]+\.py)\n", block.text)):
            found[name[1]] = block.text[name.end() :]
    return found


def changed_files(blocks: list[Block]) -> dict[str, str]:
    """What the diffs of recipes make of files that are there; one after the other, each of its own lines once.

    Raises:
        AssertionError: The lines that a diff takes out or stands between are not in its file, or more than once.
    """
    texts: dict[str, str] = {}
    for block in (b for b in blocks if b.kind == "diff"):
        for name, hunks in re.findall(
            r"^--- a/(\S+)\n\+\+\+ b/\1\n@@\n((?:.*\n)*?)(?=--- a/|\Z)", block.text, re.M
        ):
            text = texts.get(name) or (ROOT / name).read_text(encoding="utf-8")
            for hunk in hunks.split("@@\n"):
                lines = hunk.splitlines(keepends=True)
                old = "".join(line[1:] for line in lines if line[0] in " -")
                new = "".join(line[1:] for line in lines if line[0] in " +")
                assert text.count(old) == 1, (
                    f"{block}: {name} has these lines {text.count(old)} times:\n{old}"
                )
                text = text.replace(old, new)
            texts[name] = text
    return texts


def copy_with(files: dict[str, str], folder: Path) -> None:
    """Fill a folder with links to the files of the repository, and with new and changed ones."""
    changed = {str(Path(name).parent) for name in files}
    for part in PARTS:
        for path in [ROOT / part, *(ROOT / part).rglob("*")]:
            place = folder / path.relative_to(ROOT)
            if path.name == "__pycache__":
                # machine code of the kernels, which are as they were: compiling them takes a while
                if str(path.parent.relative_to(ROOT)) not in changed:
                    place.symlink_to(path)
            elif path.is_dir():
                place.mkdir()
            elif path.parent.name != "__pycache__":
                place.symlink_to(path)
    for name, text in files.items():
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
