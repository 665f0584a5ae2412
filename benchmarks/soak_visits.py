"""Visits of the soak in `soak.py`: what a browser, a program of Gradio's and one of docs/http.md do, and find."""

import random
import threading
import time
from collections import Counter
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image, ImageOps

from benchmarks.page_memory import PORTRAIT, recording
from sdtalk.video import probe, read_frames

LENGTHS_S = (0.6, 1.2, 2.4)
FRAME_S = 0.04
FAR = 4.0
"""8-bit steps by which a first frame may differ from that of a video made alone: the page encodes otherwise."""


class Visits:
    """What the visitors have, what they found, and what was wrong."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.distances: list[float] = []
        photo = ImageOps.exif_transpose(Image.open(PORTRAIT)).convert("RGB")
        tinted = Image.fromarray((np.asarray(photo) * (0.6, 0.9, 1.0)).astype(np.uint8))
        self.portraits = {"one": photo, "mirrored": ImageOps.mirror(photo), "tinted": tinted}
        for name, picture in self.portraits.items():
            picture.save(folder / f"{name}.png")
        self.speech = {s: recording(folder / f"{s}.wav", s) for s in LENGTHS_S}
        (folder / "odd.png").write_text("Dear diary")
        (folder / "odd.wav").write_bytes(b"")
        self.alone: dict[str, np.ndarray] = {}

    def portrait(self, name: str) -> Path:
        """The file of a portrait."""
        return self.folder / f"{name}.png"

    def remember_alone(self) -> None:
        """Let everybody's video be made while nobody else is there."""
        for name in self.portraits:
            answer = self.post("talk", name, LENGTHS_S[0])
            self.alone[name] = first_frame(self.folder, answer.content)

    def post(self, what: str, name: str, seconds: float, **options: object) -> httpx.Response:
        """Send an order to the interface of docs/http.md."""
        with self.portrait(name).open("rb") as portrait, self.speech[seconds].open("rb") as speech:
            return httpx.post(
                f"{self.url}/api/{what}",
                data={"consent": "true", "frame": "full"},
                files={"portrait": portrait, "speech": speech},
                timeout=options.get("timeout", 600),  # type: ignore[arg-type]
            )

    def check(self, video: bytes, name: str, seconds: float, who: str) -> None:
        """Look at a video: its length, and who is in it."""
        path = self.folder / f"{threading.get_ident()}.mp4"
        path.write_bytes(video)
        length = probe(path).duration or 0.0
        if abs(length - seconds) > FRAME_S:
            self.wrong.append(f"{who}: {length:.2f} s of video for {seconds} s of speech")
        seen = next(iter(read_frames(path))).astype(float)
        far = {other: float(np.abs(seen - frame).mean()) for other, frame in self.alone.items()}
        self.distances.append(far[name])
        if min(far, key=far.__getitem__) != name or far[name] > FAR:
            self.wrong.append(f"{who}: {name} was sent, and the frame differs by {far}")
        self.counts[f"{who}: videos"] += 1


def first_frame(folder: Path, video: bytes) -> np.ndarray:
    """The first frame of a video."""
    path = folder / "alone.mp4"
    path.write_bytes(video)
    return next(iter(read_frames(path))).astype(float)


class SlowFile(BytesIO):
    """A file from a slow line."""

    def read(self, size: int | None = -1) -> bytes:
        """A piece, after a while."""
        time.sleep(0.1)
        return super().read(size)


def api_visitor(visits: Visits, chance: random.Random) -> None:
    """One visit of a program as in docs/http.md."""
    name, seconds = chance.choice(list(visits.portraits)), chance.choice(LENGTHS_S)
    what = chance.choice(("talk", "job", "deleted", "hung up", "slow", "odd"))
    url = f"{visits.url}/api"
    if what == "talk":
        visits.check(visits.post("talk", name, seconds).content, name, seconds, "api")
    elif what in ("job", "deleted"):
        told = visits.post("jobs", name, seconds).json()
        while what == "job" and told["state"] in ("waiting", "working"):
            time.sleep(0.3)
            told = httpx.get(f"{url}/jobs/{told['id']}", timeout=60).json()
        if what == "job":
            video = httpx.get(f"{url}/jobs/{told['id']}/video", timeout=60).content
            visits.check(video, name, seconds, "api")
        else:
            time.sleep(chance.uniform(0, 3))
        assert httpx.delete(f"{url}/jobs/{told['id']}", timeout=60).status_code == 204
    elif what == "hung up":
        with suppress(httpx.ReadTimeout):
            visits.post("talk", name, seconds, timeout=chance.uniform(0.2, 2.0))
    elif what == "slow":
        slow = SlowFile(visits.portrait(name).read_bytes())
        files = {"portrait": ("slow.png", slow), "speech": ("s.wav", visits.speech[seconds].read_bytes())}
        sent = {"consent": "true", "frame": "full"}
        answer = httpx.post(f"{url}/talk", data=sent, files=files, timeout=600)
        visits.check(answer.content, name, seconds, "api")
    else:
        files = {"portrait": (visits.folder / "odd.png").read_bytes(), "speech": b"none"}
        answer = httpx.post(f"{url}/talk", data={"consent": "true"}, files=files, timeout=60)
        assert answer.status_code == 422 and answer.json()["parameter"], answer.text
    visits.counts[f"api: {what}"] += 1


def gradio_visitor(visits: Visits, chance: random.Random) -> None:
    """One visit of a program of Gradio's."""
    name, seconds = chance.choice(list(visits.portraits)), chance.choice(LENGTHS_S)
    odd = chance.random() < 0.3
    downloads = visits.folder / "downloads"
    client = Client(visits.url, verbose=False, download_files=downloads, analytics_enabled=False)
    portrait = visits.folder / "odd.png" if odd else visits.portrait(name)
    speech = visits.folder / "odd.wav" if odd and chance.random() < 0.5 else visits.speech[seconds]
    given = {"portrait": handle_file(portrait), "speech": handle_file(speech), "consent": True}
    try:
        video = client.predict(**given, api_name="/generate")[0]
        path = Path(video["video"] if isinstance(video, dict) else video)
        visits.check(path.read_bytes(), name, seconds, "gradio")
    except AppError as error:
        assert odd and "odd" in str(error), error
        visits.counts["gradio: odd"] += 1


def browser_visitor(visits: Visits, chance: random.Random, tab) -> None:
    """One visit of a person."""
    name, seconds = chance.choice(list(visits.portraits)), chance.choice(LENGTHS_S)
    what = chance.choice(("watched", "watched", "stopped", "reloaded", "odd"))
    tab.open(visits.url)
    tab.run("localStorage.clear()")  # somebody else: what was given before does not come back
    tab.open(visits.url)
    for part, path in (("portrait", visits.portrait(name)), ("speech", visits.speech[seconds])):
        tab.wait(f"!!document.querySelector('#{part} input[type=file]')")
        odd = part == "portrait" and what == "odd"
        tab.choose_files(f"#{part} input[type=file]", visits.folder / "odd.png" if odd else path)
    tab.wait("!!document.querySelector('#speech .play-pause-button')")
    tab.run("document.querySelector('#consent input').click()")
    time.sleep(0.5)
    tab.press("4. Generate")
    if what == "watched":
        tab.wait("!!document.querySelector('#result video')?.src", 600)
        source = tab.run("document.querySelector('#result video').src")
        visits.check(httpx.get(source, timeout=60).content, name, seconds, "page")
    elif what == "stopped":
        time.sleep(chance.uniform(0.5, 2))
        tab.run("[...document.querySelectorAll('button')].find(b => b.innerText.trim() == 'Stop')?.click()")
        line = "document.querySelector('#status .line').innerText"
        tab.wait(f"/^(Stopped|Finished)/.test({line})", 600)
    elif what == "odd":
        tab.wait("!!document.querySelector('#message [role=alert]')", 600)
    else:
        time.sleep(chance.uniform(0, 3))
    assert tab.complaints() == [], tab.complaints()
    visits.counts[f"page: {what}"] += 1
