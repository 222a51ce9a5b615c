"""The tables of every engine's schema `staging` beside the rows: snapshots, controls, quarantined keys, invalid values."""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from pathlib import Path

import duckdb

from catalunya import sql
from catalunya.datasets.model import Dataset
from catalunya.datasets.staged import TABLES, StagedTable
from catalunya.errors import BuildFailed, LakeCorrupt
from catalunya.lake import layout
from catalunya.lake.staged import Staged, read_record
from catalunya.lake.storage import MissingKey, Storage
from catalunya.staging import row_sql

FETCHES_AT_ONCE = 16
"""Files that are read from the lake at the same time: each request mostly waits."""


def staged_keys(storage: Storage, dataset: Dataset, snapshot_ids: tuple[str, ...]) -> list[str]:
    """Return the keys of these snapshots' staged files, by one listing; raises `BuildFailed` when one is not staged."""
    if not snapshot_ids:
        return []
    present = {entry.key for entry in storage.list(f"{layout.STAGING}/{dataset.id}")}
    keys = [layout.staged(dataset.id, snapshot_id) for snapshot_id in snapshot_ids]
    for key, snapshot_id in zip(keys, snapshot_ids, strict=True):
        if key not in present:
            raise BuildFailed(
                f"{dataset.id}: snapshot {snapshot_id} is not staged; run `catalunya stage` first"
            )
    return keys


def fetch_all(storage: Storage, keys: Iterable[str], folder: Path) -> list[Path]:
    """Return local paths of these files in order: their own (local lake) or those of downloads (S3)."""
    with ThreadPoolExecutor(FETCHES_AT_ONCE) as pool:
        return list(pool.map(lambda key: storage.fetch(key, folder), keys))


def records(con: duckdb.DuckDBPyConnection, files: list[Path]) -> list[Staged]:
    """Return the records in the metadata of staged files, by snapshot; raises `LakeCorrupt` when one has none."""
    if not files:
        return []
    found = con.execute(
        f"select file_name, decode(value) from parquet_kv_metadata({sql.quote_paths(files)}) "
        "where decode(key) = 'catalunya'"
    ).fetchall()
    bare = sorted({str(path) for path in files} - {name for name, _ in found})
    if bare:
        raise LakeCorrupt(
            f"staged files without a record of their rows: {', '.join(bare)}; delete them from staging and run "
            "`catalunya stage` to make them again"
        )
    return sorted((read_record(text) for _, text in found), key=lambda record: record.snapshot_id)


def create_tables(
    con: duckdb.DuckDBPyConnection,
    storage: Storage,
    datasets: dict[str, Dataset],
    staged: list[Staged],
    work: Path,
) -> None:
    """Create and fill the tables of `datasets.staged` in the schema `staging`.

    Args:
        con: the connection that has the schema.
        storage: the lake.
        datasets: every definition by id.
        staged: the records of the snapshots.
        work: a folder for downloads.

    Raises:
        BuildFailed: A snapshot was staged by other rules, or by another definition than the dataset's.
        LakeCorrupt: A quarantine file cannot be read.
    """
    wanted = {name: row_sql.digest(dataset) for name, dataset in datasets.items()}
    for s in staged:
        if s.digest != wanted[s.dataset_id]:
            raise BuildFailed(
                f"{s.dataset_id}: snapshot {s.snapshot_id} was staged by other rules or another definition; run "
                "`catalunya stage` first"
            )
    for name, table in TABLES.items():
        listed = ", ".join(f"{column} {kind}" for column, kind in table.types.items())
        con.execute(f"create table staging.{name} ({listed})")
    rows: dict[str, list[list[object]]] = {
        "snapshots": [
            [
                s.dataset_id, s.snapshot_id, layout.moment_of(s.snapshot_id).date(),
                s.taken_at.replace(tzinfo=None), s.rows_in, s.rows_staged, s.rows_quarantined, s.rows_duplicated,
                s.demo, s.source_updated_on,
            ]
            for s in staged
        ],
        "controls": [[s.dataset_id, s.snapshot_id, *astuple(c)] for s in staged for c in s.controls],
        "invalid_values": [
            [s.dataset_id, s.snapshot_id, column, count]
            for s in staged
            for column, count in s.invalid_values.items()
            if count
        ],
    }  # fmt: skip
    for name, values in rows.items():
        _insert(con, TABLES[name], values)
    for dataset_id, files in _fetch_quarantined(storage, staged, work).items():
        _insert_quarantined(con, datasets[dataset_id], files)


def _insert(con: duckdb.DuckDBPyConnection, table: StagedTable, values: list[list[object]]) -> None:
    """Insert rows as one JSON text: DuckDB takes a hundred times as long for values given one by one."""
    names = list(table.types)
    rows = json.dumps([dict(zip(names, row, strict=True)) for row in values], default=str)
    # Not as parameters: with one, DuckDB imports pandas where that is installed, which takes a quarter of a second.
    con.execute(
        f"insert into staging.{table.name} "
        f"select unnest(from_json({sql.quote(rows)}, {sql.quote(json.dumps([table.types]))}), recursive := true)"
    )


def _fetch_quarantined(storage: Storage, staged: list[Staged], folder: Path) -> dict[str, list[Path]]:
    """The quarantine files of snapshots that have quarantined rows, by dataset; a file that is missing is left out."""

    def fetch(record: Staged) -> Path | None:
        key = layout.quarantined(record.dataset_id, record.snapshot_id)
        try:
            return storage.fetch(key, folder / record.dataset_id)
        except MissingKey:
            return None

    wanted = [record for record in staged if record.rows_quarantined]
    files: dict[str, list[Path]] = {}
    with ThreadPoolExecutor(FETCHES_AT_ONCE) as pool:
        for record, path in zip(wanted, pool.map(fetch, wanted), strict=True):
            if path is not None:
                files.setdefault(record.dataset_id, []).append(path)
    return files


def _insert_quarantined(con: duckdb.DuckDBPyConnection, dataset: Dataset, files: list[Path]) -> None:
    """Insert the keys of quarantined rows, as the macro `row_key` writes them, without keys that are null in part.

    Quarantine files of earlier versions have no key columns.
    """
    types = {column.name: column.kind.sql for column in dataset.columns}
    parts = [f"cast(try_cast({name} as {types[name]}) as varchar)" for name in dataset.key]
    row_key = " || '/' || ".join(parts)
    try:
        names = con.execute(f"select distinct name from parquet_schema({sql.quote_paths(files)})").fetchall()
        if {(name,) for name in dataset.key} <= set(names):
            con.execute(
                f"insert into staging.quarantined select distinct {sql.quote(dataset.id)}, snapshot_id, "
                f"{row_key} from {sql.read_parquet(files, union_by_name=True)} where {row_key} is not null"
            )
    except duckdb.Error as error:
        raise LakeCorrupt(
            f"{dataset.id}: its quarantine files cannot be read: {error}. Restore the file that is named from a backup, "
            "or delete it: a quarantine file that is missing counts as empty"
        ) from None
