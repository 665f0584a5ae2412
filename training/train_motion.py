"""Stage 0, mini only: teach both motion fields the geometry of talking, without rendering anything.

The tracked mesh says where every point of the face goes when the mouth code and the eye state change. Regressing
that displacement at millions of points takes minutes on a CPU, and leaves to the rendering stages what a mesh cannot
say: opacities, shapes, and what happens inside the mouth.

    python -m training.train_motion data/prepared CHECKPOINT_DIR -o OUTPUT_DIR [--steps 6000]
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import trange

from sdtalk.model import SDTalk
from sdtalk.motion.motion_field import MotionField
from sdtalk.poses import GAPS
from sdtalk.tracking.completion import CompletionTemplate
from sdtalk.tracking.face_model import LIPS, LOWER_LIDS, UPPER_LIDS, FaceModel
from training.dataset import Clip, load_clips

PAIRS = 24
SURFACE_POINTS = 1500
RIM_POINTS = 250
RIM_REACH = 0.2  # a little further than facial motion reaches, see sdtalk.reconstruction.prior
RIM_DEPTH = 0.15
LIP_WEIGHT = 4.0
LID_WEIGHT = 8.0
BLINK_SHARE, BLINK_GAP = 0.3, 0.6
CODE_NOISE = 0.03
UNIT = 0.01  # displacements are weighed in units of 2 mm


class SurfaceSampler:
    """Random points on the canonical face and just outside it, and where a tracked mesh has them."""

    def __init__(self, face: FaceModel, generator: torch.Generator) -> None:
        self.face, self.generator = face, generator
        canonical = face.canonical_face
        corners = canonical[face.triangles]
        area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=-1)
        lips = torch.isin(face.triangles, torch.tensor(LIPS)).any(1)
        lids = torch.isin(face.triangles, torch.tensor([*UPPER_LIDS, *LOWER_LIDS]).flatten()).any(1)
        self.chance = area.sqrt() * (1 + 3 * lips + 3 * lids)
        self.rim = outer_rim(torch.cat([face.triangles, face.mouth_triangles]))
        self.importance = torch.ones(len(canonical))
        self.importance[LIPS] += LIP_WEIGHT
        self.importance[[i for lid in (*UPPER_LIDS, *LOWER_LIDS) for i in lid]] += LID_WEIGHT

    def draw(self) -> tuple[Int[Tensor, "point 3"], Float[Tensor, "point 3"], Float[Tensor, "point 3"]]:
        """Vertices and barycentric weights of points, and their canonical positions."""
        chosen = torch.multinomial(self.chance, SURFACE_POINTS, replacement=True, generator=self.generator)
        weights = -torch.rand(SURFACE_POINTS, 3, generator=self.generator).clamp_min(1e-6).log()
        vertices, weights = self.face.triangles[chosen], weights / weights.sum(1, keepdim=True)
        rim = self.rim[torch.randint(len(self.rim), (RIM_POINTS,), generator=self.generator)]
        vertices = torch.cat([vertices, rim[:, None].expand(-1, 3)])
        weights = torch.cat([weights, torch.tensor([[1.0, 0.0, 0.0]]).expand(RIM_POINTS, -1)])
        positions = (self.face.canonical_face[vertices] * weights[..., None]).sum(1)
        positions[-RIM_POINTS:] += self._outwards(positions[-RIM_POINTS:])
        return vertices, weights, positions

    def _outwards(self, rim: Float[Tensor, "point 3"]) -> Float[Tensor, "point 3"]:
        """Away from the middle of the face and back: the skin beyond the mesh goes where the mesh's rim goes."""
        away = (rim - self.face.canonical_face.mean(0)) * torch.tensor([1.0, 1.0, 0.0])
        reach = torch.rand(len(rim), 2, generator=self.generator) * torch.tensor([RIM_REACH, RIM_DEPTH])
        step = torch.nn.functional.normalize(away, dim=-1) * reach[:, :1]
        return step - torch.tensor([0.0, 0.0, 1.0]) * reach[:, 1:]


def outer_rim(triangles: Int[Tensor, "triangle 3"]) -> Int[Tensor, " vertex"]:
    """Vertices of the edges that belong to one triangle only."""
    edges = torch.cat([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]).sort(dim=1).values
    unique, counts = edges.unique(dim=0, return_counts=True)
    return unique[counts == 1].unique()


def blink_frames(clip: Clip) -> Int[Tensor, " frame"]:
    """Frames in which the lids are much closer than usual: too rare to be learned from if drawn like others."""
    gaps = clip.track.eyes[:, GAPS].mean(1)
    return (gaps < BLINK_GAP * gaps.median()).nonzero()[:, 0]


def frame_pairs(clips: list[Clip], random: np.random.Generator) -> dict[str, tuple[Tensor, Tensor]]:
    """(source, target) of meshes, mouth codes and eye states for random pairs of frames of the same clip."""
    meshes, mouths, eyes = [], [], []
    chance = np.array([len(c.track) for c in clips], dtype=float) ** 0.5
    for index in random.choice(len(clips), PAIRS, p=chance / chance.sum()):
        clip = clips[index]
        pair = torch.from_numpy(random.choice(len(clip.track), 2))
        blinks = blink_frames(clip)
        if len(blinks) and random.random() < BLINK_SHARE:
            pair[1] = blinks[random.integers(len(blinks))]
        meshes.append(clip.track.mesh[pair])
        mouths.append(clip.mouth[pair])
        eyes.append(clip.track.eyes[pair])
    stacked = {"mesh": torch.stack(meshes), "mouth": torch.stack(mouths), "eyes": torch.stack(eyes)}
    return {name: (value[:, 0], value[:, 1]) for name, value in stacked.items()}


def predicted(
    field: MotionField, positions: Float[Tensor, "point 3"], pairs: dict[str, tuple[Tensor, Tensor]]
) -> Float[Tensor, "pair point 3"]:
    """Displacement the field gives to canonical positions between source and target state."""
    code = field.encode(positions[None])
    (mouth, mouth_target), (eyes, eyes_target) = pairs["mouth"], pairs["eyes"]
    return field(code, mouth_target, eyes_target).means - field(code, mouth, eyes).means


def surface_loss(
    field: MotionField, sampler: SurfaceSampler, pairs: dict[str, tuple[Tensor, Tensor]]
) -> Float[Tensor, ""]:
    """Squared error of the displacement at random points of the face, lips and lids weighing more."""
    mesh, mesh_target = pairs["mesh"]
    vertices, weights, positions = sampler.draw()
    wanted = ((mesh_target - mesh)[:, vertices] * weights[..., None]).sum(2)
    importance = (sampler.importance[vertices] * weights).sum(-1)
    error = (predicted(field, positions, pairs) - wanted) / UNIT
    return (error.square().sum(-1) * importance).mean()


def main() -> None:
    """Train both fields on the tracks of prepared clips."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("prepared", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument(
        "--rate", type=float, default=1.0, help="factor of the learning rates, less to refine"
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    random = np.random.default_rng(arguments.seed)
    clips = load_clips(arguments.prepared)
    model = SDTalk.from_pretrained(arguments.checkpoint)
    face, template = FaceModel.bundled(), CompletionTemplate.bundled()
    sampler = SurfaceSampler(face, torch.Generator().manual_seed(arguments.seed))
    completion = template.place(face.canonical_face[None])[0]
    tables = [p for f in (model.coarse_field, model.fine_field) for p in f.encoding.parameters()]
    others = [
        p
        for f in (model.coarse_field, model.fine_field)
        for n, p in f.named_parameters()
        if "encoding" not in n
    ]
    rates = [arguments.rate * rate for rate in (1e-2, 2e-3)]
    optimiser = torch.optim.Adam([{"params": tables}, {"params": others}], betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=rates, total_steps=arguments.steps, pct_start=0.1
    )
    progress = trange(arguments.steps)
    for _ in progress:
        pairs = frame_pairs(clips, random)
        mesh, mesh_target = pairs["mesh"]
        # the audio encoder's codes are less exact than measured ones: do not learn to depend on their noise
        pairs["mouth"] = tuple(m + CODE_NOISE * torch.randn_like(m) for m in pairs["mouth"])
        loss_surface = surface_loss(model.coarse_field, sampler, pairs)
        inner = (template.place(mesh_target) - template.place(mesh)) / UNIT
        inside = predicted(model.fine_field, completion, pairs) / UNIT - inner
        loss_inside = inside.square().sum(-1).mean()
        optimiser.zero_grad()
        (loss_surface + loss_inside).backward()
        optimiser.step()
        schedule.step()
        progress.set_postfix(surface=f"{loss_surface.item():.3f}", inside=f"{loss_inside.item():.3f}")
    model.save_pretrained(arguments.output)


if __name__ == "__main__":
    main()
