"""Convert MediaPipe's three tracking models to `sdtalk/assets/tracker.safetensors`.

    pip install tflite
    python training/tracker/convert_tracker.py mediapipe-0.10.21-....whl

The source is the wheel of mediapipe 0.10.21 (Apache-2.0) or the folder of the installed package. Weights are
stored there as fp16, so nothing is lost.
"""

import argparse
import hashlib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tflite
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sdtalk.tracking.networks import Networks

SOURCES = {
    "detector": (
        "face_detection/face_detection_short_range.tflite",
        "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
    ),
    "face_mesh": (
        "face_landmark/face_landmark_with_attention.tflite",
        "e06a804e0144f9929eda782122916b35d60c697c3c9344013ca2bbe76a6ce2b4",
    ),
    "segmentation": (
        "selfie_segmentation/selfie_segmentation.tflite",
        "9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c",
    ),
}
"""For each network its file below `mediapipe/modules` and the file's SHA-256."""

OWN_NAMES = {
    "detector.fine_scores": "classificator_8",
    "detector.coarse_scores": "classificator_16",
    "detector.fine_boxes": "regressor_8",
    "detector.coarse_boxes": "regressor_16",
    "face_mesh.mesh": "output_mesh",
    "face_mesh.flag": "conv_faceflag",
    "face_mesh.lips.head.positions": "conv_lips",
    "face_mesh.left_eye.head.positions": "conv_left_eye",
    "face_mesh.left_eye.iris.positions": "conv_left_iris",
    "face_mesh.right_eye.head.positions": "conv_right_eye",
    "face_mesh.right_eye.iris.positions": "conv_right_iris",
    "segmentation.segment": "segment",
}
"""Layers with a name of their own in the source; all others are numbered in the order of our modules."""

FP16 = 1
"""Type code of half floats in a TFLite file."""


def read_source(source: Path, name: str, sha256: str) -> bytes:
    """Read one model from a wheel or an installed package and check that it is the known one."""
    inner = f"mediapipe/modules/{name}"
    if source.is_dir():
        folder = source if source.name == "mediapipe" else source / "mediapipe"
        content = (folder / "modules" / name).read_bytes()
    else:
        with zipfile.ZipFile(source) as wheel:
            content = wheel.read(inner)
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise SystemExit(f"{inner}: SHA-256 is {found}, expected {sha256}. Use mediapipe 0.10.21")
    return content


def half_tensors(content: bytes) -> dict[str, np.ndarray]:
    """All fp16 tensors of a model; these are its weights, everything else is activations and shapes."""
    model = tflite.Model.GetRootAs(content, 0)
    graph = model.Subgraphs(0)
    tensors = {}
    for i in range(graph.TensorsLength()):
        tensor = graph.Tensors(i)
        buffer = model.Buffers(tensor.Buffer())
        if tensor.Type() == FP16 and buffer.DataLength():
            values = buffer.DataAsNumpy().view(np.float16).reshape(tensor.ShapeAsNumpy())
            tensors[tensor.Name().decode()] = values
    return tensors


def source_names(network: nn.Module, prefix: str) -> Iterator[tuple[str, str, nn.Module]]:
    """Pair each layer with its name in the source: (our name, source name, layer)."""
    counts = {"conv2d": 0, "depthwise_conv2d": 0, "p_re_lu": 0}
    for name, layer in network.named_modules(prefix=prefix):
        if name in OWN_NAMES:
            yield name, OWN_NAMES[name], layer
            continue
        if isinstance(layer, nn.PReLU):
            kind = "p_re_lu"
        elif isinstance(layer, nn.Conv2d):
            kind = "depthwise_conv2d" if layer.groups > 1 else "conv2d"
        else:
            continue
        yield name, kind + (f"_{counts[kind]}" if counts[kind] else ""), layer
        counts[kind] += 1


def layer_weights(layer: nn.Module, name: str, source: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Take a layer's tensors out of `source`, in PyTorch's layout."""
    if isinstance(layer, nn.PReLU):
        return {"weight": torch.from_numpy(source.pop(f"{name}/Alpha").reshape(-1).copy())}
    kernel = torch.from_numpy(source.pop(f"{name}/Kernel").copy())
    depthwise = isinstance(layer, nn.Conv2d) and layer.groups > 1
    order = (3, 0, 1, 2) if depthwise or isinstance(layer, nn.ConvTranspose2d) else (0, 3, 1, 2)
    bias = torch.from_numpy(source.pop(f"{name}/Bias").copy())
    return {"weight": kernel.permute(order).contiguous(), "bias": bias}


def convert(source: Path) -> dict[str, Tensor]:
    """Read and rename all weights; every tensor of both sides must be used exactly once.

    The mesh's six constant matrices are no weights: they scale between px of crop, map and region, which
    `sdtalk.tracking.face_mesh` does with the sizes themselves.
    """
    networks = Networks()
    weights = {}
    for prefix, (file, sha256) in SOURCES.items():
        tensors = half_tensors(read_source(source, file, sha256))
        for name, source_name, layer in source_names(getattr(networks, prefix), prefix):
            for part, values in layer_weights(layer, source_name, tensors).items():
                weights[f"{name}.{part}"] = values
        tensors = {n: t for n, t in tensors.items() if not n.startswith("multiply_by_constant")}
        if tensors:
            raise SystemExit(f"{file}: not used: {sorted(tensors)}")
    networks.load_state_dict({name: values.float() for name, values in weights.items()})
    return weights


def main() -> None:
    """Read the arguments and write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="mediapipe 0.10.21: the wheel, or site-packages")
    parser.add_argument("--out", type=Path, default=Path("sdtalk/assets/tracker.safetensors"))
    arguments = parser.parse_args()
    weights = convert(arguments.source)
    note = {"source": "mediapipe 0.10.21", "licence": "Apache-2.0", "format": "pt"}
    save_file(weights, arguments.out, metadata=note)
    print(f"{len(weights)} tensors, {sum(w.numel() for w in weights.values())} numbers -> {arguments.out}")


if __name__ == "__main__":
    main()
