"""Model card of a run: data, settings, limits, and the metrics of an evaluation; nothing is made up.

`sdtalk.weights.model_card` has the text that every model shares, `sdtalk/assets/model_card.md` the template.
"""

from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard

from sdtalk.config import SDTalkConfig
from sdtalk.errors import InputError
from sdtalk.weights.model_card import NOT_STATED, Card, card_text
from training.data.entries import SPLITS, ClipEntry
from training.data.index import Index
from training.settings import settings_to_dict
from training.train_settings import TrainSettings

HUB_DATA = "hf://datasets/"
FRAMES_AN_HOUR = 25 * 3600
PRIVATE = ("output", "hub", "log", "checkpoints")
"""Settings that say more about the machine than about the model."""

NOT_YET = (
    "Not measured yet: no PSNR, SSIM, LPIPS, landmark distance, Sync-C or other figure is known of these weights. "
    "`training/evaluate.py DATA --model {name} -o RESULTS` measures them, and `python -m training.publish` writes them "
    "here."
)
WEIGHTS_LICENCE = (
    "The weights: {licence}. The package is under Apache-2.0. What the weights were learned from has licences of its "
    "own (HDTF is under CC-BY-4.0; MEAD and FLAME are for research), and the people shown have rights, too."
)
STAGE_1 = (
    "**It does not speak.** Stage 1 trains the reconstruction only; the motion fields and the audio encoder are as "
    "they were at its start."
)
ABLATIONS = {
    "completion_branch": "**An ablation without the completion branch**: nothing stands in for what the photo hides of "
    "eyes, lips and mouth.",
    "fine_field": "**An ablation without the fine motion field**: one field moves everything.",
}


def card_of_run(
    config: SDTalkConfig, settings: TrainSettings, index: Index, step: int, processes: int = 1
) -> str:
    """The README.md of a run's model.

    Args:
        config: Of the model.
        settings: Of the run.
        index: The data it sees.
        step: Steps done.
        processes: How many train together.
    """
    name, source = settings.hub.repo or "USER/NAME", settings.data.source
    licence = settings.hub.licence
    card = Card(
        title=name.rpartition("/")[2] if settings.hub.repo else f"SDTalk {config.name}",
        source=name,
        licence=WEIGHTS_LICENCE.format(licence=licence or "not stated by whoever trained them"),
        licence_id=licence,
        data=describe_data(index.clips, source, settings.data.split),
        training=_training(settings, step, processes),
        measured=NOT_YET.format(name=name),
        limits=_limits(config, settings, index, step),
        head={"datasets": [_hub_data(source)]} if source.startswith(HUB_DATA) else {},
    )
    return card_text(config, card)


def describe_data(clips: Iterable[ClipEntry], source: str, split: str) -> str:
    """What a data set holds, without names of people."""
    clips = list(clips)
    address = _hub_data(source) if source.startswith(HUB_DATA) else ""
    where = (
        f"[{address}](https://huggingface.co/datasets/{address})" if address else f"`{PurePath(source).name}`"
    )
    rows = []
    for part in SPLITS:
        for dataset in sorted({c.dataset for c in clips if c.split == part}):
            chosen = [c for c in clips if (c.split, c.dataset) == (part, dataset)]
            people = len({c.person for c in chosen})
            hours = sum(c.frames for c in chosen) / FRAMES_AN_HOUR
            speech = sum(c.frames for c in chosen if c.own_speech) / FRAMES_AN_HOUR
            used = "yes" if part == split else "no"
            rows.append(
                f"| {part} | {dataset or '-'} | {used} | {people} | {len(chosen)} | {hours:.3g} | {speech:.3g} |"
            )
    return "\n".join([
        f"{where}, prepared by `training/prepare.py`; people of one split are in no other.",
        "",
        "| split | from | trained on | people | clips | hours | with the speaker's own voice |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
        "Where the videos come from, their licences and the consent of the people shown: "
        + NOT_STATED[0].lower()
        + NOT_STATED[1:],
    ])  # fmt: skip


def _hub_data(source: str) -> str:
    return source.removeprefix(HUB_DATA).partition("@")[0].strip("/")


def _training(settings: TrainSettings, step: int, processes: int) -> str:
    batch = settings.batch_size * settings.accumulation * processes
    start = settings.start or "random weights" + (", DINOv2's pretrained" if settings.size == "base" else "")
    return "\n".join([
        f"Stage {settings.stage} of the paper's two, {step:,} of {settings.steps:,} steps with batches of {batch}, "
        f"from {_last_names(start)}:",
        "",
        "```bash",
        "accelerate launch training/train.py settings.yaml",
        "```",
        "",
        "with these settings:",
        "",
        "```yaml",
        yaml.safe_dump(_published(settings), sort_keys=False, allow_unicode=True).rstrip(),
        "```",
    ])  # fmt: skip


def _published(settings: TrainSettings) -> dict[str, Any]:
    """Settings that can be shown to anybody: without this machine's paths."""
    values = {name: value for name, value in settings_to_dict(settings).items() if name not in PRIVATE}
    values["data"] = values["data"] | {"source": _last_names(settings.data.source)}
    for name in ("start", "backbone", "perceptual_file"):
        if values.get(name):
            values[name] = _last_names(str(values[name]))
    return values


def _last_names(source: str) -> str:
    """A path's last name, since the rest tells about the machine; Hub names stay."""
    local = PurePath(source).is_absolute() or source.startswith(("~", "."))
    return PurePath(source).name if local or source.count("/") > 1 and "://" not in source else source


def _limits(config: SDTalkConfig, settings: TrainSettings, index: Index, step: int) -> tuple[str, ...]:
    limits = [text for field, text in ABLATIONS.items() if not getattr(config, field)]
    if settings.stage == 1:
        limits.append(STAGE_1)
    if step < settings.steps:
        limits.append(f"**Not finished**: saved after step {step:,} of {settings.steps:,}.")
    seen = index.of(settings.data.split)
    people = len({clip.person for clip in seen})
    if people < 50:
        limits.append(f"**Little data**: {people} people in training. Faces unlike theirs will look wrong.")
    return tuple(limits)


def with_results(card: str, results: Mapping[str, Any]) -> str:
    """A card with what `training/evaluate.py` found: a section for people, and `model-index` for the Hub.

    Args:
        card: A README.md that `card_of_run` wrote; what was measured before is replaced.
        results: What results.json holds.

    Raises:
        InputError: The card has no section "Measured", or these are no results.
    """
    made = ModelCard(card, ignore_metadata_errors=True)
    try:
        section, found = _measured(results), _model_index(results)
        before, _, rest = made.text.partition("\n## Measured\n")
        _, heading, after = rest.partition("\n## ")
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        remedy = "Give results.json as training/evaluate.py writes it."
        problem = f"{error} is missing" if isinstance(error, KeyError) else f"they are none ({error})"
        raise InputError("results of an evaluation", problem, remedy) from error
    if not heading:
        raise InputError("README.md", "it has no section 'Measured'", "Use the one that training wrote.")
    title = before.strip().partition("\n")[0].removeprefix("# ")
    made.text = f"{before}\n## Measured\n\n{section}\n{heading}{after}"
    made.data.model_name, made.data.eval_results = title, found
    if not found:
        made.data.eval_results = made.data.model_name = None
    return str(made)


def _measured(results: Mapping[str, Any]) -> str:
    figures, groups = results["figures"], results["groups"]
    everything = list(groups.values())[-1]
    shown = [name for name in figures if name in everything["figures"]]
    lines = [f"{_last_names(results['data'])}, protocol {_protocol(results)}; means over clips:", ""]
    for topic in dict.fromkeys(figures[name].get("topic", "") for name in shown):
        columns = [name for name in shown if figures[name].get("topic", "") == topic]
        lines += ["| data | clips | " + " | ".join(figures[name]["title"] for name in columns) + " |"]
        lines += ["|---|---|" + "---|" * len(columns)]
        for group, part in groups.items():
            cells = [_number(part["figures"].get(name), figures[name]["digits"]) for name in columns]
            lines += [f"| {group} | {part['clips']} | " + " | ".join(cells) + " |"]
        lines += [""]
    lines += [f"- {figures[name]['title']}: {figures[name]['meaning']}." for name in shown]
    absent: dict[str, list[str]] = {}
    for name, why in everything["missing"].items():
        absent.setdefault(why, []).append(figures[name]["title"])
    if absent:
        lines += ["", "Not measured:", "", *(f"- {', '.join(names)}: {why}" for why, names in absent.items())]
    if results["failed"]:
        lines += ["", f"{len(results['failed'])} clips failed and are not in the means."]
    return "\n".join(lines)


def _protocol(results: Mapping[str, Any]) -> str:
    """How it was rendered; with measured codes the figures say nothing of what the model hears."""
    return str(results["protocol"]) + (", measured mouth codes" if results.get("codes") == "measured" else "")


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _model_index(results: Mapping[str, Any]) -> list[EvalResult]:
    figures = results["figures"]
    groups = {name: part for name, part in results["groups"].items() if part["figures"]}
    chosen = list(groups.items())[:-1] or list(groups.items())  # the last one is all of them together
    return [
        EvalResult(
            task_type="image-to-video",
            task_name="Talking head",
            dataset_type=group.lower().replace(" ", "-"),
            dataset_name=f"{group} ({_protocol(results)}, {part['clips']} clips)",
            metric_type=name,
            metric_name=figures[name]["title"],
            metric_value=round(value, figures[name]["digits"] + 1),
        )
        for group, part in chosen
        for name, value in part["figures"].items()
        if figures[name]["higher"] is not None
    ]
