"""Prepared data set: reads clips and pieces of their frames, from a folder or the Hub, each by one read of a range."""

import io
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from sdtalk.camera import FRAME_SIZE, Camera
from sdtalk.errors import InputError
from sdtalk.flame.file import load_flame
from sdtalk.flame.layer import FlameModel, FlameParameters
from sdtalk.image import Crop, box_within
from sdtalk.speech.audio import MELS_PER_FRAME, WINDOW_MELS
from sdtalk.speech.hubert.windows import TOKENS_PER_FRAME, WINDOW
from sdtalk.speech.sliding import ROWS_PER_FRAME
from sdtalk.speech.whisper import WINDOW as WHISPER_WINDOW
from sdtalk.speech.whisper import WhisperFeatures
from sdtalk.tracking.completion import CompletionTemplate
from sdtalk.tracking.head_track import MESH_POINTS, HeadTrack
from training.data.entries import ClipEntry, ClipMetadata, Piece
from training.data.index import INDEX_NAME, Index
from training.data.store import ARRAYS_REMEDY, Store, read_record, tar_members

KEPT_CLIPS = 8
SURFACE_POINTS = MESH_POINTS - 10  # without the irises
WINDOWS = {
    "mel": (MELS_PER_FRAME, WINDOW_MELS),
    "whisper": (ROWS_PER_FRAME, WHISPER_WINDOW),
    "hubert": (TOKENS_PER_FRAME, WINDOW),
}
"""For each kind of sound: rows of features a frame, rows that a frame hears."""


@dataclass(frozen=True)
class EncodedFrame:
    """A frame as the shard has it.

    Attributes:
        jpg: The picture; black where the person is certainly not, else as filmed.
        mask: The person mask, a PNG.
    """

    jpg: bytes
    mask: bytes

    def decoded(self) -> tuple[Float[Tensor, "3 height width"], Float[Tensor, "1 height width"]]:
        """Picture and mask in [0, 1]; the picture is not multiplied by the mask.

        Raises:
            OSError, ValueError, SyntaxError: They are damaged.
        """
        with Image.open(io.BytesIO(self.jpg)) as image:
            pixels = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
        with Image.open(io.BytesIO(self.mask)) as image:
            mask = np.array(image.convert("L"))[None]
        picture = torch.from_numpy(np.ascontiguousarray(pixels))  # moving bytes is cheaper than moving floats
        return picture.float().div_(255), torch.from_numpy(mask).float().div_(255)


@dataclass(frozen=True)
class PreparedClip:
    """A clip's tracks and sound; its frames stay in the shard.

    Attributes:
        entry: What the index says.
        metadata: What was noted when it was prepared.
        kind: "mel" or "hubert": what `features` are.
        features: Features of the sound, padded: frame t hears `WINDOWS` of them.
        audio: Sound at 16 kHz, 640 samples a frame; silence where there was none.
        mouth: Mouth codes; the shape coefficients are relative to the clip's mean, the opening is absolute.
        poses: world_to_camera.
        mesh: The face mesh.
        eyes: The eye states.
        flame: FLAME's parameters of every frame, where the data set was tracked with it.
    """

    entry: ClipEntry
    metadata: ClipMetadata
    kind: str
    features: Float[Tensor, "row width"]
    audio: Float[Tensor, " samples"]
    mouth: Float[Tensor, "frame 5"]
    poses: Float[Tensor, "frame 4 4"]
    mesh: Float[Tensor, "frame 478 3"]
    eyes: Float[Tensor, "frame 6"]
    flame: FlameParameters | None = None

    def heads(self, frames: Int[Tensor, " some"]) -> HeadTrack:
        """The head in some frames, with its completion points placed."""
        mesh, poses = self.mesh[frames], self.poses[frames]
        camera = Camera.from_pose(poses[:, :3, :3], poses[:, :3, 3])
        if self.flame is None:
            return HeadTrack(camera, mesh, CompletionTemplate.bundled().place(mesh), self.eyes[frames])
        rows = flame_model().completion_rows
        points = flame_model().vertices(self.flame[frames])[:, rows]
        return HeadTrack(camera, mesh, points, self.eyes[frames], rows)

    @property
    def known_box(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom of what the video shows in the frames, px; beyond, its border was continued."""
        crop, size = self.metadata.crop, self.metadata.source_size
        if not {"left", "top", "side"} <= crop.keys() or len(size) != 2 or crop["side"] <= 0:  # not noted
            return 0, 0, FRAME_SIZE, FRAME_SIZE
        return box_within(Crop(crop["left"], crop["top"], crop["side"]), size[0], size[1], FRAME_SIZE)

    @cached_property
    def track(self) -> HeadTrack:
        """The head in every frame."""
        parts = [self.heads(frames) for frames in torch.arange(self.entry.frames).split(64)]
        if len(parts) == 1:
            return parts[0]
        points = torch.cat([part.completion_points for part in parts])
        camera = Camera.from_pose(self.poses[:, :3, :3], self.poses[:, :3, 3])
        return HeadTrack(camera, self.mesh, points, self.eyes, parts[0].completion_rows)

    def sound(self, frames: Int[Tensor, " some"], kind: str | None = None) -> Float[Tensor, "some row width"]:
        """What some frames hear: [n, 37, 80] of log-mel, [n, 17, 512] of Whisper's, [n, 16, W] of HuBERT's features.

        Args:
            frames: Their numbers.
            kind: Of features; None: those that are kept. Whisper's are not, and are computed when first asked for.

        Raises:
            ValueError: These features are not kept.
        """
        kind = kind or self.kind
        if kind not in (self.kind, "whisper"):
            raise ValueError(f"the clip {self.entry.key} keeps {self.kind} features, not {kind}")
        step, length = WINDOWS[kind]
        features = self.features if kind == self.kind else self.whisper_features
        return features[frames[:, None] * step + torch.arange(length)].float()

    @cached_property
    def whisper_features(self) -> Float[Tensor, "row 512"]:
        """Whisper's features of the whole clip, padded like those that are kept; half precision."""
        return WhisperFeatures.bundled().padded(self.audio, self.entry.frames).half()

    def vertices(self, frames: Int[Tensor, " some"]) -> Float[Tensor, "some vertex 3"]:
        """All vertices tracked in some frames: 468 of the face mesh's surface, or FLAME's 5,023."""
        if self.flame is None:
            return self.mesh[frames, :SURFACE_POINTS]
        return flame_model().vertices(self.flame[frames])


class PreparedDataset:
    """A prepared data set: its index, and its clips and pieces on demand. May be used from several threads."""

    def __init__(self, index: Index, store: Store) -> None:
        self.index, self.store = index, store
        self._clips: OrderedDict[str, PreparedClip] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def open(cls, source: str | Path) -> "PreparedDataset":
        """Open a folder, or "hf://datasets/USER/NAME[@revision]" (any address that fsspec knows).

        Raises:
            InputError: There is none, its index is damaged, or a shard is missing or cut short.
        """
        store = Store.open(source)
        index = Index.from_json(store.read(INDEX_NAME), f"{source}/{INDEX_NAME}")
        index.check_shards(store.sizes().get, str(source))
        return cls(index, store)

    def clip(self, entry: ClipEntry) -> PreparedClip:
        """A clip's tracks, sound and metadata; the last few are kept.

        Raises:
            InputError: They are damaged.
        """
        with self._lock:
            if entry.key in self._clips:
                self._clips.move_to_end(entry.key)
                return self._clips[entry.key]
        clip = self._read_clip(entry)
        with self._lock:
            self._clips[entry.key] = clip
            while len(self._clips) > KEPT_CLIPS:
                self._clips.popitem(last=False)
        return clip

    def piece(self, piece: Piece) -> dict[int, EncodedFrame]:
        """The frames of a piece, still encoded, by their numbers.

        Raises:
            InputError: They are damaged.
        """
        found: dict[int, dict[str, bytes]] = {}
        for name, data in tar_members(self.store.span(piece), piece.shard):
            key, _, kind = name.partition(".")
            found.setdefault(int(key[-6:]), {})[kind] = data
        wanted = range(piece.first, piece.first + piece.count)
        if sorted(found) != list(wanted) or any({"jpg", "mask.png"} - set(f) for f in found.values()):
            problem = f"frames {wanted.start} to {wanted.stop - 1} of a clip are not where the index says"
            raise InputError(f"{self.store.source}/{piece.shard}", problem, "Copy this shard again.")
        return {number: EncodedFrame(found[number]["jpg"], found[number]["mask.png"]) for number in wanted}

    def _read_clip(self, entry: ClipEntry) -> PreparedClip:
        where = f"{self.store.source}/{entry.record.shard}, clip {entry.key}"
        metadata, arrays = read_record(self.store.span(entry.record), where)
        try:
            tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
            return _prepared_clip(entry, ClipMetadata.from_json(metadata, where), tensors, self.index)
        except InputError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(where, f"its arrays cannot be used ({error})", ARRAYS_REMEDY) from error


def _prepared_clip(
    entry: ClipEntry, metadata: ClipMetadata, arrays: dict[str, Tensor], index: Index
) -> PreparedClip:
    frames = entry.frames
    step, length = WINDOWS[index.sound]
    shapes = {
        "world_to_camera": (frames, 4, 4),
        "mesh": (frames, MESH_POINTS, 3),
        "eyes": (frames, 6),
        "mouth": (frames, 5),
        "audio": (frames * 640,),
        index.sound: (step * (frames - 1) + length, index.sound_width),
    }
    if index.tracker == "flame":
        shapes |= {"flame_shape": (300,), "flame_expression": (frames, 100)}
        shapes |= {"flame_jaw": (frames, 3), "flame_eyes": (frames, 6)}
    for name, shape in shapes.items():
        if tuple(arrays[name].shape) != shape:
            raise ValueError(f"{name} has the shape {tuple(arrays[name].shape)} instead of {shape}")
    mouth = arrays["mouth"].float()
    mouth[:, 1:] -= mouth[:, 1:].mean(0)
    return PreparedClip(
        entry=entry,
        metadata=metadata,
        kind=index.sound,
        features=arrays[index.sound],
        audio=arrays["audio"].float() / 32768,
        mouth=mouth,
        poses=arrays["world_to_camera"],
        mesh=arrays["mesh"],
        eyes=arrays["eyes"],
        flame=_parameters(arrays, frames) if index.tracker == "flame" else None,
    )


def _parameters(arrays: dict[str, Tensor], frames: int) -> FlameParameters:
    still = torch.zeros(frames, 3)
    return FlameParameters(
        shape=arrays["flame_shape"].expand(frames, -1),
        expression=arrays["flame_expression"],
        rotation=still,
        neck=still,
        jaw=arrays["flame_jaw"],
        eyes=arrays["flame_eyes"],
    )


@cache
def flame_model() -> FlameModel:
    """The FLAME model on this machine.

    Raises:
        InputError: There is none.
    """
    return load_flame()


def clip_frames(prepared: PreparedDataset, entry: ClipEntry) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Number, picture and mask of every frame of a clip, in order; one piece at a time is in memory.

    Raises:
        InputError: A piece is damaged.
    """
    for piece in entry.pieces:
        for number, frame in prepared.piece(piece).items():
            try:
                picture, mask = frame.decoded()
            except (OSError, ValueError, SyntaxError) as error:
                problem = f"frame {number} of clip {entry.key} cannot be read ({error})"
                raise InputError(
                    f"{prepared.store.source}/{piece.shard}", problem, "Copy it again."
                ) from error
            yield number, picture, mask
