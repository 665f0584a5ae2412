"""Compute the average face and the mouth modes that are bundled as sdtalk/assets/face.safetensors.

Input is the manifest of the clips (`split`, `own_speech_audio`) and a folder with a .npz file for each, named as
the clip: `landmarks` [frames, 478, 3] in px of the frame (z in px, too; NaN where no face is), `width` and
`height`. Only `train` clips are used; the mouth modes come from those in which people speak. MediaPipe's list of
edges gives the surface:

    python -m training.tracker.face_model SAMPLES/manifest.json LANDMARKS mediapipe-0.10.21-*.whl
"""

import argparse
import ast
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import normalize

from sdtalk.camera import FACING, FRAME_SIZE
from sdtalk.tracking.camera_fit import fit_camera, landmarks_in_crop, unproject_landmarks
from sdtalk.tracking.face_model import (
    ASSET,
    GAP_LOWER,
    GAP_UPPER,
    IRIS_CENTRES,
    LIPS,
    LOWER_INNER_LIP,
    LOWER_LIDS,
    UPPER_INNER_LIP,
    UPPER_LIDS,
    FaceModel,
)
from sdtalk.tracking.framing import choose_crop
from sdtalk.weights.assets import FOLDER

MIRROR = torch.tensor([-1.0, 1.0, 1.0])
IRIS_DISTANCE = 0.315  # 63 mm, the adult mean
IRIS_MIDDLE = torch.tensor(
    [0.0, 0.165, 0.23]
)  # eyeball centres as FLAME's, the iris plane one radius before them
FRAMES_A_CLIP = 400  # 16 s: no speaker dominates the modes
# Moved least by speech and expression: corners of the eyes, nose, temples, forehead, cheekbones.
POSE_POINTS = [
    33, 133, 263, 362, 168, 6, 197, 195, 5, 4, 1, 2, 94, 98, 327, 127, 356, 162, 389, 21, 251, 54, 284, 103,
    332, 67, 297, 109, 338, 10, 151, 9, 8, 234, 454, 116, 345, 143, 372, 34, 264, 193, 417, 122, 351, 188, 412,
    196, 419, 3, 248, 174, 399, 236, 456,
]  # fmt: skip


def read_clips(manifest: Path, folder: Path) -> tuple[list[Tensor], list[Tensor]]:
    """Landmarks of the training clips in px of a square around the head: of all, and of the speaking."""
    clips, speaking = [], []
    for entry in json.loads(manifest.read_text("utf-8")):
        path = folder / (Path(entry["file"]).stem + ".npz")
        if entry["split"] != "train" or not path.is_file():
            continue
        data = np.load(path)
        landmarks = torch.from_numpy(data["landmarks"])
        landmarks = landmarks[torch.isfinite(landmarks).all(dim=(1, 2))]
        crop = choose_crop(landmarks, int(data["width"]), int(data["height"]))
        clips.append(landmarks_in_crop(landmarks, crop, FRAME_SIZE))
        if entry.get("own_speech_audio") is True:
            speaking.append(clips[-1])
    if not speaking:
        raise SystemExit(f"{folder}: no file for any speaking training clip of {manifest}")
    return clips, speaking


def read_triangles(mediapipe: Path) -> Tensor:
    """The face surface of MediaPipe's wheel (or installation folder), eye holes closed.

    FACEMESH_TESSELATION lists the three edges of one triangle after the other.
    """
    root = mediapipe if mediapipe.is_dir() else zipfile.Path(mediapipe)
    code = (root / "mediapipe" / "python" / "solutions" / "face_mesh_connections.py").read_text("utf-8")
    for node in ast.parse(code).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FACEMESH_TESSELATION":
            assert isinstance(node.value, ast.Call)
            edges = torch.tensor(ast.literal_eval(node.value.args[0])).view(-1, 3, 2)
    right_eye, left_eye = (strip(upper, lower) for upper, lower in zip(UPPER_LIDS, LOWER_LIDS, strict=True))
    return torch.cat([edges[:, :, 0], right_eye, left_eye.flip(1)])  # the left eye's chains run the other way


def strip(upper: list[int], lower: list[int]) -> Tensor:
    """Triangles between two chains that share their ends; counter-clockwise if the chains run to the right."""
    triangles = [(upper[0], lower[1], upper[1]), (upper[-2], lower[-2], upper[-1])]
    for i in range(1, len(upper) - 2):
        triangles += [(upper[i], lower[i], upper[i + 1]), (lower[i], lower[i + 1], upper[i + 1])]
    return torch.tensor(triangles)


def average_face(clips: list[Tensor], weights: Tensor) -> tuple[Tensor, Tensor]:
    """Generalised Procrustes mean over clips, symmetrised, in head space; and the mirror map of the points."""
    face = scaled(unproject_landmarks(clips[0][:1])[0])
    for _ in range(4):
        fits = [fit_camera(clip, face, weights) for clip in clips]
        face = scaled(torch.stack([mesh.mean(0) for _, mesh in fits]).mean(0))
    # What looks into the camera on average looks along +z ...
    u, _, vt = torch.linalg.svd(torch.stack([camera.rotation.mean(0) for camera, _ in fits]).mean(0))
    face = centred(face @ (FACING @ u @ vt).T)
    for _ in range(3):  # ... and the symmetry plane is x = 0; the better the plane, the better the pairs
        mirror = torch.from_numpy(linear_sum_assignment(torch.cdist(face, face * MIRROR))[1])
        left = ((face - face[mirror]) * face[:, :1].sign()).sum(0)
        face = centred(face @ upright(left).T)
    assert torch.equal(mirror[mirror], torch.arange(len(mirror))), "points do not pair up left and right"
    return centred(scaled((face + face[mirror] * MIRROR) / 2)) + IRIS_MIDDLE, mirror


def upright(left: Tensor) -> Tensor:
    """The rotation that turns a direction to +x and keeps +z as far as possible."""
    left = normalize(left, dim=0)
    front = normalize(torch.tensor([0.0, 0.0, 1.0]) - left[2] * left, dim=0)
    return torch.stack([left, torch.linalg.cross(front, left), front])


def scaled(face: Tensor) -> Tensor:
    """Scale a face to the standard distance of the irises."""
    return face * IRIS_DISTANCE / (face[IRIS_CENTRES[0]] - face[IRIS_CENTRES[1]]).norm()


def centred(face: Tensor) -> Tensor:
    """Move the middle of the irises to the origin."""
    return face - face[list(IRIS_CENTRES)].mean(0)


def mouth_weights(face: Tensor) -> Tensor:
    """Share of each point in the mouth modes: lips 1, jaw and cheeks less, 0 above the nose's base."""
    offset = face[:, None, :2] - face[None, LIPS, :2]
    reach = torch.where(offset[..., 1:] < 0, torch.tensor([0.15, 0.25]), torch.tensor([0.15, 0.1]))
    near = torch.exp(-(offset / reach).square().sum(-1)).amax(1)
    weights = 0.3 * torch.where(near > 0.05, near, 0.0)
    weights[LIPS] = 1.0
    return weights


def speech_displacements(clips: list[Tensor], face: FaceModel) -> tuple[Tensor, Tensor]:
    """Symmetric part of each frame's displacement from its clip's mean, and the change of the inner-lip gap.

    Yaw and roll errors of the tracker are antisymmetric, so they vanish here; what pitch and squared angles
    still explain is regressed out per clip (ridge, so that a short clip does not lose its speech).
    """
    shapes, gaps = [], []
    for clip in clips:
        clip = clip[:: max(1, len(clip) // FRAMES_A_CLIP)][:FRAMES_A_CLIP]
        camera, mesh = fit_camera(clip, face.mean_face, face.pose_weights)
        shape = mesh - mesh.mean(0)
        shape = (shape + shape[:, face.mirror] * MIRROR) / 2
        tilt = torch.stack(
            [camera.rotation[:, 2, 0], camera.rotation[:, 2, 1], camera.rotation[:, 1, 0]], dim=1
        )
        gap = shape[:, GAP_UPPER, 1].mean(1) - shape[:, GAP_LOWER, 1].mean(1)
        causes = torch.cat([tilt, tilt.square(), gap[:, None]], dim=1)
        causes = (causes - causes.mean(0)) / (causes.std(0) + 1e-6)
        normal = causes.T @ causes + 0.1 * len(clip) * torch.eye(causes.shape[1])
        effect = torch.linalg.solve(normal, causes.T @ shape.flatten(1))
        shape = shape - (causes[:, :-1] @ effect[:-1]).view_as(shape)
        shapes.append(shape)
        gaps.append(shape[:, GAP_UPPER, 1].mean(1) - shape[:, GAP_LOWER, 1].mean(1))
    return torch.cat(shapes), torch.cat(gaps)


def mouth_model(clips: list[Tensor], face: FaceModel) -> dict[str, Tensor]:
    """Fit the opening mode and the four leading modes of the rest."""
    meshes = [fit_camera(clip, face.mean_face, face.pose_weights)[1] for clip in clips]
    wide = torch.stack([face.mouth_opening(mesh).quantile(0.95) for mesh in meshes])
    opening_gap = face.opening_gap * wide.median()
    shape, gap = speech_displacements(clips, face)
    weights = mouth_weights(face.mean_face)
    moves = (4 * weights).clamp(0, 1)[:, None]  # fades out where speech moves nothing
    shape = shape * moves
    change = gap / opening_gap
    opening_mode = torch.einsum("t,tpc->pc", change, shape) / change.square().sum()
    rest = shape - change[:, None, None] * opening_mode
    importance = weights.sqrt()[:, None] * torch.tensor([1.0, 1.0, 0.3])  # depth is the tracker's guess
    _, singular, basis = torch.linalg.svd((rest * importance).flatten(1), full_matrices=False)
    energy = singular.square()
    total = (shape * importance).square().sum()
    explained = 1 - energy.sum() / total
    print(f"opening 1 = a gap of {opening_gap * 200:.1f} mm; the opening explains {explained:.1%},")
    print("and of the rest the next modes:", " ".join(f"{share:.1%}" for share in energy[:8] / energy.sum()))
    deviation = singular[:4] / len(rest) ** 0.5
    basis = basis[:4].unflatten(1, (-1, 3))
    readout = basis * importance / deviation[:, None, None]
    modes = torch.einsum("kpc,tpc,tqd->kqd", readout, rest, rest) / len(rest)
    return {
        "opening_gap": opening_gap,
        "opening_mode": opening_mode,
        "mouth_modes": modes,
        "mouth_readout": readout,
    }


def main() -> None:
    """Read clips and surface, write the face model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path, help="manifest.json of the samples")
    parser.add_argument("landmarks", type=Path, help="folder of .npz files")
    parser.add_argument("mediapipe", type=Path, help="wheel of mediapipe, or the folder it is installed in")
    parser.add_argument("-o", "--output", type=Path, default=FOLDER / ASSET)
    args = parser.parse_args()
    clips, speaking = read_clips(args.manifest, args.landmarks)
    weights = torch.zeros(478)
    weights[POSE_POINTS] = 1.0
    mean_face, mirror = average_face(clips, weights)
    nothing = torch.zeros(4, 478, 3)
    face = FaceModel(
        mean_face=mean_face,
        triangles=read_triangles(args.mediapipe),
        mouth_triangles=strip(UPPER_INNER_LIP, LOWER_INNER_LIP),
        mirror=mirror,
        pose_weights=weights,
        opening_gap=torch.tensor(1.0),
        opening_mode=nothing[0],
        mouth_modes=nothing,
        mouth_readout=nothing,
        lid_mode=nothing[0],  # `lid_and_brow_modes.py` measures these two on prepared sets
        brow_mode=nothing[0],
    )
    replace(face, **mouth_model(speaking, face)).save(args.output)


if __name__ == "__main__":
    main()
