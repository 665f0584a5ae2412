"""GPU frames: batches of finished frames made on a GPU, each copied to the host while the next one is made."""

import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from sdtalk.devices import gpu_knows_bfloat16
from sdtalk.driving import DrivingSignals
from sdtalk.full_float32 import full_float32
from sdtalk.full_frame import FullFrame
from sdtalk.gpu_memory import enough_memory, free_bytes, lacks_memory, no_memory
from sdtalk.head import HeadGaussians
from sdtalk.image import straight_alpha, to_bytes
from sdtalk.model import SDTalk
from sdtalk.provenance.mark import DeviceMark
from sdtalk.rendering.style_unet import StyleUNet
from sdtalk.stopwatch import Stopwatch
from sdtalk.video.label import DeviceLabel

LARGEST_BATCH = 64
"""Frames made at once, where memory allows; more keep a GPU no busier."""

SMALLEST, GROWTH = 4, 8
"""Frames of the first batch, which somebody may be waiting for, and how much larger each is than the one before: small
batches take the host as long as large ones."""

GAUSSIAN_BYTES, PIXEL_BYTES = 1000, 1000
"""Memory a frame needs for each Gaussian (its offsets, what the field's layers make of it, the rasteriser's lists) and
for each pixel (32 channels of features, the layers of `base`'s renderer); a little more than counted, layer by layer.
Where it is too little after all, batches become smaller."""

Frames: TypeAlias = UInt8[np.ndarray, "frame rows columns channel"]


@dataclass(frozen=True)
class _Copy:
    """Frames on their way to the host.

    Attributes:
        host: Where they arrive.
        arrived: A `torch.cuda.Event` that tells when they are there; None: they are.
    """

    host: UInt8[Tensor, "frame height width channel"]
    arrived: Any

    def wait(self) -> Frames:
        """The frames. The memory is theirs for as long as anybody holds them."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.host.numpy()


class GpuFrames:
    """Makes frames of one recording.

    Attributes:
        batch: Frames made at once; halved where memory does not suffice.
    """

    def __init__(
        self,
        model: SDTalk,
        head: HeadGaussians,
        signals: DrivingSignals,
        background: Float[Tensor, "1 3 height width"] | None,
        size: int,
        watch: Stopwatch,
        seed: int,
        exact: bool,
        label: str = "",
        place: FullFrame | None = None,
        mark: bool = False,
    ) -> None:
        """Move what all frames need to the GPU, once.

        Args:
            model: On the head's device.
            head: One person.
            signals: All frames, on any device.
            background: What stands behind the person; None: nothing, frames are transparent.
            size: Side of the finished frames in px.
            watch: Measures "motion", "rendering" and "finishing".
            seed: Of the noise, where the model's renderer draws it anew for every frame.
            exact: Without TF32, and painters in float32, too.
            label: Text in a corner of every frame; "": none.
            place: Where whole frames are wanted, the photo that heads are pasted into.
            mark: Whether frames get the invisible mark.
        """
        self.device = head.eyes.device
        self.head, self.size, self.watch, self.seed, self.exact = head, size, watch, seed, exact
        self.place = place
        sides = (size, size) if place is None else place.size
        with watch("preparing"), enough_memory(self.device):
            self.signals = signals.to(self.device)
            channels = 4 if background is None and place is None else 3
            self._shape = sides[1], sides[0], channels
            self.mark = DeviceMark(*self._shape, self.device) if mark else None
            self.background = None if background is None else background.to(self.device)
            self.label = DeviceLabel(label, sides, self.device) if label else None
            paints = model.config.neural_renderer == "windows" and not exact
            fast = paints and self.device.type == "cuda" and gpu_knows_bfloat16(self.device)
            self.model = model.painting_in(torch.bfloat16) if fast else model
        self._side = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        self.batch, self._told = self._first_batch(), False

    def frames(self, parts: Iterable[range], ahead: int = 1) -> Iterator[Frames]:
        """Frames, part by part.

        Args:
            parts: Numbers of the frames of each part.
            ahead: So many parts are begun before an earlier one is handed out; 0 where each is wanted soon.

        Raises:
            InputError: Not even a single frame fits into the GPU's memory.
        """
        under_way: deque[_Copy] = deque()
        for part in parts:
            under_way.append(self._begun(part))
            if len(under_way) > ahead:
                yield under_way.popleft().wait()
        while under_way:
            yield under_way.popleft().wait()

    def _begun(self, part: range) -> _Copy:
        """Begin to make frames and to copy them; as many at once as fit."""
        shape = len(part), *self._shape
        # of PyTorch's own store of such memory, to which it returns when nobody holds the frames any more
        host = torch.empty(shape, dtype=torch.uint8, pin_memory=self._side is not None)
        arrived = None
        done = 0
        with nullcontext() if self._side is None else torch.cuda.device(self.device):
            while done < len(part):
                some = part[done : done + self.batch]
                frames = self._made_or_none(some)
                if frames is None:
                    self._take_smaller_batches(len(some))
                    continue
                arrived = self._copied(frames, host[done : done + len(some)])
                done += len(some)
        return _Copy(host, arrived)

    def _copied(self, frames: Tensor, host: Tensor) -> Any:
        """Copy on a stream of its own, beside what is computed."""
        if self._side is None:
            host.copy_(frames)
            return None
        self._side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._side):
            host.copy_(frames, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        frames.record_stream(self._side)  # or its memory would be used for the next batch while it is read
        return arrived

    def _made_or_none(self, part: range) -> Tensor | None:
        """Frames, or None where memory does not suffice; the error, which holds on to tensors, ends with the call."""
        try:
            return self._made(part)
        except (RuntimeError, MemoryError) as error:
            if not lacks_memory(error):
                raise
            return None

    @torch.inference_mode()
    def _made(self, part: range) -> UInt8[Tensor, "frame height width channel"]:
        """Finished frames, on the device; nothing here waits for it."""
        some = self.signals[part.start : part.stop]
        with self.watch("motion"):
            animated = self.model.animate(self.head, some.audio_code, some.eyes, some.small_motion)
        with self.watch("rendering"), full_float32(self.device if self.exact else torch.device("cpu")):
            frame = self.model.render(self.head, animated, some.camera, self._noise(part))
        with self.watch("finishing"):
            if self.place is not None:
                frames = self.place.pasted(frame)
            else:
                pictures = torch.cat([frame.colours, frame.alpha], dim=1)
                frames = finished(pictures, self.background, self.size)
            if self.label is not None:
                self.label.draw(frames)
            if self.mark is not None:
                self.mark.draw(frames)
            return frames

    def _noise(self, part: range) -> Float[Tensor, "frame number"] | None:
        """Fresh noise that only the seed and a frame's number decide, however many frames are made at once."""
        renderer = self.model.neural_renderer
        if not isinstance(renderer, StyleUNet) or renderer.noise != "fresh":
            return None
        maps = torch.empty(len(part), renderer.noise_numbers, device=self.device)
        generator = torch.Generator(self.device)
        for number, of_frame in zip(part, maps, strict=True):
            generator.manual_seed(int(np.random.default_rng((self.seed, 3, number)).integers(2**63)))
            of_frame.normal_(generator=generator)
        return maps

    def _first_batch(self) -> int:
        if self.device.type != "cuda":
            return LARGEST_BATCH
        gaussians, camera = self.head.gaussians.means.shape[1], self.signals.camera
        pasted = 0 if self.place is None else self.place.fine[0, 0].numel()
        needed = GAUSSIAN_BYTES * gaussians + PIXEL_BYTES * (camera.width * camera.height + pasted // 4)
        # half of what is free: the batch before it is still being copied, and memory falls to pieces
        return max(1, min(LARGEST_BATCH, free_bytes(self.device) // 2 // needed))

    def _take_smaller_batches(self, tried: int) -> None:
        """Half as many frames at once as were tried.

        Raises:
            InputError: It was only one.
        """
        if tried == 1:
            raise no_memory(self.device)
        torch.cuda.empty_cache()
        if not self._told:
            words = f"{tried} frames at once do not fit into the GPU's memory: smaller batches from here on"
            warnings.warn(words, stacklevel=2)
        self.batch, self._told = tried // 2, True


@torch.inference_mode()
def finished(
    pictures: Float[Tensor, "frame 4 height width"], background: Tensor | None, size: int
) -> UInt8[Tensor, "frame size size channel"]:
    """Frames of a size, over the background or with straight alpha; on the pictures' device.

    Args:
        pictures: Colours, premultiplied, and alpha.
        background: None: there is none.
        size: In px.
    """
    alpha = pictures[:, 3:]
    frames = pictures if background is None else pictures[:, :3] + (1 - alpha) * background
    frames = frames.clamp(0, 1)
    if size != pictures.shape[-1]:  # still premultiplied, or transparent pixels' colours would leak
        frames = F.interpolate(frames, size=(size, size), mode="bicubic", antialias=True)
    return to_bytes(straight_alpha(frames.clamp(0, 1)) if background is None else frames)
