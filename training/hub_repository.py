"""Hub repository: create, check, commit and download, at once; `training.hub_uploader` does it in the background."""

from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from sdtalk.errors import InputError
from sdtalk.weights.hub import split_revision

LOG_IN = (
    "Log in with `hf auth login`, or set HF_TOKEN; a token with the right to write is made at "
    "https://huggingface.co/settings/tokens."
)

STATE = "training"
"""Folder of the repository for what a run needs to go on."""


def prepare_repository(repo: str, private: bool) -> None:
    """Make a model repository where there is none, and see that it can be written to.

    Raises:
        InputError: The token is wrong or may not write there, or it is public and is to be private.
        Exception: The Hub cannot be reached.
    """
    subject, api = f"Hub repository {repo}", HfApi()
    try:
        user = api.whoami()["name"]
    except HfHubHTTPError as error:
        if status_of(error) != 401:
            raise
        raise InputError(subject, "the token is not valid (any more)", LOG_IN) from error
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        api.auth_check(repo, write=True)
        public = not api.model_info(repo).private
    except HfHubHTTPError as error:
        if status_of(error) not in (401, 403, 404):
            raise
        problem = f"the token of {user} may not write there ({error_reason(error)})"
        remedy = f"Choose {user}/NAME, or a token with the right to write: " + LOG_IN
        raise InputError(subject, problem, remedy) from error
    if private and public:
        remedy = "Make it private in its settings on the Hub, or say `hub.private: false`."
        raise InputError(subject, "it exists and is public, but is to be private", remedy)


def commit_folder(repo: str, folder: Path, message: str, path_in_repo: str = "") -> str:
    """Upload a folder's files as one commit; below the root, files that are not among them go.

    `HfApi.upload_folder` may spread a folder over several commits, which would show half of a model.

    Returns:
        Address of the commit.

    Raises:
        Exception: The Hub cannot be reached, or refuses.
    """
    api = HfApi()
    prefix = f"{path_in_repo}/" if path_in_repo else ""
    files = {prefix + p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
    operations: list[Any] = [CommitOperationAdd(name, path) for name, path in files.items()]
    if path_in_repo:
        try:
            present = [
                f.path for f in api.list_repo_tree(repo, path_in_repo, recursive=True) if hasattr(f, "size")
            ]
        except EntryNotFoundError:
            present = []
        operations += [CommitOperationDelete(name) for name in present if name not in files]
    return api.create_commit(repo, operations, commit_message=message).commit_url


def download_state(repo: str, revision: str | None = None) -> Path:
    """The folder that `--resume USER/NAME[@REVISION]` goes on from, in the Hub's cache: only to be read.

    Args:
        repo: USER/NAME, or USER/NAME@REVISION.
        revision: A branch, tag or commit; the newest where None.

    Raises:
        InputError: It cannot be reached, or its owner did not upload the state.
    """
    name, given = split_revision(repo)
    check_repo_name(name)
    subject = f"--resume {repo}"
    try:
        root = snapshot_download(name, revision=revision or given, allow_patterns=f"{STATE}/*")
    except RepositoryNotFoundError as error:
        remedy = "Check the name; for a private one log in with `hf auth login`."
        raise InputError(subject, "there is no such repository on the Hub", remedy) from error
    except RevisionNotFoundError as error:
        remedy = f"See https://huggingface.co/{name}/commits/main."
        raise InputError(subject, "there is no such revision", remedy) from error
    except Exception as error:
        remedy = "Check the network and the name, and continue then."
        raise InputError(subject, f"it cannot be downloaded ({error_reason(error)})", remedy) from error
    state = Path(root) / STATE
    if not state.is_dir():
        problem = (
            f"it has no folder {STATE}/, the state of a training that goes on; `hub.state: true` uploads it"
        )
        raise InputError(subject, problem, f"To begin a new run from its weights: `start: {repo}`.")
    return state


def error_reason(error: BaseException) -> str:
    """Why it failed, in a line: with the causes, since the client wraps them, down to what the Hub says."""
    lines: list[str] = []
    seen: BaseException | None = error
    while seen is not None and len(lines) < 3:
        if isinstance(seen, HfHubHTTPError) and seen.server_message:
            lines.append(f"{seen.response.status_code} {seen.server_message.splitlines()[0]}")
            break
        text = (str(seen).strip().splitlines() or [""])[0].split(" (Request ID")[0].rstrip(".:")
        lines.append(text or type(seen).__name__)
        seen = seen.__cause__
    return ": ".join(dict.fromkeys(lines))


def status_of(error: BaseException | None) -> int | None:
    """The HTTP status behind an error."""
    while error is not None:
        response = getattr(error, "response", None)
        if response is not None:
            return response.status_code
        error = error.__cause__
    return None


def check_repo_name(repo: str) -> None:
    """Refuse what cannot be the name of a repository.

    Raises:
        InputError: It is not USER/NAME.
    """
    try:
        validate_repo_id(repo)
        well_formed = "/" in repo
    except HFValidationError:
        well_formed = False
    if not well_formed:
        remedy = "Give USER/NAME of letters, digits, '-', '_' and '.', such as my-name/sdtalk-base."
        raise InputError(f"Hub repository {repo!r}", "this is not the name of one", remedy)
