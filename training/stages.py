"""Training stages: the forward pass and losses of both stages of the paper (section 3.3), and what each one trains.

source picture ─► reconstruct ─► head ─┐                       stage 1 learns this
mouth code or sound, eyes of target ───┼─► animate ─► render ─► Frame ◄─ compare ─► real target picture
camera of target ──────────────────────┘   stage 2 learns this, and the neural renderer goes on learning
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from accelerate.utils import convert_to_fp32
from jaxtyping import Float, Int
from torch import Tensor, nn

from sdtalk.camera import FRAME_SIZE, Camera
from sdtalk.errors import InputError
from sdtalk.gaussians import Gaussians
from sdtalk.head import AnimatedHead, Frame, HeadGaussians
from sdtalk.model import SDTalk
from sdtalk.motion.audio_encoder import MouthEncoder
from sdtalk.tracking.head_track import HeadTrack
from training.data.loader import track_from_batch
from training.loss_terms import LossTerms, RenderedBatch
from training.mini.geometry_loss import GeometryLoss
from training.train_settings import TrainSettings

SURFACE_POINTS = 468
"""Of the mesh, without the irises."""

MOUTH_CODE_WEIGHTS = (3.0, 1.0, 0.77, 0.53, 0.3)
"""Of errors of the predicted mouth code: the opening first, then the shape coefficients, by how audible they are."""

LIPS_TOUCH_BELOW = 0.15
"""Lips that are less far apart than this share of a wide opening count as touching."""

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Stage(nn.Module):
    """What `accelerate` prepares: a batch in, weighted losses and pictures out; what is not trained is frozen.

    The model stays in evaluation mode: its only dropout and batch statistics are the audio encoder's, which would make
    what a sample teaches depend on the process it is on.
    """

    def __init__(self, model: SDTalk, settings: TrainSettings) -> None:
        """Freeze what is not trained, and load what the losses need.

        Raises:
            InputError: A loss does not fit the model, or needs what is not on this machine.
        """
        super().__init__()
        self.model, self.settings = model.eval(), settings
        self.without_motion = settings.stage == 1 and not settings.stage1_motion
        self.loss_terms = LossTerms(settings)
        self.requires_grad_(False)
        for parameters in self.groups().values():
            for parameter in parameters:
                parameter.requires_grad_(True)
        self.geometry = None
        if "geometry" in self.loss_terms.weights:
            if not (model.config.priors and model.config.canonical_positions):
                problem = "this model's fields see no canonical positions, where it is measured"
                raise InputError("losses.geometry", problem, "Set it to 0.")
            self.geometry = GeometryLoss()
        if dtype := DTYPES.get(settings.precision):
            self._autocast_networks(dtype)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by the name their learning rate goes by (`PARAMETER_GROUPS`); only those that learn."""
        m, rates = self.model, self.settings.optimiser.rates
        backbone = getattr(m.reconstructor.encoder, "backbone", None)
        frozen = set(backbone.parameters()) if isinstance(backbone, nn.Module) else set()
        fields = [f for f in (m.coarse_field, m.fine_field) if f is not None]
        tables = [p for f in fields for p in f.encoding.parameters()]
        noiseless = (
            m.config.renderer_noise == "none"
        )  # then the strengths of the StyleUNet's noise have no gradient
        renderer = [
            p for n, p in m.neural_renderer.named_parameters() if not (noiseless and n.endswith(".strength"))
        ]
        parts = {
            "reconstructor": [p for p in m.reconstructor.parameters() if p not in frozen],
            "neural_renderer": renderer,
            "tables": tables,
            "fields": [p for f in fields for n, p in f.named_parameters() if not n.startswith("encoding")],
            "audio_encoder": list(m.audio_encoder.parameters()),
        }
        return {name: parts[name] for name, rate in rates.items() if rate > 0}

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Render the target frame from the source frame, and compare.

        Args:
            batch: As `training.data.loader.PairLoader` makes them.

        Returns:
            The weighted losses by name, `pictures`: rasterised, finished and real windows side by side, and the `psnr`
            of the finished ones in dB.
        """
        # positions do not survive 8 bits of mantissa: only the networks of `_autocast_networks` leave float32
        with torch.autocast(batch["source_image"].device.type, enabled=False):
            source, target = track_from_batch(batch, "source"), track_from_batch(batch, "target")
            head = self._head(batch, source, target)
            camera, cut = _crop_windows(target, batch["window_offset"], self.settings.window_px)
            moved = self._animated(batch, head, target)
            frame = self.model.render(head, moved, camera)
            mask, known = cut(batch["target_mask"]), cut(batch["target_known"])
            wanted = cut(batch["target_image"]) * mask
            # what the video does not show is wanted as it is: no loss, no gradient
            mask = torch.where(known > 0, mask, frame.alpha.detach())
            wanted = torch.where(known > 0, wanted, frame.colours.detach())
            vertices, lifted = self._lifted(batch, head, moved.gaussians)
            face_px = camera.project(target.mesh)
            losses = self.loss_terms(RenderedBatch(frame, wanted, mask, face_px, vertices, lifted))
            losses |= self._losses_without_pictures(batch)
        return {**losses, "pictures": _side_by_side(frame, wanted), "psnr": _psnr(frame, wanted)}

    def _mouth_code(self, batch: dict[str, Tensor]) -> Tensor:
        """What moves the mouth: mini's fields learn from tracked mouths, the paper's from what is heard."""
        return (
            batch["target_mouth"]
            if self.model.config.priors
            else self.model.encode_audio(batch["target_sound"])
        )

    def _head(self, batch: dict[str, Tensor], source: HeadTrack, target: HeadTrack) -> HeadGaussians:
        if self.without_motion:
            whole = self.model.config.template == "flame"
            points = batch["target_vertices"] if whole else target.completion_points
            rows = None if whole else target.completion_rows
            source = replace(source, completion_points=points, completion_rows=rows)
        with torch.set_grad_enabled(self.settings.stage == 1):
            head = self.model.reconstruct(batch["source_image"], batch["source_mask"], source)
        if self.settings.stage == 2:
            head = self.model.recoded(head)
        return replace(head, audio_code=batch["source_mouth"]) if self.model.config.priors else head

    def _animated(self, batch: dict[str, Tensor], head: HeadGaussians, target: HeadTrack) -> AnimatedHead:
        if self.without_motion:
            return AnimatedHead(head.gaussians, target.mesh)  # as the completion points
        return self.model.animate(head, self._mouth_code(batch), target.eyes)

    def _lifted(
        self, batch: dict[str, Tensor], head: HeadGaussians, moved: Gaussians
    ) -> tuple[Tensor, list[Tensor]]:
        """Vertices, and the Gaussians that should lie on them.

        The paper holds the Gaussians against the target's vertices. mini's are lifted to the source's mesh to begin
        with, so they are held there, before any motion.
        """
        completion = head.completion_canonical.shape[1]
        every = self.settings.lifting_step
        if self.model.config.priors:
            return batch["source_mesh"][:, :SURFACE_POINTS:every], [head.gaussians.means[:, completion:]]
        groups = [moved.means[:, completion:]]
        if self.settings.stage == 2 and completion:
            groups.append(moved.means[:, :completion])
        return batch["target_vertices"][:, ::every], groups

    def _losses_without_pictures(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Losses that need no picture."""
        weights, losses = self.loss_terms.weights, {}
        if "sound" in weights:
            speech = (batch["target_sound"], batch["target_mouth"], batch["target_own_speech"])
            losses["sound"] = weights["sound"] * mouth_code_loss(self.model.audio_encoder, *speech)
        if self.geometry is not None:
            losses["geometry"] = weights["geometry"] * self.geometry(self.model, batch)
        return losses

    def _autocast_networks(self, dtype: torch.dtype) -> None:
        m = self.model
        for network in (m.reconstructor.encoder, *m.frame_networks, self.loss_terms.features):
            if network is not None:
                network.forward = _in_autocast(network.forward, dtype)


def mouth_code_loss(
    encoder: MouthEncoder,
    windows: Float[Tensor, "batch step channel"],
    tracked: Float[Tensor, "batch code"],
    own: Float[Tensor, " batch"],
) -> Float[Tensor, ""]:
    """Mouth codes that mini's audio encoder predicts against tracked ones, where the sound is the speaker's own.

    Compared before the code is limited and pulled shut, where a gradient gets through: squared error of the code, and
    cross-entropy of whether the lips touch.
    """
    numbers, log_odds = encoder.raw(encoder.hear(windows.transpose(1, 2)))
    code = encoder.code_mean + encoder.code_gain * numbers[..., 0]
    error = ((code - tracked).square() * tracked.new_tensor(MOUTH_CODE_WEIGHTS)).sum(1)
    touching = (tracked[:, 0] < LIPS_TOUCH_BELOW).to(code.dtype)
    closing = F.binary_cross_entropy_with_logits(log_odds[:, 0], touching, reduction="none")
    return ((error + closing) * own).mean()


def _crop_windows(
    target: HeadTrack, offset: Float[Tensor, "batch 2"], side: int
) -> tuple[Camera, Callable[[Tensor], Tensor]]:
    """The target's camera for a window around each face, and how to cut pictures to it; `offset`: see `Sample`."""
    if side == FRAME_SIZE:
        return target.camera, lambda pictures: pictures
    corners = window_corners(target, offset, side)
    left, top = corners.unbind(1)
    camera = target.camera.window(left, top, side)

    def cut(pictures: Tensor) -> Tensor:
        places = corners.tolist()
        return torch.stack(
            [p[:, y : y + side, x : x + side] for p, (x, y) in zip(pictures, places, strict=True)]
        )

    return camera, cut


def window_corners(target: HeadTrack, offset: Float[Tensor, "batch 2"], side: int) -> Int[Tensor, "batch 2"]:
    """Left and top of each sample's window."""
    points = target.camera.project(target.mesh[:, :SURFACE_POINTS])
    low, high = points.amin(1).clamp(0, FRAME_SIZE), points.amax(1).clamp(0, FRAME_SIZE)
    free = (side - (high - low)).clamp_min(0)
    return (low - offset * free).clamp(0, FRAME_SIZE - side).long()


def _in_autocast(forward: Callable[..., Any], dtype: torch.dtype) -> Callable[..., Any]:
    def computed(*arguments: Tensor, **options: Any) -> Any:
        device = next(a.device.type for a in (*arguments, *options.values()) if isinstance(a, Tensor))
        with torch.autocast(device, dtype):
            made = forward(*arguments, **options)
        return convert_to_fp32(made)

    return computed


@torch.no_grad()
def _psnr(frame: Frame, wanted: Tensor) -> Float[Tensor, ""]:
    error = (frame.colours.clamp(0, 1) - wanted).square().mean((1, 2, 3))
    return -10 * error.clamp_min(1e-10).log10().mean()


def _side_by_side(frame: Frame, wanted: Tensor) -> Tensor:
    return torch.cat([frame.rasterised, frame.colours, wanted], dim=-1).detach()
