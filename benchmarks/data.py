"""Benchmark of the data loader on a simulated data set of HDTF's size: `python benchmarks/data.py [--pairs 4000]`.

1.4 million frames of true size: some clips are made of the example portrait, moved and zoomed, and stand in one pair of
shards, to which all the others are hard links. So the index, the sampler and every read are those of the whole set,
while the disk holds a few hundred megabytes; the bytes come from the page cache, so the rates are those of decoding.
"""

import argparse
import dataclasses
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sdtalk.camera import FACING
from sdtalk.tracking.face_model import FaceModel, eye_state
from sdtalk.tracking.tracker import Tracker
from training.data.dataset import PreparedDataset
from training.data.entries import ClipMetadata, Piece, Span
from training.data.index import Index
from training.data.loader import PairLoader
from training.data.sampler import FrameSampler
from training.data.shards import finish_dataset, plan_shards, write_shards

PORTRAIT = Path(__file__).parent.parent / "examples" / "eileen_collins.png"
FRAMES = 1_400_000
CLIP_FRAMES = 500
CLIPS_A_SHARD = 6


def made_clips(folder: Path) -> list[Path]:
    """Clips of one shard; their pictures are the same files."""
    first = folder / "clip-0"
    first.mkdir(parents=True)
    tracker = Tracker.from_bundled()
    with Image.open(PORTRAIT) as image:
        portrait = image.convert("RGB")
    for number in range(CLIP_FRAMES):
        turn = 2 * np.pi * number / CLIP_FRAMES
        side = min(portrait.size) * (0.82 + 0.08 * np.sin(3 * turn))
        left, top = (0.04 * side * (1 + f(2 * turn)) for f in (np.sin, np.cos))
        box = (left, top, left + side, top + side)
        frame = np.array(portrait.resize((512, 512), Image.Resampling.BILINEAR, box))
        mask = (tracker.person_masks(frame[None])[0, 0].numpy() * 255).round().astype(np.uint8)
        frame[mask < 5] = 0
        Image.fromarray(frame).save(first / f"{number:06d}.jpg", quality=95, subsampling=0)
        Image.fromarray(mask).save(first / f"{number:06d}.png")
    np.savez(first / "clip.npz", **arrays())
    clips = [first]
    for number in range(1, CLIPS_A_SHARD):
        clips.append(Path(shutil.copytree(first, folder / f"clip-{number}", copy_function=os.link)))
    for clip in clips:
        metadata = ClipMetadata(clip.name, clip.name, "simulated", "train", CLIP_FRAMES, True)
        (clip / "clip.json").write_text(json.dumps(dataclasses.asdict(metadata)))
    return clips


def arrays() -> dict[str, np.ndarray]:
    """Tracks and sound of a clip."""
    random = np.random.default_rng(0)
    mesh = FaceModel.bundled().mean_face.repeat(CLIP_FRAMES, 1, 1)
    pose = torch.eye(4).repeat(CLIP_FRAMES, 1, 1)
    pose[:, :3, :3], pose[:, 2, 3] = FACING, 9.5
    return {
        "world_to_camera": pose.numpy(),
        "mesh": mesh.numpy(),
        "eyes": eye_state(mesh).numpy(),
        "mouth": FaceModel.bundled().mouth_code(mesh).numpy(),
        "audio": random.integers(-9999, 9999, CLIP_FRAMES * 640).astype(np.int16),
        "mel": random.normal(size=(4 * CLIP_FRAMES + 33, 80)).astype(np.float16),
    }


def simulated(folder: Path) -> PreparedDataset:
    """The whole set, of one true pair of shards."""
    made, target = made_clips(folder / "work"), folder / "set"
    for _ in write_shards(plan_shards(made, target, 1e6), made, target):
        pass
    index = finish_dataset(target, "face_mesh", "mel")
    clips = []
    for shard in range(-(-FRAMES // (CLIP_FRAMES * CLIPS_A_SHARD))):
        name = f"train-{shard:05d}.tar"
        if shard:
            for kind in ("frames", "clips"):
                os.link(target / kind / "train-00000.tar", target / kind / name)
        for clip in index.clips:
            key = f"shard{shard:03d}-{clip.key}"
            record = dataclasses.replace(clip.record, shard=f"clips/{name}")
            pieces = tuple(dataclasses.replace(piece, shard=f"frames/{name}") for piece in clip.pieces)
            clips.append(dataclasses.replace(clip, key=key, person=f"p{shard}", record=record, pieces=pieces))
    dataclasses.replace(index, clips=tuple(clips)).write(target)
    return PreparedDataset.open(target)


def row(what: str, value: str) -> None:
    """Print a line of the table."""
    print(f"| {what} | {value} |", flush=True)


def measure_index(prepared: PreparedDataset) -> None:
    """Size and loading of the index."""
    index, path = prepared.index, Path(prepared.store.source) / "index.json"
    frames = sum(clip.frames for clip in index.clips)
    spans = [span for _, span in index.spans()]
    row("frames, clips, pieces", f"{frames:,}, {len(index.clips):,}, {len(spans) - len(index.clips):,}")
    row("shards", f"{len({span.shard for span in spans}):,}, {sum(span.size for span in spans) / 1e9:.0f} GB")
    frame_bytes = sum(span.size for span in spans if isinstance(span, Piece)) / frames
    row("bytes a frame (picture, mask, metadata)", f"{frame_bytes / 1e3:.1f} kB")
    start = time.perf_counter()
    Index.from_json(path.read_bytes(), "index")
    parsed = time.perf_counter() - start
    start = time.perf_counter()
    PreparedDataset.open(path.parent)
    opened = time.perf_counter() - start
    row("index.json", f"{path.stat().st_size / 1e6:.1f} MB, parsed in {parsed:.2f} s")
    row("opening the set, all shards checked", f"{opened:.2f} s")


def measure_sampler(prepared: PreparedDataset) -> None:
    """How fast frames are sampled, from the start and far into a training."""
    start = time.perf_counter()
    sampler = FrameSampler(prepared.index.of("train"), slots=8, seed=0)
    sampler.open_clip(0, 0)
    row(
        "order of an epoch", f"{sampler.epoch_length:,} clips in {(time.perf_counter() - start) * 1e3:.0f} ms"
    )
    for step in (0, 1_000_000):
        start = time.perf_counter()
        for later in range(step, step + 500):
            for slot in range(8):
                sampler.sample(slot, later, sampler.open_clip(slot, sampler.clip_number(later)))
        rate = 4000 / (time.perf_counter() - start)
        row(f"sampling from step {step:,} on", f"{rate:,.0f} samples a second")


def measure_rate(prepared: PreparedDataset, threads: int, pairs: int) -> None:
    """Pairs a second, once all pieces are open."""
    loader = iter(PairLoader(prepared, 1, pairs, threads=threads, seed=threads))
    for _ in range(40):
        next(loader)
    start, cpu = time.perf_counter(), time.process_time()
    for _ in range(pairs - 40):
        next(loader)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    pairs -= 40
    row(
        f"pairs a second, {threads} decoding thread{'s' * (threads > 1)}",
        f"{pairs / wall:.0f}; {cpu / pairs * 1e3:.1f} ms of a core each",
    )


def measure_memory(prepared: PreparedDataset, pairs: int, threads: int) -> None:
    """Memory in use while pairs stream by."""
    process, per_device = psutil.Process(), 4
    loader = PairLoader(prepared, per_device, pairs // per_device, threads=threads)
    clips = set()
    row("memory before", f"{process.memory_info().rss / 1e6:.0f} MB")
    for step, _ in enumerate(loader, 1):
        for slot in range(per_device):
            clips.add(loader.sampler.open_clip(slot, loader.sampler.clip_number(step - 1)).clip.key)
        if step % (pairs // per_device // 8) == 0:
            row(
                f"memory after {step * per_device:,} pairs of {len(clips):,} clips",
                f"{process.memory_info().rss / 1e6:.0f} MB",
            )


def measure_span(prepared: PreparedDataset) -> None:
    """One read of a range, checked."""
    pieces = [clip.pieces[3] for clip in prepared.index.clips[::20]]
    start = time.perf_counter()
    for piece in pieces:
        prepared.piece(piece)
    wall = time.perf_counter() - start
    span: Span = pieces[0]
    row(
        f"a piece ({span.size / 1e6:.1f} MB) read, checked and taken apart",
        f"{wall / len(pieces) * 1e3:.0f} ms",
    )


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=4000, help="pairs to stream while watching memory")
    parser.add_argument("--rate-pairs", type=int, default=640, help="pairs for each rate")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        prepared = simulated(Path(folder))
        print("| what | measured |\n|---|---|")
        measure_index(prepared)
        measure_sampler(prepared)
        measure_span(prepared)
        measure_memory(prepared, arguments.pairs, threads=2)
        for threads in (1, 2):
            measure_rate(prepared, threads, arguments.rate_pairs)


if __name__ == "__main__":
    main()
