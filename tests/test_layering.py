"""Imports go one way: a module imports only from what stands before it in the data flow."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ORDER = [
    "_version", "errors", "progress", "stopwatch", "config", "camera", "gaussians", "weights", "image", "speech",
    "video", "tracking", "flame", "reconstruction", "motion", "rendering", "head", "model", "checkpoint", "published",
    "driving", "options", "stream", "talk", "batch", "pipeline", "reenact", "demo", "cli", "__main__",
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


@pytest.mark.parametrize("path", MODULES, ids=[p.relative_to(ROOT).as_posix() for p in MODULES])
def test_imports_go_one_way(path: Path) -> None:
    own = path.relative_to(ROOT / "sdtalk").parts[0].removesuffix(".py")
    if own == "__init__":
        return
    assert own in ORDER, f"give {own} its place in the flow"
    late = {p for p in imported_parts(path) if p in ORDER and ORDER.index(p) > ORDER.index(own)}
    assert not late, f"{path.name} imports {late}, which come after {own} in the flow"


def test_nothing_imports_training() -> None:
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] != "training", path
            elif isinstance(node, ast.Import):
                assert all(a.name.split(".")[0] != "training" for a in node.names), path


TRAINING = {
    "data": {"data"},
    "mini": {"data", "mini"},
    "preparation": {"data", "mini", "preparation", "video_files"},
    "evaluation": {"data", "evaluation", "lpips", "video_files", "weights"},
    "hub": {"hub_repository"},
    "hub_repository": set(),
}
"""Parts of training, and which others each may use; the scripts beside them use them all."""


@pytest.mark.parametrize("part", TRAINING)
def test_parts_of_training_know_only_what_they_stand_on(part: str) -> None:
    place = ROOT / "training" / part
    for path in place.rglob("*.py") if place.is_dir() else [place.with_suffix(".py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [getattr(node, "module", None) or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            used = {name.split(".")[1] for name in names if name.startswith("training.")}
            assert used <= TRAINING[part] and "training" not in names, path
