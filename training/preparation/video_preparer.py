"""From one video to its clips, its page of the report and its contact sheet."""

import shutil
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from itertools import islice

import numpy as np
import torch

from sdtalk.speech.audio import FRAME_RATE_HZ, read_soundtrack
from sdtalk.tracking.tracker import Tracker
from sdtalk.video import VideoInfo, probe, read_frames
from training.data.entries import ClipMetadata
from training.preparation.clips import ClipMaker, Cut, aligned_sound
from training.preparation.measures import Measures, crop_outside, face_share, measure, percentiles
from training.preparation.record import Folders, VideoReport, identity
from training.preparation.segments import Part, find_parts, landmarks_of
from training.preparation.settings import PrepareSettings
from training.preparation.sheets import Sheet
from training.preparation.source import Source
from training.preparation.survey import Survey, records_of, survey_video
from training.preparation.sync import Hearing, Lateness, lateness

MISSING_SECONDS = 0.5
"""A file whose pictures end earlier than it lasts by so much gets a remark."""


class VideoPreparer:
    """Prepares videos one after the other.

    Args:
        settings: What to keep, and how.
        tracker: Makes heads of landmarks.
        maker: Writes clips.
        hearing: From sound to the opening of the mouth, to align them.
        folders: Where to.
    """

    def __init__(
        self,
        settings: PrepareSettings,
        tracker: Tracker,
        maker: ClipMaker,
        hearing: Hearing,
        folders: Folders,
    ) -> None:
        self.settings, self.tracker, self.maker, self.hearing = settings, tracker, maker, hearing
        self.folders = folders
        self.mesh_tracker = Tracker(tracker.networks, tracker.face, tracker.template)

    def prepare(self, source: Source, progress: Callable[[float], None]) -> VideoReport:
        """Make a video's clips, those that are not there yet.

        Args:
            source: The video.
            progress: Told now and then which share of its work was done since the last time.

        Raises:
            InputError: It cannot be read at all, or nothing can be written.
        """
        info = probe(source.path)
        frame_share = 0.5 / max(info.duration * FRAME_RATE_HZ, 1)
        folder = self.folders.survey(source)
        survey = survey_video(
            source.path,
            folder,
            self.tracker.networks,
            source.intervals,
            lambda frames: progress(frames * frame_share),
        )
        records = records_of(folder)
        measures = measure(records, survey.width, survey.height)
        parts = find_parts(survey, records, measures, self.settings)
        kept = [part for part in parts if not part.reason]
        samples = read_soundtrack(source.sound_path or source.path)
        late = self._lateness(records, kept, survey, samples, source.audio_late_ms)
        report = VideoReport(
            **identity(source),
            seconds=survey.frames / FRAME_RATE_HZ,
            source_fps=info.fps,
            source_size=[survey.width, survey.height],
            own_speech=self._own_speech(source, samples, late),
            sound=asdict(late) | {"there": bool(len(samples))},
            problem=survey.problem or _missing(source, survey, info),
        )
        maker = _VideoClips(self, source, report, survey, records, measures, samples)
        report = maker.make(parts, progress=lambda frames: progress(frames * frame_share))
        report.write(self.folders.reports)
        shutil.rmtree(folder)
        return report

    def forget(self, source: Source) -> None:
        """Take back what was made of a video that cannot be finished."""
        shutil.rmtree(self.folders.survey(source), ignore_errors=True)
        for folder in self.folders.clips.glob(f"{source.video_id}_*"):
            if folder.name.removeprefix(source.video_id)[1:3].isdigit():
                shutil.rmtree(folder, ignore_errors=True)

    def _lateness(
        self,
        records: np.ndarray,
        kept: list[Part],
        survey: Survey,
        samples: torch.Tensor,
        known_ms: float | None,
    ) -> Lateness:
        """How late the sound is, from all clips together."""
        if not len(samples):
            return lateness([], [], known_ms, self.settings.sync)
        seen, heard = [], []
        for part in kept:
            landmarks = landmarks_of(records, part)
            track = self.mesh_tracker.video_track(landmarks, survey.width, survey.height).track
            seen.append(self.tracker.face.mouth_opening(track.mesh).numpy())
            sound = aligned_sound(samples, part.start, part.stop - part.start, 0)
            heard.append(self.hearing(_as_samples(sound)))
        return lateness(heard, seen, known_ms, self.settings.sync)

    def _own_speech(self, source: Source, samples: torch.Tensor, late: Lateness) -> bool:
        if not len(samples) or source.own_speech is False:
            return False
        return source.own_speech is True or (late.r or 0) >= self.settings.sync.own_speech_r


class _VideoClips:
    """Makes the clips of one surveyed video, and its contact sheet."""

    def __init__(
        self,
        preparer: VideoPreparer,
        source: Source,
        report: VideoReport,
        survey: Survey,
        records: np.ndarray,
        measures: Measures,
        samples: torch.Tensor,
    ) -> None:
        self.preparer, self.source, self.report, self.survey = preparer, source, report, survey
        self.records, self.measures, self.samples = records, measures, samples

    def make(self, parts: list[Part], progress: Callable[[int], None]) -> VideoReport:
        """Go through the video once more, part by part."""
        sheet = Sheet(self.report.file, parts, self.survey.frames)
        frames = _counted(read_frames(self.source.path), progress)
        clips, rejected, number, at = [], [], 0, 0
        for part in parts:
            times = {"start_s": part.start / FRAME_RATE_HZ, "end_s": part.stop / FRAME_RATE_HZ}
            reason, detail = part.reason, part.detail
            if not reason:
                key, number = f"{self.source.video_id}_{number:02d}", number + 1
                folder = self.preparer.folders.clips / key
                if not folder.exists():
                    _drop(frames, part.start - at)
                    cut = self._cut(part, key)
                    detail, at = self.preparer.maker.make(cut, frames, folder), part.stop
                    reason = "no_person_mask" if detail else ""
                if not reason:
                    sheet.add_clip(part, folder)
                    clips.append({"key": key} | times)
            if reason:
                rejected.append(times | {"reason": reason, "detail": detail})
                middle = (part.start + part.stop) // 2
                if (
                    sheet.wants(part)
                    and middle >= at
                    and (frame := _drop(frames, middle + 1 - at)) is not None
                ):
                    sheet.add_rejected(part, reason, frame)
                    at = middle + 1
        sheet.save(self.preparer.folders.report / f"{self.source.video_id}.jpg")
        return replace(self.report, clips=clips, rejected=rejected)

    def _cut(self, part: Part, key: str) -> Cut:
        late, run = self.report.sound, slice(part.start, part.stop)
        survey, landmarks = self.survey, landmarks_of(self.records, part)
        video = self.preparer.tracker.video_track(landmarks, survey.width, survey.height)
        frames = part.stop - part.start
        audio = aligned_sound(self.samples, part.start, frames, late["late_ms"])
        yaw, pitch, roll = (percentiles(series) for series in self.measures.angles_deg[run].T)
        quality: dict[str, float | list[float] | None] = {
            "face_px": round(float(np.nanmedian(self.measures.face_px[run])), 1),
            "face_in_crop": round(face_share(landmarks, video.crop), 3),
            "crop_outside": round(crop_outside(video.crop, survey.width, survey.height), 3),
            "yaw_deg": yaw,
            "pitch_deg": pitch,
            "roll_deg": roll,
            "mouth_opening": percentiles(self.preparer.tracker.face.mouth_opening(video.track.mesh).numpy()),
            "bridged_frames": float(np.isnan(self.measures.face_px[run]).sum()),
            "sync_r": None if late["r"] is None else round(late["r"], 3),
        }
        metadata = ClipMetadata(
            key=key,
            **{name: getattr(self.report, name) for name in ("person", "dataset", "split", "own_speech")},
            frames=frames,
            video=self.source.path.name,
            start_s=part.start / FRAME_RATE_HZ,
            crop=asdict(video.crop),
            source_fps=self.report.source_fps,
            source_size=self.report.source_size,
            audio_late_ms=late["late_ms"],
            audio_late_from=late["source"],
            quality=quality,
            notes=[] if late["there"] else ["no sound"],
        )
        return Cut(video, metadata, audio)


def _missing(source: Source, survey: Survey, info: VideoInfo) -> str:
    """What to say of a file whose pictures end early, though nothing in it looked damaged."""
    seconds = survey.frames / FRAME_RATE_HZ
    if seconds > info.duration - MISSING_SECONDS:
        return ""
    return f"{source.path}: its pictures end after {seconds:.1f} s, though it says it lasts {info.duration:.1f} s"


def _as_samples(sound: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(sound.astype(np.float32) / 32768)


def _counted(frames: Iterator[np.ndarray], progress: Callable[[int], None]) -> Iterator[np.ndarray]:
    for frame in frames:
        progress(1)
        yield frame


def _drop(frames: Iterator[np.ndarray], count: int) -> np.ndarray | None:
    """Read so many frames; the last of them."""
    return next(iter(deque(islice(frames, count), maxlen=1)), None)
