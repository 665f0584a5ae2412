"""Tests of the command line, run as users run it."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_up_flame import flame_2020, npy_of_object, site_landmarks, site_masks
from toy import save_portrait, save_speech, toy_model

from sdtalk import __version__
from sdtalk.cli.arguments import COMMANDS
from sdtalk.cli.bench import Benchmark, _timed, measure, resident_mb
from sdtalk.cli.bench_report import Report, as_json, as_text
from sdtalk.cli.main import main
from sdtalk.errors import InputError
from sdtalk.published.convert import Converted
from sdtalk.published.verify import Difference, Verification
from sdtalk.stopwatch import Stopwatch
from sdtalk.video import read_frames
from sdtalk.video.naming import output_path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    save_portrait(folder / "portrait.png")
    save_speech(folder / "speech.wav", 0.2)
    save_speech(folder / "long.wav", 60)
    toy_model().save_pretrained(folder / "toy")
    return folder


def command(files: Path, output: Path, speech: str = "speech.wav") -> list[str]:
    return [
        str(files / "portrait.png"),
        str(files / speech),
        "-o",
        str(output),
        "--model",
        str(files / "toy"),
    ]


def test_a_video_is_made_in_a_process_of_its_own(files: Path, tmp_path: Path) -> None:
    output = tmp_path / "new folder" / "talk.mp4"
    words = [sys.executable, "-m", "sdtalk", *command(files, output), "--size", "64", "--background", "white"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{output} (0.2 s)\n" and output.stat().st_size > 1000
    assert "rendering: 100%" in done.stderr and "Note: The face is only" in done.stderr
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr
    assert [p.name for p in output.parent.iterdir()] == ["talk.mp4"]


def test_a_label_is_written_into_the_frames(files: Path, tmp_path: Path) -> None:
    for name, label in (("plain.mp4", []), ("labelled.mp4", ["--label", "AI-generated"])):
        still = ["--pose", "still", "--blink", "none", "--size", "128"]
        assert main([*command(files, tmp_path / name), *still, *label]) == 0
    plain, labelled = (
        next(read_frames(tmp_path / name)).astype(int) for name in ("plain.mp4", "labelled.mp4")
    )
    change = np.abs(labelled - plain).max(2) > 40
    assert 20 < change.sum() < 0.1 * change.size, "a corner changes, the rest does not"
    assert main([*command(files, tmp_path / "o.mp4"), "--label", "x" * 1000]) == 2


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=["ctrl_c", "kill"])
def test_stopping_leaves_nothing(files: Path, tmp_path: Path, stop: signal.Signals) -> None:
    words = [sys.executable, "-m", "sdtalk", *command(files, tmp_path / "new" / "talk.mp4", "long.wav")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        limit = time.monotonic() + 120
        while not list(tmp_path.glob("new/.*")) and process.poll() is None and time.monotonic() < limit:
            time.sleep(0.05)  # until the video is being written
        process.send_signal(stop)
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert (
        "Traceback" not in errors
        and errors.endswith("sdtalk: stopped; nothing was written.\n")
        and not output
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "the following arguments are required"),
        (["a.png", "b.wav"], "-o/--output"),
        (["a.png", "b.wav", "-o", "o.mp4", "--size", "big"], "invalid int value: 'big'"),
        (["a.png", "b.wav", "-o", "o.mp4", "--colour", "red"], "unrecognized arguments"),
        (["reenact"], "clip"),
        (["bench", "--seconds", "many"], "invalid float"),
        (["convert"], "the following arguments are required: source, target"),
        (["convert", "SDGTalk.pt"], "the following arguments are required: target"),
        (["convert", "SDGTalk.pt", "out", "--verify=yes"], "ignored explicit argument 'yes'"),
        (["assets"], "the following arguments are required: action, asset, files"),
        (["assets", "remove", "flame", "x"], "invalid choice: 'remove'"),
        (["assets", "add", "smpl", "x"], "invalid choice: 'smpl'"),
        (["assets", "add", "flame"], "the following arguments are required: files"),
        (["doctor", "--all"], "unrecognized arguments: --all"),
    ],
)
def test_wrong_arguments_are_one_line(words: list[str], says: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and says in error
    assert error.startswith("sdtalk: ") and error.count("\n") == 1


def help_text(words: list[str], capsys: pytest.CaptureFixture) -> str:
    with pytest.raises(SystemExit) as stop:
        main(words)
    printed = capsys.readouterr()
    assert stop.value.code == 0 and not printed.err
    return printed.out


def test_help_names_every_option(capsys: pytest.CaptureFixture) -> None:
    model = ("--device", "--model", "--precision", "--compile")
    talk = (
        "--face",
        "--turn",
        "--pose",
        "--blink",
        "--background",
        "--size",
        "--seed",
        "--mouth",
        "--expression",
        "--label",
        "--exact",
        "--no-mark",
        "--sign",
        "--quiet",
        *model,
    )
    for words, options in (
        ([], (*COMMANDS, *talk, "--version", "examples:", "sdtalk photo.jpg speech.wav -o talk.mp4")),
        (["talk"], ("--output", ".mp4", ".webm", ".mov", ".gif", "PNG", "folder", *talk)),
        (["batch"], ("JOBS", ".csv", "--output FOLDER", "--quiet", *model)),
        (["reenact"], ("--portrait", "--target", "--background", "--exact", "--quiet", *model)),
        (["bench"], ("--seconds", "--json", *model)),
        (["convert"], ("source", "target", "--noise", "--alignment", "--verify", "--quiet")),
        (["assets"], ("add", "flame", "hubert")),
        (
            ["demo"],
            ("--model", "--device", "--host", "--port", "--share", "--auth", "--max-seconds", "--sign"),
        ),
        (["inspect"], ("FILE", "--json")),
        (["doctor"], ("asset", "weight", "librar")),
    ):
        text = help_text([*words, "--help"], capsys)
        assert all(option in text for option in options), words
        assert text.startswith(f"usage: sdtalk {' '.join(words)}")


def test_help_gives_every_command_one_line(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = help_text(["--help"], capsys).splitlines()
    first = lines.index("commands:") + 2
    assert [line.split()[0] for line in lines[first : first + len(COMMANDS)]] == list(COMMANDS)
    assert len(lines) < 40 and help_text(["-h"], capsys).splitlines() == lines


def test_the_version(capsys: pytest.CaptureFixture) -> None:
    assert help_text(["--version"], capsys) == f"sdtalk {__version__}\n"


@pytest.mark.parametrize("words", ["--help", "--version", "talk --help", "batch --help", "photo.png"])
def test_help_does_not_wait_for_pytorch(words: str) -> None:
    check = f"""
import sys
from sdtalk.cli.main import main
try:
    main({words.split()})
finally:
    assert not {{"torch", "numpy", "gradio"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert "Error" not in done.stderr and done.returncode == (2 if words == "photo.png" else 0)


def test_talk_is_what_the_first_word_stands_for_where_it_is_no_command(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    options = ["--size", "64", "--pose", "still"]
    for name, words in (("a.mp4", []), ("b.mp4", ["talk"])):
        assert main([*words, *command(files, tmp_path / name), *options]) == 0
    assert main([*options, *command(files, tmp_path / "c.mp4")]) == 0
    videos = [np.stack(list(read_frames(tmp_path / name))) for name in ("a.mp4", "b.mp4", "c.mp4")]
    assert np.array_equal(videos[0], videos[1]) and np.array_equal(videos[0], videos[2])


def test_quiet_leaves_notes_and_errors(files: Path, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    words = [*command(files, tmp_path / "talk.mp4"), "--size", "64", "--quiet"]
    assert main(words) == 0
    printed = capfd.readouterr()
    assert not printed.out and printed.err.startswith("Note: ") and printed.err.count("\n") == 1
    assert main([*words, "--mouth", "9"]) == 2
    printed = capfd.readouterr()
    assert not printed.out and printed.err.startswith("sdtalk: mouth 9.0")
    clip, again = str(tmp_path / "talk.mp4"), str(tmp_path / "again.mp4")
    assert main(["reenact", clip, "-o", again, "--model", str(files / "toy"), "--quiet"]) == 0
    printed = capfd.readouterr()
    assert not printed.out and "rendering" not in printed.err and Path(again).is_file()


def test_a_folder_as_output(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "here").mkdir()
    for folder in (str(tmp_path / "here"), f"{tmp_path / 'new' / 'folder'}/"):
        words = [*command(files, Path("o.mp4")), "--size", "64"]
        words[words.index("-o") + 1] = folder
        assert main(words) == 0
        made = Path(folder) / "portrait_speech.mp4"
        assert made.is_file() and capsys.readouterr().out == f"{made} (0.2 s)\n"
    clip = str(tmp_path / "here" / "portrait_speech.mp4")
    words = ["reenact", clip, "-o", str(tmp_path / "here"), "--target", str(tmp_path / "here")]
    assert main([*words, "--model", str(files / "toy")]) == 0
    names = {path.name for path in (tmp_path / "here").iterdir()}
    assert names == {f"portrait_speech{end}.mp4" for end in ("", "_reenacted", "_target")}


def test_which_outputs_are_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("here", "v1.2", "called.mp4"):
        Path(name).mkdir()
    made = {
        "here": "here/a_b.mp4",
        "here/": "here/a_b.mp4",
        "v1.2": "v1.2/a_b.mp4",
        ".": "a_b.mp4",
        "new/": "new/a_b.mp4",
        "new.mp4/": "new.mp4/a_b.mp4",
        "called.mp4": "called.mp4",
        "new": "new",
        "new.webm": "new.webm",
        "here/c.gif": "here/c.gif",
    }
    assert {name: output_path(name, "x/a.jpg", "b.tar.wav").as_posix() for name in made} == {
        name: path.replace("a_b", "a_b.tar") for name, path in made.items()
    }


def test_frames_that_are_made_again_take_the_place_of_the_old_ones(files: Path, tmp_path: Path) -> None:
    words = [*command(files, tmp_path / "frames"), "--size", "64"]
    assert main(words) == main([*words, "--seed", "1"]) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["frames"]
    assert {p.suffix for p in (tmp_path / "frames").iterdir()} == {".png", ".wav"}


def test_a_gif_says_that_it_has_no_sound(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([*command(files, tmp_path / "talk.gif"), "--size", "64"]) == 0
    assert "Note: " in (said := capsys.readouterr().err) and "A .gif has no sound." in said


def test_a_transparent_video_in_a_folder_is_a_webm(files: Path, tmp_path: Path) -> None:
    words = [*command(files, tmp_path), "--size", "64", "--background", "transparent"]
    assert main(words) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["portrait_speech.webm"]
    assert main([*words[:-1], "white"]) == 0 and (tmp_path / "portrait_speech.mp4").is_file()


def test_the_full_model_is_told_where_it_comes_from(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = command(files, tmp_path / "o.mp4")[:-1]
    error = error_message([*words, "base"], capsys)
    assert "sdtalk convert SDGTalk.pt FOLDER" in error and "--model FOLDER" in error
    assert "train it" in error and "sdtalk bench --model base" in error


def test_doctor_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "sdtalk", "doctor"]
    done = subprocess.run(
        words, capture_output=True, text=True, env={**os.environ, "SDTALK_HOME": str(tmp_path)}
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert "  missing  the FLAME head model" in done.stdout and "  found    mini" in done.stdout


def error_message(words: list[str], capsys: pytest.CaptureFixture) -> str:
    """What a command that refuses its input prints."""
    assert main(words) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("sdtalk: ") and printed.err.count("\n") == 1 and not printed.out
    return printed.err


def test_assets_are_stored_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("SDTALK_HOME", str(tmp_path / "home"))
    text = tmp_path / "flame.pkl"
    text.write_text("no pickle")
    assert "flame.pkl" in error_message(["assets", "add", "flame", str(text)], capsys)
    assert "no.pkl" in error_message(["assets", "add", "flame", str(tmp_path / "no.pkl")], capsys)
    assert "config.json" in error_message(["assets", "add", "hubert", str(tmp_path)], capsys)
    assert "2 names were given" in error_message(["assets", "add", "hubert", "a", "b"], capsys)
    assert not (tmp_path / "home").exists()
    files = {
        "model.pkl": flame_2020(),
        "masks.pkl": pickle.dumps(site_masks()),
        "marks.npy": npy_of_object(site_landmarks()),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert main(["assets", "add", "flame", *(str(tmp_path / name) for name in files)]) == 0
    stored = tmp_path / "home" / "flame" / "flame.safetensors"
    assert capsys.readouterr().out == f"flame is stored in {stored}\n" and stored.is_file()


def test_what_verify_finds_decides_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    near, far = (
        Difference(name, 1e-5, mean, 0.1) for name, mean in (("TF32 on the CPU", 1e-4), ("CUDA", 1e-2))
    )
    monkeypatch.setattr(
        "sdtalk.cli.convert.convert", lambda *_: Converted(tmp_path / "out", 643, {"unused": 36})
    )
    words = ["convert", "SDGTalk.pt", str(tmp_path / "out"), "--verify"]
    for runs, code in (([near], 0), ([near, far], 2)):
        monkeypatch.setattr("sdtalk.cli.convert.verify", lambda *_, runs=runs: Verification(643, {}, runs))
        assert main(words) == code
        printed = capsys.readouterr()
        assert "643 tensors used; not used: 36 (unused)" in printed.out and "bit for bit" in printed.out
        assert (
            ("differs by MORE" in printed.out) == ("Use it with --device cpu" in printed.err) == (code == 2)
        )


def test_bench_measures_every_stage(files: Path, capsys: pytest.CaptureFixture) -> None:
    chosen = Benchmark(str(files / "portrait.png"), str(files / "speech.wav"), 0.3, str(files / "toy"))
    report = measure(chosen)
    assert report.frames == 8 and report.total_seconds > 0.5 and report.frames_per_second > 0
    stages = (
        "loading",
        "tracking",
        "reconstruction",
        "audio",
        "motion",
        "rasterising",
        "neural rendering",
        "encoding",
        "video",
    )
    assert all(report.stages[stage] > 0 for stage in stages)
    assert report.peak_mb is None or 100 < report.peak_mb < 3000
    assert json.loads(as_json(report))["frames"] == 8
    text = as_text(report)
    assert all(stage in text for stage in (*stages, "peak memory", "start to file", "torch", "processor"))
    assert report.first_frame_seconds > 0 and "sound to picture" in text
    assert "real time" in text and "peak GPU memory" not in text and report.peak_gpu_mb is None
    assert report.rasteriser == "cpu kernels" and "cpu kernels" in text
    assert sum(report.shares.values()) == pytest.approx(1) and min(report.shares.values()) > 0


def test_bench_refuses_what_it_cannot_measure(files: Path) -> None:
    for seconds in (0.0, -1.0, float("nan"), 1e9):
        with pytest.raises(InputError, match="seconds"):
            measure(Benchmark(str(files / "portrait.png"), str(files / "speech.wav"), seconds))


@pytest.mark.serial
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_resident_memory_includes_children() -> None:
    alone = resident_mb(os.getpid())
    with subprocess.Popen([sys.executable, "-c", "x = bytearray(80 << 20); print(flush=True); input()"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:  # fmt: skip
        assert child.stdout is not None
        child.stdout.readline()
        assert resident_mb(os.getpid()) > alone + 70
        child.communicate(b"\n")


def test_a_network_with_a_stopwatch_is_still_the_network_also_when_copied() -> None:
    watch, network = Stopwatch(), toy_model().neural_renderer
    kind, weights = type(network), network.state_dict()
    _timed(network, watch)
    copied = deepcopy(network)  # as for painting in another precision
    assert isinstance(copied, kind) and network.state_dict().keys() == weights.keys()
    for module in (network, copied):
        before = watch.seconds["neural rendering"]
        with pytest.raises(TypeError):
            module()
        assert watch.seconds["neural rendering"] > before


def a_report(**facts: object) -> Report:
    made = Report({}, 1, 1.0, None, 0.5, "float32", "cpu kernels", None, 1.0, 5.0, {}, {})
    return replace(made, **facts)


def test_what_a_gpu_did_is_told() -> None:
    stages = {"motion": 1.0, "rasterising": 2.0, "neural rendering": 4.0, "finishing": 1.0, "encoding": 9.0}
    report = a_report(
        stages=stages, frames=100, rasteriser="triton", peak_gpu_mb=1234.0, rendered_per_second=12.5
    )
    assert list(report.shares.values()) == [0.125, 0.25, 0.5, 0.125]
    lines = {line[:22].strip(): line[22:].split() for line in as_text(report).splitlines()}
    assert lines["neural rendering"][2:] == ["40.00", "ms", "a", "frame,", "50%"]
    assert lines["encoding"][2:] == ["90.00", "ms", "a", "frame"]
    assert "12.5    (that have come from the GPU, without a file)" in as_text(report)
    assert lines["rasteriser"] == ["triton"] and lines["peak GPU memory"] == ["1234", "MB"]


def test_what_was_not_measured_is_called_so() -> None:
    known = as_text(a_report())
    unknown = as_text(a_report(total_seconds=None, peak_mb=None))
    assert "not measured" not in known and unknown.count("not measured") == 2
    verdicts = [as_text(a_report(frames_per_second=speed)) for speed in (24.9, 25.0)]
    assert "   no    (this machine" in verdicts[0] and "  yes    (this machine" in verdicts[1]
