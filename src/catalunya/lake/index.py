"""The index of the snapshots of one dataset: one small object that is read instead of a listing of landing.

The files beside the landed bytes decide: `manifest.json` makes a snapshot complete, `refused.json` refuses it,
`accepted.json` lists the gates that were lifted by hand. The index repeats them, with the counts of every staged file.
It is written after them by compare-and-set. So a process that is killed between the two leaves an index that lacks
snapshots, never one with too many; `load` adds what is newer. An index that is missing or damaged is made again from
landing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Container, Iterator
from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import Any

import msgspec

from catalunya.errors import LakeBusy, LakeCorrupt
from catalunya.lake import layout
from catalunya.lake.staged import UNDECODABLE, StagedFile
from catalunya.lake.storage import Conflict, MissingKey, Storage
from catalunya.log import get_logger

log = get_logger(__name__)

MANIFEST = "manifest.json"
REFUSED = "refused.json"
ACCEPTED = "accepted.json"

CLOCK_TOLERANCE = timedelta(hours=1)
"""A snapshot that is later than the run's clock by more than this comes from a wrong clock."""
_VERSION = 1
_TRIES = 20


class SnapshotEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One complete snapshot."""

    refusal: dict[str, Any] | None = None
    """`refused.json` as it is; None when no gate refuses the snapshot."""
    lifts: tuple[str, ...] = ()
    """Gates and dbt tests that were lifted by hand for this snapshot."""
    staged: StagedFile | None = None


class Index(msgspec.Struct):
    """The complete snapshots of one dataset, oldest first."""

    dataset_id: str
    snapshots: dict[str, SnapshotEntry]
    version: int = _VERSION

    def __post_init__(self) -> None:
        self.snapshots = dict(sorted(self.snapshots.items()))

    @property
    def complete(self) -> list[str]:
        """Ids of all complete snapshots."""
        return list(self.snapshots)

    @property
    def usable(self) -> list[str]:
        """Ids of the complete snapshots that are not refused."""
        return [name for name, entry in self.snapshots.items() if entry.refusal is None]

    def staged(self, snapshot_id: str) -> StagedFile | None:
        """What staging made of a snapshot; None when it is not staged, or not known to be."""
        return self.snapshots.get(snapshot_id, SnapshotEntry()).staged

    def due(self, digest: str) -> list[str]:
        """Ids of the snapshots in use that are not known to be staged by the rules of `digest`."""
        files = {name: self.staged(name) for name in self.usable}
        return [name for name, file in files.items() if file is None or file.digest != digest]

    def lifts(self, snapshot_id: str) -> frozenset[str]:
        """Gates and dbt tests that were lifted by hand for a snapshot."""
        return frozenset(self.snapshots.get(snapshot_id, SnapshotEntry()).lifts)

    def gate(self, snapshot_id: str) -> str | None:
        """The gate that refuses a snapshot; None when none does."""
        return (self.snapshots.get(snapshot_id, SnapshotEntry()).refusal or {}).get("gate")

    def later_than(self, now: datetime) -> list[str]:
        """Snapshots that are not refused and come from a clock ahead of `now`."""
        return [name for name in self.usable if layout.moment_of(name) > now + CLOCK_TOLERANCE]


_DECODER = msgspec.json.Decoder(Index)
"""Made here, since threads that use a type of msgspec for the first time at once end the process."""


_remembered: ContextVar[dict[tuple[str, str], Index] | None] = ContextVar("remembered", default=None)


@contextlib.contextmanager
def remembered() -> Iterator[None]:
    """Read each index once inside of this, and again only after this process changed it.

    For a process that holds the locks of the lake and of every dataset: nobody else writes meanwhile.
    """
    token = _remembered.set({})
    try:
        yield
    finally:
        _remembered.reset(token)


def load(storage: Storage, dataset_id: str) -> Index:
    """The index with what landed since it was written; writes nothing.

    A missing or damaged index is made from landing: one listing, and a request per marker that is found.
    """
    memory = _remembered.get()
    known = memory.get((storage.url, dataset_id)) if memory is not None else None
    if known is not None:
        return known
    found = Index(dataset_id, _read(storage, dataset_id)[0])
    if memory is not None:
        memory[storage.url, dataset_id] = found
    return found


def update(storage: Storage, dataset_id: str, change: Callable[[dict[str, SnapshotEntry]], None]) -> Index:
    """Apply `change` to the index by compare-and-set, and return it as it is stored.

    `change` is called again when another process wrote meanwhile; it must do the same each time.
    """
    for _ in range(_TRIES):
        snapshots, version = _read(storage, dataset_id)
        change(snapshots)
        index = Index(dataset_id, snapshots)
        try:
            storage.replace(layout.index(dataset_id), msgspec.json.encode(index), version)
        except Conflict:
            continue
        memory = _remembered.get()
        if memory is not None:
            memory[storage.url, dataset_id] = index
        return index
    raise LakeBusy(
        f"{storage.uri(layout.index(dataset_id))} was changed by others {_TRIES} times in a row; run again"
    )


def set_entry(storage: Storage, dataset_id: str, snapshot_id: str, **changes: Any) -> Index:
    """Change fields of one snapshot's entry."""

    def change(snapshots: dict[str, SnapshotEntry]) -> None:
        known = snapshots.get(snapshot_id, SnapshotEntry())
        snapshots[snapshot_id] = msgspec.structs.replace(known, **changes)

    return update(storage, dataset_id, change)


def rebuild(storage: Storage, dataset_id: str) -> Index:
    """Make the index again from landing; what it says of staged files is kept."""
    found = _from_landing(storage, dataset_id)

    def change(snapshots: dict[str, SnapshotEntry]) -> None:
        known = dict(snapshots)
        snapshots.clear()
        for name, entry in found.items():
            staged = known[name].staged if name in known else None
            snapshots[name] = msgspec.structs.replace(entry, staged=staged)

    return update(storage, dataset_id, change)


def forget(storage: Storage, dataset_id: str, snapshot_id: str) -> Index:
    """Remove a snapshot whose folder was taken out of landing."""

    def change(snapshots: dict[str, SnapshotEntry]) -> None:
        snapshots.pop(snapshot_id, None)

    return update(storage, dataset_id, change)


def stored(storage: Storage, dataset_id: str) -> tuple[Index | None, Any]:
    """The index as it is stored, None when there is none, and its version; `LakeCorrupt` when it is damaged."""
    key = layout.index(dataset_id)
    found = storage.read_versioned(key)
    if found is None:
        return None, None
    try:
        index = _DECODER.decode(found[0])
    except UNDECODABLE as error:
        raise LakeCorrupt(f"{storage.uri(key)} is no index: {error}") from None
    if index.version != _VERSION or index.dataset_id != dataset_id:
        raise LakeCorrupt(f"{storage.uri(key)} is of version {index.version} and of {index.dataset_id}")
    return index, found[1]


def _read(storage: Storage, dataset_id: str) -> tuple[dict[str, SnapshotEntry], Any]:
    try:
        index, version = stored(storage, dataset_id)
    except LakeCorrupt as error:
        log.warning("index is made again from landing", reason=str(error))
        found = storage.read_versioned(layout.index(dataset_id))
        return _from_landing(storage, dataset_id), found[1] if found else None
    if index is None:
        return _from_landing(storage, dataset_id), version
    return _caught_up(storage, dataset_id, index.snapshots), version


def _caught_up(
    storage: Storage, dataset_id: str, snapshots: dict[str, SnapshotEntry]
) -> dict[str, SnapshotEntry]:
    """`snapshots` with those that landed since: a process was killed before it wrote the index."""
    # Not the last id: one from a clock that was ahead would hide all that landed since.
    known = [name for name, e in snapshots.items() if (e.refusal or {}).get("gate") != "by_hand"]
    after = max(known, default="")
    for name in storage.folders(f"{layout.LANDING}/{dataset_id}", after=after):
        if name in snapshots or not layout.is_id(name):
            continue
        if storage.exists(layout.landing(dataset_id, name, MANIFEST)):
            snapshots[name] = _entry(storage, dataset_id, name)
    return snapshots


def _from_landing(storage: Storage, dataset_id: str) -> dict[str, SnapshotEntry]:
    prefix = f"{layout.LANDING}/{dataset_id}/"
    files: dict[str, set[str]] = {}
    for entry in storage.list(prefix.rstrip("/")):
        name, _, file = entry.key.removeprefix(prefix).partition("/")
        if layout.is_id(name):
            files.setdefault(name, set()).add(file)
    return {
        name: _entry(storage, dataset_id, name, found)
        for name, found in sorted(files.items())
        if MANIFEST in found
    }


def _entry(
    storage: Storage, dataset_id: str, snapshot_id: str, files: Container[str] = (REFUSED, ACCEPTED)
) -> SnapshotEntry:
    """An entry from the markers in landing; only those among `files` are looked for."""
    refusal, acceptance = (
        _marker(storage, dataset_id, snapshot_id, name) if name in files else None
        for name in (REFUSED, ACCEPTED)
    )
    return SnapshotEntry(refusal=refusal, lifts=lifts_of(acceptance) if acceptance else ())


def _marker(storage: Storage, dataset_id: str, snapshot_id: str, name: str) -> dict[str, Any] | None:
    key = layout.landing(dataset_id, snapshot_id, name)
    try:
        data = storage.read(key)
    except MissingKey:
        return None
    with contextlib.suppress(*UNDECODABLE):
        found = msgspec.json.decode(data)
        if isinstance(found, dict):
            return found
    log.warning("a damaged marker is ignored; the snapshot is judged again", key=storage.uri(key))
    return None


def lifts_of(acceptance: dict[str, Any]) -> tuple[str, ...]:
    """The gates and dbt tests that an `accepted.json` lifts."""
    refusal = acceptance.get("refusal") or {}
    figures = refusal.get("figures") or {}
    return tuple(dict.fromkeys([refusal.get("gate", ""), *figures.get("lifts", [])]))
