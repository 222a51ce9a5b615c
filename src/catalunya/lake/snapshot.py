"""Snapshots in landing: complete when the manifest exists, passed over while refused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from catalunya.errors import LakeCorrupt, UsageError
from catalunya.lake import layout
from catalunya.lake.storage import Storage

MANIFEST = "manifest.json"
REFUSED = "refused.json"
ACCEPTED = "accepted.json"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class LandedFile(_Record):
    """One file as the portal sent it."""

    name: str
    url: str
    size: int
    sha256: str
    rows: int | None = None
    role: str | None = None
    """What its rows are, where the definition says it of each file: the level of a download."""


class LandedColumn(_Record):
    """A column as the source described it; `type` in the source's own words."""

    name: str
    type: str | None = None


class Manifest(_Record):
    """What a snapshot is: written last, so that its existence means the snapshot is whole."""

    dataset_id: str
    snapshot_id: str
    taken_at: datetime
    run_id: str
    protocol: str
    request: dict[str, Any]
    validators: dict[str, Any]
    columns: tuple[LandedColumn, ...]
    rows_before: int | None
    rows_after: int | None
    rows: int
    demo: bool
    content_sha256: str
    requests: int
    bytes: int
    files: tuple[LandedFile, ...]


class Refusal(_Record):
    """Why a snapshot is passed over."""

    gate: str
    reason: str
    figures: dict[str, Any]
    refused_at: datetime
    run_id: str


class Acceptance(_Record):
    """Why a refusal was lifted; what it was refused for only warns from then on."""

    why: str
    accepted_at: datetime
    refusal: Refusal


def content_hash(files: Iterable[LandedFile]) -> str:
    """SHA-256 over the names and checksums of the files, 64 hex digits."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name} {file.sha256}\n".encode())
    return digest.hexdigest()


def source_updated(manifest: Manifest) -> datetime | None:
    """When the publisher last changed the data, as the source says it; None when it does not say.

    None for demo data as well: the dates of a demo portal are made up.
    """
    known = manifest.validators
    if manifest.demo:
        return None
    if isinstance(known.get("rows_updated_at"), int):
        return datetime.fromtimestamp(known["rows_updated_at"], UTC)
    try:
        if "updated" in known:
            return datetime.fromisoformat(known["updated"]).replace(tzinfo=UTC)
        files: dict[str, dict[str, str]] = known["files"]
        return max(parsedate_to_datetime(file["last_modified"]) for file in files.values())
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return None


def moment_after(last: Manifest | None, now: datetime) -> datetime:
    """`now`, or one second after the last snapshot when the clock is not past it, so that ids keep their order."""
    return now if last is None else max(now, last.taken_at + timedelta(seconds=1))


def write(storage: Storage, manifest: Manifest, spooled: dict[str, Path]) -> None:
    """Move the spooled files into landing, then make the snapshot complete with its manifest."""
    for file in manifest.files:
        key = layout.landing(manifest.dataset_id, manifest.snapshot_id, file.name)
        storage.put_file(key, spooled[file.name])
    key = layout.landing(manifest.dataset_id, manifest.snapshot_id, MANIFEST)
    storage.put(key, manifest.model_dump_json(indent=1).encode())


def ids(storage: Storage, dataset_id: str) -> list[str]:
    """Every snapshot of a dataset that was begun, complete or not, oldest first."""
    return storage.folders(f"{layout.LANDING}/{dataset_id}")


def read(storage: Storage, dataset_id: str, snapshot_id: str) -> Manifest | None:
    """The manifest of a snapshot; None when it was never completed."""
    key = layout.landing(dataset_id, snapshot_id, MANIFEST)
    if not storage.exists(key):
        return None
    try:
        return Manifest.model_validate_json(storage.read(key))
    except ValidationError as error:
        raise LakeCorrupt(
            f"{storage.uri(key)}: not a manifest ({error.error_count()} faults); restore it from a backup, "
            "or move the snapshot's folder away to read the portal again"
        ) from None


def latest(storage: Storage, dataset_id: str) -> Manifest | None:
    """The newest complete snapshot, refused or not."""
    for snapshot_id in reversed(ids(storage, dataset_id)):
        manifest = read(storage, dataset_id, snapshot_id)
        if manifest is not None:
            return manifest
    return None


def complete(storage: Storage, dataset_id: str) -> list[str]:
    """Ids of all complete snapshots, oldest first."""
    return _with(storage, dataset_id, MANIFEST)


def accepted(storage: Storage, dataset_id: str) -> list[str]:
    """Ids of the complete snapshots that no gate refused, oldest first."""
    held = set(_with(storage, dataset_id, REFUSED))
    return [snapshot_id for snapshot_id in complete(storage, dataset_id) if snapshot_id not in held]


def refused(storage: Storage, dataset_id: str) -> dict[str, Refusal]:
    """Refused snapshots by id, oldest first."""
    return {
        snapshot_id: Refusal.model_validate_json(
            storage.read(layout.landing(dataset_id, snapshot_id, REFUSED))
        )
        for snapshot_id in _with(storage, dataset_id, REFUSED)
    }


def acceptance(storage: Storage, dataset_id: str, snapshot_id: str) -> Acceptance | None:
    """Who lifted the last refusal of this snapshot, and of what; None when nobody did."""
    key = layout.landing(dataset_id, snapshot_id, ACCEPTED)
    return Acceptance.model_validate_json(storage.read(key)) if storage.exists(key) else None


def refuse(storage: Storage, dataset_id: str, snapshot_id: str, refusal: Refusal) -> None:
    """Put `refused.json` beside the manifest."""
    key = layout.landing(dataset_id, snapshot_id, REFUSED)
    storage.put(key, refusal.model_dump_json(indent=1).encode())


def accept(storage: Storage, dataset_ids: Iterable[str], snapshot_id: str, why: str, now: datetime) -> str:
    """Lift the refusal of a snapshot and say why; returns its dataset. `UsageError` when it is not refused."""
    layout.moment_of(snapshot_id)
    known = list(dataset_ids)
    for dataset_id in known:
        refusal = refused(storage, dataset_id).get(snapshot_id)
        if refusal is None:
            continue
        lifted = Acceptance(
            why=why, accepted_at=now, refusal=_with_earlier(storage, dataset_id, snapshot_id, refusal)
        )
        key = layout.landing(dataset_id, snapshot_id, ACCEPTED)
        storage.put(key, lifted.model_dump_json(indent=1).encode())
        storage.delete(layout.landing(dataset_id, snapshot_id, REFUSED))
        return dataset_id
    held = [name for dataset_id in known for name in refused(storage, dataset_id)]
    shown = f"refused are: {', '.join(held)}" if held else "no snapshot is refused"
    raise UsageError(f"{snapshot_id} is not a refused snapshot; {shown}")


def _with_earlier(storage: Storage, dataset_id: str, snapshot_id: str, refusal: Refusal) -> Refusal:
    """The refusal, with what was lifted of the same snapshot before."""
    before = acceptance(storage, dataset_id, snapshot_id)
    if before is None:
        return refusal
    lifts = [before.refusal.gate, *before.refusal.figures.get("lifts", []), *refusal.figures.get("lifts", [])]
    return refusal.model_copy(update={"figures": {**refusal.figures, "lifts": lifts}})


def discard_incomplete(storage: Storage, dataset_id: str) -> list[str]:
    """Delete what killed runs left half landed; returns the ids. Call it only while holding the lake."""
    whole = set(complete(storage, dataset_id))
    broken = [snapshot_id for snapshot_id in ids(storage, dataset_id) if snapshot_id not in whole]
    for snapshot_id in broken:
        storage.delete_folder(f"{layout.LANDING}/{dataset_id}/{snapshot_id}")
    return broken


def _with(storage: Storage, dataset_id: str, name: str) -> list[str]:
    suffix = f"/{name}"
    prefix = f"{layout.LANDING}/{dataset_id}/"
    entries = storage.list(prefix.rstrip("/"))
    return sorted(
        entry.key.removeprefix(prefix).removesuffix(suffix)
        for entry in entries
        if entry.key.endswith(suffix) and entry.key.removeprefix(prefix).count("/") == 1
    )
