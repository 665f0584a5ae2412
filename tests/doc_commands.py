"""Checks of command lines in the documentation: the programs are ours, so their own parsers are asked.

`check(line)` fails with what is wrong, also for a program that nobody here knows how to check.
"""

import argparse
import re
import runpy
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterator
from unittest import mock

import pytest
from doc_pages import ROOT

EVERYDAY = {
    *("cd", "curl", "cut", "do", "done", "export", "git", "grep"),
    *("printf", "sleep", "sudo", "tee", "tensorboard", "tr", "until", "uvx"),
}
"""Other people's programs: of their arguments, only the files of ours are looked for."""


class Understood(BaseException):
    """The arguments have been read; nothing more is wanted of the program."""


def check(text: str) -> None:
    """Check every command of a piece of shell."""
    for words in commands(re.sub(r"\[(--[\w-]+)\]", r"\1", text)):  # what can be left out, not left out
        program, *arguments = words
        name = re.sub(r"^(\.venv/bin/|\.venv\\Scripts\\)", "", program)
        name = re.sub(r"^(python|pip)[\d.]*$", r"\1", name)
        assert name in CHECKS or name in EVERYDAY or (ROOT / name).is_file(), f"nobody can check {name!r}"
        CHECKS.get(name, _other_tool)(arguments)
        for word in arguments:
            _check_file(word)


def commands(text: str) -> Iterator[list[str]]:
    """The commands of a piece of shell, without the variables set before them, comments and redirections."""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for token in [*lexer, ";"]:
            if set(token) <= set("();<>|&"):
                if words:
                    yield words
                words = []
            elif words or not re.match(r"\w+=", token):
                words.append(token)


def _check_file(word: str) -> None:
    """What looks like a file of the repository has to be one."""
    parts = word.split("::")[0].split("/")
    ours = parts[0] in ("benchmarks", "docs", "examples", "sdtalk", "tests", "training") and len(parts) > 1
    if ours or re.fullmatch(r"requirements[\w-]*\.txt|\w+\.toml", word):
        assert (ROOT / word.split("::")[0]).exists(), f"there is no {word}"


def _understand(run: Callable[[], object], program: str, arguments: list[str]) -> None:
    """Let a program read its arguments, and stop it there."""
    parse = argparse.ArgumentParser.parse_args

    def parse_only(parser: argparse.ArgumentParser, *given: object, **options: object) -> None:
        parse(parser, *given, **options)
        raise Understood

    with (
        mock.patch.object(argparse.ArgumentParser, "parse_args", parse_only),
        mock.patch.object(sys, "argv", [program, *arguments]),
        # Python puts a script's folder first, and scripts of training put the repository in its place
        mock.patch.object(sys, "path", [str((ROOT / program).parent), *sys.path]),
        pytest.raises((Understood, SystemExit)) as ended,
    ):
        run()
    assert ended.type is Understood or not ended.value.code, (
        f"{program} does not take {shlex.join(arguments)}"
    )


def _sdtalk(arguments: list[str]) -> None:
    from sdtalk.cli.main import main

    _understand(lambda: main(arguments), "sdtalk", arguments)
    if arguments == ["doctor"]:  # writes nothing and takes a moment
        assert main(arguments) == 0


def _python(arguments: list[str]) -> None:
    if arguments[0] != "-m":
        return _script(arguments[0], arguments[1:])
    module, rest = arguments[1], arguments[2:]
    if module.startswith("training."):
        return _script(module.replace(".", "/") + ".py", rest)
    assert module in (*CHECKS, "venv"), f"nobody here can check the module {module!r}"
    return CHECKS.get(module, _other_tool)(rest)


def _script(path: str, arguments: list[str]) -> None:
    """A script of ours, and the arguments it is given."""
    script = ROOT / path
    assert script.is_file(), f"there is no {path}"
    if path == "app.py":
        _sdtalk(["demo", *arguments])
    elif "ArgumentParser" in script.read_text(encoding="utf-8"):
        _understand(lambda: runpy.run_path(str(script), run_name="__main__"), path, arguments)
    else:
        assert not arguments, f"{path} takes no arguments"


def _accelerate(arguments: list[str]) -> None:
    from accelerate.commands.launch import launch_command_parser

    assert arguments[0] == "launch"
    given = launch_command_parser().parse_args(arguments[1:])
    _script(given.training_script, given.training_script_args)


def _torchrun(arguments: list[str]) -> None:
    from torch.distributed.run import get_args_parser

    given = get_args_parser().parse_args(arguments)
    _script(given.training_script, given.training_script_args)


def _make(arguments: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in arguments:
        variable = word.partition("=")[0]
        kind = rf"^{variable} \?= |\$\({variable}\)" if "=" in word else rf"^{word}:"
        assert re.search(kind, makefile, re.MULTILINE), f"the Makefile has no {word}"


def _pip(arguments: list[str]) -> None:
    assert arguments[0] == "install"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for word in arguments:
        if extras := re.match(r"(?:sdtalk|\.)\[([\w,-]+)\]", word):
            missing = set(extras[1].split(",")) - set(project["optional-dependencies"])
            assert not missing, f"there are no extras {missing}"


def _pytest(arguments: list[str]) -> None:
    files = [word for word in arguments if word.endswith(".py")]
    if "-k" in arguments:
        name = arguments[arguments.index("-k") + 1]
        told = "".join((ROOT / file).read_text(encoding="utf-8") for file in files)
        assert re.search(rf"def test_\w*{name}", told), f"{files} have no test called {name}"


def _hf(arguments: list[str]) -> None:
    from huggingface_hub.cli.hf import app

    assert arguments[0] in app.commands


def _other_tool(arguments: list[str]) -> None:
    """Only the files that are named are looked for, as for every command."""


CHECKS: dict[str, Callable[[list[str]], None]] = {
    "accelerate": _accelerate,
    "hf": _hf,
    "make": _make,
    "mypy": _other_tool,
    "mkdocs": _other_tool,
    "pip": _pip,
    "pytest": _pytest,
    "python": _python,
    "ruff": _other_tool,
    "sdtalk": _sdtalk,
    "torchrun": _torchrun,
}
"""How each program's arguments are checked, without doing what the command does."""


def check_span(span: str) -> None:
    """Check a command of ours in a sentence; there, `sdtalk batch` is only its name."""
    if named := re.fullmatch(r"sdtalk ([a-z]+)", span):
        from sdtalk.cli.arguments import COMMANDS

        assert named[1] in COMMANDS, f"sdtalk has no command {named[1]!r}"
    else:
        check(span)


def is_command(span: str) -> bool:
    """Whether a piece of code in a sentence is a command of ours with arguments."""
    return bool(re.match(r"(sdtalk|make|pytest|torchrun) \S|python \S+\.py|python -m \S+ \S", span))
