"""Wheel check: builds the wheel, installs it into a fresh environment without the checkout, and uses it there.

    python scripts/check_wheel.py [-- OPTIONS FOR PIP]                            the pinned versions
    python scripts/check_wheel.py --constraints scripts/lowest_versions.txt      the lowest ones

First without extras: import, --version, doctor, a short talk, bench, and what `sdtalk demo` says without Gradio. Then
with the extra `demo`: the page, asked over HTTP for a video. Everything runs in an empty folder, in an environment that
sees neither the checkout nor its packages. Needs nothing but Python; pip takes what its own configuration says.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import venv
import wave
import zipfile
from email import message_from_bytes
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SECONDS, FRAMES = 0.5, 13
"""How much of the example is spoken, and how many frames of 1/25 s that is."""

OF_THE_USER = ("PYTHONPATH", "PYTHONHOME", "SDTALK_HOME", "VIRTUAL_ENV")
"""Variables that would let the checkout, or files of whoever runs this, shine through."""

PAGE_SECONDS = 180
CHECK_VIDEO = """
import sys
from sdtalk.video import probe, read_frames
info, frames = probe(sys.argv[1]), sum(1 for _ in read_frames(sys.argv[1]))
assert info.has_sound and (info.width, info.height) == (512, 512) and frames == int(sys.argv[2]), (info, frames)
"""
ASK_PAGE = """
import sys
from gradio_client import Client, handle_file
client = Client(sys.argv[1], verbose=False, download_files=sys.argv[2], analytics_enabled=False)
portrait, speech = map(handle_file, sys.argv[3:5])
video, note = client.predict(portrait=portrait, speech=speech, consent=True, api_name="/generate")
print(video["video"] if isinstance(video, dict) else video)
"""


class Environment:
    """A fresh virtual environment, and an empty folder to work in."""

    def __init__(self, place: Path, constraints: Path, pip_options: list[str]) -> None:
        self.pip_options = ["--constraint", str(constraints), *pip_options]
        self.folder = place / "work"
        self.folder.mkdir()
        venv.create(place / "venv", with_pip=True)
        self.bin = place / "venv" / ("Scripts" if os.name == "nt" else "bin")
        self.variables = {k: v for k, v in os.environ.items() if k not in OF_THE_USER}
        self.variables |= {"SDTALK_HOME": str(place / "home"), "HF_HUB_OFFLINE": "1", "PYTHONSAFEPATH": "1"}

    def run(self, program: str, *words: str | Path, expected: int = 0) -> str:
        """What a program of the environment prints.

        Raises:
            SystemExit: It ended otherwise than expected; with all that it said.
        """
        command = [str(self.bin / program), *map(str, words)]
        done = subprocess.run(command, cwd=self.folder, env=self.variables, capture_output=True, text=True)
        if done.returncode != expected:
            sys.exit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout if expected == 0 else done.stderr

    def install(self, what: str) -> None:
        """Install a package and what it needs, in the versions that the constraints name."""
        # compiling all of PyTorch and transformers would take twice as long as installing them, for few that are used
        self.run("python", "-m", "pip", "install", "--quiet", "--no-compile", *self.pip_options, what)


def build_wheel(place: Path, pip_options: list[str]) -> Path:
    """Build the wheel with pip, as an installation does."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", *pip_options]
    subprocess.run([*command, "--wheel-dir", str(place), str(ROOT)], check=True)
    (wheel,) = place.glob("sdtalk-*.whl")
    return wheel


def check_contents(wheel: Path) -> None:
    """What an index shows of it, and that nothing but the package is in it."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        described = message_from_bytes(archive.read(metadata))
    text = described.get_payload()
    assert isinstance(text, str), "no description"
    assert text.lstrip().startswith("# SDTalk"), text[:200]
    assert "app_file" not in text and "](docs/" not in text and "](examples/" not in text, "relative links"
    assert all(name.startswith(("sdtalk/", "sdtalk-")) for name in names), names
    wanted = {path.name for path in (ROOT / "examples").iterdir()}
    assert {name.removeprefix("sdtalk/assets/examples/") for name in names} >= wanted, names


def check_core(environment: Environment, wheel: Path) -> tuple[Path, Path]:
    """Everything that needs no extra; gives the example's portrait and a piece of its recording."""
    run = environment.run
    version = wheel.name.split("-")[1]
    place = run("python", "-c", "import sdtalk; print(sdtalk.__file__, sdtalk.__version__)").split()
    assert Path(place[0]).is_relative_to(environment.bin.parent) and place[1] == version, place
    assert version in run("sdtalk", "--version")
    assert f"{version} on " in run("sdtalk", "doctor")
    where = "from sdtalk.weights.assets import example as e; print(e({!r}))"
    portrait = Path(run("python", "-c", where.format("eileen_collins.png")).strip())
    example = Path(run("python", "-c", where.format("sense_and_sensibility.wav")).strip())
    speech = environment.folder / "word.wav"
    with wave.open(str(example)) as whole, wave.open(str(speech), "wb") as part:
        part.setparams(whole.getparams())
        whole.setpos(whole.getframerate())
        part.writeframes(whole.readframes(round(whole.getframerate() * SECONDS)))
    run("sdtalk", portrait, speech, "-o", "talk.mp4")
    run("python", "-c", CHECK_VIDEO, "talk.mp4", str(FRAMES))
    report = json.loads(run("sdtalk", "bench", "--seconds", "0.04", "--json"))
    assert report["frames"] == 1, report
    refusal = run("sdtalk", "demo", expected=2)
    assert 'pip install "sdtalk[demo]"' in refusal and len(refusal.splitlines()) == 1, refusal
    return portrait, speech


def check_page(environment: Environment, portrait: Path, speech: Path) -> None:
    """Open the page and ask it for a video."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    own = {"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(port)}
    with (environment.folder / "page.log").open("w+") as log:
        page = subprocess.Popen(
            [environment.bin / "sdtalk", "demo"],
            cwd=environment.folder, env=environment.variables | own, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            opened = _opened(address, page)
            if not opened:
                log.seek(0)
                sys.exit(f"The page did not open:\n{log.read()}")
            downloads = environment.folder / "downloads"
            video = environment.run("python", "-c", ASK_PAGE, address, downloads, portrait, speech).strip()
            environment.run("python", "-c", CHECK_VIDEO, video, str(FRAMES))
        finally:
            page.terminate()
            page.wait(30)


def _opened(address: str, page: subprocess.Popen) -> bool:
    """Wait for the page; whether it came."""
    deadline = time.monotonic() + PAGE_SECONDS
    while time.monotonic() < deadline and page.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                return b"SDTalk" in answer.read()
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    return False


def main() -> None:
    """Run all checks; the first that fails ends the program with what was said."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--constraints", type=Path, default=ROOT / "requirements.txt", help="versions for pip"
    )
    parser.add_argument("pip_options", nargs="*", help="more options for pip, after --")
    chosen = parser.parse_args()
    began = time.perf_counter()

    def tell(what: str) -> None:
        print(f"{time.perf_counter() - began:6.1f} s  {what}", flush=True)

    with tempfile.TemporaryDirectory(prefix="sdtalk-wheel-") as folder:
        place = Path(folder)
        wheel = build_wheel(place, chosen.pip_options)
        check_contents(wheel)
        tell(f"{wheel.name} is built ({wheel.stat().st_size / 1e6:.1f} MB)")
        environment = Environment(place, chosen.constraints.resolve(), chosen.pip_options)
        environment.install(str(wheel))
        tell("it is installed without extras")
        portrait, speech = check_core(environment, wheel)
        tell("it is imported, examined, talks and measures; the page says what it lacks")
        environment.install(f"{wheel}[demo]")
        tell("Gradio is installed")
        check_page(environment, portrait, speech)
        tell("the page opens and answers with a video")


if __name__ == "__main__":
    main()
