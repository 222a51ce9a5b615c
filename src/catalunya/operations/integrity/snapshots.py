"""Checks of the snapshots of one dataset: manifest and landed files, markers, index, staged file and quarantine."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import partial

from pydantic import BaseModel, ValidationError

from catalunya.errors import CatalunyaError, LakeCorrupt
from catalunya.lake import index, layout, snapshot
from catalunya.lake.index import ACCEPTED, MANIFEST, REFUSED, Index, SnapshotEntry
from catalunya.lake.snapshot import Acceptance, Manifest, Refusal
from catalunya.operations.integrity.fault import REPAIR, Fault, Repair
from catalunya.operations.integrity.files import BACKUP, landed_faults, staged_faults, together, unreadable
from catalunya.operations.integrity.view import View

MARKERS: dict[str, type[BaseModel]] = {REFUSED: Refusal, ACCEPTED: Acceptance}


def check_dataset(view: View, dataset_id: str) -> Iterator[Fault]:
    """Give the faults of everything that the lake holds of a dataset."""
    landed = _by_snapshot(view, dataset_id)
    stored: Index | None = None
    try:
        stored, _ = index.stored(view.storage, dataset_id)
    except LakeCorrupt as error:
        yield _index_fault(
            view, dataset_id, str(error).removeprefix(f"{view.storage.uri(layout.index(dataset_id))} ")
        )
    known = stored or Index(dataset_id, {name: SnapshotEntry() for name in landed})
    released = view.released.get(dataset_id, {})
    for snapshot_id in sorted({*known.snapshots, *released} - landed.keys()):
        yield _lost(view, dataset_id, snapshot_id, released.get(snapshot_id))
    yield from together(
        partial(_check_snapshot, view, dataset_id, name, files, known, stored is not None)
        for name, files in landed.items()
    )
    yield from _check_staged(view, dataset_id, landed.keys(), known)
    # What is lost in landing was named above.
    yield from _misplaced(view, dataset_id, {*landed, *known.snapshots, *released})


def _by_snapshot(view: View, dataset_id: str) -> dict[str, dict[str, int]]:
    """Snapshot to its landed files with their sizes."""
    prefix = f"{layout.LANDING}/{dataset_id}"
    found: dict[str, dict[str, int]] = {}
    for entry in view.storage.list(prefix):
        name, _, file = entry.key.removeprefix(f"{prefix}/").partition("/")
        if layout.is_id(name) and file:
            found.setdefault(name, {})[file] = entry.size
    return found


def _lost(view: View, dataset_id: str, snapshot_id: str, release_id: str | None) -> Fault:
    key = f"{layout.LANDING}/{dataset_id}/{snapshot_id}"
    if release_id:
        found = f"is not there, and release {release_id} was made of it"
        hint = f"{BACKUP}, or leave it out of the history"
    else:
        found = "is not there, and the index has it"
        hint = f"{BACKUP}, or put the folder back; {REPAIR} removes it from the index"
    return Fault(
        key=key,
        address=view.storage.uri(key),
        found=found,
        hint=hint,
        repair="" if release_id else "index",
        dataset_id=dataset_id,
        snapshot_id=snapshot_id,
    )


def _check_snapshot(
    view: View, dataset_id: str, snapshot_id: str, files: dict[str, int], known: Index, index_is_whole: bool
) -> Iterator[Fault]:
    key = layout.landing(dataset_id, snapshot_id, MANIFEST)
    fault = partial(
        Fault, key=key, address=view.storage.uri(key), dataset_id=dataset_id, snapshot_id=snapshot_id
    )
    hint = f"{BACKUP}. Without one leave the snapshot out: `catalunya refuse {snapshot_id} --why …`"
    if MANIFEST not in files:
        if snapshot_id in view.released.get(dataset_id, {}) or (
            index_is_whole and snapshot_id in known.snapshots
        ):
            yield fault(found="is missing", hint=hint)
        else:
            yield _incomplete(view, dataset_id, snapshot_id, known)
        return
    view.count(snapshots=1)
    try:
        manifest = snapshot.read(view.storage, dataset_id, snapshot_id)
    except LakeCorrupt:
        yield fault(found="is no manifest: it is empty, cut or changed", hint=hint)
        return
    except CatalunyaError as error:
        yield unreadable(view.storage, key, error)
        return
    if manifest is None:
        return
    for found in _inconsistencies(manifest, dataset_id, snapshot_id):
        yield fault(found=found, hint=hint)
    if (manifest.dataset_id, manifest.snapshot_id) != (dataset_id, snapshot_id):
        return
    view.count(files=len(manifest.files))
    view.count(bytes=sum(file.size for file in manifest.files))
    yield from landed_faults(view.storage, manifest, read=False, sizes=files)
    yield from _markers(view, dataset_id, snapshot_id, files, known if index_is_whole else None)
    expected = {MANIFEST, *MARKERS, *(file.name for file in manifest.files)}
    for name in sorted(files.keys() - expected):
        key = layout.landing(dataset_id, snapshot_id, name)
        yield Fault(
            key=key,
            address=view.storage.uri(key),
            found="is not named in the manifest of its snapshot",
            hint="move it out of the lake",
            kind="stray",
        )


def _incomplete(view: View, dataset_id: str, snapshot_id: str, known: Index) -> Fault:
    key = f"{layout.LANDING}/{dataset_id}/{snapshot_id}"
    newest = max(known.snapshots, default="")
    return Fault(
        key=key,
        address=view.storage.uri(key),
        found="is a snapshot without a manifest: a run that was killed left it",
        hint="nothing reads it; the next run reads the portal again"
        + ("" if snapshot_id > newest else f"; {REPAIR} moves it aside"),
        kind="leftover",
        repair="delete" if snapshot_id > newest else "aside",
        dataset_id=dataset_id,
        snapshot_id=snapshot_id,
    )


def _inconsistencies(manifest: Manifest, dataset_id: str, snapshot_id: str) -> Iterator[str]:
    if (manifest.dataset_id, manifest.snapshot_id) != (dataset_id, snapshot_id):
        yield f"is the manifest of snapshot {manifest.snapshot_id} of {manifest.dataset_id}"
        return
    rows = [file.rows for file in manifest.files]
    if None not in rows and sum(filter(None, rows)) != manifest.rows and rows:
        yield f"says {manifest.rows} rows, its files have {sum(filter(None, rows))}"
    content = snapshot.content_hash(manifest.files)
    if content != manifest.content_sha256 or layout.make_id(manifest.taken_at, content) != snapshot_id:
        yield "was changed: its files, checksums or time are not those that the id of the snapshot was made o"


def _markers(
    view: View, dataset_id: str, snapshot_id: str, files: dict[str, int], known: Index | None
) -> Iterator[Fault]:
    for name, model in MARKERS.items():
        if name not in files:
            continue
        key = layout.landing(dataset_id, snapshot_id, name)
        try:
            model.model_validate_json(view.storage.read(key))
        except ValidationError as error:
            yield Fault(
                key=key,
                address=view.storage.uri(key),
                found=f"is damaged ({error.error_count()} faults)",
                hint=f"{BACKUP}, or {REPAIR} makes it again from the index, as far as the index has it",
                repair="marker",
                dataset_id=dataset_id,
                snapshot_id=snapshot_id,
            )
            return
        except CatalunyaError as error:
            yield unreadable(view.storage, key, error)
            return
    entry = known.snapshots.get(snapshot_id) if known else None
    if entry is not None and (entry.refusal is not None) != (REFUSED in files):
        said, is_there = ("refused", "is not") if entry.refusal is not None else ("not refused", "is")
        yield replace(
            _index_fault(
                view,
                dataset_id,
                f"says that {snapshot_id} is {said}, but {REFUSED} {is_there} beside its manifest: a command that was "
                "killed left it",
            ),
            kind="leftover",
            hint=f"repeat the command (`catalunya accept` or `refuse`), or {REPAIR} makes it again from landing",
        )


def _index_fault(view: View, dataset_id: str, found: str) -> Fault:
    key = layout.index(dataset_id)
    return Fault(
        key=key,
        address=view.storage.uri(key),
        found=found,
        hint=f"it is made again from landing by {REPAIR}, or by the next run",
        repair="index",
        dataset_id=dataset_id,
    )


def _check_staged(view: View, dataset_id: str, landed: Collection[str], known: Index) -> Iterator[Fault]:
    """Compare the staged files that the index knows, and those that are there although it does not."""
    present = {e.key: e.size for e in view.storage.list(f"{layout.STAGING}/{dataset_id}")}

    def check(snapshot_id: str) -> list[Fault]:
        staged = known.staged(snapshot_id)
        if staged is None and layout.staged(dataset_id, snapshot_id) not in present:
            # The next run stages it.
            return []
        rows_in = None
        if staged is not None:
            try:
                manifest = snapshot.read(view.storage, dataset_id, snapshot_id)
                rows_in = manifest.rows if manifest else None
            except CatalunyaError:
                rows_in = None
        return staged_faults(view.storage, dataset_id, snapshot_id, known, rows_in=rows_in)

    ids = [name for name in known.snapshots if name in landed]
    view.count(staged_files=sum(known.staged(name) is not None for name in ids))
    yield from together(partial(check, name) for name in ids)


def _misplaced(view: View, dataset_id: str, snapshot_ids: Collection[str]) -> Iterator[Fault]:
    """Name files in staging and quarantine that no snapshot has."""
    for prefix, key_of in ((layout.STAGING, layout.staged), (layout.QUARANTINE, layout.quarantined)):
        for entry in view.storage.list(f"{prefix}/{dataset_id}"):
            name = entry.key.rsplit("/", 1)[-1]
            snapshot_id = name.removesuffix(".parquet")
            if entry.key == layout.index(dataset_id):
                continue
            repair: Repair = ""
            if not layout.is_id(snapshot_id) or key_of(dataset_id, snapshot_id) != entry.key:
                found, hint = "has no name of the lake", "move it out of the lake"
            elif snapshot_id not in snapshot_ids:
                found = f"is of snapshot {snapshot_id}, which is not in {layout.LANDING}/{dataset_id}"
                hint = f"put the snapshot's folder back, or {REPAIR} moves it aside"
                repair = "aside"
            else:
                continue
            yield Fault(
                key=entry.key,
                address=view.storage.uri(entry.key),
                found=found,
                hint=hint,
                kind="stray",
                repair=repair,
                dataset_id=dataset_id,
            )
