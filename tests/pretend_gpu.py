"""A pretended GPU: tensors that say they are on CUDA, hold their numbers on the CPU, and refuse what CUDA refuses.

What mixes devices raises, as on a GPU. What would make the host wait is noted, with the line that asked for it: reading
a number, the places that are not zero, a mask as an index, a copy from or to ordinary memory.
"""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

import sdtalk
from sdtalk.camera import Camera
from sdtalk.gaussians import Gaussians
from sdtalk.rendering.cpu.backend import rasterise as rasterise_on_cpu
from sdtalk.rendering.rasteriser import OnCuda
from sdtalk.rendering.rules import OUR_RULES, FeatureImage, RasterRules
from sdtalk.tracking.face_model import _bundled_on

PACKAGE = Path(sdtalk.__file__).parent
WAITS = {
    "_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "unique_dim", "bincount",
    "repeat_interleave",
}  # fmt: skip
"""Operations whose result, or its size, has to be known on the host."""

CUDA = torch.device("cuda", 0)


class OnGpu(Tensor):
    """A tensor on the pretended GPU. To PyTorch's own code it is one without data, which needs no GPU."""

    numbers: Tensor

    @staticmethod
    def __new__(cls, numbers: Tensor) -> "OnGpu":
        made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, numbers.shape, numbers.stride(), numbers.storage_offset(), dtype=numbers.dtype, device="meta"
        )
        made.numbers = numbers
        return made

    device = property(lambda self: CUDA)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_meta = property(lambda self: False)  # type: ignore[assignment]
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError("a tensor of the pretended GPU is used where that has ended")

    def record_stream(self, stream: Any) -> None:  # type: ignore[override]
        """Nothing is freed here."""

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"OnGpu({list(self.shape)}, {self.dtype})"


def is_gpu(device: Any) -> bool:
    """Whether a device, or its name, is that of the pretended GPU."""
    return device is not None and torch.device(device).type in ("cuda", "meta")


class PretendedGpu(TorchDispatchMode):
    """Computes for the GPU, on the CPU.

    Attributes:
        waits: What made the host wait: the operation, and the line of the package that asked for it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def note(self, what: str) -> None:
        """Remember that the host waits."""
        lines = [f for f in traceback.extract_stack() if Path(f.filename).is_relative_to(PACKAGE)]
        place = f"{Path(lines[-1].filename).relative_to(PACKAGE)}:{lines[-1].lineno}" if lines else "a test"
        self.waits.append(f"{what} at {place}")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = func.overloadpacket.__name__
        tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
        of_gpu = [t for t in tensors if isinstance(t, OnGpu)]
        if name == "_fused_sdp_choice":
            return 0  # in plain PyTorch: faster ways are those of a device
        self._check(name, args, tensors, of_gpu)
        there = is_gpu(kwargs["device"]) if kwargs.get("device") is not None else bool(of_gpu)
        if "device" in kwargs:
            kwargs["device"] = torch.device("cpu")
        kwargs.pop("pin_memory", None)
        waits = True
        if name == "copy_":
            there, waits = isinstance(args[0], OnGpu), not (len(args) > 2 and args[2])
        if name in ("_to_copy", "copy_") and there != isinstance(tensors[-1], OnGpu) and waits:
            self.note("copy to the GPU" if there else "copy to the host")
        plain_args, plain_kwargs = tree_map_only(OnGpu, lambda t: t.numbers, (args, kwargs))
        out = func(*plain_args, **plain_kwargs)
        if not there:
            return args[0] if name == "copy_" else out
        known = {id(t.numbers): t for t in of_gpu}  # what is changed in place stays the same object
        return tree_map_only(Tensor, lambda t: known[id(t)] if id(t) in known else OnGpu(t), out)

    def _check(self, name: str, args: Any, tensors: list[Tensor], of_gpu: list[OnGpu]) -> None:
        """Refuse mixed devices; note what waits."""
        if not of_gpu:
            return
        if name in WAITS:
            self.note(name)
        elsewhere = [t for t in tensors if not isinstance(t, OnGpu) and t.dim() > 0]
        if name.startswith("index") and name not in ("index_select", "index_copy", "index_add"):
            indices = [t for t in tree_flatten(args[1])[0] if isinstance(t, Tensor)]
            if any(t.dtype in (torch.bool, torch.uint8) for t in indices):
                self.note("mask as index")
            if any(not isinstance(t, OnGpu) for t in indices):
                self.note("index from the host")  # moved there by PyTorch
            elsewhere = [t for t in elsewhere if not any(t is i for i in indices)]
        if elsewhere and name not in ("_to_copy", "copy_"):
            raise RuntimeError(f"{name}: expected all tensors to be on the same device, cuda:0 and cpu")


class _Names(TorchFunctionMode):
    """Leads what asks for CUDA to tensors without data, which the mode below fills."""

    def __init__(self, gpu: PretendedGpu) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        kwargs.pop("pin_memory", None)
        name = getattr(func, "__name__", "")
        if func is torch.device:
            return func(*args, **kwargs)
        if name == "_has_compatible_shallow_copy_type":
            return False
        if name in ("tensor", "as_tensor", "new_tensor"):
            like = args[0] if name == "new_tensor" else None
            device = kwargs.pop("device", None)
            there = is_gpu(device) if device is not None else isinstance(like, OnGpu)
            if like is not None:
                kwargs.setdefault("dtype", like.dtype)
                args = args[1:]
            made = (torch.as_tensor if name == "as_tensor" else torch.tensor)(*args, **kwargs)
            return made.to("meta") if there and not isinstance(made, OnGpu) else made
        if name in ("tolist", "numpy") and isinstance(args[0], OnGpu):
            if name == "numpy":
                raise TypeError("can't convert cuda:0 device type tensor to numpy")
            return args[0].cpu().tolist()
        if name in ("__getitem__", "__setitem__") and isinstance(args[0], OnGpu):
            places = args[1] if isinstance(args[1], tuple) else (args[1],)
            there = tuple(
                torch.tensor(p).to("meta") if isinstance(p, list | range | tuple) else p for p in places
            )
            args = (args[0], there, *args[2:])

        def lead(x: Any) -> Any:
            if isinstance(x, torch.device):
                return torch.device("meta") if x.type == "cuda" else x
            return "meta" if isinstance(x, str) and x.split(":")[0] == "cuda" else x

        return func(*map(lead, args), **{k: lead(v) for k, v in kwargs.items()})


class _StandIn:
    """A stream or an event of a GPU that is always done."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def _done(self, *_: Any, **__: Any) -> None: ...

    wait_stream = record = synchronize = _done

    def query(self) -> bool:
        return True

    def elapsed_time(self, _: "_StandIn") -> float:
        return 0.0


@contextmanager
def pretended_gpu(free_bytes: int = 2**34) -> Iterator[PretendedGpu]:
    """Where "cuda" is the pretended GPU; its rasteriser is the CPU's, without a wait.

    Args:
        free_bytes: Of its memory.
    """
    gpu = PretendedGpu()
    with pytest.MonkeyPatch.context() as patch:
        # tensors of inference mode do not go together with tensors that hold others
        patch.setattr(torch._C, "_InferenceMode", lambda on: torch.set_grad_enabled(not on))
        for name in ("Stream", "Event", "current_stream"):
            patch.setattr(torch.cuda, name, _StandIn)
        for name in ("stream", "device"):
            patch.setattr(torch.cuda, name, lambda _: nullcontext())
        patch.setattr(torch.cuda, "mem_get_info", lambda _: (free_bytes, free_bytes))
        for name in ("memory_reserved", "memory_allocated"):
            patch.setattr(torch.cuda, name, lambda _: 0)
        generator = torch.Generator
        patch.setattr(torch, "Generator", lambda device="cpu": generator())
        patch.setattr("sdtalk.gpu_frames.gpu_knows_bfloat16", lambda _: False)
        for module in ("sdtalk.model", "sdtalk.rendering.photo_texture"):
            patch.setattr(f"{module}.rasterise", _rasterise)
        patch.setattr(
            "sdtalk.rendering.triton.resizing.doubled", _doubled
        )  # Triton wants memory that is on a GPU
        _bundled_on.cache_clear()
        try:
            with torch.no_grad(), gpu, _Names(gpu):
                yield gpu
        finally:
            _bundled_on.cache_clear()


def _rasterise(
    gaussians: Gaussians, camera: Camera, rules: RasterRules = OUR_RULES, on_cuda: OnCuda = "triton"
) -> FeatureImage:
    parts = (getattr(gaussians, f.name) for f in fields(Gaussians))
    seen = Camera(back(camera.world_to_camera), back(camera.intrinsics), camera.width, camera.height)
    features, alpha = rasterise_on_cpu(Gaussians(*map(back, parts)), seen, rules)
    return FeatureImage(OnGpu(features), OnGpu(alpha))


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear")


def back(thing: Any) -> Any:
    """Tensors of the pretended GPU, in any nesting of containers, as ordinary ones; nobody waits for them."""
    if isinstance(thing, OnGpu):
        return thing.numbers.clone()
    if is_dataclass(thing) and not isinstance(thing, type):
        return replace(thing, **{f.name: back(getattr(thing, f.name)) for f in fields(thing)})
    return thing
