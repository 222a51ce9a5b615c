"""Publish: an immutable release folder from an audited candidate, then one swap of the pointer."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from catalunya import catalogue
from catalunya import demo as demo_data
from catalunya.audit import Audit, Baseline, Stale, read_verdict
from catalunya.build import Candidate, reopen
from catalunya.datasets import Dataset
from catalunya.dbt import Column, Mart
from catalunya.declaration import quote
from catalunya.engines.protocol import Engine, Shown, Workspace
from catalunya.errors import LakeCorrupt, Refused, UsageError
from catalunya.lake import layout, pointer, snapshot
from catalunya.lake.index import CLOCK_TOLERANCE
from catalunya.lake.lock import Lock
from catalunya.lake.pointer import Pointer, PointerMoved
from catalunya.lake.snapshot import Refusal
from catalunya.lake.storage import MissingKey, Storage

log = structlog.get_logger(__name__)

RELEASE_DATABASE = "catalunya.duckdb"
SUMS = "SHA256SUMS"
_RECORD = "release.json"


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
    """The dbt project and the dataset cards it was built by."""
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


def current(storage: Storage) -> Release | None:
    """The release that readers see; None when there is none yet."""
    found = pointer.read(storage)
    return read(storage, found[0].release_id) if found else None


def last_whole(storage: Storage) -> Release | None:
    """The release that readers see or, without a pointer, the newest whole one: what a new release follows."""
    found = pointer.read(storage)
    return read(storage, found[0].release_id) if found else newest_whole(storage)


def newest_whole(storage: Storage) -> Release | None:
    """The newest release that has a whole `release.json`, shown or not; None when there is none."""
    return next(_whole(storage), None)


def newest_good(storage: Storage, now: datetime) -> Release | None:
    """The newest whole release that may be shown without being named: see `is_good`; None when there is none."""
    return next((release for release in _whole(storage) if is_good(storage, release, now)), None)


def is_good(storage: Storage, release: Release, now: datetime) -> bool:
    """False for a release with a snapshot that a person refused, and for one from a clock ahead of `now`."""
    return layout.moment_of(release.release_id) <= now + CLOCK_TOLERANCE and not any(
        refusal.gate == snapshot.BY_HAND and snapshot_id in ids
        for dataset_id, ids in release.snapshots.items()
        for snapshot_id, refusal in snapshot.refused(storage, dataset_id).items()
    )


def _whole(storage: Storage) -> Iterator[Release]:
    """Whole releases, newest first."""
    for release_id in reversed(release_ids(storage)):
        release = read_whole(storage, release_id)
        if release is not None:
            yield release


def release_ids(storage: Storage) -> list[str]:
    """Every release that was begun, whole or not, oldest first; folders with other names are none."""
    return [name for name in storage.folders(layout.RELEASES) if layout.is_id(name)]


def strangers(storage: Storage) -> list[str]:
    """Folders and files among the releases that are none by their name; they are left alone."""
    folders = [name for name in storage.folders(layout.RELEASES) if not layout.is_id(name)]
    return sorted([*folders, *storage.files(layout.RELEASES)])


def read(storage: Storage, release_id: str) -> Release:
    """`release.json` of a release; `LakeCorrupt` when it is not there or damaged."""
    release = read_whole(storage, release_id)
    if release is None:
        raise LakeCorrupt(
            f"{storage.uri(layout.release(release_id, _RECORD))} is missing or damaged; restore it, or `catalunya repair` "
            "points readers to the newest whole release"
        )
    return release


def read_whole(storage: Storage, release_id: str) -> Release | None:
    """`release.json` of a release; None when it is not there or damaged: then the release is not whole."""
    try:
        return Release.model_validate_json(storage.read(layout.release(release_id, _RECORD)))
    except (MissingKey, ValidationError):
        return None


def baseline(release: Release | None) -> Baseline | None:
    """What an audit compares with."""
    if release is None:
        return None
    return Baseline(
        accepted=release.snapshots,
        code=release.code_sha256,
        release_id=release.release_id,
        marts=tuple(release.rows),
        figures=release.figures or None,
    )


def publish(
    storage: Storage,
    datasets: dict[str, Dataset],
    engine: Engine,
    candidate: Candidate,
    lock: Lock,
    *,
    run_id: str,
    now: datetime,
    stale: tuple[Stale, ...] = (),
    warnings: tuple[str, ...] = (),
    versions: dict[str, str],
    code_revision: str | None = None,
    keep: int,
) -> Release:
    """Write the release of an audited candidate and swap the pointer to it.

    Raises `Refused` when the candidate did not pass its audit, and `PointerMoved` when somebody else
    published meanwhile: the lake's pointer stays as it was.
    """
    verdict = _verdict(storage, candidate)
    _follows(storage, candidate)
    work = storage.scratch() / f"publish-{candidate.candidate_id}"
    shutil.rmtree(work, ignore_errors=True)
    folder = work / "release"
    folder.mkdir(parents=True)
    try:
        demo = any(staged.demo for staged in candidate.staged)
        with reopen(engine, candidate) as workspace:
            rows, marts = _export(workspace, candidate.marts, folder, demo=demo)
        release_id = layout.make_id(_moment(storage, now), _digest(folder))
        release = Release(
            release_id=release_id,
            run_id=run_id,
            released_at=now,
            demo=demo,
            engine=engine.name,
            inputs_sha256=candidate.inputs.fingerprint,
            code_sha256=candidate.inputs.code,
            snapshots=candidate.inputs.snapshots,
            datasets=_released(candidate),
            lineage=_lineage(candidate),
            accepted_by_hand={
                snapshot_id: why
                for dataset_id, ids in candidate.inputs.snapshots.items()
                for snapshot_id, why in snapshot.reasons_of_acceptance(storage, dataset_id, ids).items()
            },
            stale=stale,
            rows=rows,
            figures=verdict.figures,
            warnings=tuple(dict.fromkeys([*warnings, *verdict.sentences("warn")])),
            tests=verdict.tests,
            versions=versions,
            code_revision=code_revision,
        )
        _write_papers(folder, release, marts, datasets)
        _upload(storage.guarded(lock), folder, release_id)
        _swap(storage, release, lock, now)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    retain(storage, keep, lock)
    show(storage, engine)
    return release


def _lineage(candidate: Candidate) -> dict[str, tuple[str, ...]]:
    sources = {node.relation: node.sources for node in candidate.nodes}
    return {
        mart.name: tuple(s for s in sources.get(f"marts.{mart.name}", ()) if s in candidate.inputs.snapshots)
        for mart in candidate.marts
    }


def show(storage: Storage, engine: Engine) -> None:
    """Let readers of the engine's own schema see the release that the pointer names, if they do not yet."""
    found = pointer.read(storage) if engine.has_readers else None
    if found is not None:
        release = read(storage, found[0].release_id)
        engine.show(Shown(release.release_id, tuple(release.rows)))


def _verdict(storage: Storage, candidate: Candidate) -> Audit:
    if candidate.left_out:
        raise UsageError(
            f"candidate {candidate.candidate_id} lacks {', '.join(candidate.left_out)}, which an audit left out to find a "
            "fault; build and audit again"
        )
    verdict = read_verdict(storage, candidate)
    if not verdict.passed:
        raise Refused(
            f"candidate {candidate.candidate_id} was refused: {'; '.join(verdict.sentences('error'))}"
        )
    return verdict


def _follows(storage: Storage, candidate: Candidate) -> None:
    """Raise when another release was shown since the candidate was built: it may know less than that one."""
    found = pointer.read(storage)
    shown = found[0].release_id if found else None
    if shown != candidate.release_before:
        raise PointerMoved(
            f"candidate {candidate.candidate_id} was built when readers saw {candidate.release_before or 'none'}, "
            f"now they see {shown or 'none'}; nothing was changed: run again"
        )


def _moment(storage: Storage, now: datetime) -> datetime:
    """The clock, or one second after the newest release when the clock is not past it.

    Releases from a clock that was ahead do not count: ids would stay in the future for good.
    """
    moments = [layout.moment_of(name) for name in release_ids(storage)]
    known = [moment for moment in moments if moment <= now + CLOCK_TOLERANCE]
    return max(now, max(known) + timedelta(seconds=1)) if known else now


def _export(
    workspace: Workspace, marts: tuple[Mart, ...], folder: Path, *, demo: bool
) -> tuple[dict[str, int], tuple[Mart, ...]]:
    """Write every mart as Parquet, CSV and a table of one DuckDB file, rows in a fixed order.

    Demo data are marked in each: in the Parquet file's metadata, in the table's comment, and in a last column of
    the CSV file, which has nothing else to say it in.
    """
    (folder / "parquet").mkdir()
    (folder / "csv").mkdir()
    rows: dict[str, int] = {}
    exported = []
    notice = f"{catalogue.DEMO_NOTICE} " if demo else ""
    with duckdb.connect(folder / RELEASE_DATABASE) as con:
        con.execute("create schema marts")
        for mart in marts:
            table = f"marts.{mart.name}"
            source = workspace.relation(con, mart)
            con.execute(f"create table {table} as select * from {source} order by all")
            _describe(con, mart, notice)
            metadata = f"kv_metadata {{catalunya: {quote(notice + mart.description)}}}"
            mark = f", {quote(demo_data.SHORT_NOTICE)} as {demo_data.COLUMN}" if demo else ""
            for kind, query, options in (
                ("parquet", f"from {table}", f"compression zstd, {metadata}"),
                ("csv", f"select *{mark} from {table}", "header"),
            ):
                target = folder / kind / f"{mart.name}.{kind}"
                con.execute(f"copy ({query}) to {quote(str(target))} (format {kind}, {options})")
            found = con.execute(f"select count(*) from {table}").fetchone()
            rows[mart.name] = int(found[0]) if found else 0
            exported.append(_with_types(con, mart))
    return rows, tuple(exported)


def _describe(con: duckdb.DuckDBPyConnection, mart: Mart, notice: str) -> None:
    con.execute(f"comment on table marts.{mart.name} is {quote(notice + mart.description)}")
    for column in mart.columns:
        con.execute(f"comment on column marts.{mart.name}.{column.name} is {quote(column.description)}")


def _with_types(con: duckdb.DuckDBPyConnection, mart: Mart) -> Mart:
    """The mart with its columns in the table's order and with the types they really have."""
    words = {column.name: column.description for column in mart.columns}
    described = con.execute(f"describe marts.{mart.name}").fetchall()
    columns = tuple(Column(name, kind.lower(), words.get(name, "")) for name, kind, *_ in described)
    return Mart(mart.name, mart.description, columns)


def _digest(folder: Path) -> str:
    """SHA-256 over the marts alone, so that the same data have the same hash whenever they are released."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("parquet/*"), *folder.glob("csv/*")]):
        digest.update(f"{path.name} {_sha256(path)}\n".encode())
    return digest.hexdigest()


def _released(candidate: Candidate) -> dict[str, ReleasedSnapshot]:
    newest = candidate.inputs.newest()
    return {
        s.dataset_id: ReleasedSnapshot(
            snapshot_id=s.snapshot_id,
            rows_in=s.rows_in,
            rows_staged=s.rows_staged,
            rows_quarantined=s.rows_quarantined,
            rows_duplicated=s.rows_duplicated,
        )
        for s in candidate.staged
        if newest.get(s.dataset_id) == s.snapshot_id
    }


def _write_papers(
    folder: Path, release: Release, marts: tuple[Mart, ...], datasets: dict[str, Dataset]
) -> None:
    cards = [datasets[name] for name in sorted(datasets)]
    files = {
        f"csv/{mart.name}.csv": (path.stat().st_size, _sha256(path))
        for mart in marts
        for path in [folder / "csv" / f"{mart.name}.csv"]
    }
    package: dict[str, Any] = catalogue.data_package(
        marts,
        cards,
        release_id=release.release_id,
        created=release.released_at.isoformat(),
        files=files,
        demo=release.demo,
    )
    (folder / "datapackage.json").write_text(json.dumps(package, ensure_ascii=False, indent=1) + "\n")
    (folder / "dictionary.md").write_text(catalogue.dictionary(marts, demo=release.demo))
    (folder / "LICENCES.md").write_text(catalogue.licences(cards, demo=release.demo))
    (folder / _RECORD).write_text(release.model_dump_json(indent=1) + "\n")
    sums = [
        f"{_sha256(path)}  {path.relative_to(folder).as_posix()}\n"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    (folder / SUMS).write_text("".join(sums))


def _upload(storage: Storage, folder: Path, release_id: str) -> None:
    """Put every file of the release into the lake, `release.json` last: with it the release is whole."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _RECORD)
    with ThreadPoolExecutor(4) as pool:
        jobs = [
            pool.submit(
                storage.put_file, layout.release(release_id, path.relative_to(folder).as_posix()), path
            )
            for path in paths
        ]
        for job in jobs:
            job.result()
    storage.put_file(layout.release(release_id, _RECORD), folder / _RECORD)


def _swap(storage: Storage, release: Release, lock: Lock, now: datetime) -> None:
    found = pointer.read(storage)
    before, version = found if found else (None, None)
    lock.check()
    pointer.swap(
        storage,
        Pointer(
            release_id=release.release_id,
            previous=before.release_id if before else None,
            swapped_at=now,
            run_id=release.run_id,
        ),
        version,
    )
    log.info("released", release=release.release_id)


def rollback(
    storage: Storage, lock: Lock, *, run_id: str, now: datetime, to: str | None = None
) -> tuple[Pointer, dict[str, str]]:
    """Swap the pointer back to `to`, or to the last release before the current one that `is_good`.

    Snapshots that came with the release that is left are refused, so that no run publishes them again until a person
    accepts them; those that come back with `to` are no longer. When no snapshot came with it, its code did: that
    code publishes nothing until it is changed.

    Returns the pointer, and the refused snapshots with their datasets.
    """
    found = pointer.read(storage)
    if found is None:
        raise UsageError("there is no release to roll back from; run `catalunya run` first")
    before, version = found
    whole = {name: release for name in release_ids(storage) if (release := read_whole(storage, name))}
    target = to or _one_before(storage, before, whole, now)
    if target is None and not any(name < before.release_id for name in whole):
        raise UsageError(f"{before.release_id} is the only release; there is nothing to roll back to")
    if target is None:
        raise UsageError(
            f"there is no release before {before.release_id} without a snapshot that a person refused; kept are: "
            f"{', '.join(whole)}; `catalunya rollback --to` shows any of them"
        )
    if target == before.release_id:
        # One that was killed after its swap is ended by the same words.
        if target in whole and _restore(storage, whole[target], lock):
            return before, {}
        raise UsageError(f"{target} is the current release already")
    if target not in whole:
        raise UsageError(f"{target} is not kept; kept are: {', '.join(whole)}")
    left, shown = whole.get(before.release_id), whole[target]
    came = {s: name for name, ids in (left.snapshots if left else {}).items() for s in ids} if left else {}
    stay = {s for ids in shown.snapshots.values() for s in ids}
    refused = {s: name for s, name in came.items() if s not in stay}
    withdrawn = []
    if left and not refused:
        # Otherwise the refusals hold it back, and who accepts the snapshots wants them published.
        withdrawn.append(left.inputs_sha256)
        if left.code_sha256 != shown.code_sha256:
            withdrawn.append(left.code_sha256)
    restored = {shown.inputs_sha256, shown.code_sha256}
    lock.check()
    after = Pointer(
        release_id=target,
        previous=None,
        swapped_at=now,
        run_id=run_id,
        withdrawn=tuple(d for d in dict.fromkeys([*before.withdrawn, *withdrawn]) if d not in restored),
    )
    _refuse_withdrawn(storage, refused, before.release_id, run_id=run_id, now=now)
    pointer.swap(storage, after, version)
    _restore(storage, shown, lock)
    return after, refused


def _one_before(storage: Storage, shown: Pointer, whole: dict[str, Release], now: datetime) -> str | None:
    """The release that a rollback without a name goes to: the one shown before, else the newest older one."""
    older = [name for name in reversed(whole) if name < shown.release_id]
    wanted = [shown.previous, *older] if shown.previous in whole else older
    return next((name for name in wanted if name and is_good(storage, whole[name], now)), None)


def _restore(storage: Storage, shown: Release, lock: Lock) -> bool:
    """Lift what earlier rollbacks refused of a release that is shown again; True when there was any."""
    held = [
        (dataset_id, snapshot_id)
        for dataset_id, ids in shown.snapshots.items()
        for snapshot_id, refusal in snapshot.refused(storage, dataset_id).items()
        if refusal.gate == snapshot.ROLLBACK and snapshot_id in ids
    ]
    for dataset_id, snapshot_id in held:
        lock.check()
        snapshot.lift(storage, dataset_id, snapshot_id)
    return bool(held)


def _refuse_withdrawn(
    storage: Storage, snapshots: dict[str, str], release_id: str, *, run_id: str, now: datetime
) -> None:
    for snapshot_id, dataset_id in snapshots.items():
        if snapshot_id in snapshot.refused(storage, dataset_id):
            continue
        refusal = Refusal(
            gate=snapshot.ROLLBACK,
            reason=f"it came with release {release_id}, which was rolled back",
            figures={"release_id": release_id},
            refused_at=now,
            run_id=run_id,
        )
        snapshot.refuse(storage, dataset_id, snapshot_id, refusal)


def repair(storage: Storage, lock: Lock, *, run_id: str, now: datetime, to: str | None = None) -> Pointer:
    """Point `current.json` to the newest whole release that `is_good`, or to `to`, when it is missing or damaged.

    Raises `UsageError` when the pointer is right already, or when there is no such whole release.
    """
    data = storage.read_versioned(pointer.KEY)
    with contextlib.suppress(LakeCorrupt):
        shown = current(storage)
        if shown is not None:
            raise UsageError(
                f"{storage.uri(pointer.KEY)} is right: it shows {shown.release_id}; use `catalunya rollback --to` for "
                "another release"
            )
    release = read_whole(storage, to) if to else newest_good(storage, now)
    if release is None:
        whole = sorted(release.release_id for release in _whole(storage))
        raise UsageError(
            f"there is no whole release{f' {to}' if to else ' without a snapshot that a person refused'} in "
            f"{storage.uri(layout.RELEASES)}; whole are: {', '.join(whole) or 'none'}"
            + ("; `catalunya repair --to` shows any of them" if whole else "")
        )
    lock.check()
    after = Pointer(release_id=release.release_id, previous=None, swapped_at=now, run_id=run_id)
    pointer.swap(storage, after, data[1] if data else None)
    return after


def discard_unpublished(storage: Storage, lock: Lock) -> list[str]:
    """Delete the files of releases that a killed run did not finish; call it only while holding the lake.

    A release that is whole stays, shown or not: only `retain` deletes one.
    """
    gone = []
    held = storage.guarded(lock)
    for release_id in release_ids(storage):
        if not storage.exists(layout.release(release_id, _RECORD)) and _is_deletable(
            storage, release_id, lock
        ):
            held.delete_folder(layout.release(release_id))
            gone.append(release_id)
    return gone


def retain(storage: Storage, keep: int, lock: Lock) -> list[str]:
    """Delete all but the newest `keep` whole releases with their documentation, never the current one nor the one before.

    Without a readable pointer nothing is deleted.
    """
    if pointer.read(storage) is None:
        return []
    gone = []
    held = storage.guarded(lock)
    for release_id in [
        name for name in release_ids(storage) if storage.exists(layout.release(name, _RECORD))
    ][:-keep]:
        if not _is_deletable(storage, release_id, lock):
            continue
        # First what makes it whole: a deletion that is interrupted leaves no release that looks whole.
        held.delete(layout.release(release_id, _RECORD))
        held.delete_folder(layout.release(release_id))
        held.delete_folder(f"{layout.DOCS}/{release_id}")
        gone.append(release_id)
    return gone


def _is_deletable(storage: Storage, release_id: str, lock: Lock) -> bool:
    """Whether a release may be deleted right now: the lock is still held, and readers see another one."""
    lock.check()
    found = pointer.read(storage)
    return found is None or release_id not in {found[0].release_id, found[0].previous}


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
