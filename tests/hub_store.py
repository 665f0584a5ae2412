"""Storage of the Hub stand-in: repositories with all their commits, and large files by content."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

MAIN = "main"
OWNER = "somebody"


class Refused(Exception):
    """An answer that is an error, with the codes that huggingface_hub reads."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


@dataclass(frozen=True)
class Blob:
    content: bytes
    large: bool

    @property
    def oid(self) -> str:
        """As git names a blob."""
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.large else self.oid

    def facts(self, path: str) -> dict:
        size = len(self.content)
        facts = {"type": "file", "path": path, "oid": self.oid, "size": size}
        if self.large:
            facts["lfs"] = {"oid": self.sha256, "size": size, "pointerSize": 134}
        return facts


@dataclass(frozen=True)
class Commit:
    sha: str
    title: str
    files: dict[str, Blob]
    date: str


@dataclass
class Repository:
    kind: str  # "model" or "dataset"
    name: str  # user/name
    private: bool
    commits: list[Commit] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.add("initial commit", {".gitattributes": Blob(b"*.safetensors filter=lfs\n", False)})

    @property
    def head(self) -> Commit:
        return self.commits[-1]

    def add(self, title: str, files: dict[str, Blob]) -> Commit:
        parts = f"{self.kind}/{self.name}/{len(self.commits)}/{title}"
        date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        self.commits.append(Commit(hashlib.sha1(parts.encode()).hexdigest(), title, files, date))
        return self.head

    def at(self, revision: str) -> Commit:
        sha = self.tags.get(revision, revision)
        for commit in reversed(self.commits):
            if revision == MAIN or commit.sha == sha:
                return commit
        raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def info(self, commit: Commit) -> dict:
        siblings = [{"rfilename": path, "size": len(b.content)} for path, b in commit.files.items()]
        return {
            "_id": commit.sha[:24], "id": self.name, "modelId": self.name, "author": self.name.split("/")[0],
            "sha": commit.sha, "private": self.private, "gated": False, "disabled": False, "tags": [],
            "downloads": 0, "likes": 0, "siblings": siblings, "lastModified": commit.date,
            "createdAt": self.commits[0].date,
        }  # fmt: skip

    def tree(self, commit: Commit, folder: str, recursive: bool) -> list[dict]:
        inside = folder.strip("/") + "/" if folder.strip("/") else ""
        below = {p: b for p, b in sorted(commit.files.items()) if p.startswith(inside)}
        if inside and not below:
            raise Refused(404, f"{folder} does not exist on {commit.sha}", "EntryNotFound")
        folders: dict[str, dict] = {}
        files = []
        for path, blob in below.items():
            steps = path.removeprefix(inside).split("/")
            for depth in range(1, len(steps)):
                if recursive or depth == 1:
                    name = inside + "/".join(steps[:depth])
                    oid = hashlib.sha1(name.encode()).hexdigest()
                    folders[name] = {"type": "directory", "path": name, "oid": oid, "size": 0}
            if recursive or len(steps) == 1:
                files.append(blob.facts(path))
        return [*folders.values(), *files]


class Store:
    """Repositories and large files, safe for several threads."""

    def __init__(self, large_bytes: int) -> None:
        self.large_bytes = large_bytes
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.large: dict[str, bytes] = {}
        self.lock = threading.RLock()

    def is_large(self, path: str, size: int) -> bool:
        return size >= self.large_bytes or path.endswith((".safetensors", ".tar", ".npz"))

    def repository(self, kind: str, name: str) -> Repository:
        try:
            return self.repositories[kind, name]
        except KeyError:
            raise Refused(404, "Repository not found", "RepoNotFound") from None

    def commit(self, repository: Repository, body: bytes) -> Commit:
        """Apply a commit's lines, all of them or none."""
        lines = [json.loads(line) for line in body.splitlines() if line]
        header = lines[0]["value"]
        with self.lock:
            if header.get("parentCommit") not in (None, repository.head.sha):
                raise Refused(412, "A commit has happened since. Please refresh and try again.")
            files = self._changed(repository.head.files, lines[1:])
            return repository.add(header["summary"], files)

    def _changed(self, files: dict[str, Blob], lines: Iterable[dict]) -> dict[str, Blob]:
        files = dict(files)
        for line in lines:
            value = line["value"]
            path = value["path"]
            if line["key"] == "file":
                files[path] = Blob(base64.b64decode(value["content"]), False)
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.large:
                    raise Refused(400, f"LFS pointer of {path} points to a file that does not exist")
                files[path] = Blob(self.large[value["oid"]], True)
            elif line["key"] == "deletedFile":
                if files.pop(path, None) is None:
                    raise Refused(404, "A file with this name doesn't exist", "EntryNotFound")
            else:
                folder = path.rstrip("/") + "/"
                files = {p: b for p, b in files.items() if not p.startswith(folder)}
        return files
