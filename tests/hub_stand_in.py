"""Hub stand-in: a local HTTP server for the real huggingface_hub client, which can be told to fail.

    with HubStandIn() as hub:
        hub.point_to(monkeypatch, tmp_path)     # the client of this process; HF_ENDPOINT=hub.url for others
        hub.fail("PUT /large", status=500, times=2)

Speaks HTTP/1.1 on 127.0.0.1. Large files go the way of Git LFS, in one piece or several; Xet is switched off.
"""

import re
import socket
import threading
import time
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hub_requests import Handler, reset
from hub_store import OWNER, Repository, Store

TOKEN, READER = "hf_owner", "hf_reader"


@dataclass
class Fault:
    """What goes wrong with requests whose "METHOD /path" matches a pattern."""

    pattern: str
    times: int = 1
    status: int = 0  # answer with this error
    message: str = "injected"
    delay_seconds: float = 0
    until: threading.Event | None = None  # hold it back so long
    reset_after_bytes: int | None = None  # break the connection after so many bytes of what is sent
    truncate_bytes: int | None = None  # break it after so many bytes of the answer
    lose_answer: bool = False  # do what is asked, and never say so


class HubStandIn:
    """The server; a context manager.

    Attributes:
        url: For HF_ENDPOINT.
        store: The repositories and large files.
        requests: "METHOD /path" of every request, in order.
        ranges: The Range header of every request for a part of a file.
    """

    def __init__(self, large_bytes: int = 20_000, part_bytes: int = 0, page: int = 1000) -> None:
        self.store = Store(large_bytes)
        self.part_bytes, self.page = part_bytes, page
        self.accounts = {
            TOKEN: (OWNER, "write"),
            READER: (OWNER, "read"),
            "hf_stranger": ("stranger", "write"),
        }
        self.requests: list[str] = []
        self.ranges: list[str] = []
        self._faults: list[Fault] = []
        self._parts: dict[str, dict[int, bytes]] = {}
        self._port = 0
        self._server: ThreadingHTTPServer | None = None
        self.up()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def storage_url(self) -> str:
        """Where downloads of large files are sent: by another name, as a storage that is not to see the token."""
        return f"http://localhost:{self._port}/large"

    def up(self) -> None:
        """Start serving, on the port of before."""
        handler = type("Handler", (Handler,), {"hub": self})
        self._server = _Server(("127.0.0.1", self._port), handler)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def down(self) -> None:
        """Stop: connections are refused, those that are open break."""
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()
        self._server.break_connections()

    def __enter__(self) -> "HubStandIn":
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    def point_to(self, monkeypatch: pytest.MonkeyPatch, cache: Path, token: str | None = TOKEN) -> None:
        """Make the client of this process talk to this server only, and wait little before it tries again."""
        from huggingface_hub import close_session, constants, file_download
        from huggingface_hub.utils import _http

        close_session()
        monkeypatch.setattr(constants, "ENDPOINT", self.url)
        template = self.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        for module in (_http, file_download):
            monkeypatch.setattr(module, "time", _Hurried)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE"):
            monkeypatch.delenv(name, raising=False)
        if token:
            monkeypatch.setenv("HF_TOKEN", token)

    def fail(self, pattern: str, **what: Any) -> None:
        """Let the next requests that match go wrong, see `Fault`; `times=-1` until `recover`."""
        self._faults.append(Fault(pattern, **what))

    def recover(self) -> None:
        """No faults any more."""
        self._faults.clear()

    def model(self, name: str = f"{OWNER}/head") -> Repository:
        return self.store.repository("model", name)

    def fault_of(self, request: str) -> Fault | None:
        with self.store.lock:
            for fault in self._faults:
                if fault.times and re.search(fault.pattern, request):
                    fault.times -= 1
                    return fault
        return None

    def part(self, oid: str, number: int, content: bytes) -> None:
        self._parts.setdefault(oid, {})[number] = content

    def joined(self, oid: str) -> bytes:
        return b"".join(content for _, content in sorted(self._parts.pop(oid).items()))


class _Hurried:
    """The client's `time`: whole seconds of patience become hundredths."""

    monotonic, time = time.monotonic, time.time

    @staticmethod
    def sleep(seconds: float) -> None:
        time.sleep(seconds / 100)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, *args: Any) -> None:
        self.connections: set[socket.socket] = set()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def break_connections(self) -> None:
        for connection in list(self.connections):
            reset(connection)

    def handle_error(self, *_: Any) -> None:  # broken connections are no news here
        pass
