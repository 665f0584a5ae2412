"""Photo metrics: what a head made of one photo must do: give the photo back, close its eyes, and turn without holes."""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from scipy.ndimage import binary_closing, binary_erosion, binary_fill_holes, label
from scipy.spatial import ConvexHull

from sdtalk.camera import FRAME_SIZE, Camera
from sdtalk.driving import CLOSED_GAP, GAPS, NECK, with_lid_gaps
from sdtalk.errors import InputError
from sdtalk.head import Frame
from sdtalk.image import to_frames
from sdtalk.pipeline import SDTalkPipeline
from sdtalk.tracking.head_track import Portrait
from training.evaluation.face_boxes import cut, face_boxes, inside_polygon, large_enough
from training.evaluation.metrics import Metric
from training.evaluation.tracked_face import see_face
from training.image_metrics import psnr, relative_sharpness

TURN_DEGREES = 25.0
SOLID, OPAQUE = 0.5, 0.9
"""The outline is where alpha reaches the first; inside it, what lies below the second is a hole."""

CLOSED_PX, EDGE_PX = 6, 8
"""Slits up to twice the first, px, do not part the outline; up to the second from it alpha may fall off."""

LARGEST_HOLE = 0.02
"""Gaps that take more of the outline's area lie between the person and something else, such as a second person."""

NEARLY_CLOSED = 0.12
"""Eyes whose lid gap is a smaller part of their width are closed in the photo already."""

PHOTO_METRICS = {
    "own_psnr": Metric("own state PSNR", 2, "the head in the photo's own state against the photo, dB", True),
    "own_mouth_psnr": Metric("own mouth PSNR", 2, "the same of the box around the lips + 12 % of their width", True),
    "own_eyes_psnr": Metric("own eyes PSNR", 2, "the same of the boxes around lids and creases, mean of both", True),
    "own_mouth_sharpness": Metric("own mouth sharpness", 2, "gradient energy of that box over the photo's", None),
    "blink_gap": Metric(
        "blink gap", 2, "lid gap at the middle of a blink over the open one, as tracked in the rendered pictures", False
    ),
    "holes_own": Metric("holes, own pose", 2, "pixels well inside the outline with alpha below .9, %", False),
    "holes_turned": Metric(
        "holes, turned", 2, f"the same with the head turned by {TURN_DEGREES:g} degrees, the worse of both sides", False
    ),
    "holes_opened": Metric(
        "holes, opened", 2, "what turning adds to those of the own pose, which are the mask's (loose hair)", False
    ),
    "face_holes_turned": Metric("holes in the face, turned", 2, "those within the face mesh", False),
    "face_sharpness_turned": Metric(
        "sharpness of the face, turned", 2,
        "gradient energy within the face mesh over that of the own pose, the higher of both sides; stripes raise it",
        None,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class PhotoScores:
    """What was measured of a photo.

    Attributes:
        metrics: Numbers by names of `PHOTO_METRICS`.
        pictures: The photo, its own state, the middle of a blink, turned to either side.
        missing: For every other name the reason.
    """

    metrics: dict[str, float]
    pictures: list[UInt8[np.ndarray, "512 512 3"]]
    missing: dict[str, str] = field(default_factory=dict)


@torch.inference_mode()
def measure_photo(pipeline: SDTalkPipeline, person: Portrait) -> PhotoScores:
    """Reconstruct a photo and render what is looked at.

    Raises:
        InputError: The model does not know the state of a photo's mouth.
    """
    config = pipeline.model.config
    if not config.priors:
        problem = "it does not know how the mouth of a photo stands, so it has no own state"
        raise InputError(f"model {config.name!r}", problem, "Use a model like `mini`.")
    head = pipeline.reconstruct_tracked(person)
    assert head.audio_code is not None
    blink = pipeline.eyes_for_model(with_lid_gaps(head.eyes, torch.tensor([[CLOSED_GAP]]))).to(
        head.eyes.device
    )
    turned = [turned_camera(head.rest, side * TURN_DEGREES) for side in (-1, 1)]
    own, closed, *sides = (
        pipeline.model(head, head.audio_code, eyes, camera)
        for eyes, camera in ((head.eyes, head.rest), (blink, head.rest), *((head.eyes, c) for c in turned))
    )
    photo = to_frames(person.image * person.mask)[0]
    pictures = [photo, *(_before_black(frame) for frame in (own, closed, *sides))]
    metrics, missing = _own_state(person, photo, pictures[1])
    gap = _blink_gap(pipeline, pictures[1], pictures[2])
    (missing if isinstance(gap, str) else metrics)["blink_gap"] = gap  # type: ignore[index]
    metrics |= _turned([own, *sides], [pictures[1], *pictures[3:]], [head.rest, *turned], person)
    return PhotoScores(metrics, pictures, missing)


def _before_black(frame: Frame) -> UInt8[np.ndarray, "512 512 3"]:
    return to_frames(frame.over(torch.zeros_like(frame.colours[:1])))[0]


def _alpha(frame: Frame) -> Float[np.ndarray, "height width"]:
    return frame.alpha[0, 0].cpu().numpy()


def _turned(
    frames: list[Frame], pictures: list[np.ndarray], cameras: list[Camera], person: Portrait
) -> dict[str, float]:
    """Holes and stripes of a head in its own pose, then turned to either side."""
    mesh = person.track.mesh
    faces = [face_area(camera.to("cpu").project(mesh)[0].numpy()) for camera in cameras]
    own, *holes = (100 * hole_share(_alpha(frame)) for frame in frames)
    in_face = [100 * hole_share(_alpha(f), face) for f, face in zip(frames[1:], faces[1:], strict=True)]
    still, *energies = (energy_within(p, face) for p, face in zip(pictures, faces, strict=True))
    return {
        "holes_own": own,
        "holes_turned": max(holes),
        "holes_opened": max(0.0, max(holes) - own),
        "face_holes_turned": max(in_face),
        "face_sharpness_turned": max(energies) / max(still, 1e-6),
    }


def energy_within(
    picture: UInt8[np.ndarray, "height width 3"], area: Bool[np.ndarray, "height width"]
) -> float:
    """Gradient energy of neighbours that are both within an area, as `image_metrics.gradient_energy`."""
    x, total = picture.astype(np.float32), 0.0
    for axis in (0, 1):
        both = np.diff(area.astype(np.int8), axis=axis) == 0
        both &= np.take(area, range(both.shape[axis]), axis=axis)
        squares = np.square(np.diff(x, axis=axis))[both]
        total += float(squares.mean()) if squares.size else 0.0
    return total


def _own_state(
    person: Portrait, photo: np.ndarray, own: np.ndarray
) -> tuple[dict[str, float], dict[str, str]]:
    boxes = face_boxes(person.track.camera.project(person.track.mesh), FRAME_SIZE, FRAME_SIZE)
    metrics, missing = {"own_psnr": psnr(own, photo)}, {}
    mouth, eyes = boxes.mouth[0], boxes.eyes[0]
    if large_enough(mouth):
        metrics["own_mouth_psnr"] = psnr(cut(own, mouth), cut(photo, mouth))
        metrics["own_mouth_sharpness"] = relative_sharpness(cut(own, mouth), cut(photo, mouth))
    else:
        missing |= dict.fromkeys(
            ("own_mouth_psnr", "own_mouth_sharpness"), "the mouth is too small or cut off"
        )
    if all(map(large_enough, eyes)):
        metrics["own_eyes_psnr"] = float(np.mean([psnr(cut(own, eye), cut(photo, eye)) for eye in eyes]))
    else:
        missing["own_eyes_psnr"] = "an eye is too small or cut off"
    return metrics, missing


def _blink_gap(pipeline: SDTalkPipeline, own: np.ndarray, closed: np.ndarray) -> float | str:
    """Lid gap of the closed eyes over that of the open ones; or why it cannot be told."""
    faces = [see_face(pipeline.tracker, picture) for picture in (own, closed)]
    if faces[0] is None or faces[1] is None:
        return "no face is found in the rendered picture"
    gaps = [float(face.eyes[GAPS].mean()) for face in faces if face is not None]
    widths = float(faces[0].eyes[[2, 5]].mean())
    if gaps[0] < NEARLY_CLOSED * widths:
        return "the photo's eyes are closed already"
    return gaps[1] / gaps[0]


def turned_camera(rest: Camera, degrees: float) -> Camera:
    """The camera of a head that turns about its neck from its pose in the photo; positive to the subject's left."""
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    turn = rest.rotation.new_tensor([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
    neck = rest.rotation.new_tensor(NECK)
    moved = neck - turn @ neck
    return Camera.from_pose(rest.rotation @ turn, rest.rotation @ moved + rest.translation, rest.width)


def outline(alpha: Float[np.ndarray, "height width"]) -> Bool[np.ndarray, "height width"]:
    """The person's outline, filled: slits and holes belong to it. At the picture's border nothing ends."""
    padded = np.pad(alpha >= SOLID, CLOSED_PX, mode="edge")
    closed = binary_closing(padded, iterations=CLOSED_PX)
    numbers, count = label(binary_fill_holes(closed) & ~closed)
    areas = np.bincount(numbers.ravel(), minlength=count + 1)
    small = areas <= LARGEST_HOLE * closed.sum()
    small[0] = False  # what is no hole
    whole = closed | small[numbers]
    return whole[CLOSED_PX:-CLOSED_PX, CLOSED_PX:-CLOSED_PX]


def hole_share(
    alpha: Float[np.ndarray, "height width"], area: Bool[np.ndarray, "height width"] | None = None
) -> float:
    """Share of the pixels well inside an area that are not opaque.

    Gaps that the photo has, between strands of hair or through an ear-ring, count as well: compare with the own pose.

    Args:
        alpha: How far a pixel shows the person.
        area: What should be opaque up to its border; None: the outline.
    """
    inside = binary_erosion(outline(alpha) if area is None else area, iterations=EDGE_PX, border_value=1)
    return float((alpha[inside] < OPAQUE).mean()) if inside.any() else 0.0


def face_area(points_px: Float[np.ndarray, "point 2"]) -> Bool[np.ndarray, "512 512"]:
    """Pixels of a frame within the convex hull of the face mesh."""
    corners = points_px[ConvexHull(points_px).vertices]
    return inside_polygon(corners, np.array([0, 0, FRAME_SIZE, FRAME_SIZE]))
