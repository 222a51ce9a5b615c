"""Staging: from the bytes of a landed snapshot to one typed Parquet file, quarantine and counts.

Rows in = rows staged + rows quarantined + exact duplicates. The staged file has the four figures in its Parquet
metadata, so that they cannot be separated from the rows. A value that does not fit its definition is null in the staged
row when the row does not need it; `raw` keeps it.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

import msgspec

from catalunya.datasets.model import Dataset
from catalunya.errors import HistoryUnreadable, LakeCorrupt, Refused, SnapshotUnreadable
from catalunya.lake import index, layout, snapshot
from catalunya.lake.snapshot import Manifest, Refusal
from catalunya.lake.staged import Staged, StagedFile, index_entry, staged_record
from catalunya.lake.storage import Storage
from catalunya.log import get_logger
from catalunya.staging import row_sql
from catalunya.staging.schema_drift import Drift
from catalunya.staging.snapshot_typing import stage_snapshot

log = get_logger(__name__)

_WRITTEN_AT_ONCE = 100
"""Staged files that are written into the index at a time: an index of thousands is too long to write for each."""


def stage(
    storage: Storage,
    dataset: Dataset,
    *,
    run_id: str,
    now: datetime,
    force: bool = False,
    damaged: Collection[str] = (),
    accepted: Collection[str] = (),
) -> list[Staged]:
    """Stage every snapshot of a dataset that is not refused and not staged by today's rules, or with `force` all.

    `damaged` are snapshots whose staged file must not be used, whatever its record says.

    `accepted` are snapshots that a release contains: no gate refuses them any more, whatever their columns are. A
    refusal that another definition made is void, and its snapshot is staged and judged again.

    Returns what was newly staged. Raises `Refused`, after all were tried, when a pending snapshot does not fit its
    definition, cannot be read, or has landed bytes that are not those of its manifest: it is then marked refused.
    Raises `HistoryUnreadable` at once for an accepted snapshot that cannot be staged.
    """
    digest, judged_with = row_sql.digest(dataset), row_sql.definition_digest(dataset)
    known = _reopened(storage, dataset.id, judged_with)
    if not force:
        known = _with_found_files(storage, dataset.id, known, digest, damaged)
    due = set(known.usable if force else known.due(digest)) | (set(damaged) & set(known.usable))
    # First of all the index forgets the files that are about to be replaced: it never describes a file that is gone.
    _update_index(storage, dataset.id, dict.fromkeys(due))
    done: list[Staged] = []
    refused: dict[str, str] = {}
    unwritten: dict[str, StagedFile | None] = {}
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
                staged, entry = stage_snapshot(
                    storage, dataset, manifest, earlier, lenient=lenient, compare=not is_accepted
                )
            except (Drift, SnapshotUnreadable, LakeCorrupt) as fault:
                if is_accepted:
                    raise HistoryUnreadable(
                        f"{dataset.id}: snapshot {snapshot_id} is part of the release and can no longer be staged: "
                        f"{fault}. Correct the definition or the code, restore its files, or leave it out of the history: "
                        f"`catalunya refuse {snapshot_id} --why …`"
                    ) from fault
                previous = before
                refused[snapshot_id] = _refuse(
                    storage, dataset, snapshot_id, fault, judged_with, run_id=run_id, now=now
                )
                continue
            done.append(staged)
            unwritten[snapshot_id] = entry
            if len(unwritten) >= _WRITTEN_AT_ONCE:
                _update_index(storage, dataset.id, unwritten)
                unwritten = {}
    finally:
        _update_index(storage, dataset.id, unwritten)
    if refused:
        raise Refused("; ".join(refused.values()), refused)
    return done


def _update_index(storage: Storage, dataset_id: str, staged: dict[str, StagedFile | None]) -> None:
    """Write into the index what was staged, or with None that a snapshot is not staged."""
    if not staged:
        return

    def change(snapshots: dict[str, index.SnapshotEntry]) -> None:
        for name, file in staged.items():
            if name in snapshots:
                snapshots[name] = msgspec.structs.replace(snapshots[name], staged=file)

    index.update(storage, dataset_id, change)


def _manifest(storage: Storage, dataset_id: str, snapshot_id: str) -> Manifest:
    manifest = snapshot.read(storage, dataset_id, snapshot_id)
    if manifest is None:
        key = layout.landing(dataset_id, snapshot_id, index.MANIFEST)
        raise LakeCorrupt(
            f"{storage.uri(key)} is missing; restore the snapshot's folder, or leave it out of the history: "
            f"`catalunya refuse {snapshot_id} --why …`"
        )
    return manifest


def forget_lost_files(storage: Storage, dataset_id: str) -> list[str]:
    """Return snapshots whose staged or quarantine file is missing or has another size than the index says.

    They are due to be staged again. Two listings. Call it only while the dataset is locked.
    """
    lost = _lost_files(storage, dataset_id, index.load(storage, dataset_id))
    _update_index(storage, dataset_id, dict.fromkeys(lost))
    return lost


def not_staged(storage: Storage, dataset: Dataset) -> list[str]:
    """Return snapshots in use that today's rules did not stage, or whose staged file is lost; changes nothing."""
    known = index.load(storage, dataset.id)
    due = {*_lost_files(storage, dataset.id, known), *known.due(row_sql.digest(dataset))}
    return [name for name in known.usable if name in due]


def _lost_files(storage: Storage, dataset_id: str, known: index.Index) -> list[str]:
    prefixes = (layout.STAGING, layout.QUARANTINE)
    sizes = {e.key: e.size for prefix in prefixes for e in storage.list(f"{prefix}/{dataset_id}")}

    def is_lost(name: str) -> bool:
        file = known.staged(name)
        if file is None:
            return False
        quarantined = sizes.get(layout.quarantined(dataset_id, name))
        lost_rows = bool(file.quarantine_size) and quarantined != file.quarantine_size
        return lost_rows or sizes.get(layout.staged(dataset_id, name)) != file.size

    return [name for name in known.usable if is_lost(name)]


def _reopened(storage: Storage, dataset_id: str, judged_with: str) -> index.Index:
    """Lift the refusals that another definition made, and return the index."""
    known = index.load(storage, dataset_id)
    for snapshot_id, refusal in snapshot.refusals(known).items():
        if refusal.gate in snapshot.DEFINITION_GATES and refusal.is_void(judged_with):
            log.info("refusal is void: the definition changed", dataset=dataset_id, snapshot=snapshot_id)
            snapshot.lift(storage, dataset_id, snapshot_id)
    return index.load(storage, dataset_id)


def _with_found_files(
    storage: Storage, dataset_id: str, known: index.Index, digest: str, damaged: Collection[str]
) -> index.Index:
    """Return the index with the staged files that it lacks: it was made again, or its writer was killed."""
    unknown = [name for name in known.due(digest) if name not in damaged]
    present = {entry.key for entry in storage.list(f"{layout.STAGING}/{dataset_id}")} if unknown else set()
    found: dict[str, StagedFile | None] = {}
    for name in unknown:
        key = layout.staged(dataset_id, name)
        staged = staged_record(storage, dataset_id, name) if key in present else None
        if staged is not None and staged.digest == digest:
            found[name] = index_entry(staged, storage.fetch(key, storage.scratch() / "records"))
    _update_index(storage, dataset_id, found)
    return index.load(storage, dataset_id) if found else known


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
    hint = (
        "The next good answer of the portal takes its place; `catalunya accept` makes the next run try it again"
        if unreadable
        else f"Change datasets/{dataset.id}.yml if the change is real, or lift the refusal with "
        f"`catalunya accept {snapshot_id} --why …`"
    )
    return f"{dataset.id}: snapshot {snapshot_id} is refused: {fault}. The last release stays. {hint}"
