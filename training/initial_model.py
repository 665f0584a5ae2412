"""Initial model of a run: a checkpoint, or random weights of a size, for base around pretrained DINOv2."""

import dataclasses

import torch

from sdtalk.checkpoint import load_model, locate, read_config
from sdtalk.config import BASE, SDTalkConfig
from sdtalk.errors import InputError
from sdtalk.model import SDTalk
from sdtalk.reconstruction.dino_encoder import keep_names
from training.settings import settings_from_dict
from training.train_settings import TrainSettings

SIZES = {"mini": SDTalkConfig(), "base": BASE}
RANDOM = "random"


def initial_config(settings: TrainSettings) -> SDTalkConfig:
    """The configuration a run trains.

    Raises:
        InputError: The checkpoint cannot be found, is of another size, or a change does not fit.
    """
    if settings.start is None:
        values = dataclasses.asdict(SIZES[settings.size])
        if "name" not in settings.model:
            values["name"] = f"{settings.size}, stage {settings.stage}"
        return settings_from_dict(SDTalkConfig, {**values, **settings.model}, "settings, model")
    config = read_config(locate(settings.start))
    if config.priors != SIZES[settings.size].priors:
        other = "mini" if config.priors else "base"
        problem = f"it is of the size {other}, and these are settings for {settings.size}"
        raise InputError(f"start: {settings.start}", problem, f"Use the settings of {other}.")
    return config


def initial_model(settings: TrainSettings) -> SDTalk:
    """The model a run begins with, on the CPU.

    Raises:
        InputError: As `initial_config`; or its weights, or DINOv2's, are not there or damaged.
    """
    torch.manual_seed(settings.seed)
    if settings.start is not None:
        initial_config(settings)
        return load_model(locate(settings.start))
    config = initial_config(settings)
    if config.image_encoder == "dinov2" and settings.backbone is None:
        remedy = (
            f"Give a folder or facebook/dinov2-base; {RANDOM!r} trains around random weights, for trials."
        )
        raise InputError("backbone", "a base model begins with DINOv2's pretrained weights", remedy)
    model = SDTalk(config)
    if settings.backbone not in (None, RANDOM):
        _load_backbone(model, str(settings.backbone))
    return model


def _load_backbone(model: SDTalk, source: str) -> None:
    """DINOv2's weights, from a folder or the Hub (or its cache)."""
    from safetensors import SafetensorError
    from transformers import Dinov2Model

    backbone = getattr(model.reconstructor.encoder, "backbone", None)
    if not isinstance(backbone, Dinov2Model):
        raise InputError("backbone", "this model has none", "Remove the setting; it is for base.")
    remedy = (
        "Give a folder with DINOv2's config.json and model.safetensors, or facebook/dinov2-base on the Hub."
    )
    try:
        pretrained = Dinov2Model.from_pretrained(source, dtype=torch.float32)
    except (OSError, ValueError, SafetensorError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"backbone: {source}", f"it cannot be loaded ({reason})", remedy) from error
    keep_names(pretrained)
    wanted = backbone.state_dict()
    found = {k: v for k, v in pretrained.state_dict().items() if k in wanted}
    for name, tensor in wanted.items():
        if name not in found or found[name].shape != tensor.shape:
            shape = tuple(found[name].shape) if name in found else "nothing"
            problem = f"{name} is {shape} there instead of {tuple(tensor.shape)}"
            raise InputError(f"backbone: {source}", problem, remedy)
    backbone.load_state_dict(found)
