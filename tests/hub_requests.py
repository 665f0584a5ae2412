"""Request handler of the Hub stand-in: answers what the huggingface_hub client asks for."""

import hashlib
import json
import re
import socket
import struct
import time
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from hub_store import MAIN, OWNER, Blob, Refused, Repository

if TYPE_CHECKING:
    from hub_stand_in import HubStandIn

REPOSITORY = r"/api/(model|dataset)s/([\w.-]+/[\w.-]+)"


def reset(connection: socket.socket) -> None:
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RD)
        connection.close()
    except OSError:
        pass


class Broken(Exception):
    """The connection is to break now."""


class Handler(BaseHTTPRequestHandler):
    hub: "HubStandIn"
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _serve(self) -> None:
        url = urlsplit(self.path)
        self.route, self.query = unquote(url.path), parse_qs(url.query)
        request = f"{self.command} {self.route}"
        self.hub.requests.append(request)
        self.fault = self.hub.fault_of(request)
        try:
            self.body = self._read_body()
            self._answer_or_fail()
        except Broken:
            reset(self.connection)
            self.close_connection = True
        except (BrokenPipeError, ConnectionError):
            self.close_connection = True

    def _read_body(self) -> bytes:
        limit = self.fault.reset_after_bytes if self.fault else None
        if limit is not None:
            self.rfile.read(min(limit, int(self.headers.get("Content-Length") or limit)))
            raise Broken
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer_or_fail(self) -> None:
        fault = self.fault
        if fault and fault.delay_seconds:
            time.sleep(fault.delay_seconds)
        if fault and fault.until:
            fault.until.wait(30)
        try:
            if fault and fault.status:
                raise Refused(fault.status, fault.message)
            self._dispatch()
        except Refused as refused:
            headers = {"X-Error-Message": refused.message}
            if refused.code:
                headers["X-Error-Code"] = refused.code
            self._json({"error": refused.message}, refused.status, headers)

    # who asks, and what they may do

    def _account(self) -> tuple[str, str] | None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in self.hub.accounts:
            raise Refused(401, "Invalid credentials in Authorization header")
        return self.hub.accounts.get(token)

    def _repository(self, kind: str, name: str, write: bool = False) -> Repository:
        account = self._account()
        try:
            repository = self.hub.store.repository(kind, name)
        except Refused:
            if account is None:
                raise Refused(401, "Repository not found", "RepoNotFound") from None
            raise
        owner = account is not None and account[0] == name.split("/")[0]
        if repository.private and not owner:
            raise Refused(404 if account else 401, "Repository not found", "RepoNotFound")
        if write and not (owner and account == (account[0], "write")):
            raise Refused(403, "You don't have the rights to write to this repository")
        return repository

    # answers

    def _send(self, content: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        if self.fault and self.fault.lose_answer:
            raise Broken
        self.send_response(status)
        headers = {"Content-Length": str(len(content))} | (headers or {})
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.fault and self.fault.truncate_bytes is not None:
            self.wfile.write(content[: self.fault.truncate_bytes])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_WR)
            self.close_connection = True
            return
        self.wfile.write(content)

    def _json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(value).encode(), status, {"Content-Type": "application/json"} | (headers or {}))

    def _dispatch(self) -> None:
        for pattern, methods, handle in ROUTES:
            if self.command in methods.split() and (match := re.fullmatch(pattern, self.route)):
                handle(self, *match.groups())
                return
        raise Refused(404, f"No route for {self.command} {self.route}")

    def whoami(self) -> None:
        account = self._account()
        if account is None:
            raise Refused(401, "Invalid username or password.")
        role = {"displayName": "token", "role": account[1]}
        self._json({"type": "user", "name": account[0], "orgs": [], "auth": {"accessToken": role}})

    def create(self) -> None:
        wanted, account = json.loads(self.body), self._account()
        if account is None:
            raise Refused(401, "Invalid username or password.")
        owner = wanted.get("organization") or account[0]
        kind, name = wanted.get("type") or "model", f"{owner}/{wanted['name']}"
        if account != (owner, "write"):
            raise Refused(403, "You don't have the rights to create a repository under this namespace")
        private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
        with self.hub.store.lock:
            known = self.hub.store.repositories
            taken = (kind, name) in known
            if not taken:
                known[kind, name] = Repository(kind, name, private)
        url = f"{self.hub.url}/{'datasets/' if kind == 'dataset' else ''}{name}"
        problem = {"error": "You already created this repo"} if taken else {}
        self._json({"url": url, "name": name, "id": name} | problem, 409 if taken else 200)

    def delete(self) -> None:
        wanted = json.loads(self.body)
        kind, name = wanted.get("type") or "model", f"{wanted.get('organization') or OWNER}/{wanted['name']}"
        self._repository(kind, name, write=True)
        del self.hub.store.repositories[kind, name]
        self._json({})

    def validate(self) -> None:
        content = json.loads(self.body)["content"]
        head = re.match(r"---\n(.*?)\n---\n", content, re.S)
        errors = [] if head else [{"message": "no YAML block"}]
        self._json({"errors": errors, "warnings": []}, 400 if errors else 200)

    def info(self, kind: str, name: str, revision: str | None) -> None:
        repository = self._repository(kind, name)
        self._json(repository.info(repository.at(revision or MAIN)))

    def check(self, kind: str, name: str, write: str | None) -> None:
        self._repository(kind, name, write=bool(write))
        self._json({})

    def preupload(self, kind: str, name: str, revision: str) -> None:
        repository = self._repository(kind, name, write=True)
        answers = []
        for file in json.loads(self.body)["files"]:
            present = repository.at(revision).files.get(file["path"])
            mode = "lfs" if self.hub.store.is_large(file["path"], file["size"]) else "regular"
            answer = {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}
            answers.append(answer | ({"oid": present.etag} if present else {}))
        self._json({"files": answers})

    def batch(self, prefix: str | None, name: str) -> None:
        self._repository("dataset" if prefix else "model", name, write=True)
        self._json(
            {"transfer": "basic", "objects": [self._wanted(o) for o in json.loads(self.body)["objects"]]}
        )

    def _wanted(self, item: dict) -> dict:
        oid, part = item["oid"], self.hub.part_bytes
        if oid in self.hub.store.large:
            return item
        upload: dict[str, Any] = {"href": f"{self.hub.url}/large/{oid}"}
        if part:
            numbers = range(1, -(-item["size"] // part) + 1)
            parts = {f"{n:05}": f"{self.hub.url}/large/{oid}/{n}" for n in numbers}
            upload["header"] = {"chunk_size": str(part)} | parts
        return item | {"actions": {"upload": upload, "verify": {"href": f"{self.hub.url}/verify"}}}

    def put_large(self, oid: str, part: str | None) -> None:
        if part:
            self.hub.part(oid, int(part), self.body)
        else:
            self._keep(oid, self.body)
        self._send(b"", headers={"ETag": f'"{hashlib.md5(self.body).hexdigest()}"'})

    def _keep(self, oid: str, content: bytes) -> None:
        if hashlib.sha256(content).hexdigest() != oid:
            raise Refused(400, "The content does not have the SHA-256 it was announced with")
        self.hub.store.large[oid] = content

    def complete(self, oid: str) -> None:
        self._keep(oid, self.hub.joined(oid))
        self._json({})

    def verify(self) -> None:
        wanted = json.loads(self.body)
        found = self.hub.store.large.get(wanted["oid"])
        if found is None or len(found) != wanted["size"]:
            raise Refused(404, "No such object")
        self._json({})

    def commit(self, kind: str, name: str, revision: str) -> None:
        repository = self._repository(kind, name, write=True)
        repository.at(revision)
        made = self.hub.store.commit(repository, self.body)
        url = f"{self.hub.url}/{name}/commit/{made.sha}"
        self._json({"success": True, "commitOid": made.sha, "commitUrl": url, "hookOutput": ""})

    def tag(self, kind: str, name: str, revision: str) -> None:
        repository, tag = self._repository(kind, name, write=True), json.loads(self.body)["tag"]
        if tag in repository.tags:
            raise Refused(409, "Tag reference exists already")
        repository.tags[tag] = repository.at(revision).sha
        self._json({})

    def commits(self, kind: str, name: str, revision: str) -> None:
        commits = self._repository(kind, name).commits
        self._json([
            {"id": c.sha, "title": c.title, "message": "", "date": c.date, "authors": [{"user": OWNER}]}
            for c in reversed(commits)
        ])  # fmt: skip

    def refs(self, kind: str, name: str) -> None:
        repository = self._repository(kind, name)
        tags = [{"name": t, "ref": f"refs/tags/{t}", "targetCommit": s} for t, s in repository.tags.items()]
        main = {"name": MAIN, "ref": "refs/heads/main", "targetCommit": repository.head.sha}
        self._json({"branches": [main], "converts": [], "tags": tags})

    def tree(self, kind: str, name: str, revision: str, folder: str | None) -> None:
        repository = self._repository(kind, name)
        recursive = self.query.get("recursive", ["False"])[0].lower() in ("true", "1")
        entries = repository.tree(repository.at(revision), folder or "", recursive)
        first = int(self.query.get("cursor", ["0"])[0])
        headers = {}
        if len(entries) > first + self.hub.page:
            follow = f"{urlsplit(self.path).path}?recursive={recursive}&cursor={first + self.hub.page}"
            headers["Link"] = f'<{self.hub.url}{follow}>; rel="next"'
        self._json(entries[first : first + self.hub.page], headers=headers)

    def paths(self, kind: str, name: str, revision: str) -> None:
        repository = self._repository(kind, name)
        commit = repository.at(revision)
        everything = {e["path"]: e for e in repository.tree(commit, "", True)}
        wanted = parse_qs(self.body.decode()).get("paths", [])
        self._json([everything[path] for path in wanted if path in everything])

    def resolve(self, prefix: str | None, name: str, revision: str, path: str) -> None:
        commit = self._repository("dataset" if prefix else "model", name).at(revision)
        headers = {"X-Repo-Commit": commit.sha}
        if path not in commit.files:
            raise Refused(404, "Entry not found", "EntryNotFound")
        blob = commit.files[path]
        if not blob.large:
            self._content(blob, headers)
            return
        linked = {"X-Linked-Size": str(len(blob.content)), "X-Linked-ETag": f'"{blob.etag}"'}
        self._send(b"", 302, headers | linked | {"Location": f"{self.hub.storage_url}/{blob.sha256}"})

    def get_large(self, oid: str) -> None:
        assert "Authorization" not in self.headers
        self._content(Blob(self.hub.store.large[oid], True), {})

    def _content(self, blob: Blob, headers: dict[str, str]) -> None:
        headers |= {"ETag": f'"{blob.etag}"', "Accept-Ranges": "bytes"}
        size = len(blob.content)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not wanted:
            self._send(blob.content, headers=headers)
            return
        self.hub.ranges.append(self.headers["Range"])
        first, last = int(wanted[1]), min(int(wanted[2] or size - 1), size - 1)
        if first >= size:
            raise Refused(416, "Range not satisfiable")
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        self._send(blob.content[first : last + 1], 206, headers)


NAME = r"([\w.-]+/[\w.-]+)"
ROUTES = [
    (r"/api/whoami-v2", "GET", Handler.whoami),
    (r"/api/repos/create", "POST", Handler.create),
    (r"/api/repos/delete", "DELETE", Handler.delete),
    (r"/api/validate-yaml", "POST", Handler.validate),
    (rf"{REPOSITORY}(?:/revision/(.+))?", "GET", Handler.info),
    (rf"{REPOSITORY}/auth-check(/write)?", "GET", Handler.check),
    (rf"{REPOSITORY}/preupload/(.+)", "POST", Handler.preupload),
    (rf"{REPOSITORY}/commit/(.+)", "POST", Handler.commit),
    (rf"{REPOSITORY}/tag/(.+)", "POST", Handler.tag),
    (rf"{REPOSITORY}/commits/(.+)", "GET", Handler.commits),
    (rf"{REPOSITORY}/refs", "GET", Handler.refs),
    (rf"{REPOSITORY}/tree/([^/]+)(?:/(.+))?", "GET", Handler.tree),
    (rf"{REPOSITORY}/paths-info/(.+)", "POST", Handler.paths),
    (rf"/(datasets/)?{NAME}\.git/info/lfs/objects/batch", "POST", Handler.batch),
    (r"/large/(\w+)(?:/(\d+))?", "PUT", Handler.put_large),
    (r"/large/(\w+)", "GET HEAD", Handler.get_large),
    (r"/large/(\w+)", "POST", Handler.complete),
    (r"/verify", "POST", Handler.verify),
    (rf"/(datasets/)?{NAME}/resolve/([^/]+)/(.+)", "GET HEAD", Handler.resolve),
]
