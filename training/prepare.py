"""Talking clips -> tracked, cropped frames with masks, mouth codes and aligned sound, ready for training.

    python -m training.prepare SAMPLES/manifest.json -o data/prepared [--split train] [--every 3]

Each clip becomes a folder: `clip.npz` (camera, mesh, eyes and mouth of every 25 fps frame, sound at 16 kHz moved by
the manifest's `audio_late_ms`) and every n-th frame as a JPEG with its person mask as a PNG. A folder appears
complete or not at all, so an interrupted run continues where it stopped.
"""

import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from sdtalk.audio import SAMPLE_RATE_HZ, read_speech
from sdtalk.errors import InputError
from sdtalk.image import crop_picture
from sdtalk.tracking.face_model import FaceModel
from sdtalk.tracking.tracker import Tracker
from sdtalk.video import read_frames

JPEG_QUALITY = 95


def prepare_clip(path: Path, late_ms: float, tracker: Tracker, target: Path, every: int) -> None:
    """Track one clip and write its folder.

    Args:
        path: The clip.
        late_ms: How late its sound is.
        tracker: Finds the face.
        target: The folder to make.
        every: Keep every n-th frame as a picture.
    """
    video = tracker.video(read_frames(path), str(path))
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    frames = len(video.track)
    for index, frame in enumerate(_every(read_frames(path), every)):
        if index * every >= frames:
            break
        crop = crop_picture(frame, video.crop, 512)
        mask = tracker.person_masks(crop[None])[0, 0]
        name = f"{index * every:05d}"
        Image.fromarray(crop).save(partial / f"{name}.jpg", quality=JPEG_QUALITY)
        Image.fromarray((mask.numpy() * 255).round().astype(np.uint8)).save(partial / f"{name}.png")
    track = video.track
    np.savez(
        partial / "clip.npz",
        world_to_camera=track.camera.world_to_camera.numpy(),
        mesh=track.mesh.numpy(),
        eyes=track.eyes.numpy(),
        mouth=FaceModel.bundled().mouth_code(track.mesh).numpy(),
        audio=_sound(path, late_ms, frames),
    )
    partial.rename(target)


def _every(frames: Iterator[np.ndarray], step: int) -> Iterator[np.ndarray]:
    return (frame for index, frame in enumerate(frames) if index % step == 0)


def _sound(path: Path, late_ms: float, frames: int) -> np.ndarray:
    """The clip's sound, moved earlier by how late it is; empty where there is none."""
    try:
        samples = read_speech(path).samples.numpy()
    except InputError:
        return np.zeros(0, np.float32)
    shift = round(late_ms / 1000 * SAMPLE_RATE_HZ)
    samples = np.pad(samples[max(shift, 0) :], (max(-shift, 0), max(shift, 0)))
    return samples[: frames * SAMPLE_RATE_HZ // 25].astype(np.float32)


def main() -> None:
    """Prepare every clip of the manifest that is not there yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("data/prepared"))
    parser.add_argument("--split", default="train")
    parser.add_argument("--every", type=int, default=3)
    arguments = parser.parse_args()
    tracker = Tracker.from_bundled()
    entries = json.loads(arguments.manifest.read_text(encoding="utf-8"))
    clips = [e for e in entries if e["split"] == arguments.split and e["file"].startswith("clips/")]
    for entry in tqdm(clips, unit="clip"):
        target = arguments.output / Path(entry["file"]).stem
        if target.exists():
            continue
        try:
            late_ms = entry.get("audio_late_ms") or 0
            prepare_clip(arguments.manifest.parent / entry["file"], late_ms, tracker, target, arguments.every)
        except InputError as error:
            tqdm.write(f"skipped {error}")
            continue
        facts = {k: entry.get(k) for k in ("identity", "own_speech_audio", "dataset")}
        (target / "facts.json").write_text(json.dumps(facts), encoding="utf-8")


if __name__ == "__main__":
    main()
