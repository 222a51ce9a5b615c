"""Checks of one release: its record, signature, checksums, missing and extra files, rows. Of the lake's or of a folder."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Protocol

import duckdb
from pydantic import ValidationError

from catalunya.errors import CatalunyaError
from catalunya.lake import disk, layout
from catalunya.lake.storage import MissingKey, Storage
from catalunya.operations.integrity.fault import REPAIR, Fault, Repair
from catalunya.operations.integrity.files import (
    BACKUP,
    fetched,
    parquet_rows,
    sha256_of,
    together,
)
from catalunya.operations.integrity.view import View
from catalunya.publication.signature import SUFFIX, BadSignature, PublicKey, verify
from catalunya.release import RECORD, SUMS, Release, marts_digest, read_sums

SIGNATURE = f"{SUMS}{SUFFIX}"


class ReleaseFiles(Protocol):
    """The files of a release, in a lake or in a folder."""

    def sizes(self) -> dict[str, int]:
        """Return the names of all files with their sizes."""

    def read(self, name: str) -> bytes:
        """Return the content of a file; raises `MissingKey`."""

    def sha256(self, name: str) -> str:
        """Return the checksum of a file; raises `MissingKey`."""

    def opened(self, name: str) -> AbstractContextManager[Path]:
        """Give a path to read the file from; raises `MissingKey`."""

    def address(self, name: str) -> str:
        """Return where a file is, in words."""


class InLake:
    """The files of a release of a lake."""

    def __init__(self, storage: Storage, release_id: str) -> None:
        self._storage = storage
        self._folder = layout.release(release_id)

    def sizes(self) -> dict[str, int]:
        """Return the names of all files with their sizes."""
        start = len(self._folder) + 1
        return {entry.key[start:]: entry.size for entry in self._storage.list(self._folder)}

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        return self._storage.read(f"{self._folder}/{name}")

    def sha256(self, name: str) -> str:
        """Return the checksum of a file."""
        return sha256_of(self._storage, f"{self._folder}/{name}")

    def opened(self, name: str) -> AbstractContextManager[Path]:
        """Give a path to read the file from."""
        return fetched(self._storage, f"{self._folder}/{name}")

    def address(self, name: str) -> str:
        """Return where a file is."""
        return self._storage.uri(f"{self._folder}/{name}")


class InFolder:
    """The files of a release that somebody downloaded."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def sizes(self) -> dict[str, int]:
        """Return the names of all files with their sizes; a link that leads nowhere is no file."""
        found = (path for path in self._folder.rglob("*") if path.is_file())
        return {path.relative_to(self._folder).as_posix(): path.stat().st_size for path in found}

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        with disk.explained(self._path(name)):
            return self._path(name).read_bytes()

    def sha256(self, name: str) -> str:
        """Return the checksum of a file."""
        with disk.explained(self._path(name)):
            return disk.sha256(self._path(name))

    def opened(self, name: str) -> AbstractContextManager[Path]:
        """Give a path to read the file from."""
        return nullcontext(self._path(name))

    def address(self, name: str) -> str:
        """Return where a file is."""
        return str(self._folder / name)

    def _path(self, name: str) -> Path:
        path = self._folder / name
        if not path.is_file():
            raise MissingKey(f"{path} is missing")
        return path


def check_release(view: View, release_id: str) -> Iterator[Fault]:
    """Give the faults of one release of the lake."""
    files = InLake(view.storage, release_id)
    sizes = files.sizes()
    if RECORD not in sizes:
        yield _unfinished(view, release_id, sizes)
        return
    view.count(releases=1)
    view.count(files=len(sizes))
    view.count(bytes=sum(sizes.values()))
    yield from ReleaseCheck(files, view.keys, release_id).faults()


def _unfinished(view: View, release_id: str, sizes: Collection[str]) -> Fault:
    key = layout.release(release_id, RECORD)
    address = view.storage.uri(key)
    shown = view.pointer
    if shown is not None and release_id in {shown.release_id, shown.previous}:
        return Fault(
            key=key,
            address=address,
            found="is missing, and readers see this release"
            if release_id == shown.release_id
            else "is missing, and this is the release before the one that readers see",
            hint=f"{BACKUP}, or show readers another release: `catalunya repair --to RELEASE`",
        )
    documented = view.storage.exists(layout.docs(release_id, "index.html"))
    aside = documented or SUMS in sizes
    return Fault(
        key=layout.release(release_id),
        address=view.storage.uri(layout.release(release_id)),
        found=f"is a release without {RECORD}: a run that was killed left it",
        hint=f"no reader sees it; the next run deletes it, {REPAIR} {'moves it aside' if aside else 'deletes it'}",
        kind="leftover",
        repair="aside" if aside else "delete",
    )


@dataclass(frozen=True)
class ReleaseCheck:
    """The check of one release. The signature is checked where there is one and a key is known."""

    files: ReleaseFiles
    keys: Collection[PublicKey] = ()
    release_id: str | None = None
    """What the name of its folder says; None for a folder that somebody downloaded."""
    must_be_signed: bool = False

    def faults(self) -> Iterator[Fault]:
        """Give what is wrong with it."""
        record = self._record()
        if record is None:
            yield self._fault(RECORD, "is no record of a release: it is missing, empty, cut or changed")
        elif self.release_id is not None and record.release_id != self.release_id:
            yield self._fault(RECORD, f"is the record of release {record.release_id}")
        try:
            text = self.files.read(SUMS)
            yield from self._signature(text)
            sums = read_sums(text)
        except MissingKey:
            yield self._fault(SUMS, "is missing", "release")
            return
        except CatalunyaError as error:
            yield self._fault(SUMS, f"cannot be read: {error}")
            return
        except ValueError as error:
            yield self._fault(SUMS, f"is no list of checksums: {error}", "release")
            return
        yield from self._list(sums, record)
        # A record that was changed says nothing about the marts.
        rows = record.rows if record and self._is_whole(RECORD, sums) else {}
        yield from together(
            partial(self._compare, name, sha256, rows.get(Path(name).stem)) for name, sha256 in sums.items()
        )

    @cached_property
    def sizes(self) -> dict[str, int]:
        """The names of all files with their sizes."""
        return self.files.sizes()

    def _fault(self, name: str, found: str, repair: Repair = "", hint: str = "") -> Fault:
        key = layout.release(self.release_id, name) if self.release_id else name
        if not self.release_id:
            hint, repair = "take the release from its publisher again, and do not use this copy", ""
        elif repair == "release" and not hint:
            hint = f"{REPAIR} makes it again from what is whole in the release, or {BACKUP}"
        return Fault(
            key=key, address=self.files.address(name), found=found, hint=hint or BACKUP, repair=repair
        )

    def _record(self) -> Release | None:
        try:
            return Release.model_validate_json(self.files.read(RECORD))
        except (CatalunyaError, ValidationError):
            return None

    def _signature(self, text: bytes) -> Iterator[Fault]:
        if SIGNATURE not in self.sizes:
            if self.must_be_signed:
                yield self._fault(SIGNATURE, "is missing: the release is not signed")
        elif self.keys:
            try:
                verify(text, self.files.read(SIGNATURE).decode("utf-8", "replace"), self.keys)
            except BadSignature as error:
                yield self._fault(SIGNATURE, str(error))

    def _list(self, sums: dict[str, str], record: Release | None) -> Iterator[Fault]:
        """Compare the list of checksums with the id, the files that are there, and the marts of the record."""
        own = self.release_id or (record.release_id if record else None)
        if own and marts_digest(sums)[:8] != own[-8:]:
            found = "was changed: its checksums are not those that the id of the release was made of"
            yield self._fault(SUMS, found, "release")
        for name in sorted(self.sizes.keys() - sums.keys() - {SUMS, SIGNATURE}):
            found = f"is none of the {len(sums)} files that {SUMS} names"
            yield self._fault(name, found, "aside", f"move it out of the lake, or {REPAIR} moves it aside")
        if record:
            named = {Path(name).stem for name in sums if name.startswith("parquet/")}
            for mart in sorted(named ^ record.rows.keys()):
                where = RECORD if mart in record.rows else SUMS
                yield self._fault(RECORD, f"has other marts than {SUMS}: {mart} is only in {where}")

    def _is_whole(self, name: str, sums: dict[str, str]) -> bool:
        try:
            return self.files.sha256(name) == sums.get(name)
        except CatalunyaError:
            return False

    def _compare(self, name: str, sha256: str, rows: int | None) -> list[Fault]:
        """Compare one file with its checksum, and a Parquet file with its rows."""
        repair: Repair = "release" if name.startswith(("csv/", "parquet/")) else ""
        if name not in self.sizes:
            return [self._fault(name, f"is missing, and {SUMS} names it", repair)]
        found = ""
        try:
            stored = self.files.sha256(name)
            if stored != sha256:
                found = f"has the SHA-256 {stored[:16]}…, {SUMS} says {sha256[:16]}…"
            elif rows is not None and name.startswith("parquet/"):
                repair = ""
                with self.files.opened(name) as path:
                    count = parquet_rows(path)
                found = f"has {count} rows, {RECORD} says {rows}" if count != rows else ""
        except MissingKey:
            found = f"is missing, and {SUMS} names it"
        except (CatalunyaError, duckdb.Error) as error:
            found = f"cannot be read: {str(error).splitlines()[0]}"
        return [self._fault(name, found, repair)] if found else []
