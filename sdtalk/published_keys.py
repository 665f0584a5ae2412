"""The names and shapes of the authors' checkpoint, and what ours are called: the only place that knows their keys.

`RENAMES` is read from top to bottom; the first pattern that matches a whole key of theirs says what ours is. A key
that no pattern matches is one we do not have, and `UNUSED` must say why.
"""

import json
import re
from functools import cache

from sdtalk.assets import bundled

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

RENAMES: list[tuple[str, str]] = [
    (r"head_base", "reconstructor.completion_branch.template"),
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
]  # fmt: skip


@cache
def published_layout() -> dict[str, tuple[tuple[int, ...], str]]:
    """Every key of the authors' checkpoint with its shape and dtype ("float32", "int32"), in their order."""
    entries = json.loads(bundled("published_keys.json").read_text(encoding="utf-8"))
    return {key: (tuple(shape), dtype) for key, (shape, dtype) in entries.items()}


def our_key(theirs: str) -> str | None:
    """What a tensor of theirs is called in our model; None where nothing of ours reads it."""
    if any(re.fullmatch(pattern, theirs) for pattern in UNUSED):
        return None
    for pattern, replacement in RENAMES:
        if re.fullmatch(pattern, theirs):
            return re.sub(pattern, replacement, theirs)
    raise KeyError(theirs)
