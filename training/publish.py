"""Publish a model on the Hub: writes an evaluation into its card, and uploads it as one commit.

    python -m training.publish RUN/model USER/NAME --results runs/evaluation/results.json

The repository is private unless `--public` is given.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from huggingface_hub import get_token

from sdtalk.checkpoint import CONFIG, WEIGHTS, load_model
from sdtalk.cli.arguments import USER_ERROR
from sdtalk.errors import InputError
from training.hub_repository import LOG_IN, check_repo_name, commit_folder, error_reason, prepare_repository
from training.model_card import with_results

CARD = "README.md"
WRITTEN = "Train with training/train.py, which writes it."


def publish(model: Path, repo: str, results: Path | None = None, private: bool = True) -> str:
    """Upload a model with its card.

    Args:
        model: Folder with config.json, model.safetensors and README.md.
        repo: USER/NAME.
        results: results.json of `training/evaluate.py`.
        private: Whether a new repository is private; then one that is public is refused.

    Returns:
        Address of the commit.

    Raises:
        InputError: The model is not whole, there are no results, or the Hub refuses.
    """
    check_ready(model, repo)
    load_model(model)  # what is not whole is not passed on
    card = _read(model / CARD, WRITTEN)
    if results is not None:
        remedy = "Give the results.json that training/evaluate.py wrote."
        try:
            card = with_results(card, json.loads(_read(results, remedy)))
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise InputError(str(results), "it is no JSON that can be read", remedy) from error
    with tempfile.TemporaryDirectory() as folder:
        for name in (CONFIG, WEIGHTS):
            shutil.copyfile(model / name, Path(folder) / name)
        (Path(folder) / CARD).write_text(card, encoding="utf-8")
        message = "Model with its figures" if results else "Model"
        try:
            prepare_repository(repo, private)
            return commit_folder(repo, Path(folder), message)
        except InputError:
            raise
        except Exception as error:
            remedy = "Try again; nothing was changed there."
            raise InputError(
                f"Hub repository {repo}", f"the upload failed ({error_reason(error)})", remedy
            ) from error


def check_ready(model: Path, repo: str) -> None:
    """See what can be seen without the Hub, so that no long evaluation comes before a mistake shows.

    Raises:
        InputError: The name is none, there is no token, or the model has no card.
    """
    check_repo_name(repo)
    if get_token() is None:
        raise InputError(f"Hub repository {repo}", "there is no token to upload with", LOG_IN)
    _read(model / CARD, WRITTEN)


def _read(path: Path, remedy: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(str(path), "it cannot be read", remedy) from error


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="folder with config.json, model.safetensors and README.md")
    parser.add_argument("repo", metavar="USER/NAME", help="where to")
    parser.add_argument("--results", type=Path, help="results.json of training/evaluate.py")
    parser.add_argument("--public", action="store_true", help="for everybody to see")
    arguments = parser.parse_args(argv)
    try:
        address = publish(arguments.model, arguments.repo, arguments.results, not arguments.public)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    print(address)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
