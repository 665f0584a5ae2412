"""Self-reenactment on clips of people the model never saw: picture quality, and whether the mouth follows the sound.

    python -m training.evaluate SAMPLES/manifest.json [--model mini] [--split dev] [-o runs/evaluation]

Each clip is rendered from its own first frame, its sound, its tracked poses and its eye state (`sdtalk reenact`) and
compared with its real frames in the same crop before the same black background. The frozen first frame is the
baseline. The mouth is measured by tracking the *rendered* frames as if they were a video. Writes results.json, a
Markdown table and a contact sheet per clip (source, then real above predicted frames).
"""

import argparse
import json
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from sdtalk.pipeline import SDTalkPipeline
from sdtalk.reenact import ReenactOptions, frame_pairs, prepare
from sdtalk.tracking.face_model import FaceModel
from training.metrics import best_lag_correlation, psnr, ssim

MAX_LAG_FRAMES = 6
SHEET_COLUMNS = 8


@dataclass(frozen=True)
class ClipResult:
    """Figures of one clip; the mouth's are None where the sound is not the speaker's own."""

    clip: str
    frames: int
    psnr: float
    psnr_frozen: float
    ssim: float
    ssim_frozen: float
    mouth_correlation: float | None
    mouth_lag_frames: int | None
    mouth_spread: float | None


def mouth_openings(pipeline: SDTalkPipeline, frames: list[np.ndarray], name: str) -> np.ndarray:
    """Opening of the mouth in each picture, tracked as a video."""
    track = pipeline.tracker.video(iter(frames), name).track
    return FaceModel.bundled().mouth_opening(track.mesh).numpy()


def evaluate_clip(
    pipeline: SDTalkPipeline, path: Path, own_speech: bool, sheet: Path, seconds: float
) -> ClipResult:
    """Render one clip and compare it."""
    repetition = prepare(pipeline, path, ReenactOptions())
    limit = int(seconds * 25)
    pairs = list(islice(frame_pairs(pipeline, repetition), limit))
    predicted, real = [p for p, _ in pairs], [r for _, r in pairs]
    correlation = lag = spread = None
    if own_speech:
        ours, theirs = (mouth_openings(pipeline, frames, str(path)) for frames in (predicted, real))
        correlation, lag = best_lag_correlation(ours, theirs, MAX_LAG_FRAMES)
        spread = float(ours.std() / max(theirs.std(), 1e-6))
    write_sheet(sheet, predicted, real)
    later = range(1, len(pairs))  # the first frame is the source itself
    return ClipResult(
        clip=path.stem,
        frames=len(pairs),
        psnr=float(np.mean([psnr(predicted[i], real[i]) for i in later])),
        psnr_frozen=float(np.mean([psnr(real[0], real[i]) for i in later])),
        ssim=float(np.mean([ssim(predicted[i], real[i]) for i in later[::5]])),
        ssim_frozen=float(np.mean([ssim(real[0], real[i]) for i in later[::5]])),
        mouth_correlation=correlation,
        mouth_lag_frames=lag,
        mouth_spread=spread,
    )


def write_sheet(path: Path, predicted: list[np.ndarray], real: list[np.ndarray]) -> None:
    """Real frames above predicted ones, spread evenly over the clip."""
    chosen = np.linspace(0, len(real) - 1, SHEET_COLUMNS).astype(int)
    rows = [np.concatenate([frames[i] for i in chosen], axis=1) for frames in (real, predicted)]
    sheet = Image.fromarray(np.concatenate(rows))
    sheet.resize((sheet.width // 2, sheet.height // 2), Image.Resampling.LANCZOS).save(path, quality=92)


def summary(results: list[ClipResult]) -> dict[str, float]:
    """Means over clips."""
    spoken = [r for r in results if r.mouth_correlation is not None]
    means = {
        name: float(np.mean([getattr(r, name) for r in results]))
        for name in ("psnr", "psnr_frozen", "ssim", "ssim_frozen")
    }
    means["psnr_gain"] = means["psnr"] - means["psnr_frozen"]
    for name in ("mouth_correlation", "mouth_spread"):
        means[name] = float(np.mean([getattr(r, name) for r in spoken])) if spoken else float("nan")
    return means


def table(results: list[ClipResult], means: dict[str, float]) -> str:
    """Markdown."""
    rows = [
        "| clip | PSNR | frozen | SSIM | frozen | mouth r | lag | spread |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        mouth = "- | - | -"
        if r.mouth_correlation is not None:
            mouth = f"{r.mouth_correlation:.2f} | {r.mouth_lag_frames:+d} | {r.mouth_spread:.2f}"
        rows.append(
            f"| {r.clip[:40]} | {r.psnr:.2f} | {r.psnr_frozen:.2f} | {r.ssim:.3f} | {r.ssim_frozen:.3f} | {mouth} |"
        )
    m = means
    rows.append(
        f"| **mean** | **{m['psnr']:.2f}** | {m['psnr_frozen']:.2f} | **{m['ssim']:.3f}** | {m['ssim_frozen']:.3f} "
        f"| **{m['mouth_correlation']:.2f}** | | **{m['mouth_spread']:.2f}** |"
    )
    return "\n".join(rows)


def main() -> None:
    """Evaluate every clip of a split."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--seconds", type=float, default=60.0, help="only the first seconds of each clip")
    parser.add_argument("--clips", type=int, default=1000, help="only so many clips")
    parser.add_argument("--spoken", action="store_true", help="only clips with the speaker's own sound")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/evaluation"))
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    pipeline = SDTalkPipeline.from_pretrained(arguments.model)
    results = []
    entries = [
        entry
        for entry in json.loads(arguments.manifest.read_text(encoding="utf-8"))
        if entry["split"] == arguments.split
        and entry["file"].startswith("clips/")
        and (entry["own_speech_audio"] is True or not arguments.spoken)
    ]
    for entry in entries[: arguments.clips]:
        path = arguments.manifest.parent / entry["file"]
        sheet = arguments.output / f"{path.stem}.jpg"
        own = entry["own_speech_audio"] is True
        results.append(evaluate_clip(pipeline, path, own, sheet, arguments.seconds))
        print(results[-1], flush=True)
    means = summary(results)
    written = {"clips": [asdict(r) for r in results], "mean": means, "model": arguments.model}
    (arguments.output / "results.json").write_text(json.dumps(written, indent=1), encoding="utf-8")
    (arguments.output / "results.md").write_text(table(results, means) + "\n", encoding="utf-8")
    print(table(results, means))


if __name__ == "__main__":
    main()
