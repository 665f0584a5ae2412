"""Steps: commands one after the other, each with its own time limit and log, and a report that is always whole."""

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

NO_TIME = "no time left"
SHORTEST_SECONDS = 2.0
"""With less left, a step is not begun."""

KILL_AFTER_SECONDS = 4.0
"""So long after it was asked to stop, a process is killed."""

MOST_LOG = 200_000
"""Characters of a step's output that are kept: its end."""

PASSED, FAILED, SKIPPED, STOPPED, RUNNING = "passed", "failed", "skipped", "stopped", "running"


@dataclass(frozen=True)
class Finished:
    """How a command ended.

    Attributes:
        code: Exit code; None: it was stopped.
        output: What it printed.
    """

    code: int | None
    output: str


def printed_json(done: Finished) -> dict[str, Any]:
    """The object that a command has printed, from the first line that begins one on.

    Raises:
        ValueError: There is none, or it is cut short.
    """
    at = done.output.find("{\n") if "{\n" in done.output else done.output.find("{")
    if at < 0:
        raise ValueError("it printed no figures")
    return json.JSONDecoder().raw_decode(done.output[at:])[0]


@dataclass(frozen=True)
class Step:
    """A command, and how its findings are read.

    Attributes:
        name: What it is called in the report.
        command: Program and arguments, run in the repository's root.
        seconds: Its time limit; at most what is left to all steps.
        facts: What it found; raises ValueError where that cannot be read.
        problem: What is wrong although the command ended well, or "".
        skip: Why it is not run at all, or "".
        grace: Seconds it may take to stop when it is asked to, by SIGINT.
    """

    name: str
    command: Sequence[str]
    seconds: float
    facts: Callable[[Finished], dict[str, Any]] = lambda done: {}
    problem: Callable[[dict[str, Any]], str] = lambda facts: ""
    skip: str = ""
    grace: float = KILL_AFTER_SECONDS


@dataclass
class Outcome:
    """What became of a step: `status` is passed, failed, skipped, stopped or running."""

    name: str
    status: str
    seconds: float = 0.0
    reason: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


class Steps:
    """Runs steps until the time is over, and writes report.json, report.md and log.txt around every one."""

    def __init__(
        self,
        out: Path,
        limit: float,
        environment: dict[str, str],
        describe: Callable[[list[Outcome]], str],
    ) -> None:
        """Begin to count.

        Args:
            out: Where the three files go.
            limit: Seconds for all steps together, from now on.
            environment: Variables that the commands get beside those of this process.
            describe: Makes report.md.
        """
        self.out, self.describe = out, describe
        self.begun, self.limit = time.monotonic(), limit
        self.environment = {**os.environ, **environment}
        self.outcomes: list[Outcome] = []
        out.mkdir(parents=True, exist_ok=True)
        (out / "log.txt").write_text("")
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.default_int_handler)

    @property
    def left(self) -> float:
        """Seconds until all have to be over."""
        return self.limit - (time.monotonic() - self.begun)

    def facts(self, name: str) -> dict[str, Any]:
        """What a step found; nothing where it did not come to that."""
        return next((o.facts for o in self.outcomes if o.name == name), {})

    def run(self, step: Step) -> Outcome:
        """Run a step to its end, to its limit, or not at all.

        Raises:
            KeyboardInterrupt: This process was asked to stop; the step has been stopped, and the report written.
        """
        outcome = Outcome(step.name, RUNNING)
        self.outcomes.append(outcome)
        self.write()
        reason = step.skip or (NO_TIME if self.left < SHORTEST_SECONDS else "")
        if reason:
            outcome.status, outcome.reason = SKIPPED, reason
            self.write()
            return outcome
        print(f"{step.name} ...", flush=True)
        start, limit = time.monotonic(), min(step.seconds, self.left)
        done, interrupted = self._finished(step, limit)
        outcome.seconds = round(time.monotonic() - start, 2)
        self._judge(outcome, step, done, "interrupted" if interrupted else f"stopped after {limit:.0f} s")
        with (self.out / "log.txt").open("a", encoding="utf-8") as log:
            log.write(f"==== {step.name}: {outcome.status}, {outcome.seconds} s {outcome.reason}\n")
            log.write(done.output[-MOST_LOG:] + "\n")
        self.write()
        if interrupted:
            raise KeyboardInterrupt
        return outcome

    def skip(self, names: Sequence[str], reason: str) -> None:
        """Note steps that will not be run."""
        self.outcomes += [Outcome(name, SKIPPED, reason=reason) for name in names]
        self.write()

    def _finished(self, step: Step, limit: float) -> tuple[Finished, bool]:
        """Run the command; whether this process was asked to stop meanwhile."""
        interrupted = False
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                list(step.command), cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL,
                stdout=output, stderr=subprocess.STDOUT, process_group=0,
            )  # fmt: skip
            try:
                code: int | None = process.wait(limit)
            except (subprocess.TimeoutExpired, KeyboardInterrupt) as reason:
                interrupted, code = isinstance(reason, KeyboardInterrupt), None
                stop_group(process, step.grace)
            output.seek(0)
            return Finished(code, output.read().decode(errors="replace")), interrupted

    @staticmethod
    def _judge(outcome: Outcome, step: Step, done: Finished, stopped: str) -> None:
        problem = unreadable = ""
        try:
            outcome.facts = step.facts(done)
            problem = step.problem(outcome.facts)
        except (ValueError, OSError, KeyError) as error:
            unreadable = str(error)
        if done.code is None:
            outcome.status, outcome.reason = STOPPED, stopped
        elif done.code != 0 or problem or unreadable:
            lines = done.output.strip().splitlines() or ["no message"]
            ended = f"exit code {done.code}: {lines[-1][:300]}" if done.code else ""
            outcome.status, outcome.reason = FAILED, problem or ended or unreadable
        else:
            outcome.status = PASSED

    def write(self) -> None:
        """Write both reports, each in one piece."""
        spent = round(time.monotonic() - self.begun, 1)
        report = {"seconds": spent, "steps": [asdict(outcome) for outcome in self.outcomes]}
        for name, text in (
            ("report.json", json.dumps(report, indent=1)),
            ("report.md", self.describe(self.outcomes)),
        ):
            partial = self.out / f".{name}"
            partial.write_text(text, encoding="utf-8")
            partial.replace(self.out / name)


def stop_group(process: subprocess.Popen, grace: float) -> None:
    """End a process and all below it: asked first, as by Ctrl-C, then killed."""
    for number, wait in ((signal.SIGINT, grace), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(process.pid, number)
            process.wait(wait)
            break
        except (ProcessLookupError, subprocess.TimeoutExpired, KeyboardInterrupt):
            continue
    try:
        os.killpg(process.pid, signal.SIGKILL)  # children that outlived it
    except ProcessLookupError:
        pass


def table(outcomes: Sequence[Outcome]) -> str:
    """The steps as a table of Markdown, which also reads well on a terminal."""
    rows = [("step", "result", "seconds", "")]
    rows += [(o.name, o.status, f"{o.seconds:.1f}", o.reason.replace("|", "/")) for o in outcomes]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    padded = [[row[i].ljust(widths[i]) for i in range(3)] + [row[3]] for row in rows]
    lines = ["| " + " | ".join(row) + " |" for row in padded]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|---|")
    return "\n".join(lines)
