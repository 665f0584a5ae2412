"""Hub uploader: uploads snapshots of a run's folders in the background while training goes on.

    uploader = HubUploader("USER/NAME", spool=run / ".hub")     # in the main process only
    uploader.start()                                            # a wrong token shows here, before any training
    uploader.upload(run / "model", "Step 2000")                 # returns at once
    failures = uploader.close(timeout_seconds=600)

The model lies in the root of the repository (config.json, model.safetensors, README.md), the state for `--resume
USER/NAME` in its folder `training/`. Every upload is one commit, so that nobody ever sees half of it; earlier ones
stay as revisions. A lost connection costs warnings: an upload is tried again until it works or a newer one replaces it.
"""

import logging
import os
import random
import shutil
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import constants, get_session, get_token
from huggingface_hub.utils import disable_progress_bars

from sdtalk.errors import InputError
from training.hub_repository import (
    LOG_IN,
    check_repo_name,
    commit_folder,
    error_reason,
    prepare_repository,
    status_of,
)

LINKED_BYTES = 1 << 20
"""Files from this size on are linked into the snapshot; smaller ones are copied, since they may be written into."""

READ_TIMEOUT_SECONDS = 300
"""A connection that says nothing for so long is lost; without this the client would wait for ever."""

PERMANENT_ERRORS = (400, 401, 403, 404, 413, 422, 507)
"""Answers that waiting does not change; while training goes on somebody may, so that they are tried again, too."""

logger = logging.getLogger(__name__)


@dataclass
class _Upload:
    """A snapshot on its way."""

    source: Path
    folder: Path
    message: str
    path_in_repo: str
    attempts: int = 0
    due: float = 0.0  # by time.monotonic()
    problem: str = "there was no time for it"
    permanent: bool = False


@dataclass
class HubUploader:
    """Uploads snapshots of folders from a thread of its own; `upload` never waits and never fails.

    Attributes:
        repo: USER/NAME.
        private: Whether the repository is to be private; then one that is public is refused.
        spool: Where snapshots wait, best on the disk of what is uploaded; emptied by `start`. None: a temporary folder.
        first_wait_seconds: Before the second attempt; doubled for each one after it.
        longest_wait_seconds: Limit of that.
    """

    repo: str
    private: bool = True
    spool: Path | None = None
    first_wait_seconds: float = 10
    longest_wait_seconds: float = 900
    _waiting: dict[str, _Upload] = field(default_factory=dict, init=False)
    _current: _Upload | None = field(default=None, init=False)
    _failed: dict[str, _Upload] = field(default_factory=dict, init=False)
    _spool: Path = field(init=False)
    _changed: threading.Condition = field(default_factory=threading.Condition, init=False)
    _closing: bool = field(default=False, init=False)
    _stopped: bool = field(default=False, init=False)
    _ready: bool = field(default=False, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)

    def start(self) -> None:
        """Check the name, the token and the permission, make the repository, and start the thread.

        Raises:
            InputError: One of them is wrong. Where the Hub cannot be reached there is only a warning, and the check is
                made later.
        """
        check_repo_name(self.repo)
        if constants.is_offline_mode():
            raise InputError("HF_HUB_OFFLINE", f"it forbids uploads to {self.repo}", "Unset it.")
        if get_token() is None:
            raise InputError(f"Hub repository {self.repo}", "there is no token to upload with", LOG_IN)
        disable_progress_bars()  # they would write over the one of the training
        try:
            self._prepare()
        except InputError:
            raise
        except Exception as error:
            logger.warning(
                "The Hub cannot be reached now (%s): uploads to %s are tried later.",
                error_reason(error),
                self.repo,
            )
        self._make_spool()
        self._thread = threading.Thread(target=self._work, name="hub-uploader", daemon=True)
        self._thread.start()

    def upload(self, folder: Path, message: str, path_in_repo: str = "") -> None:
        """Take a snapshot of a folder and upload it soon; the folder may go or be replaced at once.

        Large files are linked, not copied: replace them, but never write into them. A snapshot for the same place that
        is still waiting is dropped.

        Args:
            folder: Its files are uploaded, those in folders below it, too.
            message: Of the commit.
            path_in_repo: "": the root, where other files stay; otherwise a folder that then holds just these files.
        """
        upload = _Upload(folder, Path(), message, path_in_repo)
        try:
            upload.folder = self._snapshot(folder)
        except OSError as error:
            upload.problem = error_reason(error)
            logger.warning("'%s' will not be uploaded: %s.", message, upload.problem)
            with self._changed:
                self._failed[path_in_repo] = upload
            return
        with self._changed:
            older = self._waiting.get(path_in_repo)
            self._waiting[path_in_repo] = upload
            self._changed.notify()
        if older is not None:
            _remove(older.folder)

    def close(self, timeout_seconds: float = 600) -> list[str]:
        """Wait until everything is uploaded, and end the thread.

        Args:
            timeout_seconds: Wait no longer.

        Returns:
            What is not on the Hub, why, and how to bring it there; a line for each upload.
        """
        if self._thread is None:
            return []
        deadline = time.monotonic() + timeout_seconds
        with self._changed:
            self._closing = True
            for upload in self._waiting.values():
                upload.due = 0  # a last try at once
            self._changed.notify()
        self._thread.join(timeout_seconds)
        with self._changed:
            self._stopped = True
            self._changed.notify()
            missing = [u for u in (*self._failed.values(), self._current, *self._waiting.values()) if u]
        self._thread.join(max(0.0, min(1.0, deadline + 1 - time.monotonic())))
        if not self._thread.is_alive():
            _remove(self._spool)
        return [
            f"'{u.message}' is not on {self.repo} ({u.problem}); later: hf upload {self.repo} {u.source} "
            f"{u.path_in_repo or '.'}"
            for u in missing
        ]

    def _make_spool(self) -> None:
        if self.spool is None:
            self._spool = Path(tempfile.mkdtemp(prefix="sdtalk-hub-"))
            return
        self._spool = self.spool
        _remove(self._spool)  # of a run that was killed
        try:
            self._spool.mkdir(parents=True)
        except OSError as error:
            problem = f"it cannot be made ({error.strerror})"
            raise InputError(str(self.spool), problem, "Choose another output folder.") from error

    def _snapshot(self, folder: Path) -> Path:
        snapshot = Path(tempfile.mkdtemp(dir=self._spool))
        try:
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    copy = snapshot / path.relative_to(folder)
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    _link_or_copy(path, copy)
            if not any(snapshot.iterdir()):
                raise FileNotFoundError(f"{folder} is empty")
        except OSError:
            _remove(snapshot)
            raise
        return snapshot

    def _prepare(self) -> None:
        """Make the repository where there is none, and see whether it can be written to."""
        silence = READ_TIMEOUT_SECONDS
        get_session().timeout = (20, silence, silence, silence)  # to connect, read, write, get a connection
        if not self._ready:
            prepare_repository(self.repo, self.private)
            self._ready = True

    def _work(self) -> None:
        """The thread: the earliest upload that is due, until all is done or time is up."""
        while True:
            with self._changed:
                while (upload := self._next()) is None:
                    if self._stopped or (self._closing and not self._waiting):
                        return
                    self._changed.wait(self._pause())
                del self._waiting[upload.path_in_repo]
                self._current = upload
            done = self._try(upload)
            with self._changed:
                self._current = None
                if done:
                    self._failed.pop(upload.path_in_repo, None)
                if not (done or self._stopped or upload.path_in_repo in self._waiting):
                    if not (self._closing and upload.permanent):
                        self._waiting[upload.path_in_repo] = upload
                        continue
                    self._failed[upload.path_in_repo] = upload
            _remove(upload.folder)

    def _next(self) -> _Upload | None:
        if self._stopped:
            return None
        now = time.monotonic()
        return next((upload for upload in self._waiting.values() if upload.due <= now), None)

    def _pause(self) -> float | None:
        due = min((upload.due for upload in self._waiting.values()), default=None)
        return None if due is None else max(0.0, due - time.monotonic())

    def _try(self, upload: _Upload) -> bool:
        """Upload a snapshot; a failure is told and remembered, whatever it is: training must not notice."""
        try:
            self._prepare()
            commit_folder(self.repo, upload.folder, upload.message, upload.path_in_repo)
        except BaseException as error:  # hf_xet's panics are no Exceptions
            upload.attempts += 1
            upload.problem = error_reason(error)
            upload.permanent = isinstance(error, InputError) or status_of(error) in PERMANENT_ERRORS
            doubled = 2 ** min(upload.attempts - 1, 30)
            wait = min(self.first_wait_seconds * doubled, self.longest_wait_seconds)
            wait *= random.uniform(0.75, 1.25)  # so that many runs do not come back at the same moment
            upload.due = time.monotonic() + wait
            logger.warning(
                "'%s' could not be uploaded to %s (%s); next try in %.0f s.",
                upload.message, self.repo, upload.problem, wait,
            )  # fmt: skip
            return False
        return True


def _link_or_copy(path: Path, copy: Path) -> None:
    if path.stat().st_size >= LINKED_BYTES:
        try:
            os.link(path, copy)
            return
        except OSError:  # another disk, or a file system without links
            pass
    shutil.copyfile(path, copy)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
