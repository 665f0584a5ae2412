"""Evaluate a model on people it never saw, or videos predicted by any other method beside their targets.

    accelerate launch training/evaluate.py DATA --model mini -o runs/evaluation
    python -m training.evaluate SAMPLES/manifest.json --model runs/stage2 --split dev
    python -m training.evaluate DATA --model mini --codes measured   # the picture alone, without the ears
    python -m training.evaluate --predictions FOLDER --targets FOLDER -o runs/theirs
    python -m training.evaluate DATA --model RUN/model --push-to-hub USER/NAME

DATA is a prepared data set (a folder, or hf://datasets/USER/NAME) or a manifest.json of videos. Writes results.json,
results.md, index.html and a contact sheet per clip. What cannot be measured is listed with the reason; a clip that
fails is listed, and the others go on. Several processes share the clips.
"""

import argparse
import platform
import re
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

if __package__ in (None, ""):  # run by its path: the folder above holds the package `training`
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from tqdm import tqdm

from sdtalk.checkpoint import load_model, locate, read_config
from sdtalk.cli.arguments import USER_ERROR
from sdtalk.devices import choose_device, choose_precision
from sdtalk.errors import InputError
from sdtalk.pipeline import SDTalkPipeline
from training.data.dataset import PreparedDataset, flame_model
from training.evaluation.evaluator import MetricNetworks, measure
from training.evaluation.frame_store import write_contact_sheet
from training.evaluation.protocols import CODES, HEARD, PROTOCOLS, EvaluationCase, prepared_cases
from training.evaluation.results import ClipResult, Results
from training.evaluation.results_writer import RESULTS, write_results
from training.evaluation.tables import as_markdown
from training.evaluation.video_cases import manifest_cases, prediction_cases
from training.publish import check_ready, publish

PACKAGES = ("sdtalk", "torch", "numpy", "scipy", "face-alignment")
CLIP_ERRORS = (InputError, OSError, ValueError, RuntimeError)
"""What may go wrong with one clip and must not stop the others."""


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line.

    Raises:
        InputError: It asks for nothing, or for two things.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="?", help="prepared data set, or manifest.json")
    parser.add_argument("--predictions", type=Path, help="folder of videos that any method predicted")
    parser.add_argument("--targets", type=Path, help="folder of the real videos, of the same names")
    parser.add_argument("--model", default="mini", help="mini, a folder, or USER/NAME on the Hub")
    parser.add_argument("--split", default="dev", help="train, dev (default) or test")
    parser.add_argument("--protocol", default="self", choices=PROTOCOLS)
    parser.add_argument(
        "--codes", default=HEARD, choices=CODES, help="heard (default), or measured: the speaker's own mouth"
    )
    parser.add_argument("--exact", action="store_true", help="without the faster way of mini on a CPU")
    parser.add_argument("--limit-seconds", type=float, default=60.0, help="only the beginning of each clip")
    parser.add_argument("--clips", type=int, help="only so many clips")
    parser.add_argument(
        "--every", type=int, default=5, help="SSIM, LPIPS, identity: every so manieth frame (5)"
    )
    parser.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/evaluation"))
    parser.add_argument(
        "--push-to-hub", metavar="USER/NAME", help="upload the model with these figures in its card"
    )
    arguments = parser.parse_args(argv)
    folders = arguments.predictions, arguments.targets
    if (arguments.data is None) == (folders == (None, None)) or (None in folders and any(folders)):
        problem = "it is not clear what to measure"
        raise InputError("evaluate", problem, "Give DATA, or --predictions FOLDER --targets FOLDER.")
    if arguments.data is None and arguments.codes != HEARD:
        problem = "predictions are rendered already"
        raise InputError(f"--codes {arguments.codes}", problem, "Leave it out, or give DATA.")
    if arguments.push_to_hub:
        if not Path(arguments.model).is_dir():
            problem = f"the model {arguments.model!r} is no folder that could be uploaded"
            raise InputError("--push-to-hub", problem, "Give --model RUN/model.")
        check_ready(Path(arguments.model), arguments.push_to_hub)
    for name, least in (("limit_seconds", 0.04), ("clips", 1), ("every", 1)):
        value = getattr(arguments, name)
        if value is not None and not value >= least:
            raise InputError(f"--{name.replace('_', '-')} {value}", f"it is less than {least}", "Give more.")
    return arguments


def evaluation_cases(
    arguments: argparse.Namespace, device: str
) -> tuple[list[EvaluationCase], list[tuple[str, str]]]:
    """What is to be rendered or read, and what is known to fail already."""
    seconds, codes = arguments.limit_seconds, arguments.codes
    if arguments.data is None:
        return prediction_cases(arguments.predictions, arguments.targets, seconds)
    if arguments.data.endswith(".json"):
        pipeline = SDTalkPipeline.from_pretrained(arguments.model, device)
        path = Path(arguments.data)
        how = arguments.split, arguments.protocol, seconds, codes, arguments.exact
        return manifest_cases(path, pipeline, *how), []
    prepared = PreparedDataset.open(arguments.data)
    if prepared.index.tracker == "flame":
        flame_model()  # every clip needs it: what is missing shows at once
    folder = locate(arguments.model)
    precision = choose_precision("auto", read_config(folder), torch.device(device))
    model = load_model(folder, device).in_precision(precision)
    how = arguments.split, arguments.protocol, seconds, device, codes, arguments.exact
    cases = prepared_cases(prepared, model, *how)
    return cases, []


def evaluate_clip(case: EvaluationCase, networks: MetricNetworks, output: Path, number: int) -> ClipResult:
    """Render one clip and measure it; its number keeps contact sheets of like names apart."""
    sheet = f"sheets/{number:04d}_{re.sub(r'[^A-Za-z0-9_.-]', '_', case.name)}.jpg"
    with case.open() as clip:
        scores = measure(clip, networks)
        write_contact_sheet(output / sheet, [clip.real, clip.predicted])
        frames = len(clip.predicted)
    return ClipResult(
        case.name, case.person, case.group, case.source, frames, case.mouth, scores.metrics,
        scores.missing, sheet,
    )  # fmt: skip


def describe_run(arguments: argparse.Namespace, argv: list[str], device: str) -> dict[str, object]:
    """What was measured, with what."""
    known = {}
    for package in PACKAGES:
        try:
            known[package] = version(package)
        except PackageNotFoundError:
            continue
    theirs = arguments.data is None
    return {
        "command": shlex.join(["training/evaluate.py", *argv]),
        "model": arguments.predictions.resolve().name if theirs else arguments.model,
        "data": str(arguments.targets) if theirs else f"{arguments.data}, split {arguments.split}",
        "protocol": "predictions beside targets" if theirs else arguments.protocol,
        "codes": "" if theirs else arguments.codes,
        "limit_seconds": arguments.limit_seconds,
        "every": arguments.every,
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else platform.machine(),
        "versions": {"python": platform.python_version(), **known},
    }


def run(arguments: argparse.Namespace, argv: list[str]) -> Results | None:
    """Measure all clips; None on all processes but the first.

    Raises:
        InputError: Nothing could be measured, or written.
    """
    state = PartialState(cpu=arguments.device == "cpu")
    device = str(state.device) if state.num_processes > 1 else str(choose_device(arguments.device))
    cases, failed = evaluation_cases(arguments, device)
    cases = cases[: arguments.clips]
    networks = MetricNetworks.installed(device, arguments.every)
    output: Path = arguments.output
    done: list[ClipResult] = []
    mine = list(enumerate(cases))[state.process_index :: state.num_processes]
    for number, case in tqdm(mine, desc="clips", disable=not state.is_main_process):
        try:
            done.append(evaluate_clip(case, networks, output, number))
        except CLIP_ERRORS as error:
            failed.append((case.name, str(error)))
            print(f"warning: {case.name}: {error}", file=sys.stderr, flush=True)
    done, failed = gather_object(done), list(dict.fromkeys(gather_object(failed)))
    if not state.is_main_process:
        return None
    done.sort(key=lambda clip: clip.name)
    results = Results(describe_run(arguments, argv, device), done, failed)
    write_results(output, results)
    if not done:
        raise InputError(str(output), "no clip could be measured", f"The first reason: {failed[0][1]}")
    return results


def main(argv: list[str] | None = None) -> int:
    """Run from the command line."""
    try:
        arguments = parse_arguments(argv)
        results = run(arguments, sys.argv[1:] if argv is None else argv)
        if results is not None:
            print(as_markdown(results))
            print(f"{arguments.output}/index.html shows it.")
            if arguments.push_to_hub:
                print(publish(Path(arguments.model), arguments.push_to_hub, arguments.output / RESULTS))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
