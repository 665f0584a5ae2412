"""Results into their folder: results.json, results.md and index.html, each whole or not at all."""

import json
import os
from pathlib import Path

from sdtalk.errors import InputError
from training.evaluation.page import as_page
from training.evaluation.results import Results
from training.evaluation.tables import as_markdown

RESULTS = "results.json"


def write_results(folder: Path, results: Results) -> None:
    """Write the three files; the contact sheets are there already.

    Raises:
        InputError: They cannot be written.
    """
    texts = {
        RESULTS: json.dumps(results.as_json(), indent=1, allow_nan=False) + "\n",
        "results.md": as_markdown(results),
        "index.html": as_page(results, folder),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            draft = folder / f".{name}.partial"
            draft.write_text(text, encoding="utf-8")
            os.replace(draft, folder / name)
    except OSError as error:
        problem = f"the results cannot be written ({error.strerror})"
        raise InputError(str(folder), problem, "Make room, or give another folder with -o.") from error
