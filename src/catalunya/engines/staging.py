"""What every engine's schema `staging` holds beside the rows: the snapshots and the publishers' own totals."""

from __future__ import annotations

from dataclasses import asdict

import duckdb

from catalunya.datasets import Dataset
from catalunya.errors import BuildFailed
from catalunya.lake import layout
from catalunya.lake.storage import Storage
from catalunya.stage import Staged

ADDED = {"raw": "varchar", "snapshot_id": "varchar", "snapshot_date": "date"}
"""Columns of a staged table beside those of the card."""
TABLES = {
    "snapshots": {
        "dataset_id": "varchar", "snapshot_id": "varchar", "snapshot_date": "date", "taken_at": "timestamp",
        "rows_in": "bigint", "rows_staged": "bigint", "rows_quarantined": "bigint", "rows_duplicated": "bigint",
        "is_demo": "boolean", "source_updated_on": "date",
    },
    "controls": {
        "dataset_id": "varchar", "snapshot_id": "varchar", "control": "varchar", "period": "varchar",
        "published": "bigint", "computed": "bigint",
    },
}  # fmt: skip


def staged_keys(storage: Storage, dataset: Dataset, snapshot_ids: tuple[str, ...]) -> list[str]:
    """The staged files of these snapshots; `BuildFailed` when one is not staged. One listing, not a look at each."""
    keys = [layout.staged(dataset.id, snapshot_id) for snapshot_id in snapshot_ids]
    present = {entry.key for entry in storage.list(f"{layout.STAGING}/{dataset.id}")} if keys else set()
    for key, snapshot_id in zip(keys, snapshot_ids, strict=True):
        if key not in present:
            raise BuildFailed(
                f"{dataset.id}: snapshot {snapshot_id} is not staged; run `catalunya stage` first"
            )
    return keys


def create_tables(con: duckdb.DuckDBPyConnection, staged: list[Staged]) -> None:
    """Make and fill the tables of `TABLES` in the schema `staging`."""
    for name, columns in TABLES.items():
        listed = ", ".join(f"{column} {kind}" for column, kind in columns.items())
        con.execute(f"create table staging.{name} ({listed})")
    snapshots = [
        [
            s.dataset_id, s.snapshot_id, layout.moment_of(s.snapshot_id).date(), s.taken_at.replace(tzinfo=None),
            s.rows_in, s.rows_staged, s.rows_quarantined, s.rows_duplicated, s.demo, s.source_updated_on,
        ]
        for s in staged
    ]  # fmt: skip
    controls = [[s.dataset_id, s.snapshot_id, *asdict(c).values()] for s in staged for c in s.controls]
    if snapshots:
        con.executemany("insert into staging.snapshots values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", snapshots)
    if controls:
        con.executemany("insert into staging.controls values (?, ?, ?, ?, ?, ?)", controls)
