"""Tests of `sdtalk batch`: each photo is looked at once, bad rows stop nobody, finished videos are skipped."""

import json
import os
import signal
import subprocess
import sys
import time
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from toy import save_portrait, save_speech, toy_model

from sdtalk.batch import Job, JobResult, read_jobs, run_batch
from sdtalk.cli.main import main
from sdtalk.errors import InputError
from sdtalk.options import TalkOptions
from sdtalk.pipeline import SDTalkPipeline
from sdtalk.tracking.tracker import Tracker
from sdtalk.video import read_frames

STILL = TalkOptions(pose="still", blink="none", size=64)
FIELDS = {"pose": "still", "blink": "none", "size": 64}


@pytest.fixture(scope="module")
def pipeline() -> SDTalkPipeline:
    return SDTalkPipeline(toy_model(), Tracker.from_bundled())


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Two people and a recording of two frames."""
    folder = tmp_path / "files"
    folder.mkdir()
    save_portrait(folder / "ann.png")
    with Image.open(folder / "ann.png") as image:
        ImageOps.mirror(image).save(folder / "bob.png")
    save_speech(folder / "hi.wav", 0.08)
    save_speech(folder / "ho.wav", 0.04)
    return folder


@pytest.fixture
def reconstructed(pipeline: SDTalkPipeline, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the photos looked at, in order; two heads never live at once."""
    names: list[str] = []
    alive: list[weakref.ref] = []
    real = pipeline.reconstruct

    def reconstruct(portrait: Path, **place: int) -> object:
        assert not any(head() for head in alive), "the head of the last photo is still there"
        names.append(Path(portrait).name)
        head = real(portrait, **place)
        alive.append(weakref.ref(head))
        return head

    monkeypatch.setattr(pipeline, "reconstruct", reconstruct)
    return names


def frames_of(path: Path | None) -> np.ndarray:
    assert path is not None
    return np.stack(list(read_frames(path)))


def outcomes(results: list[JobResult]) -> list[str]:
    return [result.outcome for result in results]


def names(results: list[JobResult]) -> list[str]:
    return [result.path.name if result.path else "" for result in results]


def test_every_photo_is_looked_at_once(
    pipeline: SDTalkPipeline, files: Path, tmp_path: Path, reconstructed: list[str]
) -> None:
    (files / "again").mkdir()
    (files / "again" / "ann.png").write_bytes((files / "ann.png").read_bytes())
    wide = replace(STILL, mouth=2.0)
    told: list[str] = []
    jobs = [
        Job(files / "ann.png", files / "hi.wav", options=STILL),
        Job(files / "bob.png", files / "hi.wav", options=STILL),
        Job(files / "ann.png", files / "ho.wav", "sub/named.mp4", wide),
        Job(files / "bob.png", files / "ho.wav", options=STILL),
        Job(files / "again" / "ann.png", files / "hi.wav", options=wide),  # the same photo, elsewhere
    ]
    results = run_batch(pipeline, jobs, tmp_path / "out", lambda stage, *_: told.append(stage))
    assert reconstructed == ["ann.png", "bob.png"]
    assert outcomes(results) == ["made"] * 5 and [r.row for r in results] == [1, 2, 3, 4, 5]
    assert names(results) == ["ann_hi.mp4", "bob_hi.mp4", "named.mp4", "bob_ho.mp4", "ann_hi_2.mp4"]
    assert [r.frames for r in results] == [2, 2, 1, 1, 2] and "The face is only" in results[0].note
    assert told[0] == "checking" and told[1] == "1/5 preparing" and told[-1] == "5/5 rendering"
    for job, result in list(zip(jobs, results, strict=True))[2:4]:
        alone = pipeline(job.portrait, job.speech, tmp_path / "alone.mp4", job.options).path
        assert np.array_equal(frames_of(result.path), frames_of(alone))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(
        ["ann_hi.mp4", "ann_hi_2.mp4", "batch.jsonl", "bob_hi.mp4", "bob_ho.mp4", "sub"]
    )


def test_what_is_finished_is_made_once(
    pipeline: SDTalkPipeline, files: Path, tmp_path: Path, reconstructed: list[str]
) -> None:
    jobs = [
        Job(files / "ann.png", files / "hi.wav", options=replace(STILL, mouth=mouth)) for mouth in (0.5, 1.0)
    ]
    jobs.append(Job(files / "bob.png", files / "hi.wav", options=STILL))
    first = run_batch(pipeline, jobs, tmp_path)
    assert names(first) == ["ann_hi.mp4", "ann_hi_2.mp4", "bob_hi.mp4"]
    reconstructed.clear()

    again = run_batch(pipeline, jobs, tmp_path)
    assert outcomes(again) == ["skipped"] * 3 and names(again) == names(first) and not reconstructed

    new = Job(files / "ann.png", files / "hi.wav", options=replace(STILL, mouth=2.0))
    moved = run_batch(pipeline, [new, jobs[1], jobs[2], jobs[0]], tmp_path)
    assert outcomes(moved) == ["made", "skipped", "skipped", "skipped"]
    assert names(moved) == ["ann_hi_3.mp4", "ann_hi_2.mp4", "bob_hi.mp4", "ann_hi.mp4"]

    jobs[1] = replace(jobs[1], options=replace(STILL, mouth=0.0))  # a changed row, under its old name
    changed = run_batch(pipeline, jobs, tmp_path)
    assert outcomes(changed) == ["skipped", "made", "skipped"] and names(changed) == names(first)

    save_speech(files / "hi.wav", 0.12)
    assert [r.frames for r in run_batch(pipeline, jobs, tmp_path)] == [3, 3, 3]
    (tmp_path / "bob_hi.mp4").unlink()
    assert outcomes(run_batch(pipeline, jobs, tmp_path)) == ["skipped", "skipped", "made"]
    other = SDTalkPipeline(toy_model(trained=False), pipeline.tracker)
    assert outcomes(run_batch(other, jobs[:1], tmp_path)) == ["made"]


def test_a_record_that_was_cut_short(pipeline: SDTalkPipeline, files: Path, tmp_path: Path) -> None:
    jobs = [Job(files / f"{name}.png", files / "ho.wav", options=STILL) for name in ("ann", "bob")]
    run_batch(pipeline, jobs, tmp_path)
    record = tmp_path / "batch.jsonl"
    record.write_text(record.read_text()[:-20])
    assert outcomes(run_batch(pipeline, jobs, tmp_path)) == ["skipped", "made"]
    assert outcomes(run_batch(pipeline, jobs, tmp_path)) == ["skipped", "skipped"]
    record.write_text('[]\n{"output": 1}\nnonsense\n')
    assert outcomes(run_batch(pipeline, jobs, tmp_path)) == ["made", "made"]


def test_videos_of_other_files_are_left_alone(pipeline: SDTalkPipeline, files: Path, tmp_path: Path) -> None:
    (files / "b").mkdir()
    save_speech(files / "b" / "ho.wav", 0.08)
    (files / "bob.png").rename(files / "b" / "ann.png")
    (one,) = run_batch(pipeline, [Job(files / "ann.png", files / "ho.wav", options=STILL)], files)
    before = (files / "ann_ho.mp4").read_bytes()
    (other,) = run_batch(
        pipeline, [Job(files / "b" / "ann.png", files / "b" / "ho.wav", options=STILL)], files
    )
    assert names([one, other]) == ["ann_ho.mp4", "ann_ho_2.mp4"]
    assert (files / "ann_ho.mp4").read_bytes() == before
    follow = replace(STILL, pose=str(files / "ann_ho_2.mp4"))  # an input is in the way
    jobs = [Job(files / "b" / "ann.png", files / "b" / "ho.wav", options=follow)] * 2
    results = run_batch(pipeline, jobs, files)
    assert "ann_ho_2.mp4" not in names(results)


def test_outputs_that_cannot_be(pipeline: SDTalkPipeline, files: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    save_speech(tmp_path / "out" / "sound.mp4", 0.04)
    says = {
        "same.mp4": "",
        "SAME.mp4": "row 1 writes it, too",
        "../a.mp4": "no name in the folder",
        str(tmp_path / "a.mp4"): "no name in the folder",
        ".": "no name in the folder",
        "talk.avi": "ends in none of",
        "sound.mp4": "also an input",
        "deep/down/": "",
    }
    jobs = [Job(files / "ann.png", files / "ho.wav", output, STILL) for output in says]
    jobs.append(Job(files / "ann.png", tmp_path / "out" / "sound.mp4", "x.mp4", STILL))
    results = run_batch(pipeline, jobs, tmp_path / "out")
    for result, (output, words) in zip(results, says.items(), strict=False):
        assert (result.outcome == "made") == (not words) and words in result.error, output
    assert results[-2].path == tmp_path / "out" / "deep" / "down" / "ann_ho.mp4"
    assert outcomes(results[-1:]) == ["made"] and not (tmp_path / "a.mp4").exists()
    with pytest.raises(InputError, match="not a folder"):
        run_batch(pipeline, jobs, files / "ann.png")


BAD_ROWS: dict[str, tuple[dict[str, object], str]] = {
    "missing picture": ({"portrait": "no.png"}, "no.png: there is no such file"),
    "folder as a picture": ({"portrait": "."}, "not a file"),
    "no picture": ({"portrait": "hi.wav"}, "not a picture"),
    "no face": ({"portrait": "noise.png"}, "no face"),
    "missing sound": ({"speech": "no.wav"}, "no.wav: there is no such file"),
    "unreadable sound": ({"speech": "ann.png"}, "sound"),
    "unknown field": ({"colour": "red"}, "option 'colour': there is no such option"),
    "no number": ({"mouth": "loud"}, "'loud' is no number"),
    "number out of range": ({"size": 9}, "size 9"),
    "missing pose": ({"pose": "no.mp4"}, "files/no.mp4"),
    "missing background": ({"background": "redd"}, "no such colour and no such file"),
    "no portrait": ({"portrait": None}, "portrait: there is none"),
    "a number as a path": ({"speech": 3}, "3 is no path"),
}


def test_bad_rows_stop_nobody(
    pipeline: SDTalkPipeline, files: Path, tmp_path: Path, reconstructed: list[str]
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(files / "noise.png")
    good = {"portrait": "ann.png", "speech": "ho.wav", **FIELDS}
    rows = [json.dumps({**good, **change}) for change, _ in BAD_ROWS.values()]
    rows[6:6] = [json.dumps(good), "{", "[1]", "", json.dumps({**good, "portrait": "noise.png"})]
    (files / "jobs.jsonl").write_text("\n".join([*rows, json.dumps({**good, "output": "last.mp4"})]))
    results = run_batch(pipeline, files / "jobs.jsonl", tmp_path / "out")
    assert [r.row for r in results] == [*range(1, 10), *range(11, len(rows) + 2)]
    by_row = {r.row: r for r in results}
    assert names([by_row[7], by_row[len(rows) + 1]]) == ["ann_ho.mp4", "last.mp4"]
    assert "no JSON" in by_row[8].error and "no JSON object" in by_row[9].error
    bad = [by_row[row] for row in (*range(1, 7), *range(12, len(rows) + 1))]
    for (kind, (_, says)), result in zip(BAD_ROWS.items(), bad, strict=True):
        assert result.outcome == "failed" and says in result.error and "\n" not in result.error, kind
    assert reconstructed.count("noise.png") == 1, "what shows no face is not looked at again"
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"ann_ho.mp4", "last.mp4", "batch.jsonl"}


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_of_jobs(separator: str, tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").touch()
    table = [
        "portrait,speech,mouth,seed,label,output,pose,background",
        "a.png,b.wav,1.5,3,,,idle,white",
        "",
        'sub/a.png,b.wav,,,"made, up",x.mp4,clip.mp4,wall.png',
        "a.png,b.wav,,3.5,,,,",
        "a.png,b.wav,,,,,,,,",
    ]
    if separator != ",":
        table[3] = table[3].replace('"made, up"', "made_up")
        table = [row.replace(",", separator) for row in table]
    path = tmp_path / "jobs.csv"
    path.write_text("\r\n".join(table), encoding="utf-8-sig")
    first, second, third, fourth = read_jobs(path)
    assert first == Job(
        tmp_path / "a.png", tmp_path / "b.wav", None, TalkOptions(mouth=1.5, seed=3, background="white"), 2
    )
    label = "made, up" if separator == "," else "made_up"
    assert (second.row, second.output, second.portrait) == (4, "x.mp4", tmp_path / "sub" / "a.png")
    assert second.options == TalkOptions(
        label=label, pose=str(tmp_path / "clip.mp4"), background=str(tmp_path / "wall.png")
    )
    path.write_text("portrait,speech,exact\na,b,yes\na,b,0\na,b,\na,b,maybe\n", encoding="utf-8")
    *known, unknown = read_jobs(path)
    assert [job.options.exact for job in known] == [True, False, False]
    assert "exact" in unknown.problem and "'maybe' is no truth value" in unknown.problem
    assert third.row == 5 and "'3.5' is no whole number" in third.problem
    assert fourth.row == 6 and "cells" in fourth.problem


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("jobs.csv", None, "No such file"),
        ("jobs.txt", b"", "neither a .jsonl nor a .csv"),
        ("jobs.csv", b"", "lists no jobs"),
        ("jobs.csv", b"portrait,speech\n", "lists no jobs"),
        ("jobs.csv", b"portrait,sound\na,b\n", "no column 'speech'"),
        ("jobs.csv", b"portrait,speech,speech\na,b,c\n", "a column twice"),
        ("jobs.jsonl", b"\n\n", "lists no jobs"),
        ("jobs.jsonl", b"\xff\xfe", "not UTF-8"),
    ],
)
def test_files_that_list_no_jobs(name: str, content: bytes | None, says: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=says) as error:
        read_jobs(tmp_path / name)
    assert "\n" not in str(error.value) and str(error.value).startswith(str(tmp_path / name))


# the command


@pytest.fixture
def command(files: Path, tmp_path: Path) -> list[str]:
    toy_model().save_pretrained(files / "toy")
    rows = [{"portrait": "ann.png", "speech": "ho.wav"}, {"portrait": "no.png", "speech": "ho.wav"}]
    rows.append({"portrait": "bob.png", "speech": "ho.wav", "output": "b.mp4"})
    (files / "jobs.jsonl").write_text("\n".join(json.dumps({**row, **FIELDS}) for row in rows))
    return ["batch", str(files / "jobs.jsonl"), "-o", str(tmp_path / "out"), "--model", str(files / "toy")]


def test_the_command_tells_of_every_row(
    command: list[str], files: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    jobs, out = files / "jobs.jsonl", tmp_path / "out"
    assert main(command) == 2
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        f"{out / 'ann_ho.mp4'} (0.0 s)",
        f"{out / 'b.mp4'} (0.0 s)",
        f"2 made, 0 skipped (finished before), 1 failed: {out}",
    ]
    assert f"sdtalk: {jobs}, row 2: {files / 'no.png'}: there is no such file." in printed.err
    assert "2/2 rendering: 100%" in printed.err and "Traceback" not in printed.err
    save_portrait(files / "no.png")
    assert main([*command, "--quiet"]) == 0
    printed = capsys.readouterr()
    assert not printed.out and printed.err.startswith("Note: ") and printed.err.count("\n") == 1
    assert main(command) == 0
    assert capsys.readouterr().out == f"0 made, 3 skipped (finished before), 0 failed: {out}\n"
    assert main(["batch", "nothing.csv", "-o", str(out)]) == 2
    assert capsys.readouterr().err.startswith("sdtalk: nothing.csv: it cannot be read")


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_stopping_keeps_what_is_finished(command: list[str], files: Path, tmp_path: Path) -> None:
    save_speech(files / "long.wav", 60)
    rows = (files / "jobs.jsonl").read_text().splitlines()
    rows[1] = json.dumps({"portrait": "bob.png", "speech": "long.wav"})
    (files / "jobs.jsonl").write_text("\n".join(rows))
    out = tmp_path / "out"
    words = [sys.executable, "-m", "sdtalk", *command]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        limit = time.monotonic() + 120
        while not (out / "ann_ho.mp4").exists() or not list(out.glob(".*")):
            assert process.poll() is None and time.monotonic() < limit
            time.sleep(0.05)  # until the second one is being written
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 130 and "Traceback" not in errors, errors
    assert errors.endswith("finished videos stay, and are skipped when it is started again.\n")
    assert output == f"{out / 'ann_ho.mp4'} (0.0 s)\n"
    assert sorted(p.name for p in out.iterdir()) == ["ann_ho.mp4", "batch.jsonl"]
    save_speech(files / "long.wav", 0.04)
    results = run_batch(
        SDTalkPipeline.from_pretrained(files / "toy", "cpu"), files / "jobs.jsonl", tmp_path / "out"
    )
    assert outcomes(results) == ["skipped", "made", "made"]
