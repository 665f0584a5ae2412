"""Video preparer: one video into its clips, its report and its contact sheet."""

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
from training.preparation.audio_offset import AudioOffset, OpeningPredictor, estimate_audio_offset
from training.preparation.clip_writer import ClipData, ClipWriter, aligned_audio
from training.preparation.contact_sheets import ContactSheet
from training.preparation.face_measurements import (
    FaceMeasurements,
    crop_outside,
    face_share,
    measure_faces,
    percentiles,
)
from training.preparation.folders import PreparationFolders
from training.preparation.scan import VideoScan, read_records, scan_video
from training.preparation.segments import Segment, find_segments, segment_landmarks
from training.preparation.settings import PrepareSettings
from training.preparation.source_video import SourceVideo
from training.preparation.video_report import VideoReport, source_fields

MISSING_SECONDS = 0.5
"""A file whose pictures end earlier than it lasts by so much gets a remark."""


class VideoPreparer:
    """Prepares videos one after the other.

    Args:
        settings: What to keep, and how.
        tracker: Makes heads of landmarks.
        clip_writer: Writes clips.
        predict_opening: From sound to the opening of the mouth, to align them.
        folders: Where to.
    """

    def __init__(
        self,
        settings: PrepareSettings,
        tracker: Tracker,
        clip_writer: ClipWriter,
        predict_opening: OpeningPredictor,
        folders: PreparationFolders,
    ) -> None:
        self.settings, self.tracker, self.folders = settings, tracker, folders
        self.clip_writer, self.predict_opening = clip_writer, predict_opening
        self.mesh_tracker = Tracker(tracker.networks, tracker.face, tracker.template)

    def prepare(self, source: SourceVideo, progress: Callable[[float], None]) -> VideoReport:
        """Make a video's clips, those that are not there yet.

        Args:
            source: The video.
            progress: Told now and then which share of its work was done since the last time.

        Raises:
            InputError: It cannot be read at all, or nothing can be written.
        """
        info = probe(source.path)
        frame_share = 0.5 / max(info.duration * FRAME_RATE_HZ, 1)
        folder = self.folders.scan(source)
        scan = scan_video(
            source.path,
            folder,
            self.tracker.networks,
            source.intervals,
            lambda frames: progress(frames * frame_share),
        )
        records = read_records(folder)
        measurements = measure_faces(records, scan.width, scan.height)
        segments = find_segments(scan, records, measurements, self.settings)
        kept = [segment for segment in segments if not segment.reason]
        samples = read_soundtrack(source.sound_path or source.path)
        offset = self._audio_offset(records, kept, scan, samples, source.audio_late_ms)
        report = VideoReport(
            **source_fields(source),
            seconds=scan.frames / FRAME_RATE_HZ,
            source_fps=info.fps,
            source_size=[scan.width, scan.height],
            own_speech=self._own_speech(source, samples, offset),
            sound=asdict(offset) | {"there": bool(len(samples))},
            problem=scan.problem or _missing(source, scan, info),
        )
        clips = _VideoClips(self, source, report, scan, records, measurements, samples)
        report = clips.write(segments, progress=lambda frames: progress(frames * frame_share))
        report.write(self.folders.reports)
        shutil.rmtree(folder)
        return report

    def discard(self, source: SourceVideo) -> None:
        """Take back what was made of a video that cannot be finished."""
        shutil.rmtree(self.folders.scan(source), ignore_errors=True)
        for folder in self.folders.clips.glob(f"{source.video_id}_*"):
            if folder.name.removeprefix(source.video_id)[1:3].isdigit():
                shutil.rmtree(folder, ignore_errors=True)

    def _audio_offset(
        self,
        records: np.ndarray,
        kept: list[Segment],
        scan: VideoScan,
        samples: torch.Tensor,
        known_ms: float | None,
    ) -> AudioOffset:
        """How late the sound is, from all clips together."""
        if not len(samples):
            return estimate_audio_offset([], [], known_ms, self.settings.sync)
        seen, predicted = [], []
        for segment in kept:
            landmarks = segment_landmarks(records, segment)
            track = self.mesh_tracker.video_track(landmarks, scan.width, scan.height).track
            seen.append(self.tracker.face.mouth_opening(track.mesh).numpy())
            sound = aligned_audio(samples, segment.start, segment.stop - segment.start, 0)
            predicted.append(self.predict_opening(_as_samples(sound)))
        return estimate_audio_offset(predicted, seen, known_ms, self.settings.sync)

    def _own_speech(self, source: SourceVideo, samples: torch.Tensor, offset: AudioOffset) -> bool:
        if not len(samples) or source.own_speech is False:
            return False
        return source.own_speech is True or (offset.r or 0) >= self.settings.sync.own_speech_r


class _VideoClips:
    """Second reading of a scanned video: writes its clips and its contact sheet."""

    def __init__(
        self,
        preparer: VideoPreparer,
        source: SourceVideo,
        report: VideoReport,
        scan: VideoScan,
        records: np.ndarray,
        measurements: FaceMeasurements,
        samples: torch.Tensor,
    ) -> None:
        self.preparer, self.source, self.report, self.scan = preparer, source, report, scan
        self.records, self.measurements, self.samples = records, measurements, samples

    def write(self, segments: list[Segment], progress: Callable[[int], None]) -> VideoReport:
        """Go through the video once more, segment by segment."""
        sheet = ContactSheet(self.report.file, segments, self.scan.frames)
        frames = _counted(read_frames(self.source.path), progress)
        clips, rejected, number, at = [], [], 0, 0
        for segment in segments:
            times = {"start_s": segment.start / FRAME_RATE_HZ, "end_s": segment.stop / FRAME_RATE_HZ}
            reason, detail = segment.reason, segment.detail
            if not reason:
                key, number = f"{self.source.video_id}_{number:02d}", number + 1
                folder = self.preparer.folders.clips / key
                if not folder.exists():
                    _skip(frames, segment.start - at)
                    clip = self._clip_data(segment, key)
                    detail, at = self.preparer.clip_writer.write(clip, frames, folder), segment.stop
                    reason = "no_person_mask" if detail else ""
                if not reason:
                    sheet.add_clip(segment, folder)
                    clips.append({"key": key} | times)
            if reason:
                rejected.append(times | {"reason": reason, "detail": detail})
                middle = (segment.start + segment.stop) // 2
                if (
                    sheet.wants(segment)
                    and middle >= at
                    and (frame := _skip(frames, middle + 1 - at)) is not None
                ):
                    sheet.add_rejected(segment, reason, frame)
                    at = middle + 1
        sheet.save(self.preparer.folders.report / f"{self.source.video_id}.jpg")
        return replace(self.report, clips=clips, rejected=rejected)

    def _clip_data(self, segment: Segment, key: str) -> ClipData:
        offset, run = self.report.sound, slice(segment.start, segment.stop)
        scan, landmarks = self.scan, segment_landmarks(self.records, segment)
        video = self.preparer.tracker.video_track(landmarks, scan.width, scan.height)
        frames = segment.stop - segment.start
        audio = aligned_audio(self.samples, segment.start, frames, offset["late_ms"])
        yaw, pitch, roll = (percentiles(series) for series in self.measurements.angles_deg[run].T)
        quality: dict[str, float | list[float] | None] = {
            "face_px": round(float(np.nanmedian(self.measurements.face_px[run])), 1),
            "face_in_crop": round(face_share(landmarks, video.crop), 3),
            "crop_outside": round(crop_outside(video.crop, scan.width, scan.height), 3),
            "yaw_deg": yaw,
            "pitch_deg": pitch,
            "roll_deg": roll,
            "mouth_opening": percentiles(self.preparer.tracker.face.mouth_opening(video.track.mesh).numpy()),
            "bridged_frames": float(np.isnan(self.measurements.face_px[run]).sum()),
            "sync_r": None if offset["r"] is None else round(offset["r"], 3),
        }
        metadata = ClipMetadata(
            key=key,
            **{name: getattr(self.report, name) for name in ("person", "dataset", "split", "own_speech")},
            frames=frames,
            video=self.source.path.name,
            start_s=segment.start / FRAME_RATE_HZ,
            crop=asdict(video.crop),
            source_fps=self.report.source_fps,
            source_size=self.report.source_size,
            audio_late_ms=offset["late_ms"],
            audio_late_from=offset["source"],
            quality=quality,
            notes=[] if offset["there"] else ["no sound"],
        )
        return ClipData(video, metadata, audio)


def _missing(source: SourceVideo, scan: VideoScan, info: VideoInfo) -> str:
    """What to say of a file whose pictures end early, though nothing in it looked damaged."""
    seconds = scan.frames / FRAME_RATE_HZ
    if seconds > info.duration - MISSING_SECONDS:
        return ""
    return f"{source.path}: its pictures end after {seconds:.1f} s, though it says it lasts {info.duration:.1f} s"


def _as_samples(sound: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(sound.astype(np.float32) / 32768)


def _counted(frames: Iterator[np.ndarray], progress: Callable[[int], None]) -> Iterator[np.ndarray]:
    for frame in frames:
        progress(1)
        yield frame


def _skip(frames: Iterator[np.ndarray], count: int) -> np.ndarray | None:
    """Read so many frames; the last of them."""
    return next(iter(deque(islice(frames, count), maxlen=1)), None)
