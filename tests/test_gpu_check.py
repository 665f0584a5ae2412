"""Tests of scripts/gpu_check.sh: a rehearsal without a GPU, limits and signals, and what its report makes of it all."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from toy import toy_model

from scripts.gpu import network_cost, roofline, steps
from scripts.gpu.check_report import check_report, share_lines, speed_lines
from scripts.gpu.gpu_tests import found, from_lines, gpu_test_files, problem
from scripts.gpu.steps import Finished, Outcome, Step, Steps, printed_json, table
from scripts.gpu.wheels import importable, wheels_step
from sdtalk.driving import DrivingSignals
from sdtalk.pipeline import SDTalkPipeline
from sdtalk.tracking.tracker import Tracker
from sdtalk.weights.assets import example

SCRIPT = steps.ROOT / "scripts" / "gpu_check.sh"
ENVIRONMENT = {**os.environ, "PYTHON": sys.executable}


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def started(out: Path, limit: float = 60.0) -> Steps:
    # Unbuffered, as the scripts run their steps: what a step prints first is then told first.
    return Steps(out, limit, {"PYTHONUNBUFFERED": "1"}, table)


def reported(out: Path) -> list[dict]:
    return json.loads((out / "report.json").read_text())["steps"]


def test_what_becomes_of_a_step_is_told(tmp_path: Path) -> None:
    ran = started(tmp_path)
    good = ran.run(Step("good", python("print('warning'); print('{\"speed\": 3}')"), 20, printed_json))
    assert (good.status, good.facts, ran.facts("good")) == ("passed", {"speed": 3}, {"speed": 3})
    bad = ran.run(Step("bad", python("print('{}'); raise SystemExit('no such card')"), 20, printed_json))
    assert bad.status == "failed" and bad.reason == "exit code 1: no such card"
    mute = ran.run(Step("mute", python("pass"), 20, printed_json))
    assert mute.status == "failed" and "no figures" in mute.reason
    wrong = ran.run(
        Step("wrong", python("print('{}')"), 20, printed_json, problem=lambda facts: "it differs")
    )
    assert (wrong.status, wrong.reason) == ("failed", "it differs")
    left_out = ran.run(Step("left out", python("raise SystemExit(1)"), 20, skip="there is one card"))
    assert (left_out.status, left_out.reason) == ("skipped", "there is one card")
    assert [o["status"] for o in reported(tmp_path)] == ["passed", "failed", "failed", "failed", "skipped"]
    log = (tmp_path / "log.txt").read_text()
    assert "==== bad: failed" in log and "no such card" in log and "warning" in log
    assert {path.name for path in tmp_path.iterdir()} == {"report.json", "report.md", "log.txt"}


def test_a_step_is_stopped_at_its_limit_and_what_it_found_stays(tmp_path: Path) -> None:
    code = "import time; print('{\"half\": 1}', flush=True); time.sleep(60)"
    slow = started(tmp_path).run(Step("slow", python(code), 1.5, printed_json))
    assert slow.status == "stopped" and slow.facts == {"half": 1} and slow.seconds < 10


def test_steps_get_what_is_left_and_later_ones_nothing(tmp_path: Path) -> None:
    ran, sleep = started(tmp_path, 3.0), python("import time; time.sleep(60)")
    assert ran.run(Step("first", sleep, 100)).status == "stopped"
    second = ran.run(Step("second", sleep, 100))
    assert (second.status, second.reason) == ("skipped", "no time left") and ran.limit - ran.left < 12


def test_what_does_not_listen_is_killed_with_its_children(tmp_path: Path) -> None:
    code = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGINT, signal.SIG_IGN);"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    deaf = started(tmp_path).run(
        Step("deaf", python(code), 4.0, lambda done: {"pid": int(done.output)}, grace=0.5)
    )
    assert deaf.status == "stopped"
    stat, end = Path(f"/proc/{deaf.facts['pid']}/stat"), time.monotonic() + 10
    while (
        alive := stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"
    ) and time.monotonic() < end:
        time.sleep(0.05)  # a child that was killed takes its moment to go
    assert not alive


def test_while_a_step_is_at_work_the_report_says_so(tmp_path: Path) -> None:
    code = f"print(open({str(tmp_path / 'report.json')!r}).read())"
    seen = started(tmp_path).run(Step("curious", python(code), 20, printed_json))
    assert seen.facts["steps"][0]["status"] == "running"
    assert "curious was at work" in check_report([Outcome("curious", "running")])


def test_the_tests_are_read_from_what_pytest_writes_or_else_prints(tmp_path: Path) -> None:
    (tmp_path / "test_made_up.py").write_text(
        "import pytest\n"
        "def test_good(): pass\n"
        "def test_bad(): assert 1 == 2\n"
        "@pytest.fixture\n"
        "def broken(): raise ValueError('no fixture')\n"
        "def test_broken(broken): pass\n"
        "@pytest.mark.skip(reason='needs a CUDA device')\n"
        "def test_left_out(): pass\n"
    )
    report = tmp_path / "tests.xml"
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", f"--junit-xml={report}", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=os.environ)
    facts = found(Finished(done.returncode, done.stdout), report)
    assert {k: facts[k] for k in ("passed", "failed", "skipped", "complete")} == {
        "passed": 1, "failed": 2, "skipped": 1, "complete": True,
    }  # fmt: skip
    assert any("test_bad" in name and "1 == 2" in reason for name, reason in facts["failures"].items())
    assert facts["skip reasons"] == {"needs a CUDA device": 1} and problem(facts) == "2 of 3 tests failed"
    report.write_text("<testsuites><testcase")  # killed while it was written
    printed = found(
        Finished(None, done.stdout.replace("test_made_up.py::", "tests/test_made_up.py::")), report
    )
    assert [printed[k] for k in ("passed", "failed", "skipped", "complete")] == [1, 2, 1, False]
    assert from_lines("tests/test_a.py::test_b[1-x y] PASSED [ 3%]") == [
        ("tests/test_a.py::test_b[1-x y]", "passed", "")
    ]
    assert problem(found(Finished(0, ""), tmp_path / "none.xml")) == "no test was found"


def test_the_files_with_gpu_tests_are_found() -> None:
    assert {"tests/test_rasteriser.py", "tests/test_training_on_gpu.py"} <= set(gpu_test_files())
    assert "tests/test_camera.py" not in gpu_test_files()


def test_ceilings_are_measured() -> None:
    measured = roofline.measured(torch.device("cpu"), roofline.TINY)
    assert set(measured) == {"bfloat16_tflops", "tf32_tflops", "float32_tflops", "copy_tbs"}
    assert all(0 < value < 100 for value in measured.values())


def test_operations_are_those_of_the_convolutions_and_products() -> None:
    """Against a count of our own, from the sizes that each layer sees."""
    model = toy_model()
    pipeline = SDTalkPipeline(model, Tracker.from_bundled())
    head = pipeline.reconstruct(str(example("eileen_collins.png")))
    signals: DrivingSignals = pipeline.talk(head, torch.zeros(3200), sampling_rate=16000).signals[:1]
    counts = {"motion": 0, "rendering": 0}

    def count(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            fan_in = module.in_channels // module.groups * module.kernel_size[0] * module.kernel_size[1]
            counts["rendering"] += 2 * output.numel() * fan_in
        elif isinstance(module, nn.Linear):
            counts["motion"] += 2 * output.numel() * module.in_features

    hooks = [m.register_forward_hook(count) for m in model.modules()]
    with torch.no_grad():
        animated = model.animate(head.gaussians, signals.audio_code, signals.eyes, signals.small_motion)
        model.render(head.gaussians, animated, signals.camera)
    for hook in hooks:
        hook.remove()
    cost = network_cost.frame_cost(model, head.gaussians, signals)
    for name, most in (
        ("rendering", 1.1),
        ("motion", 2.0),
    ):  # there are products that are no layers, such as poses
        assert 0 < counts[name] <= cost[f"{name}_gflop"] * 1e9 < most * counts[name], name
    assert cost["gaussians"] == head.gaussians.gaussians.means.shape[1] and cost["least_mb"] > 1


def findings() -> dict[str, dict]:
    stages = {"motion": 1.0, "rasterising": 2.0, "neural rendering": 4.0, "finishing": 1.0, "encoding": 9.0}
    bench = {
        "stages": stages, "frames": 100, "frames_per_second": 5.0, "rendered_per_second": 10.0,
        "peak_gpu_mb": 900.0, "rasteriser": "triton",
        "shares": {"motion": 0.125, "rasterising": 0.25, "neural rendering": 0.5, "finishing": 0.125},
    }  # fmt: skip
    ceilings = {"bfloat16_tflops": 800.0, "tf32_tflops": 400.0, "float32_tflops": 50.0, "copy_tbs": 4.0}
    cost = {"precision": "bfloat16", "rendering_gflop": 4000.0, "motion_gflop": 400.0, "least_mb": 4000.0}
    return {"bench base": bench, "roofline": ceilings | {"tiny": False}, "network_cost": {"base": cost}}


def test_shares_of_the_ceilings_are_worked_out() -> None:
    facts = findings()
    rendering, motion, memory = share_lines(facts)
    assert "100 TFLOP/s, 12.5% of bfloat16" in rendering  # 4 TFLOP in 40 ms
    assert "40 TFLOP/s, 80.0% of float32" in motion and "1.0% of the copy rate" in memory
    facts["network_cost"]["base"]["precision"] = "float32"
    assert "25.0% of tf32" in share_lines(facts)[0]
    assert "12.5% of bfloat16" in share_lines(facts | {"facts": {"bfloat16": True}})[0]
    facts["roofline"]["tiny"] = True
    assert share_lines(facts) == [] and "| base | 5.0 | 10.0 |" in speed_lines(facts)[2]


def test_wheels_are_installed_beside_everything_else(tmp_path: Path) -> None:
    wheels, site = tmp_path / "wheels", tmp_path / "site"
    wheels.mkdir()
    assert "there are none" in wheels_step(wheels, site).skip
    info = "made_up_package-1.0.dist-info"
    with zipfile.ZipFile(wheels / "made_up_package-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("made_up_package.py", "")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: made_up_package\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    assert not importable("made_up_package", site)
    outcome = started(tmp_path / "out").run(wheels_step(wheels, site))
    assert outcome.status == "passed", (tmp_path / "out" / "log.txt").read_text()
    assert importable("made_up_package", site) and (site / info).is_dir()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [SCRIPT, "--out", "found"], cwd=tmp_path, capture_output=True, text=True, env=ENVIRONMENT
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "finds no GPU" in done.stderr
    assert {o["status"] for o in reported(tmp_path / "found")[1:]} == {"skipped"}


def test_when_it_is_asked_to_stop_it_leaves_what_it_has(tmp_path: Path) -> None:
    words = [SCRIPT, "--out", tmp_path, "--device", "cpu", "--tiny", "--only", "network_cost", "bench mini"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("bench mini"):
                time.sleep(0.3)
                process.send_signal(signal.SIGTERM)
                break
        assert "stopped" in process.stdout.read()
    assert process.returncode == 130
    facts, bench = reported(tmp_path)
    assert facts["status"] == "passed" and facts["facts"]["cores"] == os.cpu_count()
    assert (bench["status"], bench["reason"]) == ("stopped", "interrupted")


def test_a_rehearsal_does_all_of_it_without_a_gpu(tmp_path: Path) -> None:
    words = [SCRIPT, "--out", tmp_path, "--device", "cpu", "--tiny", "--limit", "300"]
    done = subprocess.run(words, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stdout + (tmp_path / "log.txt").read_text()
    status = {o["name"]: o["status"] for o in reported(tmp_path)}
    assert {name for name, what in status.items() if what == "skipped"} == {"published", "bench base"}
    assert {what for what in status.values()} == {"passed", "skipped"} and len(status) == 7
    page = (tmp_path / "report.md").read_text()
    assert "## Ceilings" in page and "| mini |" in page and "needs a CUDA device" in page
    assert done.stdout.count("| bench mini") == 1 and "network_cost" in done.stdout.splitlines()[-3]
