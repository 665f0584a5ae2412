"""Conversion of the authors' checkpoint to a model of ours; the one place that sets its quirks."""

import re
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from sdtalk.config import BASE, CHOICES, PUBLISHED_SLIPS, SDTalkConfig
from sdtalk.errors import InputError
from sdtalk.published.checkpoint import read_published, table_edges
from sdtalk.published.keys import FIELDS, UNUSED, our_tensors
from sdtalk.weights.config_file import write_config
from sdtalk.weights.folder import replaced_folder
from sdtalk.weights.hub import WEIGHTS

CARD = """---
library_name: sdtalk
pipeline_tag: image-to-video
---

# {name}

The authors' weights of "SDTalk: Structured Facial Priors and Dual-Branch Motion Fields for Generalizable Gaussian
Talking Head Synthesis", converted by `sdtalk convert` from `{source}` (SHA-256 `{digest}`) for the SDTalk package,
which is not theirs.
**Their licence is the authors' to say; none is stated with the weights: ask them before you pass these on.**

```python
from sdtalk import SDTalkPipeline

SDTalkPipeline.from_pretrained("{name}")("photo.jpg", "speech.wav", "talk.mp4")
```

Needs a FLAME file and HuBERT's weights on the machine: `sdtalk doctor` says what is there and where to get the rest.
{used} of the file's {total} tensors are used; {dropped} are not: {reasons}.
What the published code does against its paper or good sense is switched on in config.json, since these weights were
trained with it: {slips}. Fresh noise in every frame (`renderer_noise`) is as published, too; "stored" is steadier.
"""


@dataclass(frozen=True)
class Converted:
    """What a conversion did.

    Attributes:
        folder: The new checkpoint.
        used: How many of the file's tensors went into it.
        dropped: How many were left out, by reason.
    """

    folder: Path
    used: int
    dropped: dict[str, int]


def published_config(noise: str = "fresh", alignment: str = "ahead") -> SDTalkConfig:
    """The config under which our model computes what the published one does.

    Args:
        noise: Of the neural renderer: "fresh" as published, "stored" the same in every frame, "none".
        alignment: Which HuBERT tokens a frame hears; undecided by the published code, see `sdtalk.speech.hubert`.
    """
    slips: dict[str, Any] = {name: True for name in PUBLISHED_SLIPS}
    return replace(
        BASE, name="SDGTalk", eye_scale=1.0, renderer_noise=noise, token_alignment=alignment, **slips
    )


def convert(
    source: str | Path, target: str | Path, noise: str = "fresh", alignment: str = "ahead"
) -> Converted:
    """Write the authors' checkpoint as a folder that `SDTalk.from_pretrained` and the pipeline load.

    Args:
        source: The .pt file.
        target: Folder to make; must not exist, or be empty.
        noise: As in `published_config`.
        alignment: As in `published_config`.

    Raises:
        InputError: The file is not the published checkpoint, whole and unchanged in layout, or the folder cannot be
            written; nothing is left behind then.
    """
    source, target = Path(source), Path(target)
    for name, field, value in (
        ("noise", "renderer_noise", noise),
        ("alignment", "token_alignment", alignment),
    ):
        if value not in CHOICES[field]:
            choices = ", ".join(CHOICES[field])
            raise InputError(f"{name} {value!r}", "there is no such choice", f"Take one of {choices}.")
    _check_target(target)
    theirs = read_published(source)
    config = published_config(noise, alignment)
    ours: dict[str, Tensor] = {}
    for key, tensor in theirs.items():
        ours |= our_tensors(key, tensor)
    places = [
        f"{field}_field.encoding.{plane}.offsets" for field in FIELDS.values() for plane in ("xy", "yz", "xz")
    ]
    edges = table_edges()
    ours |= {place: edges.clone() for place in places}  # safetensors refuses one tensor under several names
    dropped = _dropped(theirs)
    used = len(theirs) - sum(dropped.values())
    slips = ", ".join(f"`{name}`" for name in PUBLISHED_SLIPS)
    reasons = "; ".join(f"{count} ({reason})" for reason, count in dropped.items())
    card = CARD.format(
        name=target.name, source=source.name, digest=_digest(source), used=used, total=len(theirs),
        dropped=sum(dropped.values()), reasons=reasons, slips=slips,
    )  # fmt: skip
    _write(target, config, ours, card)
    return Converted(target, used, dropped)


def _dropped(theirs: dict[str, Tensor]) -> dict[str, int]:
    counts = {reason: sum(bool(re.fullmatch(p, key)) for key in theirs) for p, reason in UNUSED.items()}
    return {reason: count for reason, count in counts.items() if count}


def _digest(path: Path) -> str:
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 24):
            digest.update(block)
    return digest.hexdigest()


def _check_target(target: Path) -> None:
    remedy = "Give the name of a new folder."
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(str(target), "it exists already", remedy)
    if not target.absolute().parent.is_dir():
        raise InputError(str(target), "the folder it should lie in does not exist", remedy)


def _write(target: Path, config: SDTalkConfig, tensors: dict[str, Tensor], card: str) -> None:
    with replaced_folder(target.absolute(), "Make room there, or choose another folder.") as draft:
        save_file({k: t.contiguous() for k, t in tensors.items()}, draft / WEIGHTS, {"format": "pt"})
        write_config(config, draft)
        (draft / "README.md").write_text(card, encoding="utf-8")
        _check_target(target)  # again: reading and converting took a while
