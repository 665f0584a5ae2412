"""Packed heads: splats, still or moving, as JSON that the viewer and other programs read; numbers as base64.

    {"format": "sdtalk-head", "version": 1, "comment", "axes", "unit_m", "count",
     "camera": {"eye": [x, y, z], "focal"},            looks along +z; focal length in heights of the photo's crop
     "means": {"low": [3], "high": [3], "uint16"},     low + value / 65535 * (high - low)
     "scales": {"low", "high", "uint8"},               exp(low + value / 255 * (high - low))
     "quats": {"int8"}, "rgba": {"uint8"},             value / 127, wxyz; value / 255
     "head_weight": {"uint8"},                         value / 255
     "motion": {"fps", "moving", "reach": [shape], "int8", "frames": [{"weights", "pose", "breath"}]},
     "sound": {"wav"}}

`motion` and `sound` are there for heads that speak. Shape k of the first `moving` splats is value / 127 * reach[k],
[shape, splat, 3]; `moving.MovingSplats` says what weights, pose (3 x 4, row by row) and breath do. Arrays are row by
row, little endian. A splat takes 18 bytes, and one that moves 36 more (a third more in base64).
"""

import base64
import io
import json
import wave
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from sdtalk.camera import UNIT_M
from sdtalk.export.moving import MovingSplats
from sdtalk.export.splats import Splats
from sdtalk.export.still import as_bytes
from sdtalk.speech.audio import FRAME_RATE_HZ, SAMPLE_RATE_HZ
from sdtalk.video.writer import COMMENT

AXES = "x right, y down, z away from the photo's camera"


def as_json(head: Splats | MovingSplats, speech: Float[Tensor, " samples"] | None = None) -> bytes:
    """A packed head, see the module.

    Args:
        head: Still, or moving.
        speech: What it says, mono, 16 kHz, full scale = 1; None: nothing.
    """
    packed = _still(head.splats if isinstance(head, MovingSplats) else head)
    if isinstance(head, MovingSplats):
        packed["motion"] = _motion(head)
    if speech is not None:
        packed["sound"] = {"wav": _text(_wav(speech.numpy()))}
    return json.dumps(packed, separators=(",", ":")).encode("ascii")


def _still(splats: Splats) -> dict[str, Any]:
    low, high = splats.means.min(0), splats.means.max(0)
    spread = np.maximum(high - low, 1e-9)
    means = ((splats.means - low) / spread * 65535).round().astype("<u2")
    logs = np.log(splats.scales)
    least, most = float(logs.min()), float(logs.max())
    scales = as_bytes((logs - least) / max(most - least, 1e-9))
    quats = (splats.quats * 127).round().astype(np.int8)
    rgba = as_bytes(np.concatenate([splats.colours, splats.opacities[:, None]], axis=1))
    return {
        "format": "sdtalk-head",
        "version": 1,
        "comment": COMMENT,
        "axes": AXES,
        "unit_m": UNIT_M,
        "count": len(splats),
        "camera": {"eye": splats.eye.tolist(), "focal": splats.focal},
        "means": {"low": low.tolist(), "high": high.tolist(), "uint16": _text(means.tobytes())},
        "scales": {"low": least, "high": most, "uint8": _text(scales.tobytes())},
        "quats": {"int8": _text(quats.tobytes())},
        "rgba": {"uint8": _text(rgba.tobytes())},
        "head_weight": {"uint8": _text(as_bytes(splats.head_weight).tobytes())},
    }


def _motion(head: MovingSplats) -> dict[str, Any]:
    reach = np.abs(head.shapes).max((1, 2), initial=1e-9)
    shapes = (head.shapes / reach[:, None, None] * 127).round().astype(np.int8)
    frames = [
        {"weights": _rounded(weights), "pose": _rounded(pose.ravel()), "breath": round(float(breath), 5)}
        for weights, pose, breath in zip(head.weights, head.poses, head.breath, strict=True)
    ]
    return {
        "fps": FRAME_RATE_HZ,
        "moving": head.shapes.shape[1],
        "reach": reach.tolist(),
        "int8": _text(shapes.tobytes()),
        "frames": frames,
    }


def _wav(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, SAMPLE_RATE_HZ, 0, "NONE", ""))
        out.writeframes((samples.clip(-1, 1) * 32767).round().astype("<i2").tobytes())
    return file.getvalue()


def _rounded(numbers: np.ndarray) -> list[float]:
    return [round(float(number), 5) for number in numbers]


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
