"""Verification of one release, of a lake or downloaded, and keys to sign with."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalunya.errors import CatalunyaError, UsageError
from catalunya.lake import disk
from catalunya.lake.opening import open_lake
from catalunya.operations.integrity.fault import Fault
from catalunya.operations.integrity.releases import SIGNATURE, InFolder, InLake, ReleaseCheck, ReleaseFiles
from catalunya.operations.query import find_release
from catalunya.publication.signature import BadSignature, PublicKey, SecretKey, known_keys, signer_of, verify
from catalunya.release import SUMS
from catalunya.settings import Settings


@dataclass(frozen=True)
class Verified:
    """What a verification found."""

    where: str
    files: int
    signature: str
    """In words: by which key it is signed, and whether that was checked."""
    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        outcome = f"{len(self.faults)} faults" if self.faults else "whole"
        return f"{outcome}: {self.where}, {self.files} files, {self.signature}"

    def as_json(self) -> dict[str, Any]:
        """The result for programs."""
        return {
            "status": "damaged" if self.faults else "whole",
            "release": self.where,
            "files": self.files,
            "signature": self.signature,
            "faults": [fault.as_json() for fault in self.faults],
        }


def verify_release(settings: Settings, name: str | None, keys: Iterable[str]) -> Verified:
    """Verify the release `name`, or the folder of that name, by default the release that readers see.

    One of `keys` must have signed it; without them those of the settings are used, where it is signed.
    """
    demanded = [_public_key(text) for text in keys]
    files: ReleaseFiles
    if name is not None and Path(name).is_dir():
        files, where, release_id = InFolder(Path(name)), name, None
    else:
        if name is not None and ("/" in name or Path(name).exists()):
            raise UsageError(
                f"{name} is no folder; give the folder of a release, or the id of one of the lake"
            )
        storage = open_lake(settings.lake)
        release_id = name if name in storage.folders("releases") else find_release(storage, name).release_id
        files, where = InLake(storage, release_id), release_id
    known = demanded or known_keys(settings.public_keys, settings.signing_key)
    check = ReleaseCheck(
        files, known, release_id, must_be_signed=bool(demanded) or settings.require_signature
    )
    faults = tuple(check.faults())
    return Verified(where, len(check.sizes), _signature(files, check.sizes, known), faults)


def _public_key(text: str) -> PublicKey:
    path = Path(text)
    if len(text) < 200 and path.is_file():
        with disk.explained(path):
            return PublicKey.parse(path.read_text("utf-8", "replace"), f"--key {text}")
    return PublicKey.parse(text, "--key")


def _signature(files: ReleaseFiles, sizes: dict[str, int], known: list[PublicKey]) -> str:
    if SIGNATURE not in sizes:
        return "not signed"
    try:
        text = files.read(SIGNATURE).decode("utf-8", "replace")
        signer = signer_of(text)
        if not known:
            return (
                f"signed by the key {signer}, which was not checked: give --key, or set CATALUNYA_PUBLIC_KEYS"
            )
        verify(files.read(SUMS), text, known)
    except BadSignature as error:
        return f"its signature is wrong: {error}"
    except CatalunyaError as error:
        return f"its signature could not be checked: {error}"
    return f"signed by the key {signer}"


def new_key(path: Path) -> tuple[PublicKey, Path]:
    """Write a new secret key to `path`, which only this user may read, and the public one beside it; never over a file."""
    if not path.name or path.suffix == ".pub":
        raise UsageError(
            f"{path} cannot be the name of a secret key: the public one takes its name with .pub"
        )
    secret, beside = SecretKey.generate(), path.with_suffix(".pub")
    for file in (path, beside):
        if file.exists():
            raise UsageError(f"{file} is there already and may be in use; give another name")
    for file, text, mode in ((path, secret.file(), 0o600), (beside, secret.public.file(), 0o644)):
        with disk.explained(file):
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(descriptor, "w") as opened:
                opened.write(text)
    return secret.public, beside
