"""Prepare raw videos of talking people as a training set: clips at 25 frames a second, tracked, cropped, with sound.

    python -m training.prepare VIDEOS -o data/prepared
    accelerate launch training/prepare.py VIDEOS -o data/prepared --set limits.yaw_deg=40 sound=hubert
    torchrun --nproc_per_node 8 training/prepare.py VIDEOS -o data/prepared    (several processes without a GPU)

VIDEOS is a folder (a sub-folder is a person), a manifest.json, or the folder of HDTF (--layout hdtf) or MEAD (--layout
mead). An interrupted run goes on where it stopped, a finished one takes in what is new; --max-seconds ends a run in
time, with a whole set of what is done. report/report.md says what was kept, and why the rest was not.
"""

import argparse
import fcntl
import os
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

if __package__ in (None, ""):  # run by its path: the folder above holds the package `training`
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from sdtalk.process import tune_process

tune_process()

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, parse_flag_from_env
from tqdm import tqdm

from sdtalk.errors import InputError
from sdtalk.flame.tracker import FlameTracker
from sdtalk.speech.hubert import HubertFeatures
from sdtalk.tracking.tracker import Tracker
from training.data.atomic import cannot_write
from training.data.shards import finish_dataset, plan_shards, remove_clip_folder, write_shards
from training.preparation.audio_offset import bundled_opening_predictor
from training.preparation.clip_writer import DISK_ERRORS, ClipWriter, hubert_features, mel_features
from training.preparation.discovery import assign_splits, find_videos
from training.preparation.folders import PreparationFolders
from training.preparation.layouts import LAYOUTS
from training.preparation.quality_report import read_reports, summary, write_report
from training.preparation.settings import PrepareSettings
from training.preparation.source_video import SourceVideo
from training.preparation.video_preparer import VideoPreparer
from training.preparation.video_report import VideoReport, failed_report, file_bytes
from training.processes import wait_for_all
from training.settings import read_settings, settings_to_dict, write_settings

CONFIG = Path(__file__).parent / "configs" / "prepare.yaml"
LONGEST_WAIT = timedelta(days=30)
"""Of a process for the others, whose videos may be longer."""

MEL_WIDTH = 80


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0: there is a data set, 2: the user has to do something, and is told what."""
    arguments = _arguments(argv)
    try:
        return _run(arguments)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted. The same command goes on from here.", file=sys.stderr)
        return 130


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("videos", type=Path, help="a folder of videos, or a manifest.json")
    parser.add_argument("-o", "--output", type=Path, default=Path("data/prepared"), help="the data set")
    parser.add_argument("--config", type=Path, default=CONFIG, help="settings (default: %(default)s)")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE")
    parser.add_argument(
        "--layout",
        "--recipe",
        choices=sorted(LAYOUTS),
        help="how the videos are laid out; --recipe is its old name",
    )
    parser.add_argument(
        "--max-seconds",
        type=float,
        help="begin no further video after so long, and write the set of those done; the same command goes on",
    )
    return parser.parse_args(argv)


def _run(arguments: argparse.Namespace) -> int:
    settings = read_settings(arguments.config, PrepareSettings, arguments.set)
    sources = assign_splits(find_videos(arguments.videos, arguments.layout), settings.splits)
    until = None if arguments.max_seconds is None else time.monotonic() + arguments.max_seconds
    without_gpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    state = PartialState(cpu=without_gpu, timeout=LONGEST_WAIT)
    folders = PreparationFolders(arguments.output)
    if state.is_main_process:
        _create_folders(folders, settings)
    wait_for_all()
    lock = _lock(folders, state.process_index)
    try:
        return _prepare_all(arguments.videos, sources, folders, settings, state, until)
    finally:
        os.close(lock)


def _prepare_all(
    videos: Path,
    sources: Sequence[SourceVideo],
    folders: PreparationFolders,
    settings: PrepareSettings,
    state: PartialState,
    until: float | None,
) -> int:
    """Clips, then shards, then the report."""
    _prepare_videos(_own_share(sources, state), folders, settings, state, until)
    wait_for_all()
    if not read_reports(folders.reports) or not _write_dataset(folders, settings, state):
        _write_report(folders, state)
        problem = "none of its videos could be used" + ", or was done in time" * (until is not None)
        raise InputError(str(videos), problem, f"See {folders.target / 'report' / 'report.md'}.")
    _write_report(folders, state)
    return 0


def _create_folders(folders: PreparationFolders, settings: PrepareSettings) -> None:
    """Make the folder, or see that an earlier run with the same settings made it."""
    path = folders.target / "prepare.yaml"
    try:
        folders.reports.mkdir(parents=True, exist_ok=True)
        folders.clips.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            write_settings(path, settings)
    except OSError as error:
        raise cannot_write(folders.target, error) from error
    before, now = settings_to_dict(read_settings(path, PrepareSettings)), settings_to_dict(settings)
    changed = [name for name in now if before[name] != now[name]]
    if changed:
        name = changed[0]
        problem = f"it was begun with other settings ({name}: {before[name]}, now {now[name]})"
        raise InputError(str(folders.target), problem, f"Give another folder, or --config {path}.")


def _lock(folders: PreparationFolders, process: int) -> int:
    """Keep a second run out of the same folder; the lock ends with this process, however it ends."""
    handle = os.open(folders.target / "work" / f"process-{process}.lock", os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        problem = "another run is preparing videos into it"
        raise InputError(str(folders.target), problem, "Wait for it, or end it.") from error
    except OSError:  # a file system without locks
        pass
    return handle


def _own_share(sources: Sequence[SourceVideo], state: PartialState) -> list[SourceVideo]:
    """This process's videos: the longest first, each to the process that has least; the same on all processes."""
    loads = [0] * state.num_processes
    mine = []
    for source in sorted(sources, key=lambda s: (-file_bytes(s.path), s.video_id)):
        process = loads.index(min(loads))
        loads[process] += file_bytes(source.path) + 1
        if process == state.process_index:
            mine.append(source)
    return sorted(mine, key=lambda source: source.video_id)


def _is_done(source: SourceVideo, folders: PreparationFolders) -> bool:
    """Whether a video has its report; one that could not be read is tried again when its file has changed."""
    path = folders.reports / f"{source.video_id}.json"
    if not path.exists():
        return False
    report = VideoReport.read(path)
    return bool(report.seconds) or report.file_bytes == file_bytes(source.path)


def _prepare_videos(
    sources: Sequence[SourceVideo],
    folders: PreparationFolders,
    settings: PrepareSettings,
    state: PartialState,
    until: float | None,
) -> None:
    """Prepare those that are not done yet; none is begun when `until` is over, on the clock `time.monotonic`."""
    left = [source for source in sources if not _is_done(source, folders)]
    if not left:
        return
    preparer = _make_preparer(folders, settings, state)
    total = sum(file_bytes(source.path) for source in left)
    with tqdm(total=total, unit="B", unit_scale=True, disable=not state.is_main_process) as bar:
        for source in left:
            if until is not None and time.monotonic() > until:
                tqdm.write("Out of time; the same command goes on from here.", file=sys.stderr)
                break
            bar.set_description(source.video_id[-30:])
            begun, size = bar.n, file_bytes(source.path)
            report = _prepare_one(source, preparer, lambda share, size=size: bar.update(share * size))
            bar.update(begun + size - bar.n)
            if report.problem:
                tqdm.write(f"warning: {report.problem}", file=sys.stderr)


def _make_preparer(
    folders: PreparationFolders, settings: PrepareSettings, state: PartialState
) -> VideoPreparer:
    """Load what the settings ask for; what is missing is missed before any video is read."""
    device, features = state.device, mel_features
    if settings.sound == "hubert":
        features = hubert_features(HubertFeatures.installed(device), settings.token_alignment)
    if settings.tracker == "flame":
        tracker: Tracker = FlameTracker.from_installed(device, eyes_in_px=False, landmarks="mesh")
    else:
        tracker = Tracker.from_bundled(device)
    writer = ClipWriter(tracker, settings.sound, features, settings.limits.person_on_face)
    return VideoPreparer(settings, tracker, writer, bundled_opening_predictor(), folders)


def _prepare_one(
    source: SourceVideo, preparer: VideoPreparer, progress: Callable[[float], object]
) -> VideoReport:
    """Prepare a video; one that cannot be used is reported, and only a disk that takes nothing more ends the run."""
    try:
        return preparer.prepare(source, progress)
    except Exception as error:  # whatever one of thousands of files does to a decoder or a network
        cause = error if isinstance(error, OSError) else error.__cause__
        if isinstance(cause, OSError) and (isinstance(error, InputError) or cause.errno in DISK_ERRORS):
            raise cannot_write(preparer.folders.target, cause) from error
        preparer.discard(source)
        report = failed_report(source, error)
        report.write(preparer.folders.reports)
        return report


def _write_dataset(folders: PreparationFolders, settings: PrepareSettings, state: PartialState) -> bool:
    """Write shards, index and data card; False where there is not one clip."""
    clips = sorted(path for path in folders.clips.iterdir() if not path.name.endswith(".partial"))
    plans = [plan_shards(clips, folders.target, settings.shard_mb) if state.is_main_process else []]
    plans = broadcast_object_list(plans)[0]
    if not plans:
        return False
    done = write_shards(
        plans, clips, folders.target, settings.piece_frames, state.process_index, state.num_processes
    )
    for plan, _ in done:
        for key in plan.clips:
            remove_clip_folder(folders.clips / key)
    wait_for_all()
    if state.is_main_process:
        finish_dataset(
            folders.target, settings.tracker, settings.sound, *_feature_width_and_alignment(settings)
        )
    return True


def _feature_width_and_alignment(settings: PrepareSettings) -> tuple[int, str | None]:
    """Numbers per row of the features, and the alignment of tokens."""
    if settings.sound == "mel":
        return MEL_WIDTH, None
    return HubertFeatures.installed().model.config.hidden_size, settings.token_alignment


def _write_report(folders: PreparationFolders, state: PartialState) -> None:
    """Write the report and print its sums."""
    if state.is_main_process:
        videos = read_reports(folders.reports)
        write_report(videos, folders.report)
        print(*summary(videos), f"Report: {folders.target / 'report' / 'report.md'}", sep="\n")


if __name__ == "__main__":
    raise SystemExit(main())
