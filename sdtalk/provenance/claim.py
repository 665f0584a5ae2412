"""Signed claims (C2PA): who made a file, and that it was generated, in the file itself; read and written.

The library is the extra `provenance`. Without it files are written without a claim, and nothing is said of theirs.
"""

import json
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from sdtalk import __version__
from sdtalk.provenance.credentials import credentials

GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
COMPOSITE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
"""IPTC's digital source types: all of it was generated, or it was put into a picture that was not."""

KINDS = {".mp4": "video/mp4", ".mov": "video/quicktime", ".gif": "image/gif"}
"""What is signed. The library has no way to sign a .webm, and a folder of pictures is no file."""
READ = KINDS | {
    ".m4v": "video/mp4", ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg",
    ".webp": "image/webp", ".avi": "video/avi",
}  # fmt: skip
# nothing is asked of the network, and no small copy of the picture is added
_SETTINGS = {
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
    "builder": {"thumbnail": {"enabled": False}},
}
_UNTRUSTED = "signingCredential.untrusted"


@dataclass(frozen=True)
class Claim:
    """What a file's signed claim says.

    Attributes:
        generator: Program and version that made it, such as "SDTalk 0.2.0".
        source_type: The last part of its digital source type, such as "trainedAlgorithmicMedia"; "": none is told.
        signed_by: Whom its certificate names.
        intact: Whether file and claim are as they were signed.
        trusted: Whether somebody vouches for the certificate whom the library knows.
    """

    generator: str
    source_type: str
    signed_by: str
    intact: bool
    trusted: bool


def library() -> ModuleType | None:
    """The C2PA library; None: it is not installed."""
    try:
        import c2pa
    except ImportError:
        return None
    return cast(ModuleType, c2pa)


def sign(path: Path, source_type: str) -> None:
    """Put a signed claim into a finished file, in its place; nothing of inputs or their names is in it.

    Where the library is missing, or the kind of file cannot be signed, nothing happens. Where it fails, there is a
    warning, and the file stays as it is.

    Args:
        path: A file in `KINDS`.
        source_type: `GENERATED` or `COMPOSITE`.

    Raises:
        OSError: The disk is full.
    """
    c2pa = library()
    if c2pa is None or path.suffix.lower() not in KINDS:
        return
    with_claim = path.with_name(f"{path.stem}.signed{path.suffix}")
    try:
        _write(c2pa, path, with_claim, source_type)
    except c2pa.C2paError as error:
        words = f"no signed claim could be written into the video ({str(error).splitlines()[0]})"
        warnings.warn(words, stacklevel=2)
    else:
        os.replace(with_claim, path)
    finally:
        with_claim.unlink(missing_ok=True)


def _write(c2pa: Any, path: Path, with_claim: Path, source_type: str) -> None:
    own = credentials()
    made_by = {"name": "SDTalk", "version": __version__}
    made = {"action": "c2pa.created", "digitalSourceType": source_type, "softwareAgent": made_by}
    actions = {"label": "c2pa.actions.v2", "data": {"actions": [made]}}
    claim = {"claim_generator_info": [made_by], "assertions": [actions]}
    signer_info = c2pa.C2paSignerInfo(own.algorithm.encode(), own.certificates, own.key, None)
    with (
        c2pa.Context.from_dict(_SETTINGS) as context,
        c2pa.Signer.from_info(signer_info) as signer,
        c2pa.Builder.from_json(json.dumps(claim), context) as builder,
        path.open("rb") as source,
        with_claim.open("w+b") as target,
    ):
        builder.sign(signer, KINDS[path.suffix.lower()], source, target)


def read_claim(path: Path) -> Claim | None:
    """The claim in a file; None: there is none that can be read. Asks no network.

    Args:
        path: Any file; only the kinds in `READ` are looked at. Needs `library`.
    """
    c2pa = library()
    kind = READ.get(path.suffix.lower())
    if c2pa is None or kind is None:
        return None
    try:
        with (
            c2pa.Context.from_dict(_SETTINGS) as context,
            path.open("rb") as file,
            c2pa.Reader(kind, file, context=context) as reader,
        ):
            store = json.loads(reader.json())
    except c2pa.C2paError:
        return None
    manifest = store.get("manifests", {}).get(store.get("active_manifest"), {})
    generators = manifest.get("claim_generator_info") or [{}]
    generator = f"{generators[0].get('name', '')} {generators[0].get('version', '')}".strip()
    signature = manifest.get("signature_info") or {}
    failures = [found["code"] for found in store.get("validation_status", [])]
    return Claim(
        generator or str(manifest.get("claim_generator", "")),
        _source_type(manifest),
        str(signature.get("issuer", "")),
        intact=not [code for code in failures if code != _UNTRUSTED],
        trusted=_UNTRUSTED not in failures,
    )


def _source_type(manifest: dict[str, Any]) -> str:
    """What its first action that tells one says."""
    for assertion in manifest.get("assertions", []):
        if assertion.get("label", "").startswith("c2pa.actions"):
            for action in assertion.get("data", {}).get("actions", []):
                if kind := action.get("digitalSourceType"):
                    return str(kind).rpartition("/")[2]
    return ""
