"""SDTalk: the whole network.

    image, mask, track ─► reconstruct ─► HeadGaussians                                   once per person
                          (image encoder, visible branch, completion branch, point codes)

    sound windows ─► listen ─► audio code ─┐
           eye state, small motion ────────┼─► animate ─► AnimatedHead                   once per frame
                                           │   (coarse field: visible, fine field: completion; the face mesh)
                          camera ──────────┴─► render ─► Frame
                                               (rasterise 32 channels, neural renderer)

Three verbs without state between them: two portraits cannot mix.
"""

from contextlib import AbstractContextManager, nullcontext
from copy import copy, deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from jaxtyping import Float
from safetensors.torch import load_model as load_safetensors
from torch import Tensor, nn

from sdtalk.camera import Camera
from sdtalk.config import SDTalkConfig
from sdtalk.full_float32 import full_float32
from sdtalk.gaussians import GaussianDelta, Gaussians
from sdtalk.head import AnimatedHead, Frame, HeadGaussians, moved_mesh, posed, scattered, small_shift
from sdtalk.motion.audio_encoder import AudioEncoder, WhisperHead
from sdtalk.motion.hash_encoding import TriplaneHashEncoding
from sdtalk.motion.motion_field import MotionField, PointCode, scaled_difference
from sdtalk.motion.small_motion import SmallMotion
from sdtalk.motion.token_encoder import TokenEncoders
from sdtalk.reconstruction.activations import LEARNED, RGB, SOURCE, learned_channels
from sdtalk.reconstruction.reconstructor import Reconstructor, foreground
from sdtalk.rendering.neural_renderer import NeuralRenderer
from sdtalk.rendering.photo_texture import photo_detail, rasterise_by_shift, textured, without_texture
from sdtalk.rendering.rasteriser import OnCuda, rasterise
from sdtalk.rendering.rules import OUR_RULES, PUBLISHED_RULES
from sdtalk.rendering.style_unet import StyleUNet
from sdtalk.rendering.window_renderer import PhotoFace, WindowRenderer
from sdtalk.tracking.face_model import FaceModel
from sdtalk.tracking.head_track import EYE_NUMBERS, HeadTrack
from sdtalk.weights.config_file import read_config, write_config
from sdtalk.weights.hub import WEIGHTS, download
from sdtalk.weights.model_card import Card, card_text

MIN_SUPPORT = 0.02
"""Visible Gaussians that take less part in facial motion than this are never evaluated."""

FAITH = 0.9
"""Where a pixel comes from the photo, the neural renderer may change it by so much less: left alone it learns to blur
what it cannot place exactly (seen in training), while mouths and what turns into view need it."""


class SDTalk(nn.Module, PyTorchModelHubMixin, library_name="sdtalk"):
    """One photo and the sound of speech -> frames of a talking head.

    A PyTorch module; pipelines hold one and do everything around it. It loads, saves and shares like other models on
    the Hugging Face Hub.

    Examples:
        >>> model = SDTalk.from_pretrained("models/mine")  # or "user/name"
        >>> model.config.name
        'mini'
        >>> model.push_to_hub("user/name", private=True)
    """

    def __init__(self, config: SDTalkConfig) -> None:
        super().__init__()
        self.config = config
        self.reconstructor = Reconstructor(config)
        self.coarse_field = self._field()
        self.fine_field = self._field() if config.two_fields else None
        self.audio_encoder = _audio_encoder(config)
        self.neural_renderer = _neural_renderer(config)
        self.precision = torch.float32
        self.on_cuda: OnCuda = "triton"

    def _field(self) -> MotionField:
        c = self.config
        encoding = TriplaneHashEncoding(
            c.hash_levels, c.hash_base_resolution, c.hash_finest_resolution, c.hash_log2_table
        )
        return MotionField(encoding, c.audio_code_width, EYE_NUMBERS, c.motion_width, eye_scale=c.eye_scale)

    @property
    def motion_fields(self) -> list[MotionField]:
        """The fields there are: coarse and fine, or the coarse one alone."""
        return [self.coarse_field] if self.fine_field is None else [self.coarse_field, self.fine_field]

    @property
    def frame_networks(self) -> list[nn.Module]:
        """The networks that run for every frame: the fields, and the neural renderer or its painters."""
        renderer = self.neural_renderer
        painters = [renderer.mouth, renderer.eyes] if isinstance(renderer, WindowRenderer) else [renderer]
        return [*self.motion_fields, *painters]

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        strict: bool = True,
        map_location: str = "cpu",
        **options: Any,
    ) -> "SDTalk":
        """Load a model; unlike the mix-in's defaults, what is missing or does not belong there is an error.

        Of the weights only safetensors are read, where the mix-in would fall back to a pickle, which can run code.

        Args:
            pretrained_model_name_or_path: A folder, or "user/name" on the Hugging Face Hub.
            revision: A branch, tag or commit on the Hub; config and weights are always of one commit.
            strict: Whether the weights have to be exactly those of the network.
            map_location: Device to load to.
            options: For downloads: token, cache_dir, local_files_only, force_download.

        Raises:
            InputError: config.json is missing, damaged, or of a newer version.
        """
        folder = Path(pretrained_model_name_or_path)
        if not folder.is_dir():
            folder = download(str(pretrained_model_name_or_path), revision, **options)
        model = cls(read_config(folder)).to(map_location)
        load_safetensors(model, folder / WEIGHTS, strict=strict, device=map_location)
        return model.eval()

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write the weights and config.json, which the mix-in then leaves as it is."""
        super()._save_pretrained(save_directory)
        write_config(self.config, save_directory)

    def generate_model_card(self, **facts: Any) -> ModelCard:
        """The README.md of `save_pretrained` and `push_to_hub`.

        Args:
            facts: Fields of `sdtalk.weights.model_card.Card`; as `model_card_kwargs` of the two.
        """
        return ModelCard(card_text(self.config, Card(**{"title": f"SDTalk {self.config.name}"} | facts)))

    def in_precision(self, dtype: torch.dtype) -> "SDTalk":
        """Compute frames in another precision from now on, for inference.

        What happens once a person and decides where Gaussians lie, and the rasteriser, stay in float32.

        Args:
            dtype: float32, or bfloat16, which halves the time of a model without priors on processors that know it.
        """
        self.precision = dtype
        if not self.config.priors:
            # once: casting its weights for every frame would take as long as some layers; the format suits CPUs
            self.neural_renderer.to(dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self

    def drawing_with(self, on_cuda: OnCuda) -> "SDTalk":
        """Draw Gaussians that are on CUDA with another rasteriser from now on, see `rasteriser.rasterise`."""
        self.on_cuda = on_cuda
        return self

    def compiled(self, **options: Any) -> "SDTalk":
        """Compile the networks that run for every frame, each as one graph; the first frames then take minutes.

        Meant for GPUs; on a CPU it saves a tenth of a frame. Not replayed as CUDA graphs (the mode "reduce-overhead"),
        whose results are gone with the next call: one field's are still wanted when the other is asked.

        Args:
            options: For `torch.compile`.
        """
        for network in self.frame_networks:
            network.compile(fullgraph=True, **options)
        return self

    def _autocast(self) -> AbstractContextManager:
        """Casts where bfloat16 is wanted; otherwise leaves alone what training may have switched on around it.

        On a GPU only the neural renderer is worth it: what decides positions stays in float32 there.
        """
        if self.precision == torch.float32 or self.device.type != "cpu":
            return nullcontext()
        return torch.autocast("cpu", self.precision)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.parameters()).device

    def painting_in(self, dtype: torch.dtype) -> "SDTalk":
        """The same model with a neural renderer of its own, in another precision; everything else is shared."""
        other = copy(self)
        other._modules = dict(self._modules)
        other.neural_renderer = deepcopy(self.neural_renderer).to(dtype)
        return other

    def reconstruct(
        self,
        image: Float[Tensor, "batch 3 height width"],
        mask: Float[Tensor, "batch 1 height width"],
        track: HeadTrack,
    ) -> HeadGaussians:
        """Turn portraits into animatable heads; once per person.

        Args:
            image: Portrait crops, RGB in [0, 1]; or with `config.margin_px` more on each side, where else they are
                mirrored.
            mask: Probability that a pixel shows the person; as large as the image.
            track: The heads in the crops.
        """
        margin, rest = self.config.margin_px, track.camera
        if margin:
            if image.shape[-1] == rest.width:
                image, mask = (F.pad(x, (margin,) * 4, mode="reflect") for x in (image, mask))
            track = replace(track, camera=rest.with_margin(margin))
        if self.config.priors:
            image = foreground(image, mask)
        static = self.reconstructor(image, mask, track)
        gaussians = Gaussians.concatenate([static.completion, static.visible])
        # windows look at no learned channels, which would be most of a rasteriser's work
        if self.config.neural_renderer == "windows":
            gaussians = replace(gaussians, features=gaussians.features[..., : LEARNED.start].contiguous())
        takes_part = static.support > MIN_SUPPORT
        moving = takes_part.any(0).nonzero()[:, 0]
        visible_canonical = static.visible_canonical[:, moving]
        fine_code, coarse_code = self._codes(static.completion_canonical, visible_canonical)
        head = HeadGaussians(
            gaussians=gaussians,
            completion_canonical=static.completion_canonical,
            visible_canonical=visible_canonical,
            fine_code=fine_code,
            coarse_code=coarse_code,
            moving=moving,
            support=(static.support * takes_part)[:, moving],  # what others of a batch move stays still here
            head_weight=static.head_weight,
            rest=rest,
            eyes=track.eyes,
            brows=static.brows,
        )
        return self._with_the_photos_own(head, image, track) if self.config.priors else head

    def _with_the_photos_own(self, head: HeadGaussians, image: Tensor, track: HeadTrack) -> HeadGaussians:
        """What only the photo knows: how its mouth stands, and what it looks like."""
        opening = FaceModel.bundled().to(image.device).mouth_opening(track.mesh)
        # the photo's own mouth shape counts as the person's neutral one, so only the opening is measured
        shape = opening.new_zeros(len(track), self.config.audio_code_width - 1)
        code = torch.cat([opening[:, None], shape], dim=1)
        if self.config.prior_colour and self.config.photo_texture:
            head = replace(head, gaussians=without_texture(head.gaussians), texture=image)
        elif self.config.prior_colour:
            detail = photo_detail(image, head.gaussians, track.camera, on_cuda=self.on_cuda)
            head = replace(head, detail=detail)
        photo = None
        if self.config.neural_renderer == "windows":
            photo = PhotoFace(image, track.mesh, track.camera.project(track.mesh))
        offsets = None if torch.is_grad_enabled() else self.offsets(head, code, head.eyes)
        return replace(head, audio_code=code, photo=photo, rest_offsets=offsets)

    def recoded(self, head: HeadGaussians) -> HeadGaussians:
        """Encode the points again, with gradients: stage 2 trains the fields on a head that stays as it is."""
        fine_code, coarse_code = self._codes(head.completion_canonical, head.visible_canonical)
        return replace(head, fine_code=fine_code, coarse_code=coarse_code, rest_offsets=None)

    def _codes(self, completion: Tensor, visible: Tensor) -> tuple[PointCode | None, PointCode]:
        """What the fine and the coarse field make of canonical positions."""
        if self.fine_field is None:
            return None, self.coarse_field.encode(torch.cat([completion, visible], dim=1))
        return self.fine_field.encode(completion), self.coarse_field.encode(visible)

    def encode_audio(
        self, windows: Float[Tensor, "frame step channel"]
    ) -> Float[Tensor, "frame *field audio"]:
        """Sound windows -> audio codes: one for all fields (mini: the mouth code), or one each, coarse and fine."""
        with self._autocast():
            return self.audio_encoder(windows).float()

    def animate(
        self,
        head: HeadGaussians,
        audio_code: Float[Tensor, "frame *field audio"],
        eyes: Float[Tensor, "frame 6"],
        small: SmallMotion | None = None,
    ) -> AnimatedHead:
        """Move a head's Gaussians, and its face mesh, to the state of each frame.

        In the paper the fields lead from the photo to a state. With priors they lead from the canonical face to it,
        and the difference of two states moves the photo's face, so that the photo's own state gives the photo back.

        Args:
            head: The person.
            audio_code: State of the mouth.
            eyes: State of the eyes.
            small: Gaze (shown by the window renderer), brows, breath; None, and without priors: as in the photo.
        """
        with full_float32(eyes.device):
            return self._animated(head, audio_code, eyes, small)

    def _animated(
        self, head: HeadGaussians, audio_code: Tensor, eyes: Tensor, small: SmallMotion | None
    ) -> AnimatedHead:
        bounded = not self.config.unbounded_motion
        with self._autocast():
            offsets = self.offsets(head, audio_code, eyes)
        if not self.config.priors:
            return AnimatedHead(head.gaussians.moved_by(offsets, bounded))
        assert head.audio_code is not None
        of_photo = head.rest_offsets or self.offsets(head, head.audio_code, head.eyes)
        everywhere = torch.ones_like(head.completion_canonical[..., 0])
        offsets = scaled_difference(offsets, of_photo, torch.cat([everywhere, head.support], dim=1))
        gaussians = head.gaussians.moved_by(scattered(offsets, head), bounded)
        if small is not None:
            gaussians = replace(gaussians, means=gaussians.means + small_shift(head, small))
        mesh = None if head.photo is None else moved_mesh(head, audio_code, eyes, small)
        return AnimatedHead(gaussians, mesh)

    def offsets(
        self,
        head: HeadGaussians,
        audio_code: Float[Tensor, "frame *field audio"],
        eyes: Float[Tensor, "frame 6"],
    ) -> GaussianDelta:
        """What the fields say of a head's completion Gaussians and of its moving ones, in this order.

        Args:
            head: The person.
            audio_code: State of the mouth.
            eyes: State of the eyes.
        """
        codes = audio_code.unbind(1) if audio_code.ndim == 3 else [audio_code]
        coarse = self.coarse_field(head.coarse_code, codes[0], eyes)
        if self.fine_field is None:
            return coarse
        assert head.fine_code is not None
        return GaussianDelta.concatenate([self.fine_field(head.fine_code, codes[-1], eyes), coarse])

    def render(
        self,
        head: HeadGaussians,
        animated: AnimatedHead,
        camera: Camera,
        noise: Float[Tensor, "frame number"] | None = None,
    ) -> Frame:
        """Render an animated head.

        Args:
            head: The person; with priors for the pose of the shoulders, and the photo.
            animated: From `animate`; one state per frame.
            camera: One camera per frame.
            noise: Fresh noise for a `StyleUNet`, see there; None: drawn by itself.
        """
        if not self.config.priors:
            rules = PUBLISHED_RULES if self.config.published_alpha else OUR_RULES
            picture = rasterise(animated.gaussians, camera, rules, self.on_cuda)
            features = picture.features.to(self.precision, memory_format=torch.channels_last)
            inputs = (features,) if noise is None else (features, noise)
            colours = self.neural_renderer(*inputs).float()
            return Frame(colours, picture.alpha, picture.features[:, RGB])
        with full_float32(camera.world_to_camera.device):
            gaussians = posed(animated.gaussians, head, camera)
        if head.texture is not None:
            picture = rasterise_by_shift(gaussians, camera, head.photo_camera, self.on_cuda)
            source = picture.features[:, SOURCE]
            colours = rasterised = picture.features[:, RGB] + textured(source, head.texture)
        else:
            picture = rasterise(gaussians, camera, on_cuda=self.on_cuda)
            rasterised, source = picture.features[:, RGB], picture.features[:, SOURCE]
            colours = rasterised if head.detail is None else rasterised + textured(source, head.detail)
        learns, known = torch.is_grad_enabled(), source if self.config.prior_colour else None
        if self.config.neural_renderer == "windows":
            assert head.photo is not None and animated.mesh is not None
            painted, alpha = self.neural_renderer(head.photo, animated.mesh, camera, colours, picture.alpha)
            return Frame(painted, alpha, rasterised, *((None, None) if learns else (known, colours)))
        # without a gradient: the reconstruction must not learn to hide the photo to free the renderer
        freedom = (picture.alpha - FAITH * source[:, 2:]).clamp_min(0).detach()
        refined = self.neural_renderer(picture.features[:, LEARNED], colours, picture.alpha, freedom)
        return Frame(refined, picture.alpha, rasterised, None if learns else known)

    def forward(
        self,
        head: HeadGaussians,
        audio_code: Float[Tensor, "frame *field audio"],
        eyes: Tensor,
        camera: Camera,
    ) -> Frame:
        """Animate and render; what both the pipeline and the training stages run per frame."""
        return self.render(head, self.animate(head, audio_code, eyes), camera)


def _audio_encoder(config: SDTalkConfig) -> nn.Module:
    """The audio encoder a config names."""
    if config.audio_encoder == "hubert":
        return TokenEncoders(config.audio_width, config.audio_code_width, fine=config.two_fields)
    if config.audio_encoder == "whisper":
        return WhisperHead(config.audio_width, config.audio_code_width)
    return AudioEncoder(config.mel_bins, config.audio_width, config.audio_code_width)


def _neural_renderer(config: SDTalkConfig) -> nn.Module:
    """The neural renderer a config names."""
    c = config
    if c.neural_renderer == "style_unet":
        return StyleUNet(c.feature_channels, c.renderer_width, c.style_width, noise=c.renderer_noise)
    if c.neural_renderer == "windows":
        return WindowRenderer()
    return NeuralRenderer(learned_channels(c.feature_channels), c.renderer_width)
