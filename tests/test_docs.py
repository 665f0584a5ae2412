"""Tests of the documentation: code blocks run or are understood, links lead somewhere, docstrings' examples hold."""

import doctest
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from doc_commands import check, check_span, commands, is_command
from doc_pages import PAGES, ROOT, Block, anchors, blocks_of, code_spans, links
from doc_recipes import changed_files, copy_with, files_of
from hub_stand_in import TOKEN, HubStandIn
from made_up_data import make_prepared
from PIL import Image
from test_layering import ORDER
from toy import save_portrait, save_speech, toy_model

import sdtalk
import sdtalk.batch
import sdtalk.export
from sdtalk import SDTalkPipeline
from sdtalk.batch import read_jobs
from sdtalk.video import open_writer

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
CHECKED = {"python", "bash", "csv", "json", "yaml", "diff"}
NOT_RUN = {
    "text": "drawings, listings and what programs print",
    "powershell": "Windows only; its commands are those of the bash block beside it",
}
"""Kinds of blocks that no test looks into, and why."""

PAGE_URL = "http://127.0.0.1:7860"


def of_kind(*kinds: str) -> list[Block]:
    return [block for block in BLOCKS if block.kind in kinds]


@pytest.fixture(scope="module")
def materials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that examples name; not to be changed."""
    folder = tmp_path_factory.mktemp("materials")
    save_portrait(folder / "photo.jpg", 512)  # of 256 px, the small face is searched for a second
    for name in ("portrait", "ann", "bob"):
        shutil.copy(folder / "photo.jpg", folder / f"{name}.jpg")
    for name in ("speech", "one", "two", "hello", "goodbye"):
        save_speech(folder / f"{name}.wav", 0.08)  # two frames
    pixels = np.array(Image.open(folder / "photo.jpg").convert("RGB").resize((256, 256)))
    with open_writer(folder / "clip.mp4", (256, 256)) as writer:
        writer.write_all(np.stack([pixels] * 2))
    toy_model().save_pretrained(folder / "models" / "mine")
    make_prepared(folder / "data" / "prepared", clips=1, frames=2)
    return folder


@pytest.fixture
def place(materials: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with those files, the working directory of a test."""
    folder = shutil.copytree(materials, tmp_path / "place")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def pipeline() -> SDTalkPipeline:
    return SDTalkPipeline.from_pretrained("mini", device="cpu")


def run(blocks: list[Block], names: dict[str, object]) -> None:
    """Run blocks one after the other, as a reader would type them."""
    for block in blocks:
        source = "\n" * block.line + block.text  # so that a traceback names the page's line
        exec(compile(source, str(ROOT / block.page), "exec"), names)


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_is_of_a_kind_that_is_checked(block: Block) -> None:
    assert block.kind in CHECKED | set(NOT_RUN), f"a block of kind {block.kind!r} is run by nobody"


RECIPES, SERVED = "CONTRIBUTING.md", "docs/http.md"
PYTHON_PAGES = sorted({block.page for block in of_kind("python")} - {RECIPES, SERVED})


@pytest.mark.parametrize("page", PYTHON_PAGES)
def test_the_python_of_a_page_runs(page: str, place: Path, hub: HubStandIn) -> None:
    hub.accounts[TOKEN] = ("user", "write")
    run([block for block in of_kind("python") if block.page == page], {"__name__": "__main__"})


def test_the_floors_are_told_in_their_order() -> None:
    text = (
        (ROOT / RECIPES)
        .read_text(encoding="utf-8")
        .partition("### The floors\n")[2]
        .partition("`training/`")[0]
    )
    told = [name for name in re.findall(r"`(\w+)`", text) if name != "sdtalk"]
    assert told == [name for name in ORDER if name in told] and {"motion", "rendering", "pipeline"} <= set(
        told
    )
    assert {name for name in ORDER if name not in told} == {"_version", "progress", "stopwatch", "__main__"}


FLOORS = (
    "test_every_part_of_training_has_its_floor",
    "test_no_modules_of_training_import_each_other_in_a_circle",
)


def test_following_the_recipes_gives_what_they_say(tmp_path: Path) -> None:
    """In a copy of the repository, whose own tests then say whether new parts have their place."""
    blocks = [block for block in of_kind("python", "diff") if block.page == RECIPES]
    assert {block.page for block in of_kind("diff")} == {RECIPES}
    new = files_of(blocks)
    assert len(new) == len([block for block in blocks if block.kind == "python"]), "a block names no file"
    assert not [name for name in new if (ROOT / name).exists()]
    files = new | changed_files(blocks)
    copy_with(files, tmp_path)
    tests = [name for name in new if name.startswith("tests/")]
    tests += ["tests/test_loss_terms.py::test_every_picture_term_has_a_gradient"]
    tests += [f"tests/test_layering.py::{test}" for test in FLOORS]
    tests += [f"tests/test_layering.py::test_imports_go_one_way[{n}]" for n in new if n.startswith("sdtalk/")]
    code = [name for name in files if name.endswith(".py")]
    modules = [name.removesuffix(".py").replace("/", ".") for name in new if not name.startswith("tests/")]
    checked = (
        f"--jaxtyping-packages={','.join(modules)},beartype.beartype"  # all others are checked elsewhere
    )
    for words in (
        ["ruff", "check", *code],
        ["ruff", "format", "--check", *code],
        ["pytest", "-p", "no:cacheprovider", "-o", f"addopts=-q {checked}", *tests],
    ):
        done = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(tmp_path)},
            text=True,
            capture_output=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("block", of_kind("bash"), ids=str)
def test_every_command_is_understood(block: Block, place: Path) -> None:
    assert list(commands(block.text)), "there is no command"
    check(block.text)


SPANS = sorted({(page, span) for page in PAGES for span in code_spans(page) if is_command(span)})


@pytest.mark.parametrize(("page", "span"), SPANS, ids=lambda part: getattr(part, "name", part))
def test_every_command_in_a_sentence_is_understood(page: Path, span: str, place: Path) -> None:
    check_span(span)


@pytest.mark.parametrize("block", of_kind("json", "yaml"), ids=str)
def test_data_can_be_read(block: Block) -> None:
    assert json.loads(block.text) if block.kind == "json" else yaml.safe_load(block.text)


@pytest.mark.parametrize("block", of_kind("csv"), ids=str)
def test_tables_of_jobs_can_be_read(block: Block, place: Path) -> None:
    (place / "jobs.csv").write_text(block.text)
    jobs = read_jobs(place / "jobs.csv")
    assert len(jobs) == len(block.text.splitlines()) - 1 and not any(job.problem for job in jobs)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        name, _, anchor = target.partition("#")
        there = page.parent / name if name else page
        assert there.exists(), f"{target} leads nowhere"
        generated = anchor.startswith("sdtalk.")  # headings that the site's builder makes of docstrings
        assert not anchor or generated or anchor in anchors(there), f"{target}: there is no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_tests_that_are_named_exist(page: Path) -> None:
    for span in code_spans(page):
        if found := re.fullmatch(r"((?:tests|training|sdtalk|benchmarks|docs)/[\w/.-]+)(?:::(\w+))?", span):
            path = ROOT / found[1]
            assert path.exists(), f"there is no {span}"
            assert not found[2] or f"def {found[2]}(" in path.read_text(encoding="utf-8"), (
                f"there is no {span}"
            )


class Shown(doctest.OutputChecker):
    """What an example does not show may be anything."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return not want or super().check_output(want, got, optionflags)


def examples() -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder()
    found = finder.find(sdtalk, "sdtalk")
    for module in (sdtalk, sdtalk.batch, sdtalk.export):
        for name in module.__all__:
            found += finder.find(getattr(module, name), name)
    return [test for test in found if test.examples]


@pytest.mark.parametrize("test", examples(), ids=lambda test: test.name)
def test_the_example_of_a_docstring_holds(
    test: doctest.DocTest, pipeline: SDTalkPipeline, place: Path, hub: HubStandIn
) -> None:
    hub.accounts[TOKEN] = ("user", "write")
    public = {
        name: getattr(module, name)
        for module in (sdtalk, sdtalk.batch, sdtalk.export)
        for name in module.__all__
    }
    test.globs = public | {"pipeline": pipeline}
    told: list[str] = []
    runner = doctest.DocTestRunner(Shown(), optionflags=doctest.ELLIPSIS)
    assert runner.run(test, out=told.append).failed == 0, "".join(told)


@pytest.mark.parametrize("name", [n for n in sdtalk.__all__ if not n.startswith("_")])
def test_every_public_name_has_an_example(name: str) -> None:
    assert ">>>" in (getattr(sdtalk, name).__doc__ or "")


@pytest.fixture
def page_url(pipeline: SDTalkPipeline, place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a page with the bundled model."""
    from sdtalk.demo.model_cache import ModelCache
    from sdtalk.demo.page import LAUNCH_OPTIONS, build

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(place / "gradio"))
    page = build(ModelCache.of_one(pipeline))
    page.queue().launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, **LAUNCH_OPTIONS)
    yield page.local_url.rstrip("/")
    page.close()


def test_the_http_interface_answers_as_its_page_says(page_url: str, place: Path) -> None:
    blocks = [Block(b.page, b.line, b.kind, b.text.replace(PAGE_URL, page_url)) for b in BLOCKS]
    blocks = [block for block in blocks if block.page == SERVED and page_url in block.text]
    video, names = place / "talk.mp4", {}
    for block in blocks:
        if block.kind == "python":
            run([block], names)
        elif shutil.which("curl"):
            done = subprocess.run(["bash", "-e"], input=block.text, text=True, capture_output=True)
            assert done.returncode == 0, done.stdout + done.stderr
            names[block.line] = done.stdout
        if "talk.mp4" in block.text and video.exists():
            assert video.read_bytes()[4:8] == b"ftyp", str(block)
            video.unlink()
    assert Path(names["video"]).stat().st_size > 1000
    if shutil.which("curl"):
        told = [json.loads(text) for text in names.values() if isinstance(text, str) and text[:1] == "{"]
        shown = [json.loads(block.text) for block in BLOCKS if block.page == SERVED and block.kind == "json"]
        job, health = told
        assert set(shown[0]) == set(job) and set(shown[2]) == set(health), "the page shows other fields"
    assert not list(place.glob("sdtalk-*")), "a work folder has stayed"


def test_the_http_page_names_every_parameter() -> None:
    from sdtalk.demo.api_form import FIELDS

    rows = (ROOT / SERVED).read_text(encoding="utf-8").partition("## Jobs")[0]
    assert sorted(re.findall(r"^\| `(\w+)`", rows, re.MULTILINE)) == sorted(FIELDS)
