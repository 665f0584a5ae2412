"""Tests of the benchmarks of real time and of the page: they run, say what they measured, and see what is wrong."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from toy import EXAMPLE, save_speech

import benchmarks.realtime as realtime_module
import benchmarks.soak as soak
from benchmarks.page_memory import main as page_memory
from benchmarks.realtime import main as realtime
from benchmarks.realtime import one_turn, table
from benchmarks.soak_visits import first_frame
from sdtalk.video import open_writer


def test_the_frames_of_both_ways_are_compared(capsys: pytest.CaptureFixture) -> None:
    realtime(["--exact", str(EXAMPLE), "--every", "90"])
    line = capsys.readouterr().out.splitlines()[-1]
    name, mean, largest, above = line.split()
    assert name == EXAMPLE.name and 0 < float(mean) < 0.3 and 0 < int(largest) < 128 and float(above) < 1e-3


def test_versions_stand_beside_each_other() -> None:
    old = [{"fps 512": fps, "import": 2.0} for fps in (10.0, 11.0, 30.0)]
    new = [{"fps 512": fps, "import": 1.5, "cold": 20.0} for fps in (33.0, 22.0, 44.0)]
    lines = table({"old": old, "this": new}).splitlines()
    assert lines[0].split() == ["old", "this", "ratio"]
    assert lines[1].endswith("3.00") and "11.0" in lines[1] and "33.0" in lines[1]
    assert len(lines) == 3 and lines[2].endswith("0.75")  # what only one of them measured is left out
    assert "ratio" not in table({"this": new})


@pytest.mark.skipif(sys.platform == "win32", reason="needs the resource module")
def test_a_version_is_measured_in_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        realtime_module, "seconds_to_file", lambda *_: 99.0
    )  # the command line has tests of its own
    found = one_turn(Path(__file__).parent.parent, cold=False, speech=save_speech(tmp_path / "hum.wav", 0.4))
    assert found["fps 512"] > 1 and found["fps 256"] > 1 and found["memory"] > 100
    assert 0 < found["torch"] < found["import"] < found["file"] and found["photo"] > 0


def test_the_pages_memory_is_told(capfd: pytest.CaptureFixture) -> None:
    page_memory(["--jobs", "2", "--seconds", "0.1", "--minutes", "0.01"])
    lines = re.findall(r"after +(\d+) visits: +(\d+) MB", capfd.readouterr().out)
    assert [int(number) for number, _ in lines] == [2, 3, 4] and all(int(mb) > 100 for _, mb in lines)


def test_the_soak_sees_a_wrong_person_a_wrong_length_and_what_stays(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    server = soak.Server(process, "http://127.0.0.1:9", kept)
    visits = soak.Visits(server.url, tmp_path)
    colours = {name: np.full((64, 64, 3), 60 * n, np.uint8) for n, name in enumerate(visits.portraits, 1)}
    videos = {}
    for name, frame in colours.items():
        with open_writer(tmp_path / "plain.mp4", (64, 64), sound=visits.speech[0.6]) as writer:
            for _ in range(15):
                writer.write(frame)
        videos[name] = (tmp_path / "plain.mp4").read_bytes()
        visits.alone[name] = first_frame(tmp_path, videos[name])
    visits.check(videos["one"], "one", 0.6, "api")
    assert not visits.wrong and visits.distances == [0]
    visits.check(videos["one"], "mirrored", 0.6, "api")
    visits.check(videos["one"], "one", 1.2, "api")
    assert "mirrored was sent" in visits.wrong[0] and "0.60 s of video for 1.2 s" in visits.wrong[1]

    (kept / "sdtalk-left").mkdir()
    (kept / "sdtalk-left" / "upload.png").touch()
    server.memory = [(20.0 * n, 500.0 + 5 * n) for n in range(40)]
    server.busy = lambda: 0
    words = " ".join(soak.judged(visits, server)[2:])
    assert process.returncode and "sdtalk-left has stayed" in words and "upload.png has stayed" in words
    assert "memory has grown by 100 MB" in words
