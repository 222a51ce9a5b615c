"""Staging: from the bytes of a landed snapshot to one typed Parquet file, quarantine and counts.

Rows in = rows staged + rows quarantined + exact duplicates; the four figures travel in the staged
file itself, as Parquet metadata, so that they cannot be separated from the rows. A bad value that its row
does not need is null in the staged row; `raw` keeps it.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

import msgspec
import structlog

from catalunya.datasets.model import Dataset
from catalunya.errors import HistoryUnreadable, LakeCorrupt, Refused, SnapshotUnreadable
from catalunya.lake import index, layout, snapshot
from catalunya.lake.snapshot import Manifest, Refusal
from catalunya.lake.staged import Staged, StagedFile, index_entry, staged_record
from catalunya.lake.storage import Storage
from catalunya.staging import row_sql
from catalunya.staging.schema_drift import (
    Drift,
)
from catalunya.staging.snapshot_typing import stage_snapshot

log = structlog.get_logger(__name__)

_NOTES_AT_ONCE = 100


def stage(
    storage: Storage,
    dataset: Dataset,
    *,
    run_id: str,
    now: datetime,
    again: bool = False,
    anew: Collection[str] = (),
    accepted: Collection[str] = (),
) -> list[Staged]:
    """Stage every snapshot of a dataset that is not refused and not staged by today's rules, or with `again` all.

    `anew` are snapshots whose files must not be taken for good, whatever they say of themselves.

    `accepted` are snapshots that a release contains: no gate refuses them any more, whatever their columns are. A
    refusal that another definition made is void, and its snapshot is staged and judged again.

    Returns what was newly staged. Raises, after all were tried: `Refused` when a pending snapshot does not fit its
    definition or cannot be read, `LakeCorrupt` when its landed bytes are not those of its manifest (it is marked
    refused in both cases). Raises `HistoryUnreadable` at once for an accepted snapshot that cannot be staged.
    """
    wanted, judged_with = row_sql.digest(dataset), row_sql.definition_digest(dataset)
    known = _reopened(storage, dataset.id, judged_with)
    if not again:
        known = _with_found_files(storage, dataset.id, known, wanted, anew)
    due = set(known.usable) if again else {*known.due(wanted), *(set(anew) & set(known.usable))}
    if not due:
        return []
    notes = _Notes(storage, dataset.id)
    notes.drop(due)
    done: list[Staged] = []
    refused: dict[str, str] = {}
    corrupt: dict[str, str] = {}
    previous: str | None = None
    try:
        for snapshot_id in known.usable:
            before, previous = previous, snapshot_id
            if snapshot_id not in due:
                continue
            is_accepted = snapshot_id in accepted
            lenient = is_accepted or "schema" in known.lifts(snapshot_id)
            try:
                manifest = _manifest(storage, dataset.id, snapshot_id)
                earlier = snapshot.read(storage, dataset.id, before) if before and not is_accepted else None
                staged, note = stage_snapshot(
                    storage, dataset, manifest, earlier, lenient=lenient, compare=not is_accepted
                )
            except (Drift, SnapshotUnreadable) as fault:
                if is_accepted:
                    raise _cannot_be_staged(dataset.id, snapshot_id, fault) from fault
                previous = before
                refused[snapshot_id] = _refuse(
                    storage, dataset, snapshot_id, fault, judged_with, run_id=run_id, now=now
                )
            except LakeCorrupt as fault:
                if is_accepted:
                    raise _cannot_be_staged(dataset.id, snapshot_id, fault) from fault
                previous = before
                corrupt[snapshot_id] = _refuse(
                    storage, dataset, snapshot_id, fault, judged_with, run_id=run_id, now=now
                )
            else:
                done.append(staged)
                notes.add(snapshot_id, note)
    finally:
        notes.write()
    if refused:
        raise Refused("; ".join([*refused.values(), *corrupt.values()]), refused | corrupt)
    if corrupt:
        raise LakeCorrupt("; ".join(corrupt.values()))
    return done


class _Notes:
    """Writes what was staged into the index, some at a time: an index of thousands is too long to write for each.

    The entries of what is to be staged are dropped first, so that the index never describes a file that was replaced.
    """

    def __init__(self, storage: Storage, dataset_id: str) -> None:
        self._storage = storage
        self._dataset_id = dataset_id
        self._waiting: dict[str, StagedFile | None] = {}

    def drop(self, snapshot_ids: Collection[str]) -> None:
        """Say of these snapshots that they are not staged."""
        self._waiting = dict.fromkeys(snapshot_ids)
        self.write()

    def add(self, snapshot_id: str, note: StagedFile) -> None:
        """Remember a staged file, to be written with others."""
        self._waiting[snapshot_id] = note
        if len(self._waiting) >= _NOTES_AT_ONCE:
            self.write()

    def write(self) -> None:
        """Write what is remembered."""
        notes, self._waiting = self._waiting, {}
        if not notes:
            return

        def change(snapshots: dict[str, index.Entry]) -> None:
            for name, note in notes.items():
                if name in snapshots:
                    snapshots[name] = msgspec.structs.replace(snapshots[name], staged=note)

        index.update(self._storage, self._dataset_id, change)


def _manifest(storage: Storage, dataset_id: str, snapshot_id: str) -> Manifest:
    manifest = snapshot.read(storage, dataset_id, snapshot_id)
    if manifest is None:
        key = layout.landing(dataset_id, snapshot_id, index.MANIFEST)
        raise LakeCorrupt(
            f"{storage.uri(key)} is missing; restore the snapshot's folder, or leave it out of the history: "
            f"`catalunya refuse {snapshot_id} --why …`"
        )
    return manifest


def _cannot_be_staged(dataset_id: str, snapshot_id: str, fault: Exception) -> HistoryUnreadable:
    return HistoryUnreadable(
        f"{dataset_id}: snapshot {snapshot_id} is part of the release and can no longer be staged: {fault}. Correct "
        "the definition or the code, restore its files, or leave it out of the history: "
        f"`catalunya refuse {snapshot_id} --why …`"
    )


def forget_lost_files(storage: Storage, dataset_id: str) -> list[str]:
    """Snapshots whose staged or quarantine file is missing or has another size than the index says.

    They are due to be staged again. Two listings. Call it only while holding the dataset's lock.
    """
    lost = _lost_files(storage, dataset_id, index.load(storage, dataset_id))
    if lost:
        _Notes(storage, dataset_id).drop(lost)
    return lost


def not_staged(storage: Storage, dataset: Dataset) -> list[str]:
    """Snapshots in use that today's rules did not stage, or whose staged file is lost; changes nothing."""
    known = index.load(storage, dataset.id)
    due = {*_lost_files(storage, dataset.id, known), *known.due(row_sql.digest(dataset))}
    return [name for name in known.usable if name in due]


def _lost_files(storage: Storage, dataset_id: str, known: index.Index) -> list[str]:
    prefixes = (layout.STAGING, layout.QUARANTINE)
    present = {e.key: e.size for prefix in prefixes for e in storage.list(f"{prefix}/{dataset_id}")}
    return [
        name
        for name in known.usable
        if (note := known.staged(name))
        and (
            present.get(layout.staged(dataset_id, name)) != note.size
            or (
                note.quarantine_size
                and present.get(layout.quarantined(dataset_id, name)) != note.quarantine_size
            )
        )
    ]


def _reopened(storage: Storage, dataset_id: str, judged_with: str) -> index.Index:
    """The index, after lifting refusals that another definition made."""
    known = index.load(storage, dataset_id)
    for snapshot_id, refusal in snapshot.refusals(known).items():
        if refusal.gate in snapshot.DEFINITION_GATES and refusal.is_void(judged_with):
            log.info("refusal is void: the definition changed", dataset=dataset_id, snapshot=snapshot_id)
            snapshot.lift(storage, dataset_id, snapshot_id)
    return index.load(storage, dataset_id)


def _with_found_files(
    storage: Storage, dataset_id: str, known: index.Index, wanted: str, anew: Collection[str]
) -> index.Index:
    """The index, with staged files that it does not know: it was made again, or its writer was killed before it wrote."""
    unknown = [name for name in known.due(wanted) if name not in anew]
    if not unknown:
        return known
    present = {entry.key for entry in storage.list(f"{layout.STAGING}/{dataset_id}")}
    found = {
        name: note
        for name in unknown
        if layout.staged(dataset_id, name) in present
        and (note := _note_of_file(storage, dataset_id, name, wanted))
    }
    if not found:
        return known

    def change(snapshots: dict[str, index.Entry]) -> None:
        for name, note in found.items():
            snapshots[name] = msgspec.structs.replace(snapshots.get(name, index.Entry()), staged=note)

    return index.update(storage, dataset_id, change)


def _note_of_file(storage: Storage, dataset_id: str, snapshot_id: str, wanted: str) -> StagedFile | None:
    """What a staged file says of itself; None when it is damaged or was staged by other rules."""
    staged = staged_record(storage, dataset_id, snapshot_id)
    if staged is None or staged.digest != wanted:
        return None
    path = storage.fetch(layout.staged(dataset_id, snapshot_id), storage.scratch() / "records")
    return index_entry(staged, path)


def _refuse(
    storage: Storage,
    dataset: Dataset,
    snapshot_id: str,
    fault: Drift | SnapshotUnreadable | LakeCorrupt,
    judged_with: str,
    *,
    run_id: str,
    now: datetime,
) -> str:
    """Refuse a pending snapshot; returns the sentence that says so and what to do."""
    unreadable = not isinstance(fault, Drift)
    refusal = Refusal(
        gate=snapshot.UNREADABLE if unreadable else "schema",
        reason=str(fault),
        figures=fault.figures if isinstance(fault, Drift) else {},
        refused_at=now,
        run_id=run_id,
        judged_with=judged_with,
    )
    snapshot.refuse(storage, dataset.id, snapshot_id, refusal)
    remedy = (
        "The next good answer of the portal takes its place; `catalunya accept` makes the next run try it again"
        if unreadable
        else f"Change datasets/{dataset.id}.yml if the change is real, or lift the refusal with "
        f"`catalunya accept {snapshot_id} --why …`"
    )
    return f"{dataset.id}: snapshot {snapshot_id} is refused: {fault}. The last release stays. {remedy}"
