"""Command `sdtalk demo`: the page in which a portrait is made to speak."""

import argparse

from sdtalk.cli.shared import sign_as_asked
from sdtalk.demo.launch import make_page, serve


def run(arguments: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C."""
    sign_as_asked(arguments)
    page = make_page(
        arguments.model, arguments.device, arguments.max_seconds, arguments.concurrency, arguments.free_label
    )
    serve(page, arguments.host, arguments.port, arguments.share, arguments.auth)
    return 0
