"""Command `sdtalk inspect`: whether a video was made here, by metadata, label, signed claim and invisible mark."""

import argparse
import json
from typing import Any

from sdtalk.inspection import Inspection, inspect_file
from sdtalk.provenance.mark import version_of

NO_PROOF = "Nothing here says that it was generated, which does not prove that it was filmed: all this can be removed."

SMALLEST_CHANCE = 1e-20
"""Smaller ones are told like this one."""


def run(arguments: argparse.Namespace) -> int:
    """Print what was found."""
    found = inspect_file(arguments.file)
    print(json.dumps(as_json(found), indent=2) if arguments.json else as_text(found))
    return 0


def as_json(found: Inspection) -> dict[str, Any]:
    """What was found, for programs."""
    mark, claim = found.mark, found.claim
    return {
        "file": str(found.path),
        "metadata": found.comment or None,
        "label": found.label,
        "claims_read": found.claims_read,
        "claim": None if claim is None else vars(claim),
        "mark": None if mark is None else {"made_by": f"SDTalk {version_of(mark.number)}"} | vars(mark),
        "frames": found.frames,
    }


def as_text(found: Inspection) -> str:
    """What was found, for people."""
    lines = [
        str(found.path),
        f"  metadata  {found.comment or 'no comment'}",
        f"  label     {'in the lower right corner' if found.label else 'not found'}",
        f"  claim     {_claim_words(found)}",
        f"  mark      {_mark_words(found)}",
    ]
    if not (found.comment or found.label or found.claim or found.mark):
        lines.append(NO_PROOF)
    return "\n".join(lines)


def _claim_words(found: Inspection) -> str:
    claim = found.claim
    if not found.claims_read:
        return 'cannot be read here; install the library: pip install "sdtalk[provenance]"'
    if claim is None:
        return "none"
    intact = "unchanged since" if claim.intact else "CHANGED SINCE"
    trust = "trusted" if claim.trusted else "untrusted: nobody known vouches for this certificate"
    return (
        f"made by {claim.generator or 'an unnamed program'}, {claim.source_type or 'no source type'}; {intact} it was"
        f" signed by {claim.signed_by or 'an unnamed signer'} ({trust})"
    )


def _mark_words(found: Inspection) -> str:
    if found.mark is None:
        return f"not found in {found.frames} frames"
    mirrored = ", mirrored" if found.mark.mirrored else ""
    chance = max(found.mark.false_alarm, SMALLEST_CHANCE)
    return f"SDTalk {version_of(found.mark.number)}{mirrored} (chance of a false alarm: below {chance:.0e})"
