"""Signatures of releases: Ed25519, in the files of minisign, so that a stranger checks them with `minisign -V`.

The format is that of https://jedisct1.github.io/minisign/#signature-format: one signature covers the BLAKE2b-512 of the
file (algorithm `ED`), a second one the first and the trusted comment. Secret keys have no password (`minisign -G -W`).
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from catalunya.errors import CatalunyaError, UsageError

SUFFIX = ".minisig"
_UNTRUSTED = "untrusted comment: "
_TRUSTED = "trusted comment: "
_ED25519, _PREHASHED, _BLAKE2B = b"Ed", b"ED", b"B2"
_NO_PASSWORD = bytes(2)
_SCRYPT_PARAMETERS = 32 + 8 + 8
_CHECKSUM = 32
"""Of a key without a password minisign leaves both empty."""


class BadSignature(CatalunyaError):
    """A signature does not fit what it should sign, or is of no known key."""


@dataclass(frozen=True)
class PublicKey:
    """What releases are checked with."""

    key_id: bytes
    raw: bytes

    @classmethod
    def parse(cls, text: str, where: str) -> PublicKey:
        """Return the key of a file of minisign, or of its second line alone; raises `UsageError` that names `where`."""
        data = _decoded(text, where)
        if len(data) != 42 or data[:2] != _ED25519:
            raise UsageError(f"{where}: it is no public key of minisign (56 characters that begin with RW)")
        return cls(data[2:10], data[10:])

    def __str__(self) -> str:
        return base64.b64encode(_ED25519 + self.key_id + self.raw).decode()

    @property
    def name(self) -> str:
        """The key id as minisign prints it."""
        return _name(self.key_id)

    def file(self) -> str:
        """The text of the file with the key."""
        return f"{_UNTRUSTED}minisign public key {self.name}\n{self}\n"


@dataclass(frozen=True)
class SecretKey:
    """What releases are signed with. Its text is a secret."""

    key_id: bytes
    seed: bytes

    def __repr__(self) -> str:
        return f"SecretKey({_name(self.key_id)})"

    @classmethod
    def generate(cls) -> SecretKey:
        """Return a new key."""
        return cls(os.urandom(8), os.urandom(32))

    @classmethod
    def parse(cls, text: str, where: str) -> SecretKey:
        """Return the key of a file of minisign, or of its second line alone; raises `UsageError` that names `where`."""
        data = _decoded(text, where)
        if len(data) != 158 or data[:2] != _ED25519 or data[4:6] != _BLAKE2B:
            raise UsageError(f"{where}: it is no secret key of minisign; `catalunya key new` makes one")
        if data[2:4] != _NO_PASSWORD:
            raise UsageError(
                f"{where}: the secret key has a password, which nobody could enter at a run; "
                "make one without (`catalunya key new`, or `minisign -G -W`)"
            )
        key_id, pair = data[54:62], data[62:126]
        key = cls(key_id, pair[:32])
        if key.public.raw != pair[32:]:
            raise UsageError(f"{where}: the secret key is damaged; take it from where it is kept")
        return key

    @property
    def public(self) -> PublicKey:
        """The key to check with."""
        return PublicKey(self.key_id, self._private.public_key().public_bytes_raw())

    @property
    def _private(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.seed)

    def file(self) -> str:
        """The text of the file with the key."""
        head = _ED25519 + _NO_PASSWORD + _BLAKE2B + bytes(_SCRYPT_PARAMETERS)
        data = head + self.key_id + self.seed + self.public.raw + bytes(_CHECKSUM)
        return f"{_UNTRUSTED}minisign secret key {_name(self.key_id)}\n{base64.b64encode(data).decode()}\n"

    def sign(self, data: bytes, comment: str) -> str:
        """Return the text of the signature file of `data`; `comment` is one line, which is signed as well."""
        signature = self._private.sign(hashlib.blake2b(data).digest())
        both = self._private.sign(signature + comment.encode())
        first = base64.b64encode(_PREHASHED + self.key_id + signature).decode()
        return (
            f"{_UNTRUSTED}signature of the key {_name(self.key_id)}\n{first}\n"
            f"{_TRUSTED}{comment}\n{base64.b64encode(both).decode()}\n"
        )


def known_keys(texts: Iterable[str], secret: str | None) -> list[PublicKey]:
    """Return the public keys of these texts and that of a secret key; raises `UsageError` for what is no key."""
    keys = [PublicKey.parse(text, "CATALUNYA_PUBLIC_KEYS") for text in texts]
    if secret:
        keys.append(SecretKey.parse(secret, "CATALUNYA_SIGNING_KEY").public)
    return list(dict.fromkeys(keys))


def signer_of(signature: str) -> str:
    """Return the name of the key that a signature says it is of; raises `BadSignature`."""
    return _name(_parsed(signature)[0][2:10])


def verify(data: bytes, signature: str, keys: Iterable[PublicKey]) -> tuple[PublicKey, str]:
    """Return the key that signed `data`, and the trusted comment; raises `BadSignature`."""
    first, comment, both = _parsed(signature)
    algorithm, key_id, sent = first[:2], first[2:10], first[10:]
    known = list(keys)
    key = next((key for key in known if key.key_id == key_id), None)
    if key is None:
        names = ", ".join(key.name for key in known) or "none"
        raise BadSignature(f"it is of the key {_name(key_id)}, known are: {names}")
    public = Ed25519PublicKey.from_public_bytes(key.raw)
    try:
        public.verify(sent, hashlib.blake2b(data).digest() if algorithm == _PREHASHED else data)
    except InvalidSignature:
        raise BadSignature(f"it is not a signature of this content by the key {key.name}") from None
    try:
        public.verify(both, sent + comment.encode())
    except InvalidSignature:
        raise BadSignature(f"its trusted comment is not the one that the key {key.name} signed") from None
    return key, comment


def _parsed(signature: str) -> tuple[bytes, str, bytes]:
    """The first signature with its algorithm and key, the trusted comment, and the signature of both."""
    lines = signature.splitlines()
    try:
        first, both = _base64(lines[1]), _base64(lines[3])
        comment = lines[2].removeprefix(_TRUSTED)
    except (IndexError, ValueError):
        first, comment, both = b"", "", b""
    if len(first) != 74 or len(both) != 64 or first[:2] not in {_ED25519, _PREHASHED}:
        raise BadSignature("it is no signature of minisign: it is empty, cut or changed")
    return first, comment, both


def _decoded(text: str, where: str) -> bytes:
    lines = [line for line in text.split("\n") if line.strip() and not line.startswith(_UNTRUSTED)]
    try:
        [line] = lines
        return _base64(line.strip())
    except ValueError:
        raise UsageError(f"{where}: it is no key of minisign; `catalunya key new` makes one") from None


def _base64(text: str) -> bytes:
    """Decode what an encoder writes, and nothing else: other texts could stand for the same bytes. Raises `ValueError`."""
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError(text)
    return data


def _name(key_id: bytes) -> str:
    return key_id[::-1].hex().upper()
