"""Evaluator: computes every metric of a rendered clip, with the networks that are installed."""

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
from training.evaluation.box_metrics import measure_boxes
from training.evaluation.identity import IrSe50, align_faces
from training.evaluation.landmark_metrics import (
    fan_landmarks,
    landmark_distance,
    lip_distance,
    mesh_landmarks,
)
from training.evaluation.metrics import METRICS, RenderedClip, Scores
from training.evaluation.mouth_metrics import measure_mouth
from training.evaluation.syncnet import SyncNet, face_crops, sync_scores
from training.evaluation.tracked_face import TrackedFace, TrackedFaces, both_faces, track_face, track_faces
from training.image_metrics import psnr, ssim
from training.lpips import ASSET as LPIPS_ASSET
from training.lpips import Lpips
from training.optional_networks import missing_network_reason


@dataclass(frozen=True)
class MetricNetworks:
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
    def installed(cls, device: torch.device | str, every: int = 5) -> "MetricNetworks":
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


def measure(clip: RenderedClip, networks: MetricNetworks) -> Scores:
    """Every metric of a clip, or the reason why there is none."""
    scores = Scores()
    _image_metrics(clip, networks, scores)
    faces = track_faces(networks.tracker, clip)
    measure_boxes(clip, faces, scores)
    measure_mouth(clip, faces, scores)
    for step in (_landmark_metrics, _sync_metrics, _identity_metric):
        step(clip, faces, networks, scores)
    if clip.fps is None:
        scores.skip("how long it took to render is not known", "fps")
    else:
        scores.metrics["fps"] = clip.fps
    unknown = METRICS.keys() - scores.metrics.keys() - scores.missing.keys()
    assert not unknown, f"neither measured nor explained: {unknown}"
    return scores


def _image_metrics(clip: RenderedClip, networks: MetricNetworks, scores: Scores) -> None:
    names = ("psnr", "psnr_frozen", "ssim", "ssim_frozen", "lpips")
    later = range(1, len(clip.real))  # the first frame is the source itself
    if clip.source is not None:
        return scores.skip("another person is shown: there is no real frame to compare with", *names)
    if not later:
        return scores.skip("the clip has one frame, which is the source", *names)
    some = later[:: networks.every]

    def mean(compare: Callable[..., float], frames: range, ours: Callable[[int], np.ndarray]) -> float:
        return float(np.mean([compare(clip.seen(ours(i)), clip.seen(clip.real[i])) for i in frames]))

    def frozen(_: int) -> np.ndarray:
        return clip.real[0]

    def predicted(i: int) -> np.ndarray:
        return clip.predicted[i]

    scores.metrics |= {
        "psnr": mean(psnr, later, predicted),
        "psnr_frozen": mean(psnr, later, frozen),
        "ssim": mean(ssim, some, predicted),
        "ssim_frozen": mean(ssim, some, frozen),
    }
    if networks.lpips is None:
        return scores.skip(missing_network_reason(LPIPS_ASSET), "lpips")
    scores.metrics["lpips"] = float(np.mean([_lpips(networks, clip, i) for i in some]))


@torch.inference_mode()
def _lpips(networks: MetricNetworks, clip: RenderedClip, index: int) -> float:
    assert networks.lpips is not None
    pictures = (clip.seen(frames[index]) for frames in (clip.predicted, clip.real))
    ours, theirs = (to_tensor(picture).to(networks.device) for picture in pictures)
    return float(networks.lpips(ours, theirs))


def _landmark_metrics(
    clip: RenderedClip, faces: TrackedFaces, networks: MetricNetworks, scores: Scores
) -> None:
    names = ("lmd_fan", "lips_lmd_fan", "lmd_mesh", "lips_lmd_mesh")
    if clip.source is not None:
        return scores.skip("another person is shown, whose face has another shape", *names)
    if (pair := both_faces(faces, scores, *names)) is None:
        return None
    ours, theirs = pair.predicted, pair.real
    points = mesh_landmarks(ours)[1:], mesh_landmarks(theirs)[1:]
    if len(points[0]) == 0:
        return scores.skip("the clip has one frame, which is the source", *names)
    scores.metrics["lmd_mesh"] = landmark_distance(*points, ours.side_px)
    scores.metrics["lips_lmd_mesh"] = lip_distance(*points, ours.side_px)
    if networks.fan is None:
        reason = "the package face-alignment or its weights are not on this machine: see `sdtalk doctor`"
        return scores.skip(reason, "lmd_fan", "lips_lmd_fan")
    found = [
        fan_landmarks(networks.fan, frames, face)[1:]
        for frames, face in ((clip.predicted, ours), (clip.real, theirs))
    ]
    scores.metrics["lmd_fan"] = landmark_distance(found[0], found[1], ours.side_px)
    scores.metrics["lips_lmd_fan"] = lip_distance(found[0], found[1], ours.side_px)
    return None


def _sync_metrics(clip: RenderedClip, faces: TrackedFaces, networks: MetricNetworks, scores: Scores) -> None:
    videos: tuple[tuple[str, Sequence[np.ndarray], str], ...] = (
        ("predicted", clip.predicted, ""),
        ("real", clip.real, "_real"),
    )
    for which, frames, suffix in videos:
        names, face = (f"sync_c{suffix}", f"sync_d{suffix}"), faces[which]
        if clip.samples is None or not clip.own_speech:
            scores.skip("the clip has no sound of the speaker's own", *names)
        elif networks.syncnet is None:
            scores.skip(missing_network_reason(syncnet.ASSET), *names)
        elif isinstance(face, str):
            scores.skip(face, *names)
        else:
            try:
                crops = face_crops(iter(frames), face.boxes_px)
                found = sync_scores(networks.syncnet, crops, clip.samples, networks.device)
            except ValueError as error:
                scores.skip(str(error), *names)
                continue
            scores.metrics |= dict(zip(names, (found.confidence, found.distance), strict=True))


@torch.inference_mode()
def _identity_metric(
    clip: RenderedClip, faces: TrackedFaces, networks: MetricNetworks, scores: Scores
) -> None:
    """Against the real frame of the same time, or against the source where it is of another person."""
    if networks.arcface is None:
        return scores.skip(missing_network_reason(identity.ASSET), "identity")
    shown: TrackedFace | str = faces["real"]
    if clip.source is not None:
        try:
            shown = track_face(networks.tracker, clip.source[None], f"{clip.name}, source")
        except InputError as error:
            shown = str(error)
    pair = both_faces({"predicted": faces["predicted"], "real": shown}, scores, "identity")
    if pair is None:
        return None
    found = []
    same = clip.source is None and len(clip.predicted) > 1
    first = 1 if same else 0  # the first frame is the source itself
    for index in range(first, len(clip.predicted), networks.every):
        wanted = clip.real[index] if clip.source is None else clip.source
        at = index if clip.source is None else 0
        pictures = (
            (clip.predicted[index], pair.predicted.mesh_px[index]),
            (wanted, pair.real.mesh_px[at]),
        )
        crops = torch.cat([align_faces(picture[None], points[None]) for picture, points in pictures])
        embeddings = networks.arcface(crops.to(networks.device))
        found.append(float(embeddings[0] @ embeddings[1]))
    scores.metrics["identity"] = float(np.mean(found))
    return None
