"""FLAME fit: landmarks in a picture to FLAME parameters and a camera; damped Gauss-Newton, robust error.

The published preprocessing (reference section 7) starts from networks and follows gradients over all vertices for 300
steps. Here nothing is given but landmarks, so coefficients are held by their own spread (FLAME's are standard normal),
and the normal equations are solved exactly; ten to twenty steps do.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sdtalk.camera import FOCAL_PX, FRAME_SIZE, Camera
from sdtalk.flame.landmarks import TURNING, FlameLandmarks
from sdtalk.flame.layer import FlameModel, FlameParameters
from sdtalk.flame.solver import Heads, LandmarkProblem

SHAPES, EXPRESSIONS = 80, 50
"""Leading coefficients that are sought; 68 landmarks do not tell of more."""

NOISE_PX = 0.8
"""Standard deviation of a landmark's x and y that is expected, in px of a 512 px picture."""

LEAST_LANDMARKS = 12
"""With fewer the head's pose is not known, let alone its shape."""

SHAPE_FRAMES = 32
"""Frames of a video that its shape is taken from."""

CHUNK = 128
"""Pictures solved at once; 60 MB of derivatives."""


@dataclass(frozen=True)
class FlameFit:
    """FLAME heads before standard cameras.

    Attributes:
        parameters: Neck and root at rest.
        camera: Focal length of 12 half-widths; all motion of the head.
        landmarks: The model's landmarks in head space, in its order.
        error_px: Mean distance between given and fitted landmarks of a picture, in its px.
    """

    parameters: FlameParameters
    camera: Camera
    landmarks: Float[Tensor, "batch landmark 3"]
    error_px: Float[Tensor, " batch"]


def fit_flame(
    landmarks_px: Float[Tensor, "batch given 2"],
    model: FlameModel,
    size: int = FRAME_SIZE,
    shapes: int = SHAPES,
    expressions: int = EXPRESSIONS,
    noise_px: float = NOISE_PX,
) -> FlameFit:
    """Fit heads to single pictures, each on its own.

    Args:
        landmarks_px: The 68 landmarks, 70 with the pupils, or `all_landmarks`; NaN where one is missing.
        model: The head model.
        size: Side of the square pictures in px.
        shapes: How many leading coefficients of shape are sought.
        expressions: And of expression.
        noise_px: Expected error of the landmarks, in px of a 512 px picture. Smaller: the fit follows them closer.

    Raises:
        ValueError: A picture has fewer than 12 landmarks.
    """
    targets = _targets(landmarks_px, model, size)
    landmarks = FlameLandmarks.of(model, shapes, expressions)
    return _fit(_solved(landmarks, targets, shapes, noise_px), model, landmarks, targets, size)


def fit_flame_video(
    landmarks_px: Float[Tensor, "frame given 2"],
    model: FlameModel,
    size: int = FRAME_SIZE,
    shapes: int = SHAPES,
    expressions: int = EXPRESSIONS,
    noise_px: float = NOISE_PX,
) -> FlameFit:
    """Fit one person's head to the frames of a video: the shape is the same in all of them.

    The shape comes from frames spread over the video, all of which are solved together; then every frame is
    solved for pose and expression. Memory does not grow with the video, but for the result.

    Args:
        landmarks_px: The 68 landmarks, 70 with the pupils, or `all_landmarks`; NaN where one is missing.
        model: The head model.
        size: Side of the square frames in px.
        shapes: How many leading coefficients of shape are sought.
        expressions: And of expression.
        noise_px: Expected error of the landmarks, in px of a 512 px picture.

    Raises:
        ValueError: A frame has fewer than 12 landmarks.
    """
    targets = _targets(landmarks_px, model, size)
    anybody = FlameLandmarks.of(model, shapes, expressions)
    spread = torch.linspace(0, len(targets) - 1, min(SHAPE_FRAMES, len(targets))).round().long()
    start = _start(anybody, targets[spread], anybody.still.new_zeros(1, shapes))
    shape = LandmarkProblem(anybody, targets[spread], noise_px).solve(start).shape
    person = anybody.with_shape(shape[0])
    fit = _fit(_solved(person, targets, 0, noise_px), model, person, targets, size)
    known = F.pad(shape, (0, model.shape_basis.shape[-1] - shapes)).to(model.template.dtype)
    return replace(fit, parameters=replace(fit.parameters, shape=known.expand(len(targets), -1)))


def _targets(
    landmarks_px: Float[Tensor, "batch given 2"], model: FlameModel, size: int
) -> Float[Tensor, "batch landmark 2"]:
    """The model's landmarks in px of a 512 px picture, double precision; NaN where one is not given."""
    absent = max(0, int(model.landmark_numbers.max()) + 1 - landmarks_px.shape[1])
    landmarks_px = F.pad(landmarks_px, (0, 0, 0, absent), value=torch.nan)[:, model.landmark_numbers]
    given = landmarks_px.isfinite().all(dim=2)
    least = int(given.sum(1).min())
    if least < LEAST_LANDMARKS:
        raise ValueError(f"a picture has {least} landmarks, at least {LEAST_LANDMARKS} are needed")
    return torch.where(given[..., None], landmarks_px.double(), torch.nan) * (FRAME_SIZE / size)


def _solved(
    landmarks: FlameLandmarks, targets: Float[Tensor, "batch landmark 2"], shapes: int, noise_px: float
) -> list[Heads]:
    """Every picture solved on its own, with so many coefficients of shape; some pictures at a time."""
    solved = []
    for target in targets.split(CHUNK):
        start = _start(landmarks, target, landmarks.still.new_zeros(len(target), shapes))
        solved.append(LandmarkProblem(landmarks, target, noise_px).solve(start))
    return solved


def _start(
    landmarks: FlameLandmarks, target: Float[Tensor, "batch landmark 2"], shape: Float[Tensor, "person shape"]
) -> Heads:
    """Average heads at rest; the pose from the affine camera that fits best, made a rotation and a scale."""
    batch, joints = len(target), len(TURNING)
    expressions = landmarks.still.shape[-1] - 1 - shape.shape[1]
    at_rest = landmarks.still.new_zeros(1, landmarks.still.shape[-1] - 1)
    points = landmarks.place(at_rest, at_rest.new_zeros(1, joints, 3))
    weight = target.isfinite().all(dim=2).double()[..., None]
    share = weight / weight.sum(1, keepdim=True)
    middle, middle_px = (share * points).sum(1), (share * target.nan_to_num()).sum(1)
    spread = points - middle[:, None]
    spread_px = target.nan_to_num() - middle_px[:, None]
    affine = torch.linalg.solve(spread.mT @ (share * spread), spread.mT @ (share * spread_px)).mT
    u, stretch, vt = torch.linalg.svd(affine, full_matrices=False)
    across = u @ vt
    rotation = torch.cat([across, torch.linalg.cross(across[:, :1], across[:, 1:])], dim=1)
    distance = FOCAL_PX / stretch.mean(1, keepdim=True)
    aside = (middle_px - FRAME_SIZE / 2) / FOCAL_PX * distance
    translation = torch.cat([aside, distance], dim=1) - (rotation @ middle[..., None])[..., 0]
    return Heads(
        rotation, translation, shape.new_zeros(batch, joints, 3), shape.new_zeros(batch, expressions), shape
    )


def _fit(
    solved: list[Heads], model: FlameModel, landmarks: FlameLandmarks, targets: Tensor, size: int
) -> FlameFit:
    """Put chunks together, in the model's precision and the caller's px."""
    dtype = model.template.dtype
    rotation, translation, angles, expression, shape = (
        torch.cat([getattr(heads, name) for heads in solved])
        for name in ("rotation", "translation", "angles", "expression", "shape")
    )
    points = landmarks.place(torch.cat([shape, expression], dim=1), angles)
    seen = Camera.from_pose(rotation, translation).project(points)
    error_px = (seen - targets).norm(dim=2).nanmean(dim=1) * (size / FRAME_SIZE)
    nothing = torch.zeros_like(translation)
    parameters = FlameParameters(
        shape=F.pad(shape, (0, model.shape_basis.shape[-1] - shape.shape[1])).to(dtype),
        expression=F.pad(expression, (0, model.expression_basis.shape[-1] - expression.shape[1])).to(dtype),
        rotation=nothing.to(dtype),
        neck=nothing.to(dtype),
        jaw=angles[:, 0].to(dtype),
        eyes=angles[:, 1:].flatten(1).to(dtype),
    )
    camera = Camera.from_pose(rotation.to(dtype), translation.to(dtype), size)
    return FlameFit(parameters, camera, points.to(dtype), error_px.to(dtype))
