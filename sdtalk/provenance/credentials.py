"""Credentials for signed claims: the operator's certificate, or one made once for this installation."""

import os
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sdtalk.errors import InputError
from sdtalk.weights.assets import data_folder

FOLDER, CERTIFICATES, KEY = "signing", "certificates.pem", "key.pem"
"""Below the user's data folder."""
ORGANISATION = "SDTalk installation (nobody vouches for it)"
VALID = timedelta(days=3650)
PEM_FILES = "Give two PEM files: the certificate with its chain, and its private key without a password."


@dataclass(frozen=True)
class Credentials:
    """What claims are signed with.

    Attributes:
        certificates: PEM: the signer's, then those that vouch for it.
        key: PEM, PKCS #8, of the first one.
        algorithm: As C2PA calls it: "es256", "es384", "es512", "ps256", "ed25519".
    """

    certificates: bytes
    key: bytes
    algorithm: str


_chosen: Credentials | None = None


def sign_with(certificates: str | Path, key: str | Path) -> None:
    """Let all claims of this process be signed with an operator's certificate.

    Args:
        certificates: PEM file: the signer's certificate, then its chain.
        key: PEM file of its private key.

    Raises:
        InputError: They cannot be read, or do not belong together, or the library is not installed.
    """
    global _chosen
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ImportError as error:
        remedy = 'Install it: pip install "sdtalk[provenance]".'
        raise InputError("--sign", "the library that signs is not installed", remedy) from error
    try:
        read = Path(certificates).read_bytes()
        chain = x509.load_pem_x509_certificates(read)
    except (OSError, ValueError) as error:
        raise InputError(str(certificates), "no certificate can be read", PEM_FILES) from error
    try:
        private = load_pem_private_key(Path(key).read_bytes(), None)
        algorithm = _algorithm(private)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(str(key), "no private key that can sign claims can be read", PEM_FILES) from error
    if chain[0].public_key() != private.public_key():
        raise InputError(str(key), f"it is not the key of the first certificate in {certificates}", PEM_FILES)
    _chosen = Credentials(read, _pem(private), algorithm)


def credentials() -> Credentials:
    """The operator's, or this installation's own, which are made where there are none."""
    if _chosen is not None:
        return _chosen
    folder = data_folder() / FOLDER
    if not (folder / KEY).is_file():
        _make(folder)
    return Credentials((folder / CERTIFICATES).read_bytes(), (folder / KEY).read_bytes(), "es256")


def _make(folder: Path) -> None:
    """Make a root and a signer; only the signer's key is kept. The key is written last: without it nothing is there."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding

    root, signer = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    mark = secrets.token_hex(4)  # tells installations apart, and says nothing about them
    chain = [_certificate(f"signer {mark}", signer, f"root {mark}", root), _certificate(f"root {mark}", root)]
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    _write_private(folder / CERTIFICATES, b"".join(one.public_bytes(Encoding.PEM) for one in chain))
    _write_private(folder / KEY, _pem(signer))


def _write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    os.replace(temporary, path)


def _certificate(name: str, key: Any, issuer: str | None = None, issuer_key: Any = None) -> Any:
    """A certificate as C2PA demands it (specification 2.2, 14.5); without an issuer, of a root."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def called(text: str) -> x509.Name:
        parts = {NameOID.ORGANIZATION_NAME: ORGANISATION, NameOID.COMMON_NAME: text}
        return x509.Name([x509.NameAttribute(kind, value) for kind, value in parts.items()])

    is_root, by = issuer is None, issuer_key or key
    unused = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    usage = x509.KeyUsage(
        digital_signature=not is_root, key_cert_sign=is_root, crl_sign=is_root, encipher_only=False,
        decipher_only=False, **dict.fromkeys(unused, False),
    )  # fmt: skip
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(called(issuer or name), called(name), key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + VALID)
        .add_extension(x509.BasicConstraints(is_root, 0 if is_root else None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
    )
    if not is_root:
        use = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        made = made.add_extension(use, critical=False)
    return made.sign(by, hashes.SHA256())


def _algorithm(key: Any) -> str:
    """What C2PA calls signatures of a key.

    Raises:
        ValueError: It knows none.
    """
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, ec.EllipticCurvePrivateKey):
        return {256: "es256", 384: "es384", 521: "es512"}[key.curve.key_size]
    if isinstance(key, rsa.RSAPrivateKey):
        return "ps256"
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    raise ValueError("C2PA has no algorithm for such keys")


def _pem(key: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
