"""GPU check: facts, tests, the published model, ceilings, and the speed of both models, in minutes.

    scripts/gpu_check.sh --out results --wheels wheels
    scripts/gpu_check.sh --out results --device cpu --tiny        # a rehearsal without a GPU

Asks no network and installs nothing but the wheels it is given, into a folder that is removed. Writes report.json,
report.md and log.txt around every step: what was found stays when it is stopped. Exit code 0: nothing failed.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from scripts.gpu.check_report import check_report
from scripts.gpu.gpu_tests import tests_step
from scripts.gpu.steps import FAILED, STOPPED, Step, Steps, printed_json, table
from scripts.gpu.wheels import importable, search_path, wheels_step

NO_GPU = "PyTorch finds no GPU"
SPEECH_SECONDS = 40.0
"""Length of the videos whose making is measured: 1,000 frames."""

UNUSABLE, INTERRUPTED = 2, 130


def main(words: Sequence[str] | None = None) -> int:
    """Run all of it; 0: nothing failed, 1: something did, 2: there is no such device, 130: it was stopped."""
    arguments = parsed(words)
    with tempfile.TemporaryDirectory(prefix="sdtalk-gpu-") as scratch:
        site = Path(scratch, "site")
        path = search_path(site, os.environ.get("PYTHONPATH", ""))
        environment = {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}
        steps = Steps(arguments.out, arguments.limit, environment, check_report)
        try:
            code = run_all(steps, arguments, Path(scratch), site)
        except KeyboardInterrupt:
            steps.write()
            code = INTERRUPTED
    print(f"\n{table(steps.outcomes)}\n\n{arguments.out / 'report.md'}", flush=True)
    return code


def parsed(words: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/gpu_check.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the reports")
    parser.add_argument("--wheels", type=Path, help="folder of wheels that this machine lacks")
    parser.add_argument("--limit", type=float, default=350.0, help="seconds for all of it (default 350)")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--tiny", action="store_true", help="a rehearsal: everything small, few tests")
    parser.add_argument("--tests", metavar="EXPRESSION", help="only such tests, as pytest -k takes them")
    parser.add_argument("--only", nargs="+", metavar="STEP", help="only these steps; facts always")
    return parser.parse_args(words)


def run_all(steps: Steps, arguments: argparse.Namespace, scratch: Path, site: Path) -> int:
    """Wheels and facts first; without the device that was asked for, that was all."""
    if arguments.wheels is not None:
        steps.run(wheels_step(arguments.wheels, site))
    facts = steps.run(module_step("facts", 40))
    plan = planned(arguments, scratch, importable("beartype", site))
    if arguments.device == "cuda" and facts.facts.get("cuda") is False:
        steps.skip([step.name for step in plan], NO_GPU)
        print(f"gpu_check: device cuda: {NO_GPU}; rehearse with --device cpu --tiny.", file=sys.stderr)
        return UNUSABLE
    for step in plan:
        steps.run(step)
    return int(any(outcome.status in (FAILED, STOPPED) for outcome in steps.outcomes))


def planned(arguments: argparse.Namespace, scratch: Path, typed: bool) -> list[Step]:
    """The steps after the facts, in order; what makes later ones late is bounded."""
    device, tiny = ["--device", arguments.device], ["--tiny"] if arguments.tiny else []
    models = ["mini"] if arguments.tiny else ["mini", "base"]
    no_base = "left out of a rehearsal" if arguments.tiny else ""
    steps = [
        tests_step(scratch, typed, arguments.tiny, arguments.tests),
        replace(module_step("published", 80, skip=no_base), problem=published_problem),
        module_step("roofline", 30, *device, *tiny),
        bench_step("mini", arguments),
        bench_step("base", arguments, no_base),
        module_step("network_cost", 60, *models, *device),
    ]
    if arguments.only:
        steps = [step for step in steps if step.name in arguments.only]
    return steps


def module_step(name: str, seconds: float, *words: str, skip: str = "") -> Step:
    """A module of this folder that prints JSON."""
    command = [sys.executable, "-m", f"scripts.gpu.{name}", *words]
    return Step(name, command, seconds, printed_json, skip=skip)


def published_problem(facts: dict) -> str:
    """Why the published model does not count as passed, or ""."""
    return "" if facts["passed"] else "the GPU differs by more than TF32 explains"


def bench_step(model: str, arguments: argparse.Namespace, skip: str = "") -> Step:
    """`sdtalk bench` of a model at 512 px."""
    seconds = 0.4 if arguments.tiny else SPEECH_SECONDS if arguments.device == "cuda" else 7.1
    words = ["bench", "--json", "--model", model, "--device", arguments.device, "--seconds", str(seconds)]
    command = [sys.executable, "-m", "sdtalk", *words]
    return Step(f"bench {model}", command, 80, printed_json, skip=skip)


if __name__ == "__main__":
    raise SystemExit(main())
