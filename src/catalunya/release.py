"""Releases: their record, which one readers see, roll-back, repair of the pointer, and retention."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator
from datetime import datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from catalunya.errors import LakeCorrupt, UsageError
from catalunya.lake import layout, pointer, snapshot
from catalunya.lake.index import CLOCK_TOLERANCE
from catalunya.lake.lock import Lock
from catalunya.lake.pointer import Pointer
from catalunya.lake.snapshot import Refusal
from catalunya.lake.storage import MissingKey, Storage
from catalunya.quality.findings import Stale

SUMS = "SHA256SUMS"
"""File of a release with the checksums of the others."""
RELEASE_DATABASE = "catalunya.duckdb"
"""File of a release with all marts, in the schema `marts`."""
RECORD = "release.json"
"""File of a release that describes it; written last, so that its existence means the release is whole."""
_SUM = re.compile(r"([0-9a-f]{64})  (\S.*)")


class ReleasedSnapshot(BaseModel):
    """The newest snapshot of a dataset in a release, and its counts."""

    model_config = ConfigDict(frozen=True)

    snapshot_id: str
    rows_in: int
    rows_staged: int
    rows_quarantined: int
    rows_duplicated: int


class Release(BaseModel):
    """`release.json`: what a release was made of and by which versions."""

    model_config = ConfigDict(frozen=True)

    release_id: str
    run_id: str
    released_at: datetime
    demo: bool
    engine: str
    inputs_sha256: str
    code_sha256: str = ""
    """The dbt project and the dataset definitions it was built by."""
    snapshots: dict[str, tuple[str, ...]]
    """Every snapshot of every dataset that the marts were built from, oldest first."""
    datasets: dict[str, ReleasedSnapshot]
    lineage: dict[str, tuple[str, ...]] = {}
    """Mart to the datasets that it depends on, however far upstream."""
    accepted_by_hand: dict[str, str] = {}
    """Snapshots whose refusal a person lifted, and why."""
    stale: tuple[Stale, ...]
    rows: dict[str, int]
    """Mart to its number of rows."""
    figures: dict[str, float] = {}
    """Figures of the marts, which the next release is compared with."""
    warnings: tuple[str, ...]
    tests: int
    versions: dict[str, str]
    code_revision: str | None


def read_sums(text: bytes | str) -> dict[str, str]:
    """Return file name to SHA-256 of a `SHA256SUMS`; raises `ValueError` when a line is none of `sha256sum`'s."""
    lines = (text.decode() if isinstance(text, bytes) else text).splitlines()
    found = [_SUM.fullmatch(line) for line in lines]
    if not found or None in found:
        raise ValueError(
            f"line {found.index(None) + 1 if found else 1} is not a SHA-256, two spaces and a name"
        )
    return {match[2]: match[1] for match in found if match}


def marts_digest(sums: dict[str, str]) -> str:
    """Return SHA-256 over the marts alone, so that the same data have the same hash whenever they are released.

    `sums` are the files of a release with their checksums. The id of the release ends in the first 8 digits.
    """
    digest = hashlib.sha256()
    for name in sorted(name for name in sums if name.startswith(("csv/", "parquet/"))):
        digest.update(f"{name.rpartition('/')[2]} {sums[name]}\n".encode())
    return digest.hexdigest()


def current_release(storage: Storage) -> Release | None:
    """Return the release that readers see; None when there is none yet."""
    found = pointer.read(storage)
    return read_release(storage, found[0].release_id) if found else None


def newest_whole_release(storage: Storage) -> Release | None:
    """Return the newest release that has a whole `release.json`, shown or not; None when there is none."""
    return next(_whole_releases(storage), None)


def newest_good_release(storage: Storage, now: datetime) -> Release | None:
    """Return the newest whole release that `is_good_release`; None when there is none."""
    return next(
        (release for release in _whole_releases(storage) if is_good_release(storage, release, now)), None
    )


def release_before(storage: Storage, release: Release) -> Release | None:
    """Return the newest whole release older than `release` of which no snapshot was refused; None when there is none."""
    return next(
        (
            found
            for found in _whole_releases(storage)
            if found.release_id < release.release_id
            and not any(_refused_by(storage, found, snapshot.BY_HAND))
            and not any(_refused_by(storage, found, snapshot.ROLLBACK))
        ),
        None,
    )


def is_good_release(storage: Storage, release: Release, now: datetime) -> bool:
    """Return whether a release may be shown without being named.

    Not one with a snapshot that a person refused, nor one from a clock ahead of `now`.
    """
    if layout.moment_of(release.release_id) > now + CLOCK_TOLERANCE:
        return False
    return not any(_refused_by(storage, release, snapshot.BY_HAND))


def _refused_by(storage: Storage, release: Release, gate: str) -> Iterator[tuple[str, str]]:
    """Return dataset and id of each snapshot of a release that this gate refuses now."""
    for dataset_id, ids in release.snapshots.items():
        for snapshot_id, refusal in snapshot.refused(storage, dataset_id).items():
            if refusal.gate == gate and snapshot_id in ids:
                yield dataset_id, snapshot_id


def _whole_releases(storage: Storage) -> Iterator[Release]:
    """Return whole releases, newest first."""
    found = (_read_whole(storage, release_id) for release_id in reversed(release_ids(storage)))
    return (release for release in found if release is not None)


def release_ids(storage: Storage) -> list[str]:
    """Return every release that was begun, whole or not, oldest first; folders with other names are none."""
    return [name for name in storage.folders(layout.RELEASES) if layout.is_id(name)]


def unknown_entries(storage: Storage) -> list[str]:
    """Return folders and files among the releases that are none by their name; they are left alone."""
    folders = [name for name in storage.folders(layout.RELEASES) if not layout.is_id(name)]
    return sorted([*folders, *storage.files(layout.RELEASES)])


def read_release(storage: Storage, release_id: str) -> Release:
    """Return `release.json` of a release; raises `LakeCorrupt` when it is missing or damaged."""
    release = _read_whole(storage, release_id)
    if release is None:
        raise LakeCorrupt(
            f"{storage.uri(layout.release(release_id, RECORD))} is missing or damaged; restore it, or `catalunya repair` "
            "points readers to the newest whole release"
        )
    return release


def _read_whole(storage: Storage, release_id: str) -> Release | None:
    """Return `release.json` of a release; None when it is missing or damaged: then the release is not whole."""
    try:
        return Release.model_validate_json(storage.read(layout.release(release_id, RECORD)))
    except (MissingKey, ValidationError):
        return None


def roll_back(
    storage: Storage, lock: Lock, *, run_id: str, now: datetime, to: str | None = None
) -> tuple[Pointer, dict[str, str]]:
    """Swap the pointer back to `to`, or to the last release before the current one that `is_good_release`.

    Snapshots that came with the current release are refused, so that no run publishes them again until a person
    accepts them; those that come back with `to` are no longer. When no snapshot came with it, its code did: that
    code publishes nothing until it is changed.

    Returns the pointer, and the refused snapshots with their datasets.
    """
    found = pointer.read(storage)
    if found is None:
        raise UsageError("there is no release to roll back from; run `catalunya run` first")
    before, version = found
    whole = dict(reversed([(release.release_id, release) for release in _whole_releases(storage)]))
    target = to or _one_before(storage, before, whole, now)
    if target is None and not any(name < before.release_id for name in whole):
        raise UsageError(f"{before.release_id} is the only release; there is nothing to roll back to")
    if target is None:
        raise UsageError(
            f"there is no release before {before.release_id} without a snapshot that a person refused; kept are: "
            f"{', '.join(whole)}; `catalunya rollback --to` shows any of them"
        )
    if target == before.release_id:
        # The same command completes a rollback that was killed after its swap.
        if target in whole and _lift_rollback(storage, whole[target], lock):
            return before, {}
        raise UsageError(f"{target} is the current release already")
    if target not in whole:
        raise UsageError(f"{target} is not kept; kept are: {', '.join(whole)}")
    left, shown = whole.get(before.release_id), whole[target]
    stay = {s for ids in shown.snapshots.values() for s in ids}
    came = {s: name for name, ids in left.snapshots.items() for s in ids} if left else {}
    refused = {s: name for s, name in came.items() if s not in stay}
    # Where snapshots are refused, a person who accepts them wants the release published again.
    withdrawn = [left.inputs_sha256, left.code_sha256] if left and not refused else []
    restored = {shown.inputs_sha256, shown.code_sha256}
    lock.check()
    after = Pointer(
        release_id=target,
        previous=None,
        swapped_at=now,
        run_id=run_id,
        withdrawn=tuple(d for d in dict.fromkeys([*before.withdrawn, *withdrawn]) if d not in restored),
    )
    for snapshot_id, dataset_id in refused.items():
        if snapshot_id not in snapshot.refused(storage, dataset_id):
            refusal = Refusal(
                gate=snapshot.ROLLBACK,
                reason=f"it came with release {before.release_id}, which was rolled back",
                figures={"release_id": before.release_id},
                refused_at=now,
                run_id=run_id,
            )
            snapshot.refuse(storage, dataset_id, snapshot_id, refusal)
    pointer.swap(storage, after, version)
    _lift_rollback(storage, shown, lock)
    return after, refused


def _one_before(storage: Storage, shown: Pointer, whole: dict[str, Release], now: datetime) -> str | None:
    """Return the release that a rollback without a name goes to: the one shown before, else the newest older one."""
    older = [name for name in reversed(whole) if name < shown.release_id]
    wanted = [shown.previous, *older] if shown.previous in whole else older
    return next((name for name in wanted if name and is_good_release(storage, whole[name], now)), None)


def _lift_rollback(storage: Storage, shown: Release, lock: Lock) -> bool:
    """Lift what earlier rollbacks refused of a release that is shown again; True when there was any."""
    refused = list(_refused_by(storage, shown, snapshot.ROLLBACK))
    for dataset_id, snapshot_id in refused:
        lock.check()
        snapshot.lift(storage, dataset_id, snapshot_id)
    return bool(refused)


def repair_pointer(
    storage: Storage, lock: Lock, *, run_id: str, now: datetime, to: str | None = None
) -> Pointer:
    """Point `current.json` to the newest whole release that `is_good_release`, or to `to`, when it is missing or damaged.

    Raises `UsageError` when the pointer is right already, or when there is no such whole release.
    """
    data = storage.read_versioned(pointer.KEY)
    with contextlib.suppress(LakeCorrupt):
        shown = current_release(storage)
        if shown is not None:
            raise UsageError(
                f"{storage.uri(pointer.KEY)} is right: it shows {shown.release_id}; use `catalunya rollback --to` for "
                "another release"
            )
    release = _read_whole(storage, to) if to else newest_good_release(storage, now)
    if release is None:
        whole = sorted(release.release_id for release in _whole_releases(storage))
        raise UsageError(
            f"there is no whole release{f' {to}' if to else ' without a snapshot that a person refused'} in "
            f"{storage.uri(layout.RELEASES)}; whole are: {', '.join(whole) or 'none'}"
            + ("; `catalunya repair --to` shows any of them" if whole else "")
        )
    lock.check()
    after = Pointer(release_id=release.release_id, previous=None, swapped_at=now, run_id=run_id)
    pointer.swap(storage, after, data[1] if data else None)
    return after


def discard_unpublished_releases(storage: Storage, lock: Lock) -> list[str]:
    """Delete the files of releases that a killed run did not finish; call it only while the lake is locked.

    A release that is whole stays, shown or not: only `apply_retention` deletes one.
    """
    begun = [name for name in release_ids(storage) if not storage.exists(layout.release(name, RECORD))]
    return _delete(storage, begun, lock)


def apply_retention(storage: Storage, keep: int, lock: Lock) -> list[str]:
    """Delete all but the newest `keep` whole releases with their documentation, never the current one nor the one before.

    Without a readable pointer nothing is deleted.
    """
    if pointer.read(storage) is None:
        return []
    whole = [name for name in release_ids(storage) if storage.exists(layout.release(name, RECORD))]
    return _delete(storage, whole[:-keep], lock)


def _delete(storage: Storage, release_ids: list[str], lock: Lock) -> list[str]:
    """Delete releases but those that readers see or saw last; returns the ids of those that were deleted."""
    guarded = storage.guarded(lock)
    deleted = []
    for release_id in release_ids:
        if not _is_deletable(storage, release_id, lock):
            continue
        # First what makes it whole: a deletion that is interrupted leaves no release that looks whole.
        guarded.delete(layout.release(release_id, RECORD))
        guarded.delete_folder(layout.release(release_id))
        guarded.delete_folder(f"{layout.DOCS}/{release_id}")
        deleted.append(release_id)
    return deleted


def _is_deletable(storage: Storage, release_id: str, lock: Lock) -> bool:
    """Return whether a release may be deleted right now: the lock is still held, and readers see another one."""
    lock.check()
    found = pointer.read(storage)
    return found is None or release_id not in {found[0].release_id, found[0].previous}
