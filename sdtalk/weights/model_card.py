"""Model cards: the README.md of a model's folder; what nobody measured is said so."""

from dataclasses import dataclass, field
from string import Template
from typing import Any

from huggingface_hub.utils import yaml_dump

from sdtalk.config import PUBLISHED_SLIPS, SDTalkConfig
from sdtalk.weights.assets import bundled

TEMPLATE = bundled("model_card.md")
NOT_STATED = "Not stated by whoever saved this model."
NOT_MEASURED = "Nothing was measured on this model, or not written here."
TAGS = ("talking-head", "gaussian-splatting", "audio-driven")

PAPER = (
    '"SDTalk: Structured Facial Priors and Dual-Branch Motion Fields for Generalizable Gaussian Talking Head '
    'Synthesis"'
)
OURS = f"A model of an independent implementation of the paper {PAPER}, not by its authors."
PUBLISHED = (
    f"A model with what the published code of the paper {PAPER} does against the paper ({{slips}} in config.json): "
    "the authors' weights, converted by `sdtalk convert`, or trained from them."
)

SOUNDS = {
    "mel": "log-mel features",
    "whisper": "features of the first layers of OpenAI's Whisper base, which come with the package,",
    "hubert": "HuBERT's tokens",
}
"""What a model hears, by its audio encoder."""

RENDERERS = {
    "windows": "two small networks paint mouth and eyes, carried by the face mesh, into the",
    "residual": "a small U-Net refines the",
    "style_unet": "a StyleUNet refines the",
}
"""What becomes of the rasterised picture, by the neural renderer."""

LIMITS = (
    "**Lip sync.** The published method itself is not the best on it: Sync-C 6.85 on HDTF, behind Wav2Lip (8.58) and "
    "EAT (7.91).",
    "**Speed.** Pure Gaussian reenactment heads are faster than the published method.",
    "**Views.** Only what the photo shows is known; far from its direction holes and stretched skin appear.",
    "**Mouth interior and closed eyes** are guesses where the photo does not show them.",
    "Glasses, hands and microphones are treated as skin; profiles, drawings, animals and very small faces fail or look "
    "wrong.",
    "Not evaluated for differences between groups of people, unless it is said above.",
)
"""What holds for every model of this architecture."""


@dataclass(frozen=True)
class Card:
    """What a card says beyond the architecture.

    Attributes:
        title: Headline.
        source: What `from_pretrained` is given: USER/NAME, or a folder.
        licence: A sentence or more, in Markdown.
        licence_id: Identifier for the Hub ("apache-2.0", "cc-by-nc-4.0", "other", ...); None: not in the head.
        data: What it was trained on, in Markdown.
        training: How, in Markdown.
        measured: What was measured, in Markdown.
        limits: More limits than those of every model, a line each.
        head: More entries of the YAML head: datasets, model-index, ...
    """

    title: str
    source: str = "USER/NAME"
    licence: str = NOT_STATED
    licence_id: str | None = None
    data: str = NOT_STATED
    training: str = NOT_STATED
    measured: str = NOT_MEASURED
    limits: tuple[str, ...] = ()
    head: dict[str, Any] = field(default_factory=dict)


def card_text(config: SDTalkConfig, card: Card) -> str:
    """The README.md of a model."""
    head: dict[str, Any] = {"library_name": "sdtalk"}
    if card.licence_id:
        head["license"] = card.licence_id
    head |= {"pipeline_tag": "image-to-video", "tags": [*TAGS], **card.head}
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        head=yaml_dump(head).rstrip(),
        title=card.title,
        source=card.source,
        origin=_origin(config),
        parts=_parts(config),
        data=card.data,
        training=card.training,
        measured=card.measured,
        limits="\n".join(f"- {limit}" for limit in (*card.limits, *LIMITS)),
        licence=card.licence,
    )


def _origin(config: SDTalkConfig) -> str:
    slips = ", ".join(f"`{name}`" for name in PUBLISHED_SLIPS if getattr(config, name))
    return PUBLISHED.format(slips=slips) if slips else OURS


def _parts(config: SDTalkConfig) -> str:
    """The parts of the network, in a paragraph."""
    c = config
    encoder = "a small convolutional encoder" if c.image_encoder == "unet" else "DINOv2, frozen,"
    lifting = "and a face mesh lift" if c.priors else "lifts"
    mouth = "with teeth and the mouth's interior" if c.template == "face_mesh" else "on FLAME's vertices"
    sound = SOUNDS[c.audio_encoder]
    renderer = RENDERERS[c.neural_renderer]
    tracker = (
        "Face tracking needs a FLAME file on the machine, which is not part of this repository; `sdtalk doctor` says "
        "what is there and where to get the rest."
        if c.template == "flame"
        else "Face tracking uses MediaPipe's weights (Apache-2.0), which are part of the package."
    )
    completion = f"a completion branch adds {c.template_points:,} points {mouth}"
    fields = "a coarse and a fine motion field move" if c.two_fields else "one motion field moves"
    hubert = " It hears with HuBERT's weights, to be added in the same way." if "HuBERT" in sound else ""
    return (
        f"`{c.name}`: {encoder} {lifting} the photo to 2 × {c.plane_size}² 3D Gaussians with {c.feature_channels} "
        f"features; {completion if c.completion_branch else 'no branch completes them'}; {fields} "
        f"them with what is heard in {sound} and with the state of the eyes; {renderer} "
        f"rasterised picture. 512 × 512 pixels, 25 frames a second. {tracker}{hubert}"
    )
