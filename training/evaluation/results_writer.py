"""Results writer: results.json, results.md and index.html, each whole or not at all."""

import json
from pathlib import Path

from training.data.atomic import write_atomically
from training.evaluation.html_report import as_html
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
        "index.html": as_html(results, folder),
    }
    for name, text in texts.items():
        write_atomically(folder / name, text.encode())
