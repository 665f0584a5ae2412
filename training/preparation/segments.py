"""Segmentation: divides a scanned video into clips and rejected parts, by the limits of the settings."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from sdtalk.speech.audio import FRAME_RATE_HZ
from sdtalk.tracking.framing import choose_crop
from sdtalk.tracking.smoothing import fill_gaps
from training.preparation.face_measurements import FaceMeasurements, crop_outside, face_share
from training.preparation.scan import VideoScan
from training.preparation.settings import Limits, PrepareSettings

VOTE_FRAMES = 5
"""A limit is passed where most of so many frames pass it: not at a landmark's slip."""

JUMP = 0.35
"""A face that moves farther from one frame to the next (share of its size) is another one, or elsewhere after a cut."""

REASONS = {
    "not_wanted": "outside of the intervals that are wanted",
    "fade": "a fade or dissolve between shots",
    "no_face": "no face",
    "several_faces": "several faces",
    "small_face": "the face is too small",
    "outside": "the face is cut off by the border",
    "extreme_pose": "the head is turned too far",
    "short": "too short between two cuts",
    "roams": "the head roams too far",
    "crop_outside": "too little around the head",
    "no_person_mask": "the person cannot be separated from the background",
}
"""Why segments are rejected; where several apply, the first one counts."""


@dataclass(frozen=True)
class Segment:
    """Frames [start, stop) of a video that were looked at together.

    Attributes:
        start: The first frame.
        stop: The one after the last.
        reason: Why it is rejected, one of `REASONS`; "" for a clip.
        detail: The same with numbers.
    """

    start: int
    stop: int
    reason: str = ""
    detail: str = ""

    @property
    def seconds(self) -> float:
        """How long it is."""
        return (self.stop - self.start) / FRAME_RATE_HZ


def find_segments(
    scan: VideoScan, records: np.ndarray, measurements: FaceMeasurements, settings: PrepareSettings
) -> list[Segment]:
    """Divide a video into clips and rejected segments, in order and without gaps."""
    codes, others = _frame_reasons(scan, records, measurements, settings.limits)
    starts = _shot_starts(records, measurements)
    segments = []
    for start, stop in _runs(codes, starts):
        reason = ([""] + list(REASONS))[codes[start]]
        if reason:
            detail = _detail(reason, slice(start, stop), measurements, others, settings.limits)
            segments.append(Segment(start, stop, reason, detail))
        elif (stop - start) / FRAME_RATE_HZ < settings.shortest_seconds:
            detail = f"{(stop - start) / FRAME_RATE_HZ:.2f} s, wanted {settings.shortest_seconds:g} s"
            segments.append(Segment(start, stop, "short", detail))
        else:
            segments += _split(start, stop, scan, records, settings)
    return segments


def segment_landmarks(records: np.ndarray, segment: Segment) -> Float[torch.Tensor, "frame 478 3"]:
    """The landmarks of a clip, gaps filled."""
    points = torch.from_numpy(np.array(records["points"][segment.start : segment.stop]))
    return fill_gaps(points, "clip", longest=segment.stop - segment.start)


def _frame_reasons(
    scan: VideoScan, records: np.ndarray, measurements: FaceMeasurements, limits: Limits
) -> tuple[Int[np.ndarray, " frame"], Float[np.ndarray, " frame"]]:
    """For each frame 0, or the place of its reason in `REASONS` from 1 on; and the size of a second face there."""
    names = list(REASONS)
    seen = np.isfinite(measurements.face_px)
    others = _second_face_px(records["other_px"])
    angles = np.abs(np.nan_to_num(measurements.angles_deg))
    fades = np.zeros(len(records), bool)
    for start, stop in scan.fades:
        fades[start:stop] = True
    bad = {
        "extreme_pose": _majority((angles > [limits.yaw_deg, limits.pitch_deg, limits.roll_deg]).any(1)),
        "outside": _majority(np.nan_to_num(measurements.outside) > limits.face_outside),
        "small_face": _majority(seen & (np.nan_to_num(measurements.face_px) < limits.face_px)),
        "several_faces": seen & (others >= limits.other_face * np.nan_to_num(measurements.face_px)),
        "no_face": ~seen & ~_bridged_gaps(seen, records["shot"] > 0, limits.gap_frames),
        "fade": fades,
        "not_wanted": records["wanted"] == 0,
    }
    codes = np.zeros(len(records), int)
    for name, where in bad.items():  # the last one counts
        codes[where] = names.index(name) + 1
    return codes, others


def _majority(flags: Bool[np.ndarray, " frame"]) -> Bool[np.ndarray, " frame"]:
    return (
        np.convolve(np.pad(flags.astype(int), VOTE_FRAMES // 2, mode="edge"), np.ones(VOTE_FRAMES), "valid")
        > VOTE_FRAMES / 2
    )


def _second_face_px(looked: Float[np.ndarray, " frame"]) -> Float[np.ndarray, " frame"]:
    """Size of a second face between the looks around: what the look before or the one after found, 0 for none."""
    at = np.flatnonzero(np.isfinite(looked))
    if not len(at):
        return np.zeros(len(looked))
    frames = np.arange(len(looked))
    after = np.searchsorted(at, frames).clip(max=len(at) - 1)
    before = np.where(at[after] == frames, after, (after - 1).clip(min=0))
    return np.maximum(looked[at[before]], looked[at[after]])


def _bridged_gaps(seen: np.ndarray, shot: np.ndarray, longest: int) -> Bool[np.ndarray, " frame"]:
    """Frames without a face in short gaps within a shot."""
    bridged = np.zeros(len(seen), bool)
    edges = np.flatnonzero(np.diff(np.r_[True, seen, True].astype(int)))
    for start, stop in edges.reshape(-1, 2):
        if 0 < start and stop < len(seen) and stop - start <= longest and not shot[start : stop + 1].any():
            bridged[start:stop] = True
    return bridged


def _shot_starts(records: np.ndarray, measurements: FaceMeasurements) -> Bool[np.ndarray, " frame"]:
    """Where a shot begins, by the pictures or because the face is suddenly elsewhere."""
    starts = records["shot"] > 0
    at = np.flatnonzero(np.isfinite(measurements.face_px))
    moved = np.linalg.norm(np.diff(measurements.centre[at], axis=0), axis=1)
    grown = np.abs(np.diff(measurements.face_px[at]))
    far = np.maximum(moved, grown) > JUMP * np.diff(at) ** 0.5 * measurements.face_px[at][:-1]
    starts[at[1:][far]] = True
    return starts


def _runs(codes: np.ndarray, starts: np.ndarray) -> list[tuple[int, int]]:
    """Stretches of one verdict; shots segment what is good, but not what is rejected."""
    change = np.r_[True, codes[1:] != codes[:-1]] | (starts & (codes == 0))
    edges = np.r_[np.flatnonzero(change), len(codes)]
    return list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))


def _split(
    start: int, stop: int, scan: VideoScan, records: np.ndarray, settings: PrepareSettings
) -> list[Segment]:
    """Even pieces that are short enough, and in each of which the head stays within one square."""
    count = int(np.ceil((stop - start) / (settings.longest_seconds * FRAME_RATE_HZ)))
    ends = np.linspace(start, stop, count + 1).round().astype(int).tolist()
    segments = []
    for first, end in zip(ends, ends[1:], strict=False):
        segment = _checked_crop(Segment(first, end), scan, records, settings.limits)
        middle = (first + end) // 2
        if segment.reason == "roams" and (middle - first) / FRAME_RATE_HZ >= settings.shortest_seconds:
            segments += _split(first, middle, scan, records, settings)
            segments += _split(middle, end, scan, records, settings)
        else:
            segments.append(segment)
    return segments


def _checked_crop(segment: Segment, scan: VideoScan, records: np.ndarray, limits: Limits) -> Segment:
    """The segment, rejected where no square shows its head well."""
    landmarks = segment_landmarks(records, segment)
    crop = choose_crop(landmarks, scan.width, scan.height)
    share, beyond = face_share(landmarks, crop), crop_outside(crop, scan.width, scan.height)
    if share < limits.face_in_crop:
        detail = f"the face takes {share:.2f} of the square that shows all its ways, wanted {limits.face_in_crop:g}"
        return Segment(segment.start, segment.stop, "roams", detail)
    if beyond > limits.crop_outside:
        detail = f"{beyond:.0%} of the square lie beyond the border, at most {limits.crop_outside:.0%} may"
        return Segment(segment.start, segment.stop, "crop_outside", detail)
    return segment


def _detail(
    reason: str, run: slice, measurements: FaceMeasurements, others: np.ndarray, limits: Limits
) -> str:
    """The numbers behind a verdict."""

    def middle(values: np.ndarray) -> float:
        finite = values[np.isfinite(values)]
        return float(np.median(finite)) if len(finite) else 0.0

    if reason == "small_face":
        return f"{middle(measurements.face_px[run]):.0f} px, wanted {limits.face_px:g} px"
    if reason == "several_faces":
        return f"another face of {others[run].max():.0f} px beside one of {middle(measurements.face_px[run]):.0f} px"
    if reason == "outside":
        return (
            f"{middle(measurements.outside[run]):.0%} of the face, at most {limits.face_outside:.0%} may be"
        )
    if reason == "extreme_pose":
        yaw, pitch, roll = (middle(np.abs(series)) for series in measurements.angles_deg[run].T)
        allowed = f"{limits.yaw_deg:g}, {limits.pitch_deg:g}, {limits.roll_deg:g}"
        return f"yaw {yaw:.0f}, pitch {pitch:.0f}, roll {roll:.0f} degrees, at most {allowed}"
    return ""
