"""Tests of the model cards: the head that the Hub reads, the text, and evaluations written into them."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml
from hub_stand_in import OWNER, HubStandIn
from huggingface_hub import ModelCard
from toy import TOY, TOY_BASE

from sdtalk.config import BASE, SDTalkConfig
from sdtalk.errors import InputError
from sdtalk.model import SDTalk
from sdtalk.weights.model_card import Card, card_text
from training.data.entries import ClipEntry, Span
from training.data.index import Index
from training.evaluation.results import ClipResult, Results
from training.model_card import card_of_run, with_results
from training.publish import main
from training.settings import settings_from_dict
from training.train_settings import TrainSettings

ROOT = Path(__file__).parent.parent
SECTIONS = ["What it is", "Training data", "Training", "Measured", "Limits", "Licence", "Use"]


def settings(**changes: object) -> TrainSettings:
    values = {
        "stage": 2, "size": "mini", "output": "/home/me/runs/second", "steps": 4000, "batch_size": 4,
        "accumulation": 2, "start": "/home/me/runs/first/model", "data": {"source": "/home/me/sets/two people"},
        "optimiser": {"rates": {"fields": 1e-4}}, "losses": {"image": 1}, "hub": {"repo": "me/head"},
    }  # fmt: skip
    return settings_from_dict(TrainSettings, {**values, **changes}, "settings")


def clip(
    key: str, person: str, split: str, frames: int, own_speech: bool, dataset: str = "HDTF"
) -> ClipEntry:
    return ClipEntry(key, person, dataset, split, frames, own_speech, Span("clips/x.tar", 0, 1, 0), ())


INDEX = Index("face_mesh", "mel", 80, None, (
    clip("a_00", "Ada Secret", "train", 45_000, True), clip("a_01", "Ada Secret", "train", 45_000, False),
    clip("b_00", "Bob Secret", "train", 90_000, True, "MEAD"), clip("c_00", "Cem Secret", "test", 9_000, True),
))  # fmt: skip


def checked(text: str) -> ModelCard:
    """The card, with a head that the Hub's own library takes, all sections in order, and no gap left to fill."""
    card = ModelCard(text)
    assert card.data.library_name == "sdtalk" and card.data.pipeline_tag == "image-to-video"
    assert "talking-head" in card.data.tags
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == SECTIONS
    assert not re.search(r"\$\w|\$?\{\w|None", text)
    return card


def section(text: str, name: str) -> str:
    return text.partition(f"\n## {name}\n")[2].partition("\n## ")[0].strip()


def test_a_card_of_a_run_says_what_it_was_trained_on_and_how() -> None:
    text = card_of_run(replace(TOY, name="mini"), settings(), INDEX, 4000, processes=3)
    card = checked(text)
    assert 'from_pretrained("me/head")' in text and card.text.strip().startswith("# head")
    data = section(text, "Training data")
    assert (
        "| train | HDTF | yes | 1 | 2 | 1 | 0.5 |" in data
        and "| train | MEAD | yes | 1 | 1 | 1 | 1 |" in data
    )
    assert "| test | HDTF | no | 1 | 1 | 0.1 | 0.1 |" in data and "`two people`" in data
    training = section(text, "Training")
    assert "4,000 of 4,000 steps with batches of 24" in training and "accelerate launch" in training
    shown = yaml.safe_load(training.partition("```yaml\n")[2].partition("```")[0])
    assert shown["steps"] == 4000 and shown["optimiser"]["rates"] == {"fields": 1e-4}
    assert "Secret" not in text and "/home" not in text and "output" not in shown
    assert section(text, "Measured").startswith("Not measured yet: no PSNR")
    assert "Not finished" not in text and "It does not speak" not in text and "Little data" in text
    assert card.data.license is None and "not stated by whoever trained them" in section(text, "Licence")


def test_what_is_missing_or_left_out_is_said() -> None:
    config = replace(TOY, completion_branch=False, fine_field=False)
    hub = {"repo": "me/head", "licence": "cc-by-nc-4.0"}
    data = {"source": "hf://datasets/me/two-people@v1"}
    changed = settings(stage=1, optimiser={"rates": {"reconstructor": 1e-4}}, hub=hub, data=data)
    text = card_of_run(config, changed, INDEX, 100)
    card = checked(text)
    limits = section(text, "Limits")
    for words in ("It does not speak", "saved after step 100 of 4,000", "without the completion branch"):
        assert words in limits
    assert "no branch completes them; one motion field" in text
    assert card.data.license == "cc-by-nc-4.0" and card.data.datasets == ["me/two-people"]
    assert "https://huggingface.co/datasets/me/two-people" in text


@pytest.mark.parametrize("config", [TOY, BASE, TOY_BASE], ids=["mini", "base", "published"])
def test_a_model_saved_by_hand_says_that_nothing_is_known(config: SDTalkConfig) -> None:
    text = card_text(config, Card("SDTalk"))
    card = checked(text)
    assert card.data.license is None and text.count("Not stated by whoever saved this model.") == 3
    assert ("the authors' weights" in text) == (config is TOY_BASE)
    assert ("FLAME file" in text) == (config is not TOY)


def test_values_with_signs_of_the_template_stay_as_they_are() -> None:
    text = card_text(TOY, Card("It costs $data and ${head}", data="# no: heading", head={"note": "a: b # c"}))
    assert "# It costs $data and ${head}" in text and ModelCard(text).data.to_dict()["note"] == "a: b # c"


def test_every_card_forbids_the_same() -> None:
    ours = (ROOT / "model_card.md").read_text(encoding="utf-8")
    assert section(card_text(TOY, Card("SDTalk")), "Use") == section(ours, "Use")
    assert ours == (ROOT / "sdtalk" / "assets" / "mini" / "README.md").read_text(encoding="utf-8")


NONE = {"lpips": "no weights"}
RESULTS = Results(
    {"command": "training/evaluate.py", "model": "me/head", "data": "/home/me/set, split test", "protocol": "self"},
    [
        ClipResult("one", "p", "HDTF", "", 9, "sound", {"psnr": 20.0, "psnr_frozen": 18.0}, NONE, "s"),
        ClipResult("two", "q", "HDTF", "", 9, "sound", {"psnr": 22.5}, NONE, "s"),
        ClipResult("six", "r", "MEAD", "", 9, "sound", {"psnr": 24.5, "sync_c": 3.21}, NONE, "s"),
    ],
    [("seven", "no face")],
)  # fmt: skip


def test_results_come_into_the_card_for_people_and_for_the_hub() -> None:
    written = json.loads(json.dumps(RESULTS.as_json()))
    text = with_results(card_of_run(TOY, settings(), INDEX, 4000), written)
    text = with_results(text, written)  # the second replaces the first
    card = checked(text)
    found = {
        (r.dataset_name.partition(" ")[0], r.metric_type): r.metric_value for r in card.data.eval_results
    }
    assert found == {("HDTF", "psnr"): 21.25, ("MEAD", "psnr"): 24.5, ("MEAD", "sync_c"): 3.21}
    assert card.data.model_name == "head"
    measured = section(text, "Measured")
    assert "| HDTF | 2 | 21.25 | 18.00 |" in measured and "| all clips | 3 | 22.33 |" in measured
    assert (
        "| HDTF | 2 | - |" in measured and "| MEAD | 1 | 3.21 |" in measured
    )  # Sync-C, in the table of its topic
    assert "- LPIPS: no weights" in measured and "1 clips failed" in measured
    assert "/home" not in text and "Not measured yet" not in text
    assert section(text, "Training") == section(card_of_run(TOY, settings(), INDEX, 4000), "Training")


def test_results_that_are_none() -> None:
    card = card_of_run(TOY, settings(), INDEX, 4000)
    with pytest.raises(InputError, match="results of an evaluation: .*'figures' is missing"):
        with_results(card, {})
    with pytest.raises(InputError, match="results of an evaluation: they are none"):
        with_results(card, {"figures": {}, "groups": {}})
    with pytest.raises(InputError, match="no section 'Measured'"):
        with_results("---\nlicense: mit\n---\n# Mine\n", RESULTS.as_json())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "README.md").write_text(card_of_run(TOY, settings(), INDEX, 4000), encoding="utf-8")
    SDTalk(replace(TOY, plane_size=8)).save_pretrained(folder)
    (tmp_path / "results.json").write_text(json.dumps(RESULTS.as_json()))
    return folder


def test_publishing_a_model_with_its_figures(
    model: Path, hub: HubStandIn, capsys: pytest.CaptureFixture
) -> None:
    results = str(model.parent / "results.json")
    assert main([str(model), f"{OWNER}/head", "--results", results]) == 0
    assert capsys.readouterr().out.strip().endswith(hub.model().head.sha)
    assert hub.model().private and len(hub.model().commits) == 2
    card = ModelCard.load(f"{OWNER}/head")
    assert card.data.eval_results[0].metric_value == 21.25
    assert asdict(SDTalk.from_pretrained(f"{OWNER}/head").config) == asdict(replace(TOY, plane_size=8))


def _unreadable(model: Path, hub: HubStandIn) -> str:
    (model.parent / "results.json").write_text("{")
    return "no JSON that can be read"


def _no_card(model: Path, hub: HubStandIn) -> str:
    (model / "README.md").unlink()
    return "README.md: it cannot be read"


def _cut_short(model: Path, hub: HubStandIn) -> str:
    (model / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:-9])
    return "not a complete safetensors file"


def _no_hub(model: Path, hub: HubStandIn) -> str:
    hub.fail("POST .*/commit/", status=507, message="No room")
    return "the upload failed (507 No room). Try again"


@pytest.mark.parametrize("spoil", [_unreadable, _no_card, _cut_short, _no_hub])
def test_publishing_says_what_is_wrong(
    spoil, model: Path, hub: HubStandIn, capsys: pytest.CaptureFixture
) -> None:
    says = spoil(model, hub)
    assert main([str(model), f"{OWNER}/head", "--results", str(model.parent / "results.json")]) == 2
    line = capsys.readouterr().err.splitlines()[-1]  # after a progress bar
    assert line.startswith("error: ") and says in line
    assert ("model", f"{OWNER}/head") not in hub.store.repositories or len(hub.model().commits) == 1
