"""Tests of the page's languages: catalogues are complete and alike, nothing that is shown is outside of them."""

import ast
import itertools
import re
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest
from gradio.context import LocalContext

from sdtalk.config import SDTalkConfig
from sdtalk.demo import shown
from sdtalk.demo.gallery import PORTRAITS
from sdtalk.demo.inputs import Given
from sdtalk.demo.languages import LANGUAGES, NUMBERED, asked_language, catalogue, translated
from sdtalk.demo.model_cache import ModelCache
from sdtalk.demo.page import LAUNCH_OPTIONS, build
from sdtalk.demo.result_cards import WORDS
from sdtalk.demo.stage import wrong
from sdtalk.demo.waiting_line import WaitingLine
from sdtalk.errors import InputError
from sdtalk.model import SDTalk
from sdtalk.pipeline import SDTalkPipeline
from sdtalk.tracking.tracker import Tracker

PACKAGE = Path(__file__).parent.parent / "sdtalk"
OTHERS = LANGUAGES[1:]
NAMES = {"SDTalk", "mini", "Run", "9:16", "1:1", "16:9", *PORTRAITS.values(), *map(str, range(9))}
"""What is the same in all languages, or never seen."""

SAID_TO_VISITORS = [
    *("demo/inputs", "demo/dubbing", "demo/speech_text", "demo/three_dimensions", "demo/waiting_line"),
    *("demo/gpu_loan", "speech/audio", "tracking/tracker", "tracking/smoothing", "tracking/portrait_notes"),
    *("video/reader", "dubbing/dub", "dubbing/clip_track", "speech/synthesis", "tracking/found_faces"),
]
"""Modules whose errors and notes a visitor can get to see."""

TO_PROGRAMS = "Send "
"""Begins what only programs are told."""


def untranslated(text: str) -> list[str]:
    books = {code: catalogue(code) for code in OTHERS}
    return [code for code, book in books.items() if text not in book.texts and book.translated(text) == text]


@pytest.mark.parametrize("code", OTHERS)
def test_catalogues_have_the_same_keys_and_fill_in_the_same(code: str) -> None:
    texts = catalogue(code).texts
    assert texts.keys() == catalogue("de").texts.keys()
    for key, text in texts.items():
        holes = [re.findall(r"\{.*?\}", each) for each in (key, text)]
        assert text.strip() == text and text, key
        assert holes[0] == holes[1] and set(holes[0]) <= {"{}", "{#}"}, key


def test_the_best_liked_language_that_is_here_is_taken() -> None:
    wishes = {
        "fr-CH, fr;q=0.9, en;q=0.8": "fr",
        "it, de;q=0.5, ja;q=0.7": "ja",
        "zh-TW": "zh",
        "en-GB,de": "en",
    }
    wishes |= {"": "en", "*": "en", "xx": "en", "de;q=0": "en", "; ;,;q=": "en"}
    assert {accept: asked_language(accept) for accept in wishes} == wishes


@pytest.fixture(scope="module")
def page() -> gr.Blocks:
    pipeline = SDTalkPipeline(SDTalk(SDTalkConfig()).eval().requires_grad_(False), Tracker.from_bundled())
    return build(ModelCache.of_one(pipeline))


def test_every_text_of_the_pages_is_in_the_catalogues(page: gr.Blocks) -> None:
    sent = LAUNCH_OPTIONS["i18n"].translations_dict
    assert sent.keys() == {"zh-CN", "es", "fr", "de", "ja"}
    texts: set[str] = {name for _, name, _ in page.pages if name != "Home"}
    for part in page.get_config_file()["components"]:
        props = part["props"]
        texts |= {props.get(name) for name in ("label", "info", "placeholder", "main_page_name")} - {None, ""}
        if part["type"] in ("markdown", "button", "downloadbutton") and isinstance(props.get("value"), str):
            whole = " ".join(props["value"].split())
            texts |= {whole} if whole in sent["de"] else {*props["value"].split("\n")}
        texts |= {name for name, _ in props.get("choices") or []} | set(props.get("sample_labels") or [])
    plain = {
        NUMBERED.sub(r"\2", text)
        for text in texts
        if text and " (espeak" not in text and " (piper" not in text
    }
    assert len(plain) > 70, "the texts were not found"
    assert not [text for text in plain - NAMES if any(text not in texts for texts in sent.values())]


def possible(node: ast.expr, scope: ast.AST) -> list[str]:
    """What an expression can be, as far as it is written there; 7 stands for the rest."""
    if isinstance(node, ast.Constant):
        return [str(node.value)]
    if isinstance(node, ast.FormattedValue):
        return possible(node.value, scope)
    if isinstance(node, ast.JoinedStr):
        return [
            "".join(parts) for parts in itertools.product(*(possible(part, scope) for part in node.values))
        ]
    if isinstance(node, ast.IfExp):
        return possible(node.body, scope) + possible(node.orelse, scope)
    if isinstance(node, ast.Name):
        assigned = (
            each.value
            for each in ast.walk(scope)
            if isinstance(each, ast.Assign)
            and any(isinstance(t, ast.Name) and t.id == node.id for t in each.targets)
        )
        return [text for value in assigned for text in possible(value, scope)] or ["7"]
    return ["7"]


@pytest.mark.parametrize("module", SAID_TO_VISITORS)
def test_every_error_and_note_is_in_the_catalogues(module: str) -> None:
    tree = ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))
    texts: list[str] = []
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                if node.func.id in ("InputError", "LineFull") and len(node.args) == 3:
                    texts += [text for part in node.args[1:] for text in possible(part, function)]
    for node in ast.walk(tree):  # notes are sentences
        if isinstance(node, ast.Constant | ast.JoinedStr):
            texts += [
                text for text in possible(node, tree) if re.fullmatch(r"[A-Z][^\n]* [^\n]*[a-z)]\.", text)
            ]
    docstrings = {
        ast.get_docstring(node, clean=False) for node in ast.walk(tree) if isinstance(node, DOCUMENTED)
    }
    told = {
        text for text in texts if re.search("[a-z]{3}", text) and not text.startswith(TO_PROGRAMS)
    } - docstrings
    loose = {
        node.value.value for node in ast.walk(tree) if isinstance(node, ast.Expr) and is_text(node.value)
    }
    missing = {text: codes for text in told - loose if (codes := untranslated(text))}
    assert not missing


DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_every_stage_of_the_work_is_told_in_all_languages() -> None:
    line = WaitingLine(1, 9)
    places = [line.join(50.0) for _ in range(3)]
    lines = [shown.waiting(place) for place in places[1:]] + [
        shown.finished(7.0, 4000.0),
        shown.expected(30.0, 100.0, 0.0),
    ]
    lines += [shown.expected(30.0, 100.0, 9.0), *(f"{doing} …" for doing in shown.DOING.values())]
    lines += [
        shown.far(stage, *far) for stage in shown.DOING for far in ((0, 0, None), (3, 50, None), (3, 50, 9.0))
    ]
    for text in lines:
        numbers = set(re.findall(r"\d+", text))
        for code in OTHERS:
            told = catalogue(code).translated(text)
            assert told != text and numbers <= set(re.findall(r"\d+", told)), (code, told)
            assert code not in ("zh", "ja") or not re.search("[A-Za-z]{2}", told), told


def test_the_words_of_the_history_are_in_the_catalogues() -> None:
    for words in WORDS.values():
        assert not untranslated(re.sub(r"\{\w+\}", "7", words)), words
        if "{" in words:  # some are filled in by the browser
            holes = re.findall(r"\{\w+\}", words)
            assert all(hole in catalogue("ja").translated(words) for hole in holes if hole != "{minutes}"), (
                words
            )


def test_an_error_is_told_to_a_visitor_in_their_language_and_to_programs_in_english() -> None:
    error = InputError("a: b. jpg", "the picture is damaged (cut)", "Save it again as a JPEG or PNG file.")
    given = Given(None, None, None, expression=0, model="mini")
    LocalContext.request.set(SimpleNamespace(headers={"accept-language": "de-DE,de;q=0.9"}))
    try:
        assert wrong("Portrait: there is none yet. Please add it.").endswith(
            ">Porträt: es fehlt noch. Bitte hinzufügen.</p>"
        )
        assert translated("Face 2: The mouth seems to be covered; if it is, the result will look odd.") == (
            "Gesicht 2: Der Mund scheint verdeckt; wenn ja, wird das Ergebnis seltsam."
        )
        assert translated("Nobody has translated this. 7") == "Nobody has translated this. 7"
        assert given.told(error, None) == str(error)
    finally:
        LocalContext.request.set(None)
    assert "Please add it" in wrong("Portrait: there is none yet. Please add it.")
