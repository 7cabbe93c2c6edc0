"""The signature of parity reports: Ed25519, made where parity is verified and checked by the gate; its keys are two PEM files.

https://datatracker.ietf.org/doc/html/rfc8032 · https://cryptography.io/en/stable/hazmat/primitives/asymmetric/ed25519/
"""

import base64
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from lockstep.errors import BadInput
from lockstep.settings import Settings

KEYS = "keys"
PRIVATE_FILE = "parity.pem"
PUBLIC_FILE = "parity.pub.pem"
_MAKE = "`lockstep parity keys` makes the pair; in a cluster it is in two Secrets, see docs/pipelines.md"


@dataclass(frozen=True)
class KeyFiles:
    """Where the keys of a home are.

    Attributes:
        private: signs; whoever can read it can make a report that the gate believes.
        public: verifies.
    """

    private: Path
    public: Path


def private_file(settings: Settings) -> Path:
    """Return where the key is that signs: as the settings say; where they name neither key, below `home`.

    Raises:
        BadInput: only the other key is named.
    """
    return _file(settings, settings.parity_signing_key, "parity_signing_key", PRIVATE_FILE)


def public_file(settings: Settings) -> Path:
    """Return where the key is that verifies, in the same way.

    Raises:
        BadInput: only the other key is named.
    """
    return _file(settings, settings.parity_verify_key, "parity_verify_key", PUBLIC_FILE)


def make_keys(settings: Settings) -> KeyFiles:
    """Make the pair where it is not there yet; a file that is there is never written.

    Raises:
        BadInput: the two files are no pair, one cannot be read, or the private one of a pair is gone.
    """
    files = KeyFiles(private_file(settings), public_file(settings))
    if not files.private.exists():
        if files.public.exists():
            raise BadInput(
                f"{files.public} is there and its private key {files.private} is not",
                hint="put the private key back; or remove the public one, and no report signed so far is believed",
            )
        new = Ed25519PrivateKey.generate()
        _write(files.private, new.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    public = signing_key(settings).public_key()
    if not files.public.exists():
        _write(files.public, public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), 0o644)
    if verify_key(settings).public_bytes_raw() != public.public_bytes_raw():
        raise BadInput(f"{files.public} is not the public key of {files.private}", hint="one of the two was replaced")
    return files


def signing_key(settings: Settings) -> Ed25519PrivateKey:
    """Read the key that signs.

    Raises:
        BadInput: there is none, or the file holds something else.
    """
    file = private_file(settings)
    try:
        key = load_pem_private_key(_read(file, "sign"), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as wrong:  # TypeError: it wants a password
        raise BadInput(f"{file} is no private key in PEM without a password: {wrong}", hint=_MAKE) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise BadInput(f"{file} is a private key of another kind than Ed25519", hint=_MAKE)
    return key


def verify_key(settings: Settings) -> Ed25519PublicKey:
    """Read the key that verifies.

    Raises:
        BadInput: there is none, or the file holds something else.
    """
    file = public_file(settings)
    try:
        key = load_pem_public_key(_read(file, "verify"))
    except (ValueError, UnsupportedAlgorithm) as wrong:
        raise BadInput(f"{file} is no public key in PEM: {wrong}", hint=_MAKE) from None
    if not isinstance(key, Ed25519PublicKey):
        raise BadInput(f"{file} is a public key of another kind than Ed25519", hint=_MAKE)
    return key


def sign(text: str, key: Ed25519PrivateKey) -> str:
    """Return the signature of a text's UTF-8 bytes, in base64."""
    return base64.b64encode(key.sign(text.encode())).decode()


def is_signed(text: str, signature: str, key: Ed25519PublicKey) -> bool:
    """Return whether the signature is that of this very text by that key."""
    try:
        key.verify(base64.b64decode(signature, validate=True), text.encode())
    except (InvalidSignature, ValueError):  # ValueError: it is no base64
        return False
    return True


def _file(settings: Settings, given: Path | None, setting: str, own: str) -> Path:
    if given is not None:
        return given
    if settings.parity_signing_key is None and settings.parity_verify_key is None:
        return settings.home / KEYS / own
    # Another home's key must not stand in for one that was forgotten.
    raise BadInput(f"the setting {setting} is not given, and its counterpart is", hint=f"name the file in {setting}")


def _read(file: Path, what: str) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise BadInput(f"there is no key to {what} parity reports with: {file} is not there", hint=_MAKE) from None
    except OSError as unreadable:
        raise BadInput(f"the key {file} cannot be read: {unreadable.strerror}", hint=_MAKE) from unreadable


def _write(file: Path, content: bytes, mode: int) -> None:
    """Write a new file, whole or not at all; one that somebody else made meanwhile stays."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(dir=file.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.link(draft, file)
    except FileExistsError:
        return
    finally:
        os.unlink(draft)  # noqa: PTH108 - a name, as mkstemp gives it
