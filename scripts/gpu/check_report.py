"""GPU check report: what the steps of `scripts/gpu/check.py` found, as a page of Markdown."""

from collections.abc import Sequence
from typing import Any

from scripts.gpu.steps import RUNNING, Outcome, table

Facts = dict[str, dict[str, Any]]


def check_report(outcomes: Sequence[Outcome]) -> str:
    """The page; sections of steps that found nothing are left out."""
    facts: Facts = {o.name: o.facts for o in outcomes if o.facts}
    parts = [f"# GPU check: {facts.get('facts', {}).get('card', 'no card')}", table(outcomes)]
    running = [o.name for o in outcomes if o.status == RUNNING]
    parts += [f"**Not finished: {running[0]} was at work.**"] if running else []
    sections = {
        "Machine": machine_lines, "Tests": test_lines, "The published model": published_lines,
        "Ceilings": ceiling_lines, "Speed": speed_lines, "Shares of the ceilings": share_lines,
    }  # fmt: skip
    for title, lines in sections.items():
        if made := lines(facts):
            parts += [f"## {title}", "\n".join(made)]
    return "\n\n".join(parts) + "\n"


def machine_lines(facts: Facts) -> list[str]:
    """Everything that `scripts/gpu/facts.py` knows."""
    rows = []
    for name, value in facts.get("facts", {}).items():
        text = ", ".join(f"{k}: {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
        rows.append(f"- {name}: {text or 'nothing'}")
    return rows


def test_lines(facts: Facts) -> list[str]:
    """Counts, failures, and why tests were skipped."""
    if not (tests := facts.get("tests")):
        return []
    counts = ", ".join(f"{tests[name]} {name}" for name in ("passed", "failed", "skipped"))
    lines = [counts + ("" if tests["complete"] else "; not all were run"), ""]
    lines += [f"- failed: `{name}`: {reason}" for name, reason in tests["failures"].items()]
    lines += [f"- skipped, {count}: {reason}" for reason, count in tests["skip reasons"].items()]
    return lines


def published_lines(facts: Facts) -> list[str]:
    """Differences from the CPU in float32."""
    if not (found := facts.get("published")):
        return []
    lines = ["Mean and largest difference of a frame from the CPU in float32, RGB in [0, 1]:", ""]
    for d in found["differences"]:
        lines.append(f"- {d['name']}: {d['frame_mean']:.1e}, {d['frame_max']:.1e}")
    if found["no_gpu"]:
        return [*lines, f"- no GPU: {found['no_gpu']}"]
    verdict = "as near as TF32 allows" if found["passed"] else "MORE than TF32 explains"
    return [*lines, "", f"The GPU is {verdict}." if found["passed"] else f"The GPU differs by {verdict}."]


def ceiling_lines(facts: Facts) -> list[str]:
    """What was measured of the device itself."""
    if not (found := facts.get("roofline")):
        return []
    names = {"bfloat16_tflops": "bfloat16", "tf32_tflops": "TF32", "float32_tflops": "float32"}
    lines = [f"- {label} matrices: {found[name]:.3g} TFLOP/s" for name, label in names.items()]
    return [*lines, f"- copy, read and write: {found['copy_tbs']:.3g} TB/s"]


def speed_lines(facts: Facts) -> list[str]:
    """Frames a second with the encoding, stages, memory."""
    if not (benches := {n.split()[1]: f for n, f in facts.items() if n.startswith("bench ")}):
        return []
    stages = ["motion", "rasterising", "neural rendering", "finishing"]
    head = ["model", "frames/s with encoding", "frames/s of the stages", *stages, "encoding, ms"]
    head += ["GPU MB", "rasteriser"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, b in benches.items():
        made = sum(b["stages"].get(stage, 0.0) for stage in stages)
        row = [name, f"{b['frames_per_second']:.1f}", f"{b['frames'] / made:.1f}" if made else "-"]
        row += [f"{b['shares'][stage]:.0%}" for stage in stages]
        row.append(f"{1000 * b['stages'].get('encoding', 0.0) / b['frames']:.2f}")
        row.append("-" if b["peak_gpu_mb"] is None else f"{b['peak_gpu_mb']:.0f}")
        lines.append("| " + " | ".join([*row, b["rasteriser"]]) + " |")
    return lines


def share_lines(facts: Facts) -> list[str]:
    """How much of the ceilings the networks reach while they run, and the least traffic while a frame is made."""
    ceilings, costs = facts.get("roofline"), facts.get("network_cost", {})
    lines = []
    for name, cost in costs.items():
        if not ceilings or ceilings["tiny"] or not (bench := facts.get(f"bench {name}")):
            continue
        # on a GPU that knows it both models paint in bfloat16; what decides positions is float32 in full
        low = cost["precision"] == "bfloat16" or facts.get("facts", {}).get("bfloat16", False)
        for stage, work, kind in (
            ("neural rendering", "rendering_gflop", "bfloat16" if low else "tf32"),
            ("motion", "motion_gflop", "float32"),
        ):
            seconds = bench["stages"].get(stage, 0.0) / bench["frames"]
            if seconds:
                rate, peak = cost[work] / 1e3 / seconds, ceilings[f"{kind}_tflops"]
                text = f"{cost[work]:.3g} GFLOP a frame at {rate:.3g} TFLOP/s, {rate / peak:.1%} of {kind}"
                lines.append(f"- {name}, {stage}: {text}")
        rate = cost["least_mb"] / 1e6 * bench["frames_per_second"]
        text = (
            f"at least {cost['least_mb']:.3g} MB a frame, {rate / ceilings['copy_tbs']:.1%} of the copy rate"
        )
        lines.append(f"- {name}, memory: {text}")
    return lines
