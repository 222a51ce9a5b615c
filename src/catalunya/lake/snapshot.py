"""Snapshots in landing and their states.

A snapshot is complete ("landed") when its manifest exists. It is *pending* until a release contains it: then it is
*accepted*, and part of the history. A gate that it fails makes it *refused* (`refused.json`): it is left out until the
refusal is lifted or the definition or code that made it has changed. docs/snapshots.md has the drawing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from catalunya.errors import LakeCorrupt, UsageError
from catalunya.lake import index, layout
from catalunya.lake.index import ACCEPTED, MANIFEST, REFUSED
from catalunya.lake.storage import MissingKey, Storage

BY_HAND = "by_hand"
"""Gate of a refusal by a person (`catalunya refuse`)."""
ROLLBACK = "rollback"
"""Gate of a snapshot that came with a release which was rolled back."""
UNREADABLE = "unreadable"
"""Gate of landed bytes that cannot be decoded or typed."""
DEFINITION_GATES = {"schema", UNREADABLE, "expected", "rows", "figures"}
"""Gates that judge a snapshot by its definition: their refusals hold as long as that is the same."""
_LASTING = {BY_HAND, ROLLBACK}
"""Gates whose refusals only a person lifts: no change of code or definition does."""


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
    """What a snapshot contains; written last, so that its existence means the snapshot is complete."""

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
    """Why a snapshot is left out."""

    gate: str
    reason: str
    figures: dict[str, Any]
    refused_at: datetime
    run_id: str
    judged_with: str = ""
    """Digest of the definition or code that made the judgement; with another one the snapshot is judged again."""

    def is_void(self, *digests: str) -> bool:
        """True when neither digest made this refusal, so that the snapshot has to be judged again."""
        return self.gate not in _LASTING and bool(self.judged_with) and self.judged_with not in digests


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


def moment_after(last: Manifest | None, now: datetime) -> datetime:
    """`now`, or one second after the last snapshot when the clock is not past it, so that ids keep their order."""
    return now if last is None else max(now, last.taken_at + timedelta(seconds=1))


def write(storage: Storage, manifest: Manifest, spooled: dict[str, Path]) -> None:
    """Move the spooled files into landing, make the snapshot complete with its manifest, and add it to the index."""
    for file in manifest.files:
        key = layout.landing(manifest.dataset_id, manifest.snapshot_id, file.name)
        storage.put_file(key, spooled[file.name])
    _put(storage, manifest.dataset_id, manifest.snapshot_id, MANIFEST, manifest)
    index.set_entry(storage, manifest.dataset_id, manifest.snapshot_id)


def _put(storage: Storage, dataset_id: str, snapshot_id: str, name: str, record: _Record) -> None:
    key = layout.landing(dataset_id, snapshot_id, name)
    storage.put(key, record.model_dump_json(indent=1).encode())


def read(storage: Storage, dataset_id: str, snapshot_id: str) -> Manifest | None:
    """The manifest of a snapshot; None when it was never completed."""
    key = layout.landing(dataset_id, snapshot_id, MANIFEST)
    try:
        return Manifest.model_validate_json(storage.read(key))
    except MissingKey:
        return None
    except ValidationError as error:
        raise LakeCorrupt(
            f"{storage.uri(key)}: not a manifest ({error.error_count()} faults); restore it from a backup, "
            "or move the snapshot's folder away to read the portal again"
        ) from None


def latest(storage: Storage, dataset_id: str, now: datetime | None = None) -> Manifest | None:
    """The newest complete snapshot, refused or not.

    With `now` none that comes from a clock ahead of it. A snapshot whose folder was moved out of landing is removed from
    the index. One with a damaged manifest is left out once it is refused for it, so that the source can be read again.
    """
    limit = now + index.CLOCK_TOLERANCE if now else None
    known = index.load(storage, dataset_id)
    for snapshot_id in reversed(known.complete):
        if limit is not None and layout.moment_of(snapshot_id) > limit:
            continue
        try:
            manifest = read(storage, dataset_id, snapshot_id)
        except LakeCorrupt:
            if known.gate(snapshot_id) != UNREADABLE:
                raise
            continue
        if manifest is not None:
            return manifest
        index.forget(storage, dataset_id, snapshot_id)
    return None


def complete(storage: Storage, dataset_id: str) -> list[str]:
    """Ids of all complete snapshots, oldest first."""
    return index.load(storage, dataset_id).complete


def usable(storage: Storage, dataset_id: str) -> list[str]:
    """Ids of the complete snapshots that are not refused, oldest first: accepted or pending."""
    return index.load(storage, dataset_id).usable


def refused(storage: Storage, dataset_id: str) -> dict[str, Refusal]:
    """Refused snapshots by id, oldest first."""
    return refusals(index.load(storage, dataset_id))


def refusals(known: index.Index) -> dict[str, Refusal]:
    """The refusals of an index, by id of the snapshot."""
    return {name: _parse_refusal(e.refusal) for name, e in known.snapshots.items() if e.refusal is not None}


def _parse_refusal(content: dict[str, Any]) -> Refusal:
    """A refusal as it is recorded; one that lacks fields is kept, and says so."""
    try:
        return Refusal.model_validate(content)
    except ValidationError as error:
        reason = (
            f"its refusal is damaged ({error.error_count()} faults): {content.get('reason', 'no reason')}"
        )
        never = datetime.fromtimestamp(0, UTC)
        gate = str(content.get("gate", "unknown"))
        return Refusal(gate=gate, reason=reason, figures={}, refused_at=never, run_id="unknown")


def reasons_of_acceptance(storage: Storage, dataset_id: str, snapshot_ids: Iterable[str]) -> dict[str, str]:
    """Why a person lifted a refusal, by id of the snapshot, for those of `snapshot_ids` that have one."""
    known = index.load(storage, dataset_id)
    found = {}
    for snapshot_id in snapshot_ids:
        if not known.lifts(snapshot_id):
            continue
        try:
            data = storage.read(layout.landing(dataset_id, snapshot_id, ACCEPTED))
            found[snapshot_id] = Acceptance.model_validate_json(data).why
        except (MissingKey, ValidationError):
            found[snapshot_id] = "no reason on record"
    return found


def refuse(storage: Storage, dataset_id: str, snapshot_id: str, refusal: Refusal) -> None:
    """Write `refused.json` beside the manifest, and the refusal into the index."""
    _put(storage, dataset_id, snapshot_id, REFUSED, refusal)
    index.set_entry(storage, dataset_id, snapshot_id, refusal=refusal.model_dump(mode="json"))


def refuse_by_hand(
    storage: Storage, dataset_ids: Iterable[str], snapshot_id: str, why: str, now: datetime, run_id: str
) -> str:
    """Refuse a snapshot because a person says so, and return its dataset; only `accept` lifts it.

    Raises `UsageError` when there is no such complete snapshot.
    """
    layout.moment_of(snapshot_id)
    for dataset_id in dataset_ids:
        if snapshot_id in index.load(storage, dataset_id).snapshots:
            refusal = Refusal(
                gate=BY_HAND, reason=f"refused by hand: {why}", figures={}, refused_at=now, run_id=run_id
            )
            refuse(storage, dataset_id, snapshot_id, refusal)
            return dataset_id
    raise UsageError(
        f"{snapshot_id} is not a snapshot of any dataset; `catalunya status --json` lists the newest"
    )


def lift(storage: Storage, dataset_id: str, snapshot_id: str) -> None:
    """Remove a refusal that no longer holds: the snapshot is judged again."""
    storage.delete(layout.landing(dataset_id, snapshot_id, REFUSED))
    index.set_entry(storage, dataset_id, snapshot_id, refusal=None)


def accept(storage: Storage, dataset_ids: Iterable[str], snapshot_id: str, why: str, now: datetime) -> str:
    """Lift the refusal of a snapshot and say why; returns its dataset. `UsageError` when it is not refused."""
    layout.moment_of(snapshot_id)
    known = {dataset_id: index.load(storage, dataset_id) for dataset_id in dataset_ids}
    for dataset_id, found in known.items():
        refusal = refusals(found).get(snapshot_id)
        if refusal is None:
            continue
        if earlier := found.lifts(snapshot_id):
            all_lifts = [*sorted(earlier), *refusal.figures.get("lifts", [])]
            refusal = refusal.model_copy(update={"figures": {**refusal.figures, "lifts": all_lifts}})
        lifted = Acceptance(why=why, accepted_at=now, refusal=refusal)
        _put(storage, dataset_id, snapshot_id, ACCEPTED, lifted)
        storage.delete(layout.landing(dataset_id, snapshot_id, REFUSED))
        lifts = index.lifts_of(lifted.model_dump(mode="json"))
        index.set_entry(storage, dataset_id, snapshot_id, refusal=None, lifts=lifts)
        return dataset_id
    refused_ids = [name for found in known.values() for name in refusals(found)]
    shown = f"refused are: {', '.join(refused_ids)}" if refused_ids else "no snapshot is refused"
    raise UsageError(f"{snapshot_id} is not a refused snapshot; {shown}")


def discard_incomplete(storage: Storage, dataset_id: str) -> list[str]:
    """Delete snapshots that killed runs left incomplete; returns their ids. Only the holder of the dataset's lock may."""
    folder = f"{layout.LANDING}/{dataset_id}"
    after = max(index.load(storage, dataset_id).snapshots, default="")
    incomplete = [name for name in storage.folders(folder, after=after) if layout.is_id(name)]
    for snapshot_id in incomplete:
        storage.delete_folder(f"{folder}/{snapshot_id}")
    return incomplete
