"""SDTalk: the whole network.

    image, mask, track ─► reconstruct ─► HeadGaussians                                   once per person
                          (image encoder, visible branch, completion branch, point codes)

    sound windows ─► listen ─► audio code ─┐
                          eye state ───────┼─► animate ─► Gaussians in head space        once per frame
                                           │   (coarse field: visible, fine field: completion)
                          camera ──────────┴─► render ─► Frame
                                               (rasterise 32 channels, neural renderer)

Three verbs without state between them: two portraits cannot mix.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float
from torch import Tensor, nn

from sdtalk.camera import Camera
from sdtalk.config import SDTalkConfig
from sdtalk.gaussians import GaussianDelta, Gaussians
from sdtalk.motion.audio_encoder import AudioEncoder
from sdtalk.motion.hash_encoding import TriplaneHashEncoding
from sdtalk.motion.motion_field import MotionField, PointCode, scaled_difference
from sdtalk.reconstruction.activations import LEARNED, RGB, SOURCE, learned_channels
from sdtalk.reconstruction.reconstructor import Reconstructor, foreground
from sdtalk.rendering.neural_renderer import NeuralRenderer
from sdtalk.rendering.rasteriser import rasterise
from sdtalk.tracking.face_model import FaceModel
from sdtalk.tracking.head_track import EYE_NUMBERS, HeadTrack

MIN_SUPPORT = 0.02
"""Visible Gaussians that take less part in facial motion than this are never evaluated."""

MIN_SOURCE_WEIGHT = 0.2
"""Where less of a pixel comes from the photo, the photo's fine detail is not trusted."""

FAITH = 0.9
"""Where a pixel comes from the photo, the neural renderer may change it by so much less: left alone it learns to blur
what it cannot place exactly (seen in training), while mouths and what turns into view need it."""

DETAIL_RANGE = 0.5
"""Limit on the fine detail carried from the photo."""


@dataclass(frozen=True)
class HeadGaussians:
    """A person, ready to be animated; Gaussians in the order completion, back layer, front layer.

    Attributes:
        gaussians: The head as the photo shows it, in head space.
        completion_canonical: Positions of the completion Gaussians on the canonical face.
        visible_canonical: The same for the visible Gaussians that can move.
        completion_code: What the fine field makes of the former.
        visible_code: What the coarse field makes of the latter.
        moving: Which visible Gaussians can move.
        support: How far they take part in facial motion.
        head_weight: How far every Gaussian follows the head's pose.
        rest: The source camera: the pose in which head and shoulders belong together.
        detail: What the photo, with its margin, shows beyond the rasterised Gaussians at the source camera.
        audio_code: The state of the mouth in the photo.
        eyes: The state of the eyes in the photo.
    """

    gaussians: Gaussians
    completion_canonical: Float[Tensor, "batch completion 3"]
    visible_canonical: Float[Tensor, "batch moving 3"]
    completion_code: PointCode
    visible_code: PointCode
    moving: Tensor
    support: Float[Tensor, "batch moving"]
    head_weight: Float[Tensor, "batch gaussian"]
    rest: Camera
    detail: Float[Tensor, "batch 3 padded padded"]
    audio_code: Float[Tensor, "batch audio"]
    eyes: Float[Tensor, "batch 6"]


@dataclass(frozen=True)
class Frame:
    """A rendered batch.

    Attributes:
        colours: RGB premultiplied by alpha, about [0, 1].
        alpha: How far a pixel shows the person.
        rasterised: The colours before the neural renderer (training supervises both).
    """

    colours: Float[Tensor, "batch 3 height width"]
    alpha: Float[Tensor, "batch 1 height width"]
    rasterised: Float[Tensor, "batch 3 height width"]

    def over(self, background: Float[Tensor, "one 3 height width"]) -> Float[Tensor, "batch 3 height width"]:
        """Composite over a background, clamped to [0, 1]."""
        return (self.colours + (1 - self.alpha) * background).clamp(0, 1)


class SDTalk(nn.Module, PyTorchModelHubMixin, library_name="sdtalk", license="apache-2.0"):
    """One photo and the sound of speech -> frames of a talking head."""

    def __init__(self, config: SDTalkConfig) -> None:
        super().__init__()
        self.config = config
        self.reconstructor = Reconstructor(config)
        self.coarse_field = self._field()
        self.fine_field = self._field()
        self.audio_encoder = AudioEncoder(config.mel_bins, config.audio_width, config.audio_code_width)
        self.neural_renderer = NeuralRenderer(
            learned_channels(config.feature_channels), config.renderer_width
        )

    def _field(self) -> MotionField:
        c = self.config
        encoding = TriplaneHashEncoding(
            c.hash_levels, c.hash_base_resolution, c.hash_finest_resolution, c.hash_log2_table
        )
        return MotionField(encoding, c.audio_code_width, EYE_NUMBERS, c.motion_width, eye_scale=c.eye_scale)

    @classmethod
    def from_pretrained(cls, *args, strict: bool = True, **kwargs) -> "SDTalk":
        """Load weights; unlike the mix-in's default, a missing or extra tensor is an error."""
        return super().from_pretrained(*args, strict=strict, **kwargs)

    def reconstruct(
        self,
        image: Float[Tensor, "batch 3 height width"],
        mask: Float[Tensor, "batch 1 height width"],
        track: HeadTrack,
    ) -> HeadGaussians:
        """Turn portraits into animatable heads; once per person.

        Args:
            image: Portrait crops, RGB in [0, 1].
            mask: Probability that a pixel shows the person.
            track: The heads in the crops.
        """
        margin, rest = self.config.margin_px, track.camera
        image, mask = (F.pad(x, (margin,) * 4, mode="replicate") for x in (image, mask))
        track = replace(track, camera=rest.window(-margin, -margin, image.shape[-1]))
        image = foreground(image, mask)
        static = self.reconstructor(image, mask, track)
        gaussians = Gaussians.concatenate([static.completion, static.visible])
        moving = (static.support > MIN_SUPPORT).any(0).nonzero()[:, 0]
        visible_canonical = static.visible_canonical[:, moving]
        opening = FaceModel.bundled().to(image.device).mouth_opening(track.mesh)
        shape = opening.new_zeros(len(track), self.config.audio_code_width - 1)
        return HeadGaussians(
            gaussians=gaussians,
            completion_canonical=static.completion_canonical,
            visible_canonical=visible_canonical,
            completion_code=self.fine_field.encode(static.completion_canonical),
            visible_code=self.coarse_field.encode(visible_canonical),
            moving=moving,
            support=static.support[:, moving],
            head_weight=static.head_weight,
            rest=rest,
            detail=self._detail(image, gaussians, track.camera),
            # the photo's own mouth shape counts as the person's neutral one, so only the opening is measured
            audio_code=torch.cat([opening[:, None], shape], dim=1),
            eyes=track.eyes,
        )

    def recoded(self, head: HeadGaussians) -> HeadGaussians:
        """Encode the points again, with gradients: stage 2 trains the fields on a head that stays as it is."""
        return replace(
            head,
            completion_code=self.fine_field.encode(head.completion_canonical),
            visible_code=self.coarse_field.encode(head.visible_canonical),
        )

    def listen(self, windows: Float[Tensor, "frame step mel"]) -> Float[Tensor, "frame audio"]:
        """Sound windows -> audio codes (mini: the mouth code of the face model)."""
        return self.audio_encoder(windows)

    def animate(
        self, head: HeadGaussians, audio_code: Float[Tensor, "frame audio"], eyes: Float[Tensor, "frame 6"]
    ) -> Gaussians:
        """Move a head's Gaussians to the state of mouth and eyes of each frame.

        The fields lead from the canonical face to a state; the difference of two states moves the photo's face, so
        that the state of the photo itself gives the photo back.
        """
        everywhere = torch.ones_like(head.completion_code.position[..., 0])
        fine = self._change(self.fine_field, head.completion_code, everywhere, head, (audio_code, eyes))
        coarse = self._change(self.coarse_field, head.visible_code, head.support, head, (audio_code, eyes))
        first = everywhere.shape[1]
        index = torch.cat([torch.arange(first, device=eyes.device), first + head.moving])
        frames, count = eyes.shape[0], head.gaussians.means.shape[1]
        parts = {}
        for name in ("means", "quats", "scales", "opacities"):
            moved = torch.cat([getattr(fine, name), getattr(coarse, name)], dim=1)
            still = moved.new_zeros(frames, count, *moved.shape[2:])
            parts[name] = still.index_copy(1, index, moved)
        return head.gaussians.moved_by(GaussianDelta(**parts))

    @staticmethod
    def _change(
        field: MotionField,
        points: PointCode,
        weight: Tensor,
        head: HeadGaussians,
        state: tuple[Tensor, Tensor],
    ) -> GaussianDelta:
        return scaled_difference(field(points, *state), field(points, head.audio_code, head.eyes), weight)

    def render(self, head: HeadGaussians, gaussians: Gaussians, camera: Camera) -> Frame:
        """Render animated Gaussians of a head.

        Args:
            head: The person, for the pose of the shoulders and the detail of the photo.
            gaussians: From `animate`; one set per frame.
            camera: One camera per frame.
        """
        picture = rasterise(_posed(gaussians, head, camera), camera)
        rasterised = picture.features[:, RGB]
        source = picture.features[:, SOURCE]
        colours = rasterised + _carried_detail(source, head.detail)
        # without a gradient: the reconstruction must not learn to hide the photo to free the renderer
        freedom = (picture.alpha - FAITH * source[:, 2:]).clamp_min(0).detach()
        refined = self.neural_renderer(picture.features[:, LEARNED], colours, picture.alpha, freedom)
        return Frame(refined, picture.alpha, rasterised)

    def forward(
        self, head: HeadGaussians, audio_code: Float[Tensor, "frame audio"], eyes: Tensor, camera: Camera
    ) -> Frame:
        """Animate and render; what both the pipeline and the training stages run per frame."""
        return self.render(head, self.animate(head, audio_code, eyes), camera)

    @staticmethod
    @torch.no_grad()
    def _detail(
        image: Float[Tensor, "batch 3 height width"], gaussians: Gaussians, camera: Camera
    ) -> Float[Tensor, "batch 3 height width"]:
        """What the Gaussians miss of the photo from its own camera; carried along by every later frame."""
        picture = rasterise(gaussians, camera)
        weight = picture.features[:, SOURCE][:, 2:]
        missing = image * picture.alpha - picture.features[:, RGB]
        trusted = weight > MIN_SOURCE_WEIGHT
        return (missing / weight.clamp_min(MIN_SOURCE_WEIGHT)).clamp(-DETAIL_RANGE, DETAIL_RANGE) * trusted


def _posed(gaussians: Gaussians, head: HeadGaussians, camera: Camera) -> Gaussians:
    """Let shoulders stay where the photo has them while the head turns (linear blend of the two poses).

    Shoulder Gaussians keep their orientation: they are nearly round, and heads turn by little.
    """
    rest_in_head = torch.linalg.inv(camera.world_to_camera) @ head.rest.world_to_camera
    rested = gaussians.means @ rest_in_head[:, :3, :3].transpose(1, 2) + rest_in_head[:, None, :3, 3]
    return replace(gaussians, means=torch.lerp(rested, gaussians.means, head.head_weight[..., None]))


def _carried_detail(
    source: Float[Tensor, "frame 3 height width"], detail: Float[Tensor, "batch 3 padded padded"]
) -> Float[Tensor, "frame 3 height width"]:
    """The photo's fine detail at the positions the rasterised Gaussians come from."""
    weight = source[:, 2:]
    grid = (source[:, :2] / weight.clamp_min(1e-4)).permute(0, 2, 3, 1)
    carried = F.grid_sample(detail.expand(grid.shape[0], -1, -1, -1), grid, align_corners=False)
    return carried * weight
