"""How a take is measured: with which networks, and figure by figure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sdtalk.errors import InputError
from sdtalk.flame import fan
from sdtalk.flame.fan import FanLandmarks
from sdtalk.image import to_tensor
from sdtalk.tracking.tracker import Tracker
from training.evaluation import identity, syncnet
from training.evaluation.figures import FIGURES, Scores, Take
from training.evaluation.identity import IrSe50, aligned_faces
from training.evaluation.landmarks import (
    SeenFace,
    fan_landmarks,
    landmark_distance,
    lip_distance,
    mesh_landmarks,
    seen_face,
)
from training.evaluation.pictures import best_lag_correlation, psnr, ssim
from training.evaluation.syncnet import SyncNet, face_crops, sync_figures
from training.lpips import ASSET as LPIPS_ASSET
from training.lpips import Lpips
from training.weights import absence

MAX_LAG_FRAMES = 6
STILL = 1e-6

Faces = dict[str, SeenFace | str]
"""Of the "predicted" and the "real" frames; where one has none, why."""


@dataclass(frozen=True)
class Instruments:
    """The networks that measure; None: not on this machine.

    Attributes:
        tracker: The bundled one.
        lpips: For LPIPS.
        syncnet: For Sync-C and Sync-D.
        fan: For LMD (face-alignment).
        arcface: For identity.
        device: Where they are.
        every: SSIM, LPIPS and identity look at every so manieth frame.
    """

    tracker: Tracker
    lpips: Lpips | None
    syncnet: SyncNet | None
    fan: FanLandmarks | None
    arcface: IrSe50 | None
    device: torch.device
    every: int = 5

    @classmethod
    def installed(cls, device: torch.device | str, every: int = 5) -> "Instruments":
        """All that this machine has.

        Raises:
            InputError: One of them is damaged.
        """
        return cls(
            tracker=Tracker.from_bundled(device),
            lpips=Lpips.installed(device),
            syncnet=SyncNet.installed(device),
            fan=FanLandmarks.from_installed(device) if fan.installed() else None,
            arcface=IrSe50.installed(device),
            device=torch.device(device),
            every=every,
        )


def measure(take: Take, instruments: Instruments) -> Scores:
    """Every figure of a take, or the reason why there is none."""
    scores = Scores()
    _pictures(take, instruments, scores)
    faces: Faces = {}
    for which, frames in (("predicted", take.predicted), ("real", take.real)):
        try:
            faces[which] = seen_face(instruments.tracker, frames, f"{take.name}, {which} frames")
        except InputError as error:
            faces[which] = str(error)
    for step in (_landmarks, _mouth, _sync, _identity):
        step(take, faces, instruments, scores)
    if take.fps is None:
        scores.skip("how long it took to render is not known", "fps")
    else:
        scores.figures["fps"] = take.fps
    unknown = FIGURES.keys() - scores.figures.keys() - scores.missing.keys()
    assert not unknown, f"neither measured nor explained: {unknown}"
    return scores


def _pictures(take: Take, instruments: Instruments, scores: Scores) -> None:
    names = ("psnr", "psnr_frozen", "ssim", "ssim_frozen", "lpips")
    later = range(1, len(take.real))  # the first frame is the source itself
    if take.source is not None:
        return scores.skip("another person is shown: there is no real frame to compare with", *names)
    if not later:
        return scores.skip("the clip has one frame, which is the source", *names)
    some = later[:: instruments.every]

    def mean(compare: Callable[..., float], frames: range, ours: Callable[[int], np.ndarray]) -> float:
        return float(np.mean([compare(ours(i), take.real[i]) for i in frames]))

    def frozen(_: int) -> np.ndarray:
        return take.real[0]

    def predicted(i: int) -> np.ndarray:
        return take.predicted[i]

    scores.figures |= {
        "psnr": mean(psnr, later, predicted),
        "psnr_frozen": mean(psnr, later, frozen),
        "ssim": mean(ssim, some, predicted),
        "ssim_frozen": mean(ssim, some, frozen),
    }
    if instruments.lpips is None:
        return scores.skip(absence(LPIPS_ASSET), "lpips")
    scores.figures["lpips"] = float(np.mean([_lpips(instruments, take, i) for i in some]))


@torch.inference_mode()
def _lpips(instruments: Instruments, take: Take, index: int) -> float:
    assert instruments.lpips is not None
    ours, theirs = (to_tensor(frames[index]).to(instruments.device) for frames in (take.predicted, take.real))
    return float(instruments.lpips(ours, theirs))


def _both(faces: Faces, scores: Scores, *names: str) -> tuple[SeenFace, SeenFace] | None:
    """The faces of both videos; where one has none, the figures are skipped."""
    ours, theirs = faces["predicted"], faces["real"]
    if isinstance(ours, str) or isinstance(theirs, str):
        scores.skip(ours if isinstance(ours, str) else str(theirs), *names)
        return None
    return ours, theirs


def _landmarks(take: Take, faces: Faces, instruments: Instruments, scores: Scores) -> None:
    names = ("lmd_fan", "lmd_mesh", "lips_lmd_mesh")
    if take.source is not None:
        return scores.skip("another person is shown, whose face has another shape", *names)
    if (both := _both(faces, scores, *names)) is None:
        return None
    ours, theirs = both
    points = mesh_landmarks(ours)[1:], mesh_landmarks(theirs)[1:]
    if len(points[0]) == 0:
        return scores.skip("the clip has one frame, which is the source", *names)
    scores.figures["lmd_mesh"] = landmark_distance(*points, ours.side_px)
    scores.figures["lips_lmd_mesh"] = lip_distance(*points, ours.side_px)
    if instruments.fan is None:
        reason = "the package face-alignment or its weights are not on this machine: see `sdtalk doctor`"
        return scores.skip(reason, "lmd_fan")
    found = (
        fan_landmarks(instruments.fan, frames, face)[1:]
        for frames, face in ((take.predicted, ours), (take.real, theirs))
    )
    scores.figures["lmd_fan"] = landmark_distance(*found, ours.side_px)
    return None


def _mouth(take: Take, faces: Faces, instruments: Instruments, scores: Scores) -> None:
    names = ("mouth_correlation", "mouth_lag_frames", "mouth_spread")
    if not take.own_speech:
        return scores.skip("the clip has no sound of the speaker's own", *names)
    if (both := _both(faces, scores, *names)) is None:
        return None
    ours, theirs = (face.opening for face in both)
    if theirs.std() < STILL:
        return scores.skip("the real mouth stands still", *names)
    scores.figures["mouth_spread"] = float(ours.std() / theirs.std())
    correlation, lag = best_lag_correlation(ours, theirs, MAX_LAG_FRAMES)
    if lag is None:
        return scores.skip("the predicted mouth stands still, or the clip is too short", *names[:2])
    scores.figures |= {"mouth_correlation": correlation, "mouth_lag_frames": float(lag)}
    return None


def _sync(take: Take, faces: Faces, instruments: Instruments, scores: Scores) -> None:
    videos: tuple[tuple[str, Sequence[np.ndarray], str], ...] = (
        ("predicted", take.predicted, ""),
        ("real", take.real, "_real"),
    )
    for which, frames, suffix in videos:
        names, face = (f"sync_c{suffix}", f"sync_d{suffix}"), faces[which]
        if take.samples is None or not take.own_speech:
            scores.skip("the clip has no sound of the speaker's own", *names)
        elif instruments.syncnet is None:
            scores.skip(absence(syncnet.ASSET), *names)
        elif isinstance(face, str):
            scores.skip(face, *names)
        else:
            try:
                crops = face_crops(iter(frames), face.boxes_px)
                found = sync_figures(instruments.syncnet, crops, take.samples, instruments.device)
            except ValueError as error:
                scores.skip(str(error), *names)
                continue
            scores.figures |= dict(zip(names, (found.confidence, found.distance), strict=True))


@torch.inference_mode()
def _identity(take: Take, faces: Faces, instruments: Instruments, scores: Scores) -> None:
    """Against the real frame of the same time, or against the source where it is of another person."""
    if instruments.arcface is None:
        return scores.skip(absence(identity.ASSET), "identity")
    shown: SeenFace | str = faces["real"]
    if take.source is not None:
        try:
            shown = seen_face(instruments.tracker, take.source[None], f"{take.name}, source")
        except InputError as error:
            shown = str(error)
    both = _both({"predicted": faces["predicted"], "real": shown}, scores, "identity")
    if both is None:
        return None
    found = []
    same = take.source is None and len(take.predicted) > 1
    first = 1 if same else 0  # the first frame is the source itself
    for index in range(first, len(take.predicted), instruments.every):
        wanted = take.real[index] if take.source is None else take.source
        at = index if take.source is None else 0
        pictures = ((take.predicted[index], both[0].mesh_px[index]), (wanted, both[1].mesh_px[at]))
        crops = torch.cat([aligned_faces(picture[None], points[None]) for picture, points in pictures])
        embeddings = instruments.arcface(crops.to(instruments.device))
        found.append(float(embeddings[0] @ embeddings[1]))
    scores.figures["identity"] = float(np.mean(found))
    return None
