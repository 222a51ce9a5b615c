"""Copy of a lake, between folders and buckets: a backup, its restore, a move.

Contents come before what makes them whole, and the pointer is last, so that the target is a valid lake at any moment and the
same call goes on after a kill. What is equal by size and checksum is skipped; nothing damaged is copied. Where the target
is newer than the source, only what it lost is brought back: that is the restore of single files from a backup.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Lock as ThreadLock
from typing import Any

from catalunya.datasets import loader
from catalunya.errors import CatalunyaError, LakeCorrupt, UsageError
from catalunya.lake import disk, index, layout, pointer, snapshot
from catalunya.lake.index import MANIFEST
from catalunya.lake.opening import open_lake
from catalunya.lake.snapshot import Manifest
from catalunya.lake.storage import MissingKey, Storage
from catalunya.operations.integrity.files import sha256_of, side_by_side
from catalunya.operations.integrity.releases import SIGNATURE
from catalunya.operations.integrity.same_lake import (
    is_newer,
    require_apart,
    require_lake,
    require_lake_or_nothing,
    shown_by,
)
from catalunya.operations.integrity.snapshots import MARKERS
from catalunya.release import RECORD, SUMS, read_release, read_sums, release_ids
from catalunya.runs.record import new_run_id
from catalunya.runs.steps import whole_lake
from catalunya.settings import Settings

_RECORDS = (layout.LEDGER, layout.ALERTS, layout.DAMAGED)
"""What else is copied. Runs make candidates and the state of their steps anew, engines what they publish."""


@dataclass
class Copied:
    """What a copy did."""

    source: str
    target: str
    restored_only: bool = False
    """True when the target is newer, so that only what it lacks was brought back."""
    copied: int = 0
    equal: int = 0
    bytes: int = 0
    problems: list[str] = field(default_factory=list)
    """What was not copied because it is damaged at the source."""

    def __str__(self) -> str:
        what = f"{self.copied:,} files ({self.bytes / 1e6:,.1f} MB) were copied, {self.equal:,} were equal"
        newer = (
            f"; {self.target} is newer, so that only what it lacks was brought back"
            if self.restored_only
            else ""
        )
        left = f"; {len(self.problems)} damaged at the source were left out" if self.problems else ""
        return f"{self.source} to {self.target}: {what}{newer}{left}"

    def as_json(self) -> dict[str, Any]:
        """The result for programs."""
        return {"status": "incomplete" if self.problems else "copied", **vars(self)}


class LakeCopy:
    """One copy of a lake; the caller has locked the target."""

    def __init__(self, source: Storage, target: Storage, on_file: Callable[[str], None]) -> None:
        self.source = source
        self.target = target
        self.done = Copied(source.url, target.url)
        self._on_file = on_file
        self._counting = ThreadLock()

    def run(self) -> Copied:
        """Copy everything; raises `UsageError` when the target is another lake, or something else."""
        shown = shown_by(self.source)
        self.done.restored_only = is_newer(self.source, self.target)
        datasets = self.source.folders(layout.LANDING)
        for dataset_id in datasets:
            self._copy_dataset(dataset_id)
        if not self.done.restored_only:
            for area in _RECORDS:
                self._copy_all(entry.key for entry in self.source.list(area))
        whole = set(filter(self._copy_release, self._releases()))
        if not self.done.restored_only:
            for release_id in whole:
                self._copy_all(e.key for e in self.source.list(f"{layout.DOCS}/{release_id}"))
            if shown is not None and shown[0].release_id in whole:
                self._put(pointer.KEY, shown[1])
        return self.done

    def _copy_dataset(self, dataset_id: str) -> None:
        stored = None
        with suppress(LakeCorrupt):
            # Before the staged files: one that is staged again meanwhile does not fit, and the index is left out.
            stored, _ = index.stored(self.source, dataset_id)
        index_bytes = self.source.read_versioned(layout.index(dataset_id))
        for snapshot_id in self.source.folders(f"{layout.LANDING}/{dataset_id}"):
            if layout.is_id(snapshot_id):
                self._copy_snapshot(dataset_id, snapshot_id)
        if self.done.restored_only:
            return
        files = {name: entry.staged for name, entry in (stored.snapshots if stored else {}).items()}
        staged = {layout.staged(dataset_id, name): file for name, file in files.items() if file}
        keys = [
            entry.key
            for area in (layout.STAGING, layout.QUARANTINE)
            for entry in self.source.list(f"{area}/{dataset_id}")
            if entry.key != layout.index(dataset_id)
        ]
        due = [key for key in keys if not self._is_equal(key)]
        target_index = self.target.read_versioned(layout.index(dataset_id))
        if due and target_index is not None:
            # An index must never describe a file that is gone: without one it is made again from landing.
            self.target.delete(layout.index(dataset_id))
        problems = len(self.done.problems)
        self._copy_all(due, {key: file.sha256 for key, file in staged.items()})
        if index_bytes and stored and len(self.done.problems) == problems and staged.keys() <= set(keys):
            self._put(layout.index(dataset_id), index_bytes[0])

    def _copy_snapshot(self, dataset_id: str, snapshot_id: str) -> None:
        """Copy the landed files, then the markers, then the manifest: a refused snapshot is never there unrefused."""
        try:
            manifest = snapshot.read(self.source, dataset_id, snapshot_id)
        except LakeCorrupt as error:
            self._problem(str(error))
            return
        if manifest is None:
            return
        expected = _checksums(manifest)
        problems = len(self.done.problems)
        self._copy_all(expected, expected)
        if len(self.done.problems) > problems:
            return
        if not self.done.restored_only:
            for name in MARKERS:
                key = layout.landing(dataset_id, snapshot_id, name)
                found = self.source.read_versioned(key)
                if found is not None:
                    self._put(key, found[0])
                elif self.target.exists(key):
                    self.target.delete(key)
        key = layout.landing(dataset_id, snapshot_id, MANIFEST)
        self._put(key, self.source.read(key))

    def _releases(self) -> list[str]:
        """The releases to copy: all, or those that a newer target has not deleted by its retention."""
        ours = release_ids(self.source)
        if not self.done.restored_only:
            return ours
        theirs = set(release_ids(self.target))
        return [name for name in ours if name in theirs]

    def _copy_release(self, release_id: str) -> bool:
        """Copy a release, its record last; False when it is not whole at the source."""
        folder = layout.release(release_id)
        names = [entry.key.removeprefix(f"{folder}/") for entry in self.source.list(folder)]
        if RECORD not in names:
            return False
        try:
            read_release(self.source, release_id)
            sums = read_sums(self.source.read(f"{folder}/{SUMS}"))
        except (CatalunyaError, ValueError) as error:
            self._problem(f"{self.source.uri(folder)} is damaged: {error}")
            return False
        expected = {f"{folder}/{name}": sha256 for name, sha256 in sums.items()}
        record = {f"{folder}/{RECORD}": expected.pop(f"{folder}/{RECORD}", "")}
        problems = len(self.done.problems)
        self._copy_all(expected, expected)
        if len(self.done.problems) > problems:
            return False
        self._copy_all(f"{folder}/{name}" for name in (SUMS, SIGNATURE) if name in names)
        self._copy_all(record, record)
        return len(self.done.problems) == problems

    def _copy_all(self, keys: Iterable[str], expected: dict[str, str] | None = None) -> None:
        """Copy files beside each other; what is missing or damaged at the source is a problem, and no error."""
        expected = expected or {}
        side_by_side(partial(self._copy_file, key, expected.get(key)) for key in keys)

    def _copy_file(self, key: str, expected: str | None) -> None:
        if self._is_equal(key, expected):
            self._count(equal=1)
            return
        work = self.target.scratch() / uuid.uuid4().hex
        path = work / key.rsplit("/", 1)[-1]
        try:
            work.mkdir()
            found = self.source.fetch(key, work)
            with disk.explained(found):
                if found != path:
                    disk.copy_file(found, path)
                sha256, size = disk.sha256(path), path.stat().st_size
            if expected and sha256 != expected:
                self._problem(
                    f"{self.source.uri(key)} has the SHA-256 {sha256[:16]}…, expected is {expected[:16]}…"
                )
                return
            self.target.put_file(key, path)
            self._count(copied=1, size=size)
            self._on_file(key)
        except MissingKey:
            if expected:
                self._problem(f"{self.source.uri(key)} is missing")
        finally:
            disk.remove(work)

    def _is_equal(self, key: str, expected: str | None = None) -> bool:
        """Compare by checksum what is at the target; `expected` is what the source records of it."""
        try:
            return sha256_of(self.target, key) == (expected or sha256_of(self.source, key))
        except MissingKey:
            return False

    def _put(self, key: str, data: bytes) -> None:
        """Write a small file, if it differs."""
        found = self.target.read_versioned(key)
        if found is not None and found[0] == data:
            self._count(equal=1)
            return
        self.target.put(key, data)
        self._count(copied=1, size=len(data))

    def _count(self, copied: int = 0, equal: int = 0, size: int = 0) -> None:
        with self._counting:
            self.done.copied += copied
            self.done.equal += equal
            self.done.bytes += size

    def _problem(self, text: str) -> None:
        with self._counting:
            self.done.problems.append(f"{text}; it was not copied: `catalunya lake check` names what to do")


def copy_lake(
    source: str, target: str, settings: Settings, on_file: Callable[[str], None] = lambda key: None
) -> Copied:
    """Copy the lake at one address to another; the target is locked meanwhile, and runs may go on at the source.

    Raises `UsageError` for what is no lake, another lake, or one inside of the other, and `LakeBusy`.
    """
    if not source.startswith("s3://") and not Path(source.removeprefix("file://")).expanduser().is_dir():
        raise UsageError(f"{source} is no lake: there is no such folder")
    known = loader.load(settings.home / "datasets")
    opened = open_lake(source)
    require_lake(opened)
    require_apart(source, target)
    if "://" not in target:
        require_lake_or_nothing(Path(target).expanduser())
    copy = open_lake(target)
    with whole_lake(copy, new_run_id(settings.now()), known) as lock:
        return LakeCopy(opened, copy.guarded(lock), on_file).run()


def _checksums(manifest: Manifest) -> dict[str, str]:
    return {
        layout.landing(manifest.dataset_id, manifest.snapshot_id, f.name): f.sha256 for f in manifest.files
    }
