"""Tests of the import layering: a module imports only from what stands before it in the data flow; all names exist."""

import ast
import builtins
import dis
from graphlib import TopologicalSorter
from pathlib import Path
from types import CodeType

import pytest

ROOT = Path(__file__).parent.parent
ORDER = [
    "_version", "errors", "process", "progress", "stopwatch", "full_float32", "gpu_memory", "config", "camera",
    "gaussians", "smoothstep", "colourfulness", "weights", "box_filter", "inpainting", "image", "background", "speech",
    "provenance", "video", "inspection", "tracking", "flame", "reconstruction", "motion", "rendering", "head", "model",
    "framing", "full_frame", "checkpoint", "published", "driving", "devices", "options", "directing", "presets", "live",
    "gpu_frames", "frame_maker", "stream", "talk", "dubbing", "batch", "pipeline", "still", "reenact", "export",
    "demo", "cli", "__main__",
]  # fmt: skip


def imported_parts(path: Path) -> set[str]:
    parts = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sdtalk."):
            parts.add(node.module.split(".")[1])
        elif isinstance(node, ast.ImportFrom) and node.module == "sdtalk":
            parts.update(alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            parts.update(a.name.split(".")[1] for a in node.names if a.name.startswith("sdtalk."))
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"relative import in {path}"
    return parts


MODULES = sorted((ROOT / "sdtalk").rglob("*.py"))
CODE = sorted(
    path
    for folder in ("sdtalk", "training", "benchmarks", "scripts")
    for path in (ROOT / folder).rglob("*.py")
)


@pytest.mark.parametrize("path", MODULES, ids=[p.relative_to(ROOT).as_posix() for p in MODULES])
def test_imports_go_one_way(path: Path) -> None:
    own = path.relative_to(ROOT / "sdtalk").parts[0].removesuffix(".py")
    if own == "__init__":
        return
    assert own in ORDER, f"give {own} its place in the flow"
    late = {p for p in imported_parts(path) if p in ORDER and ORDER.index(p) > ORDER.index(own)}
    assert not late, f"{path.name} imports {late}, which come after {own} in the flow"


def loaded_globals(code: CodeType) -> set[str]:
    """Names that functions of a module look for in it, or in the built-in ones."""
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    own = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return own.union(*map(loaded_globals, inner))


def stored_names(code: CodeType) -> set[str]:
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    own = {i.argval for i in dis.get_instructions(code) if i.opname in ("STORE_NAME", "STORE_GLOBAL")}
    return own.union(*map(stored_names, inner))


@pytest.mark.parametrize("path", CODE, ids=[p.relative_to(ROOT).as_posix() for p in CODE])
def test_names_exist(path: Path) -> None:
    """The linter cannot say so here: to it the names of axes in shapes are undefined, too."""
    code = compile(path.read_text(encoding="utf-8"), str(path), "exec")
    unknown = loaded_globals(code) - stored_names(code) - set(dir(builtins))
    assert not [name for name in unknown if not name.startswith("__")]


def test_nothing_imports_training() -> None:
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] != "training", path
            elif isinstance(node, ast.Import):
                assert all(a.name.split(".")[0] != "training" for a in node.names), path


TRAINING = {
    # what needs nothing else of training
    "settings": set(),
    "processes": set(),
    "checkpoints": set(),
    "video_files": set(),
    "hub_repository": set(),
    "hub_uploader": {"hub_repository"},
    "ema": set(),
    "image_metrics": set(),
    # networks and losses
    "alexnet": set(),
    "optional_networks": set(),
    "lpips": {"alexnet", "optional_networks"},
    "losses": set(),
    "published_losses": {"losses"},
    "published_perceptual": {"alexnet"},
    # data, and what is made of it
    "data": set(),
    "tracker": {"data"},
    "mini": {"data", "image_metrics"},
    "preparation": {"data", "mini", "video_files"},
    "evaluation": {"data", "image_metrics", "lpips", "mini", "optional_networks", "video_files"},
    # a training run
    "train_settings": set(),
    "loss_terms": {"losses", "lpips", "published_losses", "published_perceptual", "train_settings"},
    "stages": {"data", "loss_terms", "mini", "train_settings"},
    "initial_model": {"settings", "train_settings"},
    "run_state": {
        "checkpoints", "data", "hub_repository", "initial_model", "processes", "settings", "train_settings",
    },
    "metrics_logger": {"checkpoints", "settings", "train_settings"},
    "model_card": {"data", "settings", "train_settings"},
    "sample_videos": {"data", "evaluation"},
    "run_outputs": {
        "checkpoints", "data", "hub_uploader", "metrics_logger", "model_card", "run_state", "sample_videos",
        "train_settings",
    },
    # scripts
    "curves": set(),
    "prepare": {"data", "preparation", "processes", "settings"},
    "train": {
        "checkpoints", "data", "ema", "initial_model", "metrics_logger", "run_outputs", "run_state", "settings",
        "stages", "train_settings",
    },
    "publish": {"hub_repository", "model_card"},
    "evaluate": {"data", "evaluation", "publish"},
}  # fmt: skip
"""Parts of training from the ground floor up, and which of the parts below each one may use."""

TRAINING_MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "training").rglob("*.py"))
}


def training_imports(path: Path) -> set[str]:
    """Modules of training that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"relative import in {path}"
            module = node.module or ""
            inside = {f"{module}.{alias.name}" for alias in node.names} & TRAINING_MODULES.keys()
            names |= inside or {module}
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    return {name for name in names if name.split(".")[0] == "training"}


def test_every_part_of_training_has_its_floor() -> None:
    parts = {name.split(".")[1] for name in TRAINING_MODULES if name != "training"}
    assert parts == TRAINING.keys()
    floors = list(TRAINING)
    for part, below in TRAINING.items():
        assert below <= set(floors[: floors.index(part)]), f"{part} uses what does not stand below it"


@pytest.mark.parametrize("name", TRAINING_MODULES)
def test_parts_of_training_use_only_what_stands_below(name: str) -> None:
    imported = training_imports(TRAINING_MODULES[name])
    if name == "training":
        assert not imported
        return
    own = name.split(".")[1]
    parts = {module.partition(".")[2].split(".")[0] for module in imported}
    assert parts <= TRAINING[own] | {own}, f"{name} imports {parts - TRAINING[own] - {own}}"


def test_no_modules_of_training_import_each_other_in_a_circle() -> None:
    graph = {name: training_imports(path) for name, path in TRAINING_MODULES.items()}
    assert set(TopologicalSorter(graph).static_order()) == graph.keys()  # raises where there is a circle
