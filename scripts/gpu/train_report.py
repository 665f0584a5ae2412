"""GPU training report: what the steps of `scripts/gpu/train.py` found, as a page of Markdown."""

from collections.abc import Sequence

from scripts.gpu.check_report import Facts, machine_lines
from scripts.gpu.steps import RUNNING, Outcome, table


def train_report(outcomes: Sequence[Outcome]) -> str:
    """The page; sections of steps that found nothing are left out."""
    facts: Facts = {o.name: o.facts for o in outcomes if o.facts}
    parts = [f"# GPU training: {facts.get('facts', {}).get('card', 'no card')}", table(outcomes)]
    running = [o.name for o in outcomes if o.status == RUNNING]
    parts += [f"**Not finished: {running[0]} was at work.**"] if running else []
    sections = {"Before and after": metric_lines, "Learning": learning_lines, "Machine": machine_lines}
    for title, lines in sections.items():
        if made := lines(facts):
            parts += [f"## {title}", "\n".join(made)]
    return "\n\n".join(parts) + "\n"


def metric_lines(facts: Facts) -> list[str]:
    """Every metric that was measured, of mini and of what was trained."""
    both = [facts.get(f"evaluate {name}", {}).get("metrics", {}) for name in ("before", "after")]
    names = [name for name in both[0] if name in both[1]] or list(both[0])
    if not names:
        return []
    lines = ["| metric | before | after |", "|---|---|---|"]
    values = [[f"{found[name]:.4g}" if name in found else "-" for found in both] for name in names]
    return lines + [f"| {name} | {a} | {b} |" for name, (a, b) in zip(names, values, strict=True)]


def learning_lines(facts: Facts) -> list[str]:
    """Steps, speed and progress of each run, and what of them was kept."""
    lines = []
    for name in ("stage 1", "stage 2"):
        if run := facts.get(name):
            ends = [run.get(end, {}) for end in ("first", "last")]
            losses = " to ".join(f"{end['loss/total']:.4g}" for end in ends if "loss/total" in end)
            speed = ends[1].get("samples_per_second", 0.0)
            lines.append(
                f"- {name}: {run['steps']} steps, {speed:.1f} samples a second, loss {losses or '-'}"
            )
    for name in ("mouth", "eyes"):
        if run := facts.get(name):
            psnr = " to ".join(f"{value:.2f}" for value in run["dev_psnr"].values())
            kept = "kept" if run["better"] else "not kept"
            lines.append(f"- {name}: {run['steps']} steps, PSNR of new people {psnr or '-'} dB, {kept}")
    if kept := facts.get("kept"):
        known = ", whom it has learned from: nobody is held out" if kept["split"] == "train" else ""
        lines.append(f"- measured on people of the split {kept['split']}{known}")
        lines += [f"- resume stage {n}: {path}" for n, path in kept["resume"].items() if path]
    return lines
