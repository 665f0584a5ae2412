"""Hugging Face Hub: names with revisions, and downloads whose files belong together."""

import re
import threading
from pathlib import Path
from typing import Any

CONFIG, WEIGHTS = "config.json", "model.safetensors"
COMMIT = "[0-9a-f]{40}"
NAME = r"[\w-][\w.-]*/[\w-][\w.-]*"

PATIENCE_SECONDS, PATIENCE_IF_CACHED_SECONDS = 2.5, 1.5
"""How long the Hub may take for its first answer. The client itself tries for 6 minutes where none comes, and for 23 s
where there is no network at all. Once there was one, slow downloads are waited for."""


def is_hub_name(source: str) -> bool:
    """Whether it reads like "user/name" or "user/name@revision"."""
    return re.fullmatch(rf"{NAME}(@\S+)?", source) is not None


def split_revision(source: str) -> tuple[str, str | None]:
    """Name of a repository and revision (a branch, tag or commit) of "user/name@revision"; None: the newest."""
    name, _, revision = source.partition("@")
    return name, revision or None


def download(name: str, revision: str | None = None, **options: Any) -> Path:
    """Folder with config.json and model.safetensors of one commit, even if another follows meanwhile.

    Where the Hub does not answer, it is what the cache holds.

    Args:
        name: The user/name of a model on the Hub.
        revision: A branch, tag or commit; the newest commit where None.
        options: For `huggingface_hub.hf_hub_download`: token, cache_dir, local_files_only, force_download.

    Raises:
        LocalEntryNotFoundError: The Hub does not answer, and the cache does not hold it; the message says why.
        Exception: What `hf_hub_download` raises.
    """
    from huggingface_hub import (
        hf_hub_download,
        hf_hub_url,
    )  # slow to import, and not needed for the bundled model
    from huggingface_hub.errors import LocalEntryNotFoundError

    cached = None if options.get("force_download") else _cached(name, revision, options.get("cache_dir"))
    if cached is not None and re.fullmatch(COMMIT, revision or ""):
        return cached  # a commit does not change
    patience = PATIENCE_SECONDS if cached is None else PATIENCE_IF_CACHED_SECONDS
    local = options.get("local_files_only")
    silence = (
        "it is not asked" if local else why_silent(hf_hub_url(name, CONFIG, revision=revision), patience)
    )
    if not silence:
        folder = Path(hf_hub_download(name, CONFIG, revision=revision, **options)).parent
        commit = folder.name  # the cache keeps a folder for every commit, named after it
        hf_hub_download(name, WEIGHTS, revision=commit, **options)
        return folder
    if cached is None:
        raise LocalEntryNotFoundError(f"the Hub cannot be reached ({silence}) and it is not in the cache")
    return cached  # not through `hf_hub_download`, which first asks the Hub about the programs that call it


def why_silent(url: str, patience_seconds: float) -> str:
    """Why the Hub gives no answer at all, or "" where it does, even if it refuses.

    It is asked in a thread of its own, since no time limit holds for looking up its address.
    """
    from huggingface_hub import constants, get_session

    if constants.is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    outcome = [f"no answer within {patience_seconds:g} s"]

    def ask() -> None:
        try:
            get_session().head(url, timeout=patience_seconds)
        except Exception as error:  # of the network, a proxy, a certificate
            if "timed out" not in str(error):
                outcome.append((str(error).splitlines() or [type(error).__name__])[0].rstrip("."))
        else:
            outcome.append("")

    thread = threading.Thread(target=ask, name="hub-answers", daemon=True)
    thread.start()
    thread.join(patience_seconds)
    return outcome[-1]


def _cached(name: str, revision: str | None, cache_dir: str | Path | None) -> Path | None:
    """Folder of a model in the cache, where both files are."""
    from huggingface_hub import try_to_load_from_cache

    config, weights = (try_to_load_from_cache(name, file, cache_dir, revision) for file in (CONFIG, WEIGHTS))
    return Path(config).parent if isinstance(config, str) and isinstance(weights, str) else None
