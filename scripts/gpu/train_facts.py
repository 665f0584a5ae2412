"""GPU training facts: what runs of `training/` have written, read for a report."""

import json
from pathlib import Path
from typing import Any


def evaluated(results: Path) -> dict[str, Any]:
    """Means over all clips of `training/evaluate.py`, and how many clips there were."""
    found = json.loads(results.read_text(encoding="utf-8"))
    means = found["groups"]["all clips"]
    return {"clips": means["clips"], "metrics": means["figures"], "failed": len(found["failed"])}


def stage_facts(run: Path) -> dict[str, Any]:
    """First and last line of a run's log, its steps, and whether its model is there."""
    lines = _lines(run / "metrics.jsonl")
    names = ("loss/total", "psnr", "samples_per_second", "data_wait_share")
    ends = {name: {key: line[key] for key in names if key in line} for name, line in _ends(lines).items()}
    steps = int(lines[-1]["step"]) if lines else 0
    return {"steps": steps, "has model": (run / "model" / "model.safetensors").is_file(), **ends}


def painter_facts(run: Path) -> dict[str, Any]:
    """Steps, seconds a step, and the likeness of windows of people it has not seen, before and after."""
    lines = _lines(run / "metrics.jsonl")
    scores = [line for line in lines if "dev_psnr" in line]
    ends = {name: round(line["dev_psnr"], 3) for name, line in _ends(scores).items()}
    better = len(scores) > 1 and scores[-1]["dev_psnr"] >= scores[0]["dev_psnr"]
    saved = (run / "painter.safetensors").is_file()
    return {"steps": int(lines[-1]["step"]) if lines else 0, "dev_psnr": ends, "better": better and saved}


def _ends(lines: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {"first": lines[0], "last": lines[-1]} if lines else {}


def _lines(log: Path) -> list[dict[str, Any]]:
    if not log.is_file():
        return []
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
