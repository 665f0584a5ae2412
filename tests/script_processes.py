"""Fresh processes for tests, without their type checks: forked from a server that has imported what they want."""

import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
IMPORTED = ["training.prepare", "training.train", "training.evaluate", "torch._dynamo", __name__]
"""By the server, which takes as long as one of these processes would; torch._dynamo comes with an optimiser."""


def start_process(run: Callable[..., object], *arguments: object, **environment: str) -> BaseProcess:
    """Run a function in a fresh process, whose environment is today's with some variables changed."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(IMPORTED)
    process = server.Process(target=_run, args=(run, arguments, {**os.environ, **environment}))
    process.start()
    return process


def _run(run: Callable[..., object], arguments: tuple, environment: dict[str, str]) -> None:
    os.environ.clear()  # the server has that of the test for which it was started
    os.environ.update(environment)
    torch.set_num_threads(1)
    sys.exit(run(*arguments))


def start_script(
    output: Path,
    script: str,
    *arguments: object,
    killer: tuple[str, int] | None = None,
    **environment: str,
) -> BaseProcess:
    """Run a script of the repository by its path, or a module by its name, in a fresh process.

    Args:
        output: A file that what it prints is added to.
        script: Its path or name.
        arguments: Of its command line.
        killer: A function of `os` and a number: the process kills itself at that call of it.
        environment: Variables to change.
    """
    words = [str(argument) for argument in arguments]
    return start_process(_run_script, output, script, words, killer, **environment)


def _run_script(output: Path, script: str, arguments: list[str], killer: tuple[str, int] | None) -> None:
    if killer is not None:
        _die_at(*killer)
    _print_into(output)
    os.chdir(ROOT)
    sys.argv = [script, *arguments]
    if not script.endswith(".py"):
        runpy.run_module(script, run_name="__main__", alter_sys=True)
        return
    sys.path.insert(0, str((ROOT / script).parent))  # as Python does
    runpy.run_path(script, run_name="__main__")


def start_code(output: Path, code: str) -> BaseProcess:
    """Run a piece of Python; what it prints goes into a file."""
    return start_process(_run_code, output, code)


def _run_code(output: Path, code: str) -> None:
    _print_into(output)
    exec(code, {"__name__": "__main__"})


def _print_into(output: Path) -> None:
    file = os.open(output, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.dup2(file, 1), os.dup2(file, 2)


def _die_at(name: str, count: int) -> None:
    real, calls = getattr(os, name), []

    def deadly(*arguments: object, **options: object) -> object:
        calls.append(arguments)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)

    setattr(os, name, deadly)


def awaited(process: BaseProcess, output: Path) -> str:
    """What a process has printed when it has ended well."""
    process.join()
    printed = output.read_text()
    assert process.exitcode == 0, printed
    return printed
