"""Hugging Face Hub: names with revisions, and downloads whose files belong together."""

import re
from pathlib import Path
from typing import Any

CONFIG, WEIGHTS = "config.json", "model.safetensors"
NAME = r"[\w-][\w.-]*/[\w-][\w.-]*"


def is_hub_name(source: str) -> bool:
    """Whether it reads like "user/name" or "user/name@revision"."""
    return re.fullmatch(rf"{NAME}(@\S+)?", source) is not None


def split_revision(source: str) -> tuple[str, str | None]:
    """Name of a repository and revision (a branch, tag or commit) of "user/name@revision"; None: the newest."""
    name, _, revision = source.partition("@")
    return name, revision or None


def download(name: str, revision: str | None = None, **options: Any) -> Path:
    """Folder with config.json and model.safetensors of one commit, even if another follows meanwhile.

    Args:
        name: The user/name of a model on the Hub.
        revision: A branch, tag or commit; the newest commit where None.
        options: For `huggingface_hub.hf_hub_download`: token, cache_dir, local_files_only, force_download.

    Raises:
        Exception: What `hf_hub_download` raises.
    """
    from huggingface_hub import hf_hub_download  # slow to import, and not needed for the bundled model

    folder = Path(hf_hub_download(name, CONFIG, revision=revision, **options)).parent
    commit = folder.name  # the cache keeps a folder for every commit, named after it
    hf_hub_download(name, WEIGHTS, revision=commit, **options)
    return folder
