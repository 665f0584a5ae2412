"""Measure how the face moves with its lids and with its brows, and add that to sdtalk/assets/face.safetensors.

    python -m training.tracker.lid_and_brow_modes data/samples data/samples2 [--output face.safetensors]

Least squares over the frames of the split `train` in which an eye is clearly further shut than usual in its clip, or
the brows are clearly higher or lower; left eyes count as mirrored right ones. Skin further away is taken not to move.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from sdtalk.smoothstep import smoothly
from sdtalk.tracking.completion import LID_RINGS
from sdtalk.tracking.face_model import ASSET, BROWS, LOWER_LIDS, UPPER_LIDS, FaceModel, eye_state
from sdtalk.weights.assets import FOLDER
from training.data.dataset import PreparedDataset

SHUT = 0.3
"""Frames count in which the gap is smaller than usual by this share."""

RAISED = 0.006
"""Frames count in which the brows are farther than this from where they usually are, head-space units (1.2 mm)."""

STILL_BELOW, FREE_ABOVE = 0.16, 0.22
"""Heights on the average face between which points begin to follow the brows (eyes are at 0.165): temples and cheeks,
whose motion comes from the camera fit, stay."""

FLIP = torch.tensor([-1.0, 1.0, 1.0])


def lid_mode(meshes: list[Float[Tensor, "frame 478 3"]], face: FaceModel) -> Float[Tensor, "478 3"]:
    """Displacement of the points around the right eye per unit of its mean lid gap; zero elsewhere.

    Args:
        meshes: Of one clip each.
        face: Says which points mirror each other.
    """
    near, far = [*UPPER_LIDS[0], *LOWER_LIDS[0], *LID_RINGS[:16]], LID_RINGS[16:]
    moved, squares = torch.zeros_like(face.mean_face), torch.zeros(())
    for clip in meshes:
        for mesh in (clip, clip[:, face.mirror] * FLIP):
            gap = eye_state(mesh)[:, :2].mean(1)
            place = mesh - mesh[:, far].mean(1, keepdim=True)
            change, away = gap - gap.median(), place - place.median(0).values
            shut = change < -SHUT * gap.median()
            moved += (away[shut] * change[shut, None, None]).sum(0)
            squares += change[shut].square().sum()
    kept = torch.zeros(len(moved), 1)
    kept[near] = 1
    return kept * moved / squares.clamp_min(1e-9)


def brow_mode(meshes: list[Float[Tensor, "frame 478 3"]], face: FaceModel) -> Float[Tensor, "478 3"]:
    """Displacement per unit of the brows' mean height over the corners of the eyes; lids and what is below stay.

    Both brows rise together, so the mode is symmetric.

    Args:
        meshes: Of one clip each.
        face: Says which points mirror each other, and how high they are.
    """
    corners = [lids[i] for lids in UPPER_LIDS for i in (0, -1)]
    moved, squares = torch.zeros_like(face.mean_face), torch.zeros(())
    for clip in meshes:
        gap = eye_state(clip)[:, [0, 1, 3, 4]].mean(1)
        place = clip - clip[:, corners].mean(1, keepdim=True)
        place = (place + place[:, face.mirror] * FLIP) / 2
        height = place[:, BROWS, 1].mean(1)
        open_eyes = gap > (1 - SHUT) * gap.median()
        change = height - height[open_eyes].median()
        away = place - place[open_eyes].median(0).values
        raised = open_eyes & (change.abs() > RAISED)
        moved += (away[raised] * change[raised, None, None]).sum(0)
        squares += change[raised].square().sum()
    free = smoothly(face.mean_face[:, 1:2], STILL_BELOW, FREE_ABOVE)
    free[[*UPPER_LIDS[0], *UPPER_LIDS[1], *LOWER_LIDS[0], *LOWER_LIDS[1]]] = 0
    return free * moved / squares.clamp_min(1e-9)


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
    lids, brows = lid_mode(meshes, face), brow_mode(meshes, face)
    replace(face, lid_mode=lids, brow_mode=brows).save(arguments.output)


if __name__ == "__main__":
    main()
