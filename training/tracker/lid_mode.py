"""Measure how the points around an eye move when its lids close, and add that to sdtalk/assets/face.safetensors.

    python -m training.tracker.lid_mode data/samples data/samples2 [--output face.safetensors]

Least squares over all frames of the split `train` in which an eye is clearly further shut than usual in its clip; left
eyes count as mirrored right ones. Skin further away is taken not to move.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from sdtalk.tracking.completion import LID_RINGS
from sdtalk.tracking.face_model import ASSET, LOWER_LIDS, UPPER_LIDS, FaceModel, eye_state
from sdtalk.weights.assets import FOLDER
from training.data.dataset import PreparedDataset

SHUT = 0.3
"""Frames count in which the gap is smaller than usual by this share."""


def lid_mode(meshes: list[Float[Tensor, "frame 478 3"]], face: FaceModel) -> Float[Tensor, "478 3"]:
    """Displacement of the points around the right eye per unit of its mean lid gap; zero elsewhere.

    Args:
        meshes: Of one clip each.
        face: Says which points mirror each other.
    """
    near, far = [*UPPER_LIDS[0], *LOWER_LIDS[0], *LID_RINGS[:16]], LID_RINGS[16:]
    flip = torch.tensor([-1.0, 1.0, 1.0])
    moved, squares = torch.zeros_like(face.mean_face), torch.zeros(())
    for clip in meshes:
        for mesh in (clip, clip[:, face.mirror] * flip):
            gap = eye_state(mesh)[:, :2].mean(1)
            place = mesh - mesh[:, far].mean(1, keepdim=True)
            change, away = gap - gap.median(), place - place.median(0).values
            shut = change < -SHUT * gap.median()
            moved += (away[shut] * change[shut, None, None]).sum(0)
            squares += change[shut].square().sum()
    kept = torch.zeros(len(moved), 1)
    kept[near] = 1
    return kept * moved / squares.clamp_min(1e-9)


def main(argv: list[str] | None = None) -> None:
    """Measure on prepared sets, and write the face model with the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("prepared", nargs="+", help="folders that prepare.py wrote")
    parser.add_argument("--output", type=Path, default=FOLDER / ASSET)
    arguments = parser.parse_args(argv)
    meshes = []
    for source in arguments.prepared:
        prepared = PreparedDataset.open(source)
        meshes += [prepared.clip(entry).mesh for entry in prepared.index.of("train")]
    face = FaceModel.bundled()
    replace(face, lid_mode=lid_mode(meshes, face)).save(arguments.output)


if __name__ == "__main__":
    main()
