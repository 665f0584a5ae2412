"""The command line: `sdtalk PORTRAIT SPEECH -o OUTPUT`, and the commands of `arguments.COMMANDS`.

Every command is a module of its own with a function `run`. PyTorch takes seconds to import, so that module is imported
once the arguments are understood.
"""

import contextlib
import importlib
import os
import signal
import sys
from collections.abc import Callable
from types import ModuleType

from sdtalk.cli.arguments import COMMANDS, USER_ERROR, command_parser, overview_parser
from sdtalk.process import tune_process, uncollected

INTERRUPTED = 130
STOPPED = {"batch": "stopped; finished videos stay, and are skipped when it is started again."}
"""What is said after Ctrl-C."""
NOTHING_WRITTEN = "stopped; nothing was written."

FINISHED = ("talk", "batch", "reenact", "dub", "export")
"""Commands that leave nothing open behind them."""


def main(words: list[str] | None = None) -> int:
    """Run a command.

    Args:
        words: The arguments, by default those of the process.

    Returns:
        Exit code: 0, 2 for an input that cannot be used, 130 after Ctrl-C or a polite kill.
    """
    if words is not None:
        return _run(words)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill cleans up as Ctrl-C does
    code = _run(sys.argv[1:])
    if _command(sys.argv[1:]) in FINISHED:
        # taking PyTorch and the compiler apart takes another second, which the system does at once
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    return code


def _command(words: list[str]) -> str:
    """Which command the arguments ask for."""
    return words[0] if words and words[0] in COMMANDS else "talk"


def _run(words: list[str]) -> int:
    if words[:1] in (["-h"], ["--help"], ["--version"]):
        overview_parser().parse_args(words[:1])
    name = _command(words)
    words = words[1:] if words[:1] == [name] else words
    arguments = command_parser(name).parse_args(words)
    tune_process(one_arena=True)
    return reported(lambda: _imported(name).run(arguments), STOPPED.get(name))


def _imported(name: str) -> ModuleType:
    """The module of a command."""
    with uncollected():
        return importlib.import_module(f"sdtalk.cli.{name}")


def reported(work: Callable[[], int], stopped: str | None = None) -> int:
    """Do a command's work; what the user has to change, and Ctrl-C, end it with one line and no traceback.

    Args:
        work: Returns its exit code.
        stopped: What to say after Ctrl-C, if not that nothing was written.

    Returns:
        Exit code, see `main`.
    """
    try:
        from sdtalk.errors import InputError

        try:
            return work()
        except InputError as error:
            print("sdtalk:", " ".join(str(error).split()), file=sys.stderr)
            return USER_ERROR
    except KeyboardInterrupt:
        print("sdtalk:", stopped or NOTHING_WRITTEN, file=sys.stderr)
        return INTERRUPTED
