"""Tests of the package as others install it: ranges and pins agree, the core does without the extras."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import sdtalk

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
NEEDS_GRADIO = tuple(
    f"sdtalk.demo.{path.stem}"
    for path in (ROOT / "sdtalk" / "demo").glob("*.py")
    if path.stem not in ("__init__", "launch")  # which says what is missing
)


def ranges(*extras: str) -> dict[str, Requirement]:
    """What the core, and extras, depend on, by name."""
    lines = PROJECT["dependencies"] + [line for extra in extras for line in EXTRAS[extra]]
    found = {canonicalize_name(Requirement(line).name): Requirement(line) for line in lines}
    own = found.pop("sdtalk", None)  # an extra that brings another one
    return found if own is None else found | ranges(*own.extras)


def pins(name: str) -> dict[str, Version]:
    """The versions that a requirements file names, and those that it includes."""
    found: dict[str, Version] = {}
    for line in (ROOT / name).read_text().splitlines():
        line = line.partition("#")[0].strip()
        if line.startswith("-r "):
            found |= pins(line.removeprefix("-r "))
        elif line:
            package, _, pinned = line.partition("==")
            found[canonicalize_name(package)] = Version(pinned)
    return found


@pytest.mark.parametrize(
    "file, extras", [("requirements.txt", ("demo",)), ("requirements-training.txt", ("demo", "train"))]
)
def test_every_pin_lies_in_its_range(file: str, extras: tuple[str, ...]) -> None:
    pinned, wanted = pins(file), ranges(*extras)
    assert pinned.keys() == wanted.keys()
    wrong = [f"{name} {pinned[name]}: {r}" for name, r in wanted.items() if pinned[name] not in r.specifier]
    assert not wrong


def test_the_lowest_versions_are_those_that_were_tested() -> None:
    lowest = pins("scripts/lowest_versions.txt")
    for name, requirement in ranges("demo").items():
        (least,) = (Version(s.version) for s in requirement.specifier if s.operator == ">=")
        assert lowest[name] == least, (
            f"test with {name} {least}, then write it to scripts/lowest_versions.txt"
        )


def test_nobody_is_bound_to_one_version() -> None:
    everything = [*PROJECT["dependencies"], *(line for lines in EXTRAS.values() for line in lines)]
    assert not [line for line in everything if "==" in line]
    assert Requirement(EXTRAS["all"][0]).extras == EXTRAS.keys() - {"all"}


def test_the_version_stands_in_one_place() -> None:
    assert sdtalk.__version__ == (ROOT / "sdtalk" / "_version.py").read_text().split('"')[-2]
    assert "version" in PROJECT["dynamic"]


def without(modules: tuple[str, ...], code: str) -> subprocess.CompletedProcess:
    """Run code in a process in which modules are not installed."""
    hide = f"import sys; sys.modules.update(dict.fromkeys({modules!r}))\n"
    return subprocess.run([sys.executable, "-c", hide + code], capture_output=True, text=True, cwd=ROOT)


def test_the_core_does_without_the_libraries_of_the_extras() -> None:
    own = {name for extra in EXTRAS for name in ranges(extra).keys() - ranges().keys()}
    modules = tuple(
        name.replace("-", "_") for name in own - {"sdtalk", "pyyaml"}
    )  # the Hub's client needs YAML itself
    paths = (path.relative_to(ROOT).with_suffix("").parts for path in (ROOT / "sdtalk").rglob("*.py"))
    names = [".".join(parts).removesuffix(".__init__") for parts in paths]
    code = (
        f"for name in {[n for n in names if n not in (*NEEDS_GRADIO, 'sdtalk.__main__')]!r}: __import__(name)"
    )
    done = without(modules, code)
    assert done.returncode == 0, done.stderr


def test_the_page_says_which_extra_it_needs() -> None:
    done = without(("gradio",), "from sdtalk.cli.main import main; sys.exit(main(['demo']))")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == (
        "sdtalk: the page: Gradio, which serves it, is not installed. "
        'Install the extra that brings it: pip install "sdtalk[demo]".\n'
    )


def test_only_the_page_imports_gradio() -> None:
    for path in (ROOT / "sdtalk").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imports = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        imports += [a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names]
        if any(name.partition(".")[0] == "gradio" for name in imports):
            assert path.is_relative_to(ROOT / "sdtalk" / "demo"), path
