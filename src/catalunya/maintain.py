"""What keeps a lake in order between runs: are the kept bytes whole, are the portals alive, what may go."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from catalunya import publish
from catalunya.datasets import Dataset
from catalunya.lake import layout, snapshot
from catalunya.lake.lock import lake_lock
from catalunya.lake.snapshot import LandedFile, Manifest
from catalunya.lake.storage import MissingKey, Storage

ABANDONED = timedelta(days=2)
"""After so long nobody takes up what the parts of a run that ended badly left."""


@dataclass(frozen=True)
class Freshness:
    """When a source last published something new, as far as it says, and whether that is too long ago."""

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
    storage: Storage, dataset_id: str, *, told: Callable[[str], None] | None = None
) -> tuple[int, list[str]]:
    """Compare every landed file of a dataset with its manifest.

    Returns the number of files looked at, and a sentence for each that is missing or is not what was landed.
    """
    looked: int = 0
    wrong: list[str] = []
    work = storage.scratch() / f"verify-{dataset_id}"
    for snapshot_id in snapshot.complete(storage, dataset_id):
        manifest = snapshot.read(storage, dataset_id, snapshot_id)
        if manifest is None:
            continue
        looked += len(manifest.files)
        try:
            wrong += faults(storage, dataset_id, snapshot_id, work)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        if told is not None:
            told(f"{dataset_id} {snapshot_id}: {len(manifest.files)} files")
    return looked, wrong


def faults(storage: Storage, dataset_id: str, snapshot_id: str, work: Path) -> list[str]:
    """A sentence for each landed file of a snapshot that is missing or is not what its manifest says."""
    manifest = snapshot.read(storage, dataset_id, snapshot_id)
    if manifest is None:
        return [f"{dataset_id}: snapshot {snapshot_id} has no manifest"]
    found = (_fault(storage, manifest, file, work) for file in manifest.files)
    return [fault for fault in found if fault]


def _fault(storage: Storage, manifest: Manifest, file: LandedFile, work: Path) -> str | None:
    key = layout.landing(manifest.dataset_id, manifest.snapshot_id, file.name)
    remedy = "restore it from a backup; what was released from it stays as it is"
    try:
        path = storage.fetch(key, work)
    except MissingKey:
        return f"{storage.uri(key)} is missing; {remedy}"
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found == file.sha256:
        return None
    return (
        f"{storage.uri(key)} has {path.stat().st_size} bytes with SHA-256 {found[:16]}…, the manifest says "
        f"{file.size} with {file.sha256[:16]}…; {remedy}"
    )


def freshness(storage: Storage, datasets: dict[str, Dataset], now: datetime) -> list[Freshness]:
    """How long ago each source that was read so far published something new."""
    found = []
    for dataset_id, dataset in datasets.items():
        manifest = snapshot.latest(storage, dataset_id)
        if manifest is None:
            continue
        updated = snapshot.source_updated(manifest) or manifest.taken_at
        found.append(
            Freshness(dataset_id, manifest.snapshot_id, updated, (now - updated).days, dataset.cadence_days)
        )
    return found


def retain(storage: Storage, run_id: str, keep: int, now: datetime) -> list[str]:
    """Delete all but the newest `keep` releases and what abandoned runs left; returns what went."""
    with lake_lock(storage, run_id) as lock:
        gone = [f"release {release_id}" for release_id in publish.retain(storage, keep, lock)]
        for abandoned in filter(layout.is_id, storage.folders(layout.RUNS)):
            if now - layout.moment_of(abandoned) > ABANDONED:
                lock.check()
                storage.delete_folder(f"{layout.RUNS}/{abandoned}")
                gone.append(f"parts of run {abandoned}")
    return gone
