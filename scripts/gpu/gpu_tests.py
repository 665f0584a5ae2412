"""GPU tests: the tests marked `gpu` as a step, and what became of each of them."""

import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from scripts.gpu.steps import ROOT, Finished, Step

SECONDS = 170.0
REHEARSED = "test_camera or gsplat_equals or equals_plain_pytorch"
"""A few tests that pass without a GPU, and some that are skipped."""

TYPED = ["-o", "addopts=--strict-markers --jaxtyping-packages=sdtalk,beartype.beartype"]
UNTYPED = ["-o", "addopts=--strict-markers"]
"""Where there is no beartype, tests run without checks of types."""


def gpu_test_files() -> list[str]:
    """Files that hold such tests; others may want packages that are not there."""
    tests = sorted((ROOT / "tests").glob("test_*.py"))
    marked = [path for path in tests if "mark.gpu" in path.read_text(encoding="utf-8")]
    return [path.relative_to(ROOT).as_posix() for path in marked]


def tests_step(scratch: Path, typed: bool, tiny: bool, chosen: str | None) -> Step:
    """Run them.

    Args:
        scratch: Folder for their report.
        typed: Whether beartype is there.
        tiny: Rehearse without a GPU: a few tests instead.
        chosen: For pytest's -k, instead of all.
    """
    report = scratch / "tests.xml"
    command = [sys.executable, "-m", "pytest", *(TYPED if typed else UNTYPED), "-v", "--tb=short", "-rs"]
    command += ["-p", "no:cacheprovider", "--continue-on-collection-errors", f"--junit-xml={report}"]
    command += ["--durations=8", "-m", "gpu or not gpu" if tiny else "gpu"]
    files = gpu_test_files()
    if tiny:
        files, chosen = ["tests/test_camera.py", *files], chosen or REHEARSED
    command += ["-k", chosen] if chosen else []
    return Step("tests", [*command, *files], SECONDS, lambda done: found(done, report), problem, grace=15)


def found(done: Finished, report: Path) -> dict[str, Any]:
    """Counts, what failed with its last line, and why tests were skipped."""
    try:
        results, whole = from_xml(report), done.code is not None
    except (OSError, ElementTree.ParseError):  # killed before it was written
        results, whole = from_lines(done.output), False
    counts = Counter(status for _, status, _ in results)
    reasons = Counter(reason for _, status, reason in results if status == "skipped")
    failed = {name: reason for name, status, reason in results if status == "failed"}
    return {
        **{status: counts[status] for status in ("passed", "failed", "skipped")},
        "complete": whole,
        "failures": failed,
        "skip reasons": dict(reasons),
    }


def problem(facts: dict[str, Any]) -> str:
    """Why the tests do not count as passed, or ""."""
    if facts["failed"]:
        return f"{facts['failed']} of {facts['failed'] + facts['passed']} tests failed"
    return "" if facts["passed"] or facts["skipped"] else "no test was found"


def from_xml(report: Path) -> list[tuple[str, str, str]]:
    """Name, status and reason of every test of a JUnit file."""
    results = []
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname', '')}::{case.get('name', '')}".lstrip(":")
        status, reason = "passed", ""
        for kind in ("skipped", "error", "failure"):
            if (note := case.find(kind)) is not None:
                status = "skipped" if kind == "skipped" else "failed"
                text = (note.get("message") or note.text or "").strip()
                reason = text.splitlines()[0][:300] if text else kind
        results.append((name, status, reason))
    return results


def from_lines(output: str) -> list[tuple[str, str, str]]:
    """The same from what pytest -v has printed so far."""
    status = {"PASSED": "passed", "FAILED": "failed", "ERROR": "failed", "SKIPPED": "skipped"}
    lines = re.findall(r"^(tests/\S+::.*?) (PASSED|FAILED|ERROR|SKIPPED)(.*)", output, re.MULTILINE)
    return [(name, status[word], rest.strip(" ()[]%0123456789")) for name, word, rest in lines]
