"""Published keys: names and shapes of the authors' tensors, and what ours are called.

`RENAMES` is read from top to bottom; the first pattern that matches a whole key of theirs says what ours is. A key
that no pattern matches is one we do not have, and `UNUSED` must say why. "{a,b}" in our name cuts their tensor along
its first axis into as many equal parts, in this order.
"""

import json
import re
from functools import cache

from torch import Tensor

from sdtalk.weights.assets import bundled

UNUSED = {
    r"percep_loss\..*": "the networks of a training loss",
    r"base_model\.dino_model\.mask_token": "masks patches while DINOv2 is pre-trained",
    r"base_model\.refinenet\.0\.resConfUnit1\..*": "the coarsest fusion has no second input",
    r"upsampler\.toRGB\..*": "side outputs that are never computed",
    r".*\.offsets": "integer tables, which follow from the sizes and are checked against them",
}
"""What a checkpoint must hold and nothing reads when frames are made; pattern: reason."""

FIELDS = {"motion_net_flame": "fine", "motion_net_dense": "coarse"}

GATES_AND_MLP = (
    ("aud_ch_att_net", "audio_gate", 2),
    ("eye_att_net", "eye_gate", 2),
    ("motion_net", "mlp", 3),
)

DINO = {
    r"cls_token": r"embeddings.cls_token",
    r"pos_embed": r"embeddings.position_embeddings",
    r"patch_embed\.proj\.(.*)": r"embeddings.patch_embeddings.projection.\1",
    r"blocks\.(\d+)\.(norm.*|mlp.*)": r"encoder.layer.\1.\2",
    r"blocks\.(\d+)\.attn\.qkv\.(.*)": r"encoder.layer.\1.attention.{q_proj,k_proj,v_proj}.\2",
    r"blocks\.(\d+)\.attn\.proj\.(.*)": r"encoder.layer.\1.attention.o_proj.\2",
    r"blocks\.(\d+)\.ls(\d)\.gamma": r"encoder.layer.\1.layer_scale\2.lambda1",
    r"norm\.(.*)": r"layernorm.\1",
}

FUSION = {
    "resConfUnit1.conv1": "finer_unit.first",
    "resConfUnit1.conv2": "finer_unit.second",
    "resConfUnit2.conv1": "unit.first",
    "resConfUnit2.conv2": "unit.second",
    "out_conv": "out",
}

HEADS = {"color": "features", "opacity": "opacities", "scale": "scales", "rotation": "quats"}

TOKEN_ENCODER = {
    r"audio_net\.encoder_mlp": "mlp",
    r"audio_att_net\.attention_mlp": "score",
    r"audio_att_net\.attention_fc\.0": "mix",
}

DECODER = r"upsampler\.stylegan_decoder\."

RENAMES: list[tuple[str, str]] = [
    # image encoder
    *[
        (rf"base_model\.dino_model\.{theirs}", rf"reconstructor.encoder.backbone.{ours}")
        for theirs, ours in DINO.items()
    ],
    (r"base_model\.projects\.(.*)", r"reconstructor.encoder.pyramid.projections.\1"),
    (r"base_model\.resize_layers\.(.*)", r"reconstructor.encoder.pyramid.resizes.\1"),
    (r"base_model\.layer_rn\.(.*)", r"reconstructor.encoder.pyramid.mixers.\1"),
    *[
        (rf"base_model\.refinenet\.(\d)\.{theirs}\.(.*)", rf"reconstructor.encoder.pyramid.fusions.\1.{ours}.\2")
        for theirs, ours in FUSION.items()
    ],
    (r"base_model\.output_conv\.(.*)", r"reconstructor.encoder.pyramid.out.\1"),
    # completion branch and visible branch
    (r"head_base", "reconstructor.completion_branch.template"),
    *[
        (rf"gs_generator_g\.feature_layers\.{2 * i}\.(.*)", rf"reconstructor.completion_branch.trunk.{i}.\1")
        for i in range(4)
    ],
    *[
        (rf"gs_generator_g\.{theirs}_layers\.(.*)", rf"reconstructor.completion_branch.heads.{ours}.\1")
        for theirs, ours in HEADS.items()
    ],
    *[
        (rf"gs_generator_{theirs}\.gaussian_conv\.{i}\.(.*)", rf"reconstructor.visible_branch.{layer}.{ours}.\1")
        for theirs, layer in (("l0", "back"), ("l1", "front"))
        for i, ours in ((0, "hidden"), (2, "deeper.0"), (4, "deeper.1"), (6, "out"))
    ],
    # neural renderer
    (r"upsampler\.conv_body_first\.(.*)", r"neural_renderer.first.\1"),
    (r"upsampler\.final_conv\.(.*)", r"neural_renderer.bottom.\1"),
    (r"upsampler\.final_linear\.(.*)", r"neural_renderer.to_style.\1"),
    *[
        (rf"upsampler\.conv_body_{way}\.(\d)\.{theirs}\.(.*)", rf"neural_renderer.{way}s.\1.{ours}.\2")
        for way in ("down", "up")
        for theirs, ours in (("conv1", "conv_in"), ("conv2", "conv_out"), ("skip", "skip"))
    ],
    (r"upsampler\.condition_(scale|shift)\.(.*)", r"neural_renderer.\1s.\2"),
    (rf"{DECODER}constant_input\.weight", "neural_renderer.decoder.constant"),
    *[(rf"{DECODER}style_mlp\.{2 * i + 1}\.(.*)", rf"neural_renderer.decoder.mapping.{i}.\1") for i in range(8)],
    *[
        rename
        for i, theirs in enumerate(["style_conv1", *[f"style_convs\\.{k}" for k in range(14)]])
        for rename in (
            (rf"{DECODER}{theirs}\.modulated_conv\.(.*)", rf"neural_renderer.decoder.convs.{i}.conv.\1"),
            (rf"{DECODER}{theirs}\.weight", f"neural_renderer.decoder.convs.{i}.strength"),
            (rf"{DECODER}{theirs}\.bias", f"neural_renderer.decoder.convs.{i}.bias"),
            (rf"{DECODER}noises\.noise{i}", f"neural_renderer.decoder.convs.{i}.noise"),
        )
    ],
    *[
        rename
        for i, theirs in enumerate(["to_rgb1", *[f"to_rgbs\\.{k}" for k in range(7)]])
        for rename in (
            (rf"{DECODER}{theirs}\.modulated_conv\.(.*)", rf"neural_renderer.decoder.to_rgb.{i}.conv.\1"),
            (rf"{DECODER}{theirs}\.bias", f"neural_renderer.decoder.to_rgb.{i}.bias"),
        )
    ],
    # motion fields
    *[
        rename
        for theirs, ours in FIELDS.items()
        for rename in (
            (rf"{theirs}\.encoder_(xy|yz|xz)\.embeddings", rf"{ours}_field.encoding.\1.embeddings"),
            (rf"{theirs}\.eye_net\.encoder_mlp\.(.*)", rf"{ours}_field.eye_encoder.\1"),
        )
    ],
    *[
        (rf"{theirs}\.{net}\.net\.{index}\.weight", rf"{ours}_field.{mlp}.{2 * index}.weight")
        for theirs, ours in FIELDS.items()
        for net, mlp, layers in GATES_AND_MLP
        for index in range(layers)
    ],
    # sound
    *[
        (rf"{theirs}\.{net}\.(.*)", rf"audio_encoder.{ours}.{part}.\1")
        for theirs, ours in FIELDS.items()
        for net, part in TOKEN_ENCODER.items()
    ],
]  # fmt: skip


@cache
def published_layout() -> dict[str, tuple[tuple[int, ...], str]]:
    """Every key of the authors' checkpoint with its shape and dtype ("float32", "int32"), in their order."""
    entries = json.loads(bundled("published_keys.json").read_text(encoding="utf-8"))
    return {key: (tuple(shape), dtype) for key, (shape, dtype) in entries.items()}


def our_tensors(theirs: str, tensor: Tensor) -> dict[str, Tensor]:
    """What a tensor of theirs is in our model, by our names: itself, its equal parts (views), or nothing.

    Raises:
        KeyError: The authors' model has no such key, or ours has no place for it.
    """
    if any(re.fullmatch(pattern, theirs) for pattern in UNUSED):
        return {}
    for pattern, replacement in RENAMES:
        if match := re.fullmatch(pattern, theirs):
            names = _parts(match.expand(replacement))
            return dict(zip(names, tensor.chunk(len(names)), strict=True))
    raise KeyError(theirs)


def _parts(name: str) -> list[str]:
    """The names that braces stand for: "a.{b,c}.d" -> ["a.b.d", "a.c.d"]."""
    before, brace, rest = name.partition("{")
    choices, _, after = rest.partition("}")
    return [before + choice + after for choice in choices.split(",")] if brace else [name]
