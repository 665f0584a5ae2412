r"""Train the window painter of mini's neural renderer on crops of people talking: mouths, or eyes.

    python -m training.mini.train_painter mouth --clips data/samples data/samples2 \
        --manifest samples2/manifest.json --rights clear --output runs/mouth

Source and target are frames of a clip; what the photo's mesh makes of it is drawn and corrected, nothing is rendered.
First pixels, edges and features; from `--critic-from` on a critic of detail as well, whose gradient at the picture is
kept at a fixed share of the others'. The same command goes on where a run was interrupted. OUTPUT/painter.safetensors
is the moving average of the weights.
"""

import argparse
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

from sdtalk.checkpoint import load_model, locate
from sdtalk.cli.arguments import USER_ERROR
from sdtalk.devices import choose_device
from sdtalk.errors import InputError
from sdtalk.rendering.window_painter import WindowPainter
from sdtalk.rendering.window_renderer import WindowRenderer
from training.data.dataset import PreparedDataset
from training.mini.lips_data import withheld_videos
from training.mini.painter_batches import WINDOWS
from training.mini.painter_data import load_crops
from training.mini.painter_fit import PainterSettings, train


def _painter_of(model: str, window: str) -> WindowPainter:
    renderer = load_model(locate(model)).neural_renderer
    if not isinstance(renderer, WindowRenderer):
        remedy = "Leave it out, or give mini."
        raise InputError(f"--start {model}", "its neural renderer has no painters", remedy)
    return renderer.mouth if window == "mouth" else renderer.eyes


def main(argv: list[str] | None = None) -> int:
    """Command line; 2 where an input cannot be used."""
    defaults = PainterSettings()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("window", choices=sorted(WINDOWS))
    parser.add_argument(
        "--clips", nargs="+", required=True, help="folders that prepare.py wrote, or hf://datasets/USER/NAME"
    )
    parser.add_argument(
        "--manifest", nargs="*", type=Path, default=[], help="manifests that say the rights to videos"
    )
    parser.add_argument("--rights", nargs="+", default=["clear"], help="rights that may be learned from")
    parser.add_argument("--crops", type=Path, default=Path("data/face_crops"), help="where crops are kept")
    parser.add_argument("--output", type=Path, required=True)
    for field in ("steps", "batch", "critic_from", "seed", "every", "workers"):
        parser.add_argument(f"--{field.replace('_', '-')}", type=int, default=getattr(defaults, field))
    for field in ("rate", "critic_share"):
        parser.add_argument(f"--{field.replace('_', '-')}", type=float, default=getattr(defaults, field))
    parser.add_argument("--max-seconds", type=float, help="end so many seconds from now")
    parser.add_argument(
        "--start", help="mini, a folder, or USER/NAME: go on from its painter, not from nothing"
    )
    parser.add_argument(
        "--only-silent", action="store_true",
        help="learn only to light what photos do not show, and stay elsewhere with what --start paints",
    )  # fmt: skip
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda or auto")
    a = parser.parse_args(argv)
    begun = time.monotonic()
    settings = PainterSettings(**{f.name: getattr(a, f.name) for f in fields(PainterSettings)})
    try:
        device = choose_device(a.device)
        if a.only_silent and a.start is None:
            raise InputError("--only-silent", "there is nothing to stay with", "Give --start as well.")
        start = None if a.start is None else _painter_of(a.start, a.window)
        withheld = withheld_videos(a.manifest, a.rights)
        clips, dev = [], []
        for source in a.clips:
            prepared = PreparedDataset.open(source)
            clips += load_crops(prepared, "train", a.crops, withheld)
            dev += load_crops(prepared, "dev", a.crops)
        if not clips:
            raise InputError(
                " ".join(a.clips), "there is no clip to learn from", "Prepare videos of people talking."
            )
        print(f"{len(clips)} clips, {sum(map(len, clips))} frames; dev: {len(dev)} clips", flush=True)
        a.output.mkdir(parents=True, exist_ok=True)
        if a.max_seconds is not None:  # cropping took some of them
            settings = replace(settings, max_seconds=max(1.0, a.max_seconds - (time.monotonic() - begun)))
        train(a.window, clips, dev, settings, a.output, device, start)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
