"""Command `sdtalk demo`: the page in which a portrait is made to speak."""

import argparse

from sdtalk.demo.launch import launch


def run(arguments: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C."""
    launch(arguments.model, arguments.device)
    return 0
