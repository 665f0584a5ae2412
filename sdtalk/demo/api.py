"""HTTP interface beside the page: orders of videos as forms, answers as JSON, and whether the server is well.

docs/http.md describes it. Everything waits in the page's own line, and the same people are let in.
"""

import asyncio
import base64
import binascii
import hmac
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio.to_thread
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from sdtalk import __version__
from sdtalk.demo.api_form import as_json, ordered, received
from sdtalk.demo.api_jobs import BROKEN, ApiJob, ApiJobs
from sdtalk.demo.service import TalkService
from sdtalk.demo.waiting_line import LineFull
from sdtalk.errors import InputError

UNUSABLE, FULL, GONE = 422, 503, 499
KINDS = {".mp4": "video/mp4", ".webm": "video/webm", ".mov": "video/quicktime", ".gif": "image/gif"}

Answer = Callable[[Request], Awaitable[Response]]


class Api:
    """Answers to programs."""

    def __init__(
        self,
        service: TalkService,
        keep_s: float | int,
        clean_every_s: float | int,
        free_label: bool = False,
    ) -> None:
        """Begin without jobs.

        Args:
            service: Makes the videos of the page, too.
            keep_s: For how many seconds a video is kept.
            clean_every_s: How often is looked for older ones.
            free_label: Whether programs may choose the label, and leave out the invisible mark.
        """
        self.service, self.clean_every_s, self.free_label = service, clean_every_s, free_label
        self.jobs = ApiJobs(service, keep_s)

    def app_options(self) -> dict[str, Any]:
        """Options of the FastAPI application in which the page runs."""
        paths: list[tuple[str, str, Answer]] = [
            ("POST", "/api/talk", self.talk),
            ("POST", "/api/jobs", self.order),
            ("GET", "/api/jobs/{job}", self.ask),
            ("GET", "/api/jobs/{job}/video", self.fetch),
            ("DELETE", "/api/jobs/{job}", self.delete),
        ]
        routes = [Route(path, for_those_let_in(answer), methods=[method]) for method, path, answer in paths]
        return {"routes": [Route("/health", self.health), *routes], "lifespan": self._lifespan}

    @asynccontextmanager
    async def _lifespan(self, _: object) -> AsyncIterator[None]:
        """While the page is served."""
        cleaning = asyncio.create_task(self.jobs.keep_clean(self.clean_every_s))
        try:
            yield
        finally:
            cleaning.cancel()
            with suppress(asyncio.CancelledError):
                await cleaning
            await self.jobs.close()

    async def health(self, _: Request) -> Response:
        """Whether the server is well, and how busy; tells everybody, and nothing of anybody."""
        service, pipeline = self.service, self.service.models.pipeline
        busy = len(service.line)
        return JSONResponse(
            {
                "status": "ok",
                "version": __version__,
                "models": service.models.names,
                "device": str(pipeline.device) if pipeline else service.models.device,
                "working": min(busy, service.at_once),
                "waiting": max(busy - service.at_once, 0),
                "at_once": service.at_once,
                "max_seconds": service.longest_s,
            }
        )

    async def talk(self, request: Request) -> Response:
        """Make a video, and answer with it; a program that does not wait stops it."""
        job = await self._ordered(request)
        if isinstance(job, Response):
            return job
        assert job.task is not None
        while not job.task.done():
            await asyncio.wait({job.task}, timeout=1)
            if await request.is_disconnected():
                self.jobs.drop(job)
                return Response(status_code=GONE)
        if job.video is None:
            answer = self._failed(job)
            self.jobs.drop(job)
            return answer
        return self._file(job, BackgroundTask(self.jobs.drop, job))

    async def order(self, request: Request) -> Response:
        """Order a video."""
        job = await self._ordered(request)
        if isinstance(job, Response):
            return job
        told = self._told(request, job)
        return JSONResponse(told, 202, {"Location": told["url"]})

    async def ask(self, request: Request) -> Response:
        """Say how far a job is."""
        job = self.jobs.get(request.path_params["job"])
        return JSONResponse(self._told(request, job)) if job else unknown()

    async def fetch(self, request: Request) -> Response:
        """Answer with a finished video."""
        job = self.jobs.get(request.path_params["job"])
        if job is None:
            return unknown()
        if job.outcome is None:
            return told_as(
                "this video", "it is not finished", "Ask for its job until the state is finished.", 409
            )
        return self._failed(job) if job.video is None else self._file(job)

    async def delete(self, request: Request) -> Response:
        """Stop a job, and delete what is left of it."""
        job = self.jobs.get(request.path_params["job"])
        if job is None:
            return unknown()
        self.jobs.drop(job)
        return Response(status_code=204)

    async def _ordered(self, request: Request) -> ApiJob | Response:
        """Take in an order, and put it into the line; or what is wrong with it."""
        folder = tempfile.TemporaryDirectory(prefix="sdtalk-")
        given: dict[str, str | Path] = {}
        try:
            given = await received(request, Path(folder.name))
            names = self.service.models.names
            work = ordered(given, names, Path(folder.name), self.free_label)
            work = await anyio.to_thread.run_sync(self.service.looked_at, work)
            return self.jobs.start(work, given, folder)
        except BaseException as error:
            folder.cleanup()
            if isinstance(error, HTTPException):
                return told_as(
                    "the form", error.detail.rstrip("."), "Send multipart/form-data.", error.status_code
                )
            if not isinstance(error, InputError):
                raise
            return self._refused(error, given)

    def _refused(self, error: InputError, given: dict[str, str | Path]) -> Response:
        source = self.service.models.sources.get(str(given.get("model") or self.service.models.names[0]))
        if isinstance(error, LineFull):
            wait = str(round(self.service.line.wait()))
            return JSONResponse(as_json(error, given, source), FULL, {"Retry-After": wait})
        return JSONResponse(as_json(error, given, source), 500 if error is BROKEN else UNUSABLE)

    def _failed(self, job: ApiJob) -> Response:
        """Why a job that has ended has no video."""
        if job.outcome and job.outcome.problem:
            return self._refused(job.outcome.problem, job.given)
        return told_as("this video", "it was stopped", "Order it again.", 409)

    def _told(self, request: Request, job: ApiJob) -> dict:
        address = f"{request.scope.get('root_path', '')}/api/jobs/{job.id}"
        return job.as_json(address, self.service.models.sources.get(job.work.model))

    def _file(self, job: ApiJob, after: BackgroundTask | None = None) -> Response:
        assert job.outcome is not None
        headers = {"Cache-Control": "no-store"}
        if job.outcome.note:
            headers["SDTalk-Note"] = quote(job.outcome.note, safe=" ,;:!?()'/")  # headers are ASCII
        suffix = job.work.suffix
        return FileResponse(
            job.work.video,
            headers=headers,
            media_type=KINDS[suffix],
            filename=f"talk{suffix}",
            background=after,
        )


def told_as(subject: str, problem: str, remedy: str, status: int) -> Response:
    """An error that is about no parameter."""
    return JSONResponse(as_json(InputError(subject, problem, remedy), {}, None), status)


def unknown() -> Response:
    """There is no such job."""
    return told_as("this job", "there is none", "It was deleted, or is too old; order it again.", 404)


def for_those_let_in(answer: Answer) -> Answer:
    """Ask for name and password where the page does: by HTTP's own way, or the page's cookie."""

    async def checked(request: Request) -> Response:
        if await is_let_in(request):
            return await answer(request)
        refused = told_as(
            "this server", "it wants a name and a password", "Send them (curl -u NAME:PASSWORD).", 401
        )
        refused.headers["WWW-Authenticate"] = 'Basic realm="SDTalk", charset="UTF-8"'
        return refused

    return checked


async def is_let_in(request: Request) -> bool:
    """Whether a request comes from somebody whom the page lets in; `request.app` is Gradio's."""
    app = request.app
    if app.auth is None:
        return True
    cookies = (f"access-token-{app.cookie_id}", f"access-token-unsecure-{app.cookie_id}")
    if any(request.cookies.get(name) in app.tokens for name in cookies):
        return True
    kind, _, code = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() != "basic":
        return False
    try:
        name, _, password = base64.b64decode(code, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return False
    right = app.auth.get(name) if isinstance(app.auth, dict) else None
    return right is not None and hmac.compare_digest(password.encode(), right.encode())
