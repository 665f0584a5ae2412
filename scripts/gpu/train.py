"""GPU training: mini learns for some minutes on a machine that is lent, from raw clips to an evaluated model.

    scripts/gpu_train.sh --out results --clips clips --until 500
    scripts/gpu_train.sh --out results --data data/prepared --until 60 --device cpu --tiny      # a rehearsal

Prepares on all cores, evaluates mini, trains stage 1 and 2 in bfloat16 and then the painters of mouth and eyes,
puts what became better together, and evaluates it. OUT/model is loaded as any checkpoint; in WORK are the runs, which
`training/train.py --resume` takes up again. report.json, report.md and log.txt are whole whenever it is stopped.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from scripts.gpu.check import INTERRUPTED, NO_GPU, UNUSABLE, module_step
from scripts.gpu.steps import FAILED, PASSED, Outcome, Steps, table
from scripts.gpu.train_plan import SHARES, TrainPlan, newest, prepare_steps
from scripts.gpu.train_report import train_report
from scripts.gpu.wheels import search_path, wheels_step

ENDING_SECONDS = 20.0
"""For putting the model together, beside its evaluation."""

EVALUATION_SECONDS = 90.0
MOST_FOR_EVALUATION = 0.25
"""Of what is left when learning begins: with less time a model is made that is not measured, rather than none."""


def main(words: Sequence[str] | None = None) -> int:
    """Run all of it; 0: nothing failed, 1: something did, 2: an input cannot be used, 130: it was stopped."""
    arguments = parsed(words)
    work: Path = arguments.work or arguments.out / "work"
    source: Path = arguments.clips or arguments.data
    if not source.is_dir():
        print(f"gpu_train: {source}: there is no such folder; check its path.", file=sys.stderr)
        return UNUSABLE
    with tempfile.TemporaryDirectory(prefix="sdtalk-gpu-") as scratch:
        site = Path(scratch, "site")
        path = search_path(site, os.environ.get("PYTHONPATH", ""))
        environment = {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}
        if arguments.device == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ""
        steps = Steps(arguments.out, arguments.until, environment, train_report)
        try:
            code = run_all(steps, arguments, work.resolve(), site)
        except KeyboardInterrupt:
            code = INTERRUPTED
        finally:
            keep_model(work.resolve(), arguments.out)
            steps.write()
    print(f"\n{table(steps.outcomes)}\n\n{arguments.out / 'report.md'}", flush=True)
    return code


def parsed(words: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/gpu_train.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--clips", type=Path, help="folder of raw videos, with manifest.json or a folder a person"
    )
    source.add_argument("--data", type=Path, help="folder that training/prepare.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder for the reports and the model")
    parser.add_argument("--work", type=Path, help="folder for data and runs (default: OUT/work)")
    parser.add_argument("--until", type=float, default=500.0, help="seconds for all of it (default 500)")
    parser.add_argument("--batch", type=int, default=16, help="samples a step (default 16)")
    parser.add_argument("--wheels", type=Path, help="folder of wheels that this machine lacks")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--tiny", action="store_true", help="a rehearsal: a step or two of everything")
    return parser.parse_args(words)


def run_all(steps: Steps, arguments: argparse.Namespace, work: Path, site: Path) -> int:
    """Prepare, measure, learn, measure."""
    work.mkdir(parents=True, exist_ok=True)
    if arguments.wheels is not None:
        steps.run(wheels_step(arguments.wheels, site))
    facts = steps.run(module_step("facts", 40))
    if arguments.device == "cuda" and facts.facts.get("cuda") is False:
        print(f"gpu_train: device cuda: {NO_GPU}; rehearse with --device cpu --tiny.", file=sys.stderr)
        return UNUSABLE
    data = (work / "data" if arguments.clips else arguments.data).resolve()
    if arguments.clips is not None:
        for step in prepare_steps(arguments.clips.resolve(), data, 0.4 * arguments.until):
            if steps.run(step).status == PASSED:
                break
    if not (data / "index.json").is_file():
        steps.skip(["evaluate before", *SHARES, "assemble", "evaluate after"], "there is no data set")
        return 1
    batch = 2 if arguments.tiny else arguments.batch
    plan = TrainPlan(data, work, arguments.device, arguments.tiny, batch, held_out(data))
    learn(steps, plan)
    failed = [o for o in steps.outcomes if o.status == FAILED and not o.name.startswith("prepare,")]
    return int(bool(failed))


def learn(steps: Steps, plan: TrainPlan) -> None:
    """Evaluate, share out what time is left, train, put together what became better, evaluate."""
    before = steps.run(plan.evaluate("evaluate before", "mini", EVALUATION_SECONDS))
    again = before.seconds if before.status == PASSED else EVALUATION_SECONDS
    available = max(0.0, steps.left - ENDING_SECONDS - min(again, MOST_FOR_EVALUATION * steps.left))
    model, painters = "mini", list[str]()
    for number in (1, 2):
        outcome = steps.run(plan.stage(number, model, SHARES[f"stage {number}"] * available))
        if outcome.facts.get("has model"):
            model = str(plan.work / f"stage{number}" / "model")
    for window in ("mouth", "eyes"):
        outcome = steps.run(plan.painter(window, SHARES[window] * available))
        if outcome.facts.get("better"):
            painters.append(window)
    if steps.run(plan.assemble(model, painters)).status == PASSED:
        model = str(plan.work / "model")
    steps.run(plan.evaluate("evaluate after", model, EVALUATION_SECONDS))
    note = Outcome("kept", PASSED, facts={"model": model, "painters": painters, "split": plan.split})
    note.facts["resume"] = {n: str(newest(plan.work / f"stage{n}") or "") for n in (1, 2)}
    steps.outcomes.append(note)


def held_out(data: Path) -> str:
    """The split that models are measured on: people who are not learned from, where there are any."""
    clips = json.loads((data / "index.json").read_text(encoding="utf-8"))["clips"]
    splits = {clip["split"] for clip in clips}
    return next((name for name in ("dev", "test", "train") if name in splits), "train")


def keep_model(work: Path, out: Path) -> None:
    """Copy the newest model that is whole to OUT/model."""
    for folder in (work / "model", work / "stage2" / "model", work / "stage1" / "model"):
        if (folder / "model.safetensors").is_file() and (folder / "config.json").is_file():
            shutil.copytree(folder, out / "model", dirs_exist_ok=True)
            return


if __name__ == "__main__":
    raise SystemExit(main())
