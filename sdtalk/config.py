"""Model config: one flat record, saved as config.json beside the weights; it alone rebuilds the network."""

from dataclasses import dataclass, field, fields
from typing import Any

FORMAT = 2
"""Of config.json as it is written now. It grows by one with every release that adds a field, see `added`."""


CHOICES = {
    "image_encoder": ("unet", "dinov2"),
    "audio_encoder": ("mel", "whisper", "hubert"),
    "template": ("face_mesh", "flame"),
    "neural_renderer": ("windows", "residual", "style_unet"),
    "renderer_noise": ("none", "stored", "fresh"),
    "token_alignment": ("centred", "ahead"),
}
"""Fields that name one of several parts."""

TEMPLATES = {"face_mesh": 1920, "flame": 5023}
"""How many points a template has."""

AROUND_PRIORS = {
    "image_encoder": ("unet",),
    "template": ("face_mesh",),
    "audio_encoder": ("whisper", "mel"),
    "neural_renderer": ("windows", "residual"),
}
FROM_NOTHING = {"image_encoder": ("dinov2",), "neural_renderer": ("style_unet",)}
"""Parts that models with priors, and without, can be made of."""

HEAD_MEMBERS = 3
"""Networks that the head over Whisper features averages; they divide its channels."""

PRIORS = ("prior_depth", "prior_colour", "still_shoulders", "canonical_positions")
"""What `priors` switches on; each can be left out by itself."""


def added(default: Any, since: int, before: Any) -> Any:
    """A field that not all saved models have.

    Args:
        default: What it is unless told otherwise.
        since: The first format of config.json whose files all have it.
        before: Its value in files of older formats that lack it: what models did before there was such a field.
    """
    return field(default=default, metadata={"since": since, "before": before})


@dataclass(frozen=True)
class SDTalkConfig:
    """Everything needed to rebuild a network. The defaults are `mini`, the model bundled with the package."""

    name: str = "mini"

    # what mini adds to the paper: it starts from the photo's own pixels on the tracked face and learns residuals
    priors: bool = True
    # and four of these, each of which an ablation can leave out by itself
    # False: no depth of the mesh; lifting starts from flat layers
    prior_depth: bool = added(True, since=2, before=True)
    # False: colours start mid-grey, and no detail of the photo is carried
    prior_colour: bool = added(True, since=2, before=True)
    # False: the whole picture follows the head's pose
    still_shoulders: bool = added(True, since=2, before=True)
    # False: the motion fields see head-space positions as they are
    canonical_positions: bool = added(True, since=2, before=True)

    # False: Gaussians that the photo shows are upright instead of lying in its surface, and leave stripes when it turns
    lying_gaussians: bool = added(True, since=2, before=False)
    # False: what lies around the skin of a face, its eyes too, goes on behind it, and shows when it turns
    hair_behind: bool = added(True, since=2, before=False)
    # False: Gaussians that the photo shows have colours of their own instead of being textured with it, and what these
    # miss is looked for at the mean place they come from
    photo_texture: bool = added(True, since=2, before=False)

    # image encoder: a small U-Net, or DINOv2 with a feature pyramid
    image_encoder: str = "unet"
    encoder_width: int = 16  # of the U-Net at its finest level, doubled at each coarser one
    backbone_width: int = 768  # of DINOv2: the sizes, since a name would need the network to resolve
    backbone_depth: int = 12
    backbone_heads: int = 12
    backbone_picture_px: int = 518
    local_channels: int = 32
    global_width: int = 128

    # visible branch: a plane of plane_size^2 points, lifted to a front and a back layer
    plane_size: int = 272
    margin_px: int = 16  # the photo is continued so far over its border: moving shoulders show no edge
    head_width: int = 32  # hidden channels of the heads that make Gaussians
    head_depth: int = 1

    # completion branch
    # ablation (paper, Table 4): False makes no Gaussians but the visible ones
    completion_branch: bool = added(True, since=2, before=True)
    template: str = "face_mesh"
    template_points: int = 1920
    template_width: int = 64  # length of the learned vector of each template point

    # Gaussians; the first three channels are RGB
    feature_channels: int = 32

    # motion fields
    # ablation (paper, Table 4): False lets the coarse field move all Gaussians
    fine_field: bool = added(True, since=2, before=True)
    hash_levels: int = 6
    hash_base_resolution: int = 8
    hash_finest_resolution: int = 192
    hash_log2_table: int = 15
    motion_width: int = 48
    eye_scale: float = 25.0  # lid gaps are about 0.04 head-space units: too small for a network to hear

    # sound: windows of 17 Whisper features (+-160 ms) or 37 log-mel steps (+-180 ms) -> mouth code, or of 16 HuBERT
    # tokens (320 ms) -> one code a field
    audio_encoder: str = "whisper"
    mel_bins: int = 80
    audio_width: int = 384  # channels of the network that makes mouth codes, or of a HuBERT token
    audio_code_width: int = 5
    token_alignment: str = "ahead"  # which tokens a frame hears, see sdtalk.speech.hubert

    # neural renderer: painters of mouth and eyes, or a U-Net over the whole frame: a residual one, or the paper's
    neural_renderer: str = "windows"
    renderer_width: int = 16  # of the residual U-Net
    style_width: int = 512  # of the StyleUNet
    renderer_noise: str = "none"  # "fresh": as the published code draws it for every frame; it flickers

    # What the published code does against the paper's word or good sense. Weights trained with it need it, so
    # `convert` sets it; our own training does not.
    plane_to_border: bool = False  # its plane ends on the image's border, not half a cell inside
    sigmoid_on_columns: bool = False  # it squashes the plane's first three columns instead of RGB
    quats_over_points: bool = False  # it normalises completion quats over the points, not each by itself
    first_patch_as_global: bool = False  # it takes the top left patch's token for the picture's
    unbounded_motion: bool = False  # it adds offsets and lets quats, scales and opacities leave their range
    published_alpha: bool = False  # it caps alpha at 0.99 and cuts Gaussians off at three deviations
    eyes_in_px: bool = False  # it measures eyes in whole pixels of the picture

    def __post_init__(self) -> None:
        """Refuse unknown parts, and sizes that do not fit together.

        Raises:
            ValueError: A field names a part that does not exist, or two sizes contradict each other.
        """
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} = {getattr(self, name)!r} is none of {', '.join(known)}")
        for name in PRIORS:
            if not (self.priors or getattr(self, name)):
                raise ValueError(f"{name} = False leaves out one of the priors, and priors = False has none")
        wanted: dict[str, tuple] = {**(AROUND_PRIORS if self.priors else FROM_NOTHING)}
        wanted["template_points"] = (TEMPLATES[self.template],)
        if self.eyes_in_px:
            wanted["template"] = ("flame",)
        if self.image_encoder == "dinov2":  # eight cells of the plane a patch of 14 px, one token width
            wanted["plane_size"] = (self.backbone_picture_px * 8 // 14,)
            wanted["global_width"] = (self.backbone_width,)
            if self.backbone_width % self.backbone_heads:
                heads, width = self.backbone_heads, self.backbone_width
                raise ValueError(f"backbone_heads = {heads} does not divide backbone_width = {width}")
        if self.audio_encoder == "whisper" and self.audio_width % HEAD_MEMBERS:
            raise ValueError(f"audio_width = {self.audio_width} is no multiple of {HEAD_MEMBERS}")
        for name, fitting in wanted.items():
            if getattr(self, name) not in fitting:
                choice = " or ".join(map(repr, fitting))
                raise ValueError(
                    f"{name} = {getattr(self, name)!r} does not fit the rest, which wants {choice}"
                )

    @property
    def sound(self) -> str:
        """What the audio encoder hears: Whisper's features ("whisper"), HuBERT's tokens ("hubert"), or "mel"."""
        return self.audio_encoder if self.audio_encoder in ("whisper", "hubert") else "mel"

    @property
    def hears_mouth_codes(self) -> bool:
        """Whether the audio code is a mouth code, which has a zero: closed and at rest."""
        return self.audio_encoder != "hubert"

    @property
    def two_fields(self) -> bool:
        """Whether there is a fine field: it needs completion Gaussians to move."""
        return self.completion_branch and self.fine_field


BASE = SDTalkConfig(
    name="base",
    priors=False,
    image_encoder="dinov2",
    local_channels=256,
    global_width=768,
    plane_size=296,
    margin_px=0,
    head_width=128,
    head_depth=3,
    template="flame",
    template_points=5023,
    template_width=256,
    hash_levels=12,
    hash_base_resolution=16,
    hash_finest_resolution=512,
    hash_log2_table=17,
    motion_width=64,
    audio_encoder="hubert",
    audio_width=1024,
    audio_code_width=64,
    neural_renderer="style_unet",
)
"""The paper's model (section 3)."""

PUBLISHED_SLIPS = tuple(f.name for f in fields(SDTalkConfig) if f.type is bool and f.default is False)
"""The switches that only weights of the published code need."""
