"""Trace: from rows of a mart back to the snapshots, files, addresses and checksums that they were made of.

Everything is read from the release itself and from landing, so that an older release is traced as it was.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import duckdb
from pydantic import BaseModel, ConfigDict

from catalunya import sql
from catalunya.errors import LakeCorrupt, UsageError
from catalunya.lake import disk, layout, snapshot
from catalunya.lake.storage import MissingKey, Storage
from catalunya.operations.integrity import files
from catalunya.operations.query import Selection, fetched, find_release, require_mart
from catalunya.release import SUMS, Release, read_sums

MOST_ROWS = 1000
_PROVENANCE = "provenance"
"""The mart that tells which snapshots the rows of the others were read from."""


_Origin = tuple[str, str, str]
"""Dataset, snapshot, and what the rows have from it."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)


class TracedFile(_Record):
    """One file: where it lies, where it came from, and its SHA-256 as it was recorded."""

    address: str
    url: str | None = None
    sha256: str
    size: int | None = None
    rows: int | None = None


class TracedSnapshot(_Record):
    """One snapshot and what the rows have of it."""

    dataset_id: str
    snapshot_id: str
    gives: str
    taken_at: datetime
    request: dict[str, Any]
    landing: tuple[TracedFile, ...]
    staging: TracedFile | None
    """As it lies there now; a later `run --rebuild` may have written it again from landing."""


class Trace(_Record):
    """The answer of `catalunya trace`."""

    mart: str
    release_id: str
    released_at: datetime
    demo: bool
    rows_found: int
    rows: tuple[dict[str, Any], ...]
    """The first of them."""
    files: tuple[TracedFile, ...]
    """The mart in the release."""
    snapshots: tuple[TracedSnapshot, ...]
    built_from: dict[str, int]
    """Dataset to the number of all its snapshots that the mart was built from."""
    code_sha256: str
    code_revision: str | None
    verified: bool
    faults: tuple[str, ...] = ()


def trace(
    storage: Storage, mart: str, selection: Selection, *, release_id: str | None = None, verify: bool = False
) -> Trace:
    """Follow the selected rows of a mart back; with `verify` hash every file again and list what is wrong.

    Raises `UsageError` for an unknown release, mart, column or value, and `LakeCorrupt` when a file that the
    answer needs is not there.
    """
    release = find_release(storage, release_id)
    require_mart(release, mart)
    sums = _checksums(storage, release.release_id)
    with _opened(storage, release, mart) as con:
        names = [name for name, *_ in con.execute("describe mart").fetchall()]
        selection.require_known(con, mart, "mart")
        rows_found, rows = _rows(con, names, selection)
        found = _origins(con, release, mart)
    snapshots = tuple(_snapshot(storage, *origin) for origin in found)
    files = tuple(
        TracedFile(address=storage.uri(layout.release(release.release_id, name)), sha256=sums[name])
        for name in (f"parquet/{mart}.parquet", f"csv/{mart}.csv")
    )
    return Trace(
        mart=mart,
        release_id=release.release_id,
        released_at=release.released_at,
        demo=release.demo,
        rows_found=rows_found,
        rows=rows,
        files=files,
        snapshots=snapshots,
        built_from={
            name: len(ids)
            for name, ids in release.snapshots.items()
            if name in release.lineage.get(mart, release.snapshots)
        },
        code_sha256=release.code_sha256,
        code_revision=release.code_revision,
        verified=verify,
        faults=tuple(_faults(storage, release.release_id, mart, sums, found)) if verify else (),
    )


def _checksums(storage: Storage, release_id: str) -> dict[str, str]:
    key = layout.release(release_id, SUMS)
    try:
        return read_sums(storage.read(key))
    except ValueError as error:
        raise LakeCorrupt(f"{storage.uri(key)}: {error}; restore it from a backup") from None


@contextmanager
def _opened(storage: Storage, release: Release, mart: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database with the views `mart` and, where the release has it, `provenance`."""
    work = storage.scratch() / "trace"
    try:
        with duckdb.connect() as con:
            for view, table in (("mart", mart), (_PROVENANCE, _PROVENANCE)):
                if table in release.rows:
                    key = layout.release(release.release_id, f"parquet/{table}.parquet")
                    path = fetched(storage, key, work / view)
                    con.execute(f"create view {view} as select * from {sql.read_parquet(path)}")
            yield con
    except duckdb.Error as error:
        raise LakeCorrupt(
            f"release {release.release_id}: {mart} cannot be read: {error}; `catalunya lake check` names what to do"
        ) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _rows(
    con: duckdb.DuckDBPyConnection, names: list[str], selection: Selection
) -> tuple[int, tuple[dict[str, Any], ...]]:
    """Keep the selected rows as the table `selected`; return how many they are, and the first of them."""
    wanted = selection.wanted()
    where = " and ".join(f"{column} = ?" for column in wanted) or "true"
    con.execute("create table selected as select * from mart where false")
    con.execute(f"insert into selected select * from mart where {where}", list(wanted.values()))
    [(total,)] = con.execute("select count(*) from selected").fetchall()
    if not total:
        asked = " and ".join(f"{column} {value}" for column, value in wanted.items())
        raise UsageError(f"no row has {asked} together; leave one out")
    rows = con.execute(f"select * from selected order by all limit {MOST_ROWS}").fetchall()
    return total, tuple(dict(zip(names, row, strict=True)) for row in rows)


def _origins(con: duckdb.DuckDBPyConnection, release: Release, mart: str) -> list[_Origin]:
    """The snapshots that the table `selected` was read from, as the release's `provenance` tells.

    Where it tells nothing of the mart, these are all snapshots of the datasets that the mart depends on.
    """
    found: set[_Origin] = set()
    if _PROVENANCE in release.rows:
        rows = "from provenance where mart = ?"
        for (column,) in con.execute(f"select distinct column_name {rows}", [mart]).fetchall():
            same = "" if column == "*" else f"and value in (select cast({column} as varchar) from selected)"
            query = f"select dataset_id, snapshot_id, role {rows} and column_name = ? {same}"
            found |= set(con.execute(query, [mart, column]).fetchall())
    datasets = release.lineage.get(mart, tuple(release.snapshots))
    return sorted(found or {(name, s, "all") for name in datasets for s in release.snapshots[name]})


def _snapshot(storage: Storage, dataset_id: str, snapshot_id: str, role: str) -> TracedSnapshot:
    manifest = snapshot.read(storage, dataset_id, snapshot_id)
    if manifest is None:
        raise LakeCorrupt(
            f"landing/{dataset_id}/{snapshot_id} has no manifest.json although a release was made of it; "
            "restore it from a backup"
        )
    return TracedSnapshot(
        dataset_id=dataset_id,
        snapshot_id=snapshot_id,
        gives=role,
        taken_at=manifest.taken_at,
        request=manifest.request,
        landing=tuple(
            TracedFile(
                address=storage.uri(layout.landing(dataset_id, snapshot_id, file.name)),
                url=file.url,
                sha256=file.sha256,
                size=file.size,
                rows=file.rows,
            )
            for file in manifest.files
        ),
        staging=_staging(storage, layout.staged(dataset_id, snapshot_id)),
    )


def _staging(storage: Storage, key: str) -> TracedFile | None:
    work = storage.scratch() / "trace-staging"
    try:
        path = storage.fetch(key, work)
        return TracedFile(address=storage.uri(key), sha256=disk.sha256(path), size=path.stat().st_size)
    except MissingKey:
        return None
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _faults(
    storage: Storage, release_id: str, mart: str, sums: dict[str, str], found: list[_Origin]
) -> Iterator[str]:
    """A sentence for every file whose bytes are not those that were recorded, or that is missing."""
    work = storage.scratch() / "trace-verify"
    try:
        for name in (f"parquet/{mart}.parquet", f"csv/{mart}.csv"):
            key = layout.release(release_id, name)
            try:
                same = disk.sha256(storage.fetch(key, work)) == sums[name]
            except MissingKey:
                same = False
            if not same:
                yield f"{storage.uri(key)} is not the file that SHA256SUMS names; restore it from a backup"
        for dataset_id, snapshot_id in dict.fromkeys(origin[:2] for origin in found):
            manifest = snapshot.read(storage, dataset_id, snapshot_id)
            if manifest is None:
                yield f"{dataset_id}: snapshot {snapshot_id} has no manifest"
                continue
            yield from map(str, files.landed_faults(storage, manifest, read=True))
            yield from map(str, files.staged_faults(storage, dataset_id, snapshot_id))
    finally:
        shutil.rmtree(work, ignore_errors=True)
