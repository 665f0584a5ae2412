"""Batch record: which finished video came of which job, kept in a file beside the videos."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch

from sdtalk.batch.jobs import Job
from sdtalk.errors import InputError
from sdtalk.model import SDTalk

RECORD = "batch.jsonl"


@dataclass(frozen=True)
class Entry:
    """A line of the record.

    Attributes:
        output: The video, relative to the folder.
        digest: Of everything that decides what the video shows, see `JobDigest`.
        portrait: Where the picture was, relative to the folder where possible.
        speech: The same for the recording.
    """

    output: str
    digest: str
    portrait: str
    speech: str

    @classmethod
    def of(cls, folder: Path, path: Path, digest: str, job: Job) -> "Entry":
        """The entry of a job whose video is, or will be, at a path in the folder."""
        output = path.relative_to(folder).as_posix()
        return cls(output, digest, _beside(folder, job.portrait), _beside(folder, job.speech))


class BatchRecord:
    """Finished videos of a folder; the last line about a video counts, and only while the video is there."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._file = folder, folder / RECORD
        self._entries: dict[str, Entry] = {}
        text = self._file.read_text(encoding="utf-8", errors="replace") if self._file.is_file() else ""
        self._cut = bool(text) and not text.endswith("\n")
        for line in text.split("\n"):
            try:
                entry = Entry(**json.loads(line))
            except (ValueError, TypeError):  # cut short when the program or the machine was stopped
                continue
            self._entries[entry.output] = entry

    def entries(self) -> list[Entry]:
        """What was made here and still exists."""
        return [entry for entry in self._entries.values() if (self.folder / entry.output).exists()]

    def add(self, entry: Entry) -> None:
        """Write down a video that is finished.

        Raises:
            InputError: The file cannot be written.
        """
        try:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(("\n" if self._cut else "") + json.dumps(asdict(entry)) + "\n")
        except OSError as error:
            problem = f"it cannot be written ({error.strerror})"
            raise InputError(str(self._file), problem, "Choose another folder.") from error
        self._cut = False
        self._entries[entry.output] = entry


def _beside(folder: Path, path: str | Path) -> str:
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # on another drive
        return Path(path).absolute().as_posix()


class JobDigest:
    """Digests of jobs: equal where the same model makes the same video of files with the same content."""

    def __init__(self, model: SDTalk) -> None:
        self._model = _model_digest(model)
        self.of_file = cache(file_digest)
        """Content of a file; each is read once."""

    def __call__(self, job: Job) -> str:
        """The digest of one job.

        Raises:
            InputError: One of its files is missing.
        """
        options = asdict(job.options)
        for name in ("pose", "blink", "background"):
            if Path(options[name]).is_file():
                options[name] = self.of_file(options[name], "file")
        facts = {
            "portrait": self.of_file(job.portrait, "picture"),
            "speech": self.of_file(job.speech, "recording"),
            "options": options,
            "face": job.face,
            "turn": job.turn,
            "model": self._model,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def file_digest(path: str | Path, kind: str) -> str:
    """SHA-256 of a file.

    Raises:
        InputError: It is missing or cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise InputError(str(path), "there is no such file", f"Check the path of the {kind}.") from error
    except OSError as error:
        problem = "it is not a file" if Path(path).is_dir() else f"it cannot be read ({error.strerror})"
        raise InputError(str(path), problem, f"Check the path of the {kind}.") from error


def _model_digest(model: SDTalk) -> str:
    digest = hashlib.sha256(json.dumps(asdict(model.config), sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + content.tobytes())
    return digest.hexdigest()
