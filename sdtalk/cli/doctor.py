"""Diagnosis: `sdtalk doctor` lists every file of weights and every optional library, and says how to get them."""

import argparse
import os
import platform
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import torch

from sdtalk import __version__
from sdtalk.checkpoint import WEIGHTS, find_models, locate, read_config
from sdtalk.errors import InputError
from sdtalk.flame import fan
from sdtalk.published.convert import published_config
from sdtalk.rendering import triton
from sdtalk.speech.synthesis import find_voices, piper_folders
from sdtalk.weights.assets import OPTIONAL_ASSETS, OptionalAsset, bundled, data_folder

BUNDLED_FILES = {
    "tracker.safetensors": ("face and person networks of MediaPipe", "Apache-2.0"),
    "face.safetensors": ("average face and its mouth motion", "Apache-2.0"),
    "whisper_base_l3.safetensors": ("first layers of OpenAI's Whisper base", "MIT"),
    "mini/model.safetensors": ("the model `mini`", "Apache-2.0"),
}
"""Weights in the package: what they are, their licence."""


@dataclass(frozen=True)
class OptionalLibrary:
    """Python packages that some uses want.

    Attributes:
        modules: What is imported.
        remedy: How to get them.
        licence: Their licence.
        use: What they are for.
        without: What works without them.
    """

    modules: tuple[str, ...]
    remedy: str
    licence: str
    use: str
    without: str


LIBRARIES = (
    OptionalLibrary(
        ("gradio",), 'install it: pip install "sdtalk[demo]"', "Apache-2.0",
        "serves the page of `sdtalk demo`", "the other commands and Python work",
    ),
    OptionalLibrary(
        ("accelerate", "datasets", "matplotlib", "scipy", "tensorboard", "yaml"),
        'install them: pip install "sdtalk[train]"', "Apache-2.0, BSD-3-Clause, MIT and Matplotlib's",
        "prepare data, train, evaluate", "all models can be used",
    ),
    OptionalLibrary(
        ("c2pa", "cryptography"), 'install them: pip install "sdtalk[provenance]"', "Apache-2.0, BSD-3-Clause",
        "sign a claim in every video, read those of others", "videos have no claim; the invisible mark stays",
    ),
    OptionalLibrary(
        ("gsplat",), 'install it: pip install "sdtalk[gsplat]", and a CUDA toolkit with nvcc', "Apache-2.0",
        "rasterises on an NVIDIA GPU where it is asked for", "Triton rasterises there",
    ),
    OptionalLibrary(
        ("tinycudann",),
        "install it from its source, since no package index has it; with nvcc and a C++ compiler, some minutes: "
        "pip install git+https://github.com/NVlabs/tiny-cuda-nn/#subdirectory=bindings/torch", "BSD-3-Clause",
        "encodes positions faster while training on an NVIDIA GPU", "PyTorch gives the same numbers",
    ),
    OptionalLibrary(
        (fan.PACKAGE,), 'install it: pip install "sdtalk[landmarks]"; or, since only its network is used and none of '
        "what it needs itself: pip install --no-deps face-alignment==1.5", "BSD-3-Clause",
        "with its weights, finds the landmarks that FLAME is fitted to", "our own landmarks are used",
    ),
)  # fmt: skip
"""The libraries of the extras in pyproject.toml, and tiny-cuda-nn."""

_PACKAGES = {"yaml": "pyyaml", "c2pa": "c2pa-python"}
"""Modules that are called otherwise than their package."""


@dataclass(frozen=True)
class Finding:
    """One line of the examination.

    Attributes:
        name: What was looked for.
        found: Whether it is here and can be used.
        details: Where it is or which version; where it is missing, how to get it and what works without it.
        licence: Its licence, or "".
    """

    name: str
    found: bool
    details: tuple[str, ...]
    licence: str = ""


@dataclass(frozen=True)
class Examination:
    """What was found, by section."""

    machine: list[Finding]
    weights: list[Finding]
    assets: list[Finding]
    libraries: list[Finding]
    voices: list[Finding]
    models: list[Finding]


def examine() -> Examination:
    """Look at this machine; asks no network and imports no optional library."""
    models = find_models()
    return Examination(
        machine=_machine(),
        weights=[_weight(name, what, licence) for name, (what, licence) in BUNDLED_FILES.items()],
        assets=[_converted(asset, models) or _asset(asset) for asset in OPTIONAL_ASSETS],
        libraries=[*(_library(library) for library in LIBRARIES), _landmark_weights()],
        voices=_voices(),
        models=[_model(name, source) for name, source in models.items()],
    )


def _machine() -> list[Finding]:
    cuda = torch.cuda.is_available()
    gpu = torch.cuda.get_device_name() if cuda else "none that PyTorch can use; the CPU does everything"
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return [
        Finding("SDTalk", True, (f"{__version__} on {system}, {os.cpu_count()} cores",)),
        Finding("PyTorch", True, (torch.__version__,)),
        Finding("NVIDIA GPU", cuda, (gpu,)),
        _gpu_rasteriser(),
        Finding("your files", True, (f"{data_folder()} (SDTALK_HOME moves it)",)),
    ]


def _gpu_rasteriser() -> Finding:
    """What rasterises on CUDA: Triton, which comes with PyTorch; it takes a C compiler, and no CUDA toolkit."""
    name = "rasteriser for an NVIDIA GPU: Triton"
    lack = triton.lacking()
    if lack is not None:
        details = f"{lack.problem}. {lack.remedy}", "without it everything works on the CPU"
        return Finding(name, False, details)
    return Finding(name, True, (f"{installed_version('triton')}, with {triton.c_compiler()}",))


def _weight(name: str, what: str, licence: str) -> Finding:
    try:
        return Finding(what, True, (str(bundled(name)),), licence)
    except InputError as error:
        return Finding(what, False, (str(error),), licence)


def _asset(asset: OptionalAsset) -> Finding:
    path = asset.found()
    if path is not None:
        return Finding(asset.what, True, (str(path),), asset.licence)
    details = (f"for {asset.needed_for}", f"from {asset.where}", f"without it {asset.without}")
    return Finding(asset.what, False, details, asset.licence)


def _converted(asset: OptionalAsset, models: dict[str, str]) -> Finding | None:
    """The authors' checkpoint is not kept as it came: one that was converted into the user's folder counts."""
    for source in models.values() if asset.name == "checkpoint" else ():
        with suppress(InputError):
            if read_config(locate(source)).name == published_config().name:
                return Finding(asset.what, True, (f"{source}, converted",), asset.licence)
    return None


def _library(library: OptionalLibrary) -> Finding:
    name = f"{', '.join(library.modules)} ({library.use})"
    missing = [module for module in library.modules if find_spec(module) is None]
    if missing:
        remedy = (
            library.remedy
            if len(missing) == len(library.modules)
            else f"{', '.join(missing)}: {library.remedy}"
        )
        return Finding(name, False, (remedy, f"without it {library.without}"), library.licence)
    versions = ", ".join(installed_version(module) for module in library.modules)
    return Finding(name, True, (versions,), library.licence)


def _landmark_weights() -> Finding:
    """The weights that face-alignment keeps outside of its package, which does not state their licence."""
    name, path = f"landmark network of {fan.PACKAGE}", fan.weights_file()
    if path.is_file():
        return Finding(name, True, (str(path),))
    details = (
        f"install it: download {fan.WEIGHTS_URL} to {path}",
        "without it our own landmarks are used",
    )
    return Finding(name, False, details)


def _voices() -> list[Finding]:
    """The voices of each program that speaks."""
    findings, folders = [], ", ".join(str(folder) for folder in piper_folders())
    remedies = {
        "piper": f"pip install piper-tts, and put a voice (.onnx and .onnx.json) into one of {folders}",
        "espeak-ng": "Debian and Ubuntu: apt install espeak-ng; macOS: brew install espeak-ng",
    }
    voices = find_voices()
    for engine in dict.fromkeys([*remedies, *(voice.engine for voice in voices)]):
        names = [voice.name for voice in voices if voice.engine == engine]
        details = (
            (", ".join(names),)
            if names
            else (remedies[engine], "without it recordings are spoken, and no texts")
        )
        findings.append(Finding(engine, bool(names), details))
    return findings


def installed_version(module: str) -> str:
    """The version of a package, by its name or that of its module."""
    package = _PACKAGES.get(module, module)
    try:
        return version(package)
    except PackageNotFoundError:  # a folder of sources
        return "version unknown"


def _model(name: str, source: str) -> Finding:
    """Whether a model's config can be read and what it needs is here; its weights are not opened."""
    folder = locate(source)
    try:
        config = read_config(folder)
    except InputError as error:
        return Finding(name, False, (str(error),))
    needed = {"flame": config.template == "flame", "hubert": config.audio_encoder == "hubert"}
    missing = [a.name for a in OPTIONAL_ASSETS if needed.get(a.name) and a.found() is None]
    problem = f"; cannot be used without {' and '.join(missing)}, see above" if missing else ""
    if not (folder / WEIGHTS).is_file():
        problem = f"; cannot be used without its {WEIGHTS}, which is missing"
    return Finding(name, not problem, (f"{folder}{problem}",))


def as_text(found: Examination) -> str:
    """The examination for people."""
    sections = {
        "This machine": found.machine,
        "Weights in the package": found.weights,
        "Files that cannot come with it": found.assets,
        "Optional libraries": found.libraries,
        "Voices for --text": found.voices,
        "Models": found.models,
    }
    lines: list[str] = []
    for title, findings in sections.items():
        lines += ["", title] if lines else [title]
        for f in findings:
            licence = f" [{f.licence}]" if f.licence else ""
            lines.append(f"  {'found  ' if f.found else 'missing'}  {f.name}{licence}")
            lines += [f"           {detail}" for detail in f.details]
    return "\n".join(lines)


def run(arguments: argparse.Namespace) -> int:
    """Print what is there and what is missing."""
    print(as_text(examine()))
    return 0
