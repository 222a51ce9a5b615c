"""Maintenance of a lake between runs: integrity of the kept bytes, freshness of the portals, retention, ledger."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import groupby

from catalunya import sources
from catalunya.datasets.model import Dataset
from catalunya.errors import LakeCorrupt
from catalunya.lake import layout, snapshot
from catalunya.lake.lock import Lock, lake_lock
from catalunya.lake.snapshot import Manifest
from catalunya.lake.storage import Storage
from catalunya.operations.integrity.files import landed_faults
from catalunya.release import apply_retention
from catalunya.runs.record import ABANDONED, ledger_record

ROTATION_DAYS = 30
"""Every landed snapshot is verified once in so many days, the newest of a dataset each day."""
LEDGER_DAYS = 90
"""Older records of the ledger are folded into its archive."""
LEDGER_RECORDS = 1000
"""The number of the newest records of the ledger that are not folded, unless they are old."""


@dataclass(frozen=True)
class Freshness:
    """When a source last published something new, as far as it says, and its age."""

    dataset_id: str
    snapshot_id: str
    updated_at: datetime
    age_days: int
    cadence_days: int

    @property
    def silent(self) -> bool:
        """True when nothing came for longer than the source's cadence."""
        return self.age_days > self.cadence_days


def verify(
    storage: Storage,
    dataset_id: str,
    *,
    day: date | None = None,
    on_snapshot: Callable[[str], None] | None = None,
) -> tuple[int, list[str]]:
    """Compare the landed files of a dataset with their manifests: those that are due on `day`, or all without it.

    On a day the checksum that the storage keeps of a file is compared, and only files without one are read; without a
    `day` every byte is read. Returns the number of files compared, and a sentence for each that is missing or is not
    what was landed.
    """
    compared = 0
    found: list[str] = []
    ids = snapshot.complete(storage, dataset_id)
    for snapshot_id in ids if day is None else due(ids, day):
        manifest = snapshot.read(storage, dataset_id, snapshot_id)
        if manifest is None:
            continue
        compared += len(manifest.files)
        found += map(str, landed_faults(storage, manifest, read=day is None))
        if on_snapshot is not None:
            on_snapshot(f"{dataset_id} {snapshot_id}: {len(manifest.files)} files")
    return compared, found


def due(ids: list[str], day: date) -> list[str]:
    """Return the snapshots of `ids`, oldest first, that are verified on `day`: those whose place in the list is the day's.

    A snapshot keeps its place, so each is verified once in `ROTATION_DAYS`; the newest is verified every day.
    """
    return [
        name
        for place, name in enumerate(ids)
        if (place - day.toordinal()) % ROTATION_DAYS == 0 or name == ids[-1]
    ]


def freshness(storage: Storage, datasets: dict[str, Dataset], now: datetime) -> list[Freshness]:
    """Return how long ago each source that was read so far published something new."""
    found = []
    for dataset_id, dataset in datasets.items():
        manifest = _newest(storage, dataset_id)
        if manifest is not None:
            updated = sources.updated(manifest.protocol, manifest.validators, demo=manifest.demo)
            updated = updated or manifest.taken_at
            age, cadence = (now - updated).days, dataset.cadence_days
            found.append(Freshness(dataset_id, manifest.snapshot_id, updated, age, cadence))
    return found


def _newest(storage: Storage, dataset_id: str) -> Manifest | None:
    """Return the newest snapshot whose manifest is there; unlike `snapshot.latest` it leaves the index as it is."""
    ids = reversed(snapshot.complete(storage, dataset_id))
    return next((found for name in ids if (found := snapshot.read(storage, dataset_id, name))), None)


def retain(storage: Storage, run_id: str, keep: int, now: datetime) -> list[str]:
    """Delete all but the newest `keep` releases and the state of failed runs, and fold the ledger.

    Returns what was done, in sentences.
    """
    with lake_lock(storage, run_id) as lock:
        gone = [f"release {release_id}" for release_id in apply_retention(storage, keep, lock)]
        for abandoned in filter(layout.is_id, storage.folders(layout.RUNS)):
            if now - layout.moment_of(abandoned) > ABANDONED:
                storage.delete_folder(f"{layout.RUNS}/{abandoned}")
                gone.append(f"steps of run {abandoned}")
        folded = fold_ledger(storage, now, lock)
    for month, count in folded.folded.items():
        archive = storage.uri(layout.ledger_archive(month))
        gone.append(f"single records of the ledger: {count} are in {archive} now")
    return gone + [f"left alone: {what}" for what in folded.left]


@dataclass(frozen=True)
class Folded:
    """What folding the ledger did."""

    folded: dict[str, int]
    """Month to the number of records that went into its archive."""
    left: tuple[str, ...]
    """Objects that were left alone, and why."""


def fold_ledger(storage: Storage, now: datetime, lock: Lock) -> Folded:
    """Move old records of the ledger into one object a month, a line a record.

    Old are those before `LEDGER_DAYS` and all but the newest `LEDGER_RECORDS`, never the newest one of all: the next
    run reads from it what it knows of the portals. A record is deleted only after the
    archive that has it is stored. Call it only while the lake is locked.
    """
    known, left = _ledger(storage)
    count = max(0, len(known) - LEDGER_RECORDS)
    old = [
        run_id
        for place, run_id in enumerate(known[:-1])
        if place < count or now - layout.moment_of(run_id) > timedelta(days=LEDGER_DAYS)
    ]
    folded: dict[str, int] = {}
    for month, group in groupby(old, lambda run_id: f"{layout.moment_of(run_id):%Y-%m}"):
        found = {run_id: ledger_record(storage.read(layout.ledger(run_id))) for run_id in group}
        records = {name: record for name, record in found.items() if record and record["run_id"] == name}
        left += [
            f"{storage.uri(layout.ledger(run_id))}: it is no whole record of that run; delete it"
            for run_id in found
            if run_id not in records
        ]
        if not records:
            continue
        try:
            archive_records(storage, month, records)
        except LakeCorrupt as error:
            left.append(str(error))
            continue
        for run_id in records:
            lock.check()
            storage.delete(layout.ledger(run_id))
        folded[month] = len(records)
    return Folded(folded, tuple(left))


def _ledger(storage: Storage) -> tuple[list[str], list[str]]:
    """Return the run ids of the records that are objects of their own, oldest first; and what is no record."""
    known, left = [], []
    for entry in storage.list(layout.LEDGER):
        name = entry.key.removeprefix(f"{layout.LEDGER}/")
        if layout.is_id(name.removesuffix(".json")) and name.endswith(".json"):
            known.append(name.removesuffix(".json"))
        elif not name.startswith("archive/"):
            left.append(f"{storage.uri(entry.key)}: it is no record of a run; move it away")
    return known, left


def archive_records(storage: Storage, month: str, records: dict[str, dict[str, object]]) -> None:
    """Store the archive of a month with `records` in it, each run once and in order of the runs.

    Raises `LakeCorrupt` when the archive that is there has a line that is no record; it stays as it was.
    """
    key = layout.ledger_archive(month)
    found = storage.read_versioned(key)
    before, version = found if found else (b"", None)
    kept: dict[str, dict[str, object]] = {}
    for number, line in enumerate(before.splitlines(), 1):
        record = ledger_record(line)
        if record is None:
            raise LakeCorrupt(
                f"{storage.uri(key)}: line {number} is no record of a run; restore it from a backup or move it away"
            )
        kept[str(record["run_id"])] = record
    kept |= records
    text = "".join(f"{json.dumps(kept[run_id], ensure_ascii=False)}\n" for run_id in sorted(kept))
    storage.replace(key, text.encode(), version)
