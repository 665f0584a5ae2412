"""Plot the curves of runs: losses, PSNR and their running means, one panel each, one colour a run.

python -m training.curves runs/mini_stage1 [runs/other ...] -o curves.png
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from sdtalk.cli.arguments import USER_ERROR
from sdtalk.errors import InputError

COLUMNS = 4
SHOWN = ("loss/", "psnr")
WINDOW = 15
"""Lines of the log that the running mean covers."""


def read_log(run: Path) -> dict[str, np.ndarray]:
    """What is shown of a run by name, and `step`.

    Raises:
        InputError: There is no log, or nothing in it.
    """
    path = run / "metrics.jsonl"
    remedy = "Give the folder of a run of training/train.py."
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise InputError(str(path), f"it cannot be read ({error})", remedy) from error
    if not lines:
        raise InputError(str(path), "nothing was logged yet", remedy)
    names = ["step", *sorted({name for line in lines for name in line if name.startswith(SHOWN)})]
    return {name: np.array([line.get(name, np.nan) for line in lines], dtype=float) for name in names}


def running_mean(values: np.ndarray, window: int = WINDOW) -> np.ndarray:
    """Mean of each value and those before it, at most `window` of them."""
    sums = np.cumsum(np.insert(values, 0, 0.0))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def plot(runs: list[Path], target: Path) -> None:
    """Write the picture.

    Raises:
        InputError: A run has no log, or the picture cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    logs = {run.name: read_log(run) for run in runs}
    names = sorted({name for log in logs.values() for name in log if name != "step"})
    rows = -(-len(names) // COLUMNS)
    figure, axes = pyplot.subplots(rows, COLUMNS, figsize=(3.4 * COLUMNS, 2.4 * rows), squeeze=False)
    for axis in axes.flat[len(names) :]:
        axis.set_axis_off()
    for axis, name in zip(axes.flat, names, strict=False):
        for number, (run, log) in enumerate(logs.items()):
            if name in log:
                colour = f"C{number}"
                axis.plot(log["step"], log[name], color=colour, alpha=0.25, linewidth=0.8)
                axis.plot(log["step"], running_mean(log[name]), color=colour, label=run)
        axis.set_title(name.removeprefix("loss/"), fontsize=10)
        if name.startswith("loss/"):
            axis.set_ylim(bottom=0)
        axis.tick_params(labelsize=8)
    if len(logs) > 1:
        axes.flat[0].legend(fontsize=8)
    figure.tight_layout()
    try:
        figure.savefig(target, dpi=110)
    except (OSError, ValueError) as error:
        raise InputError(
            str(target), f"it cannot be written ({error})", "Give the name of a .png."
        ) from error
    finally:
        pyplot.close(figure)


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs")
    parser.add_argument("-o", "--output", type=Path, default=Path("curves.png"))
    arguments = parser.parse_args(argv)
    try:
        plot(arguments.runs, arguments.output)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    print(arguments.output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
