"""The columns and tables of the schema `staging` that no definition declares."""

from __future__ import annotations

from typing import NamedTuple


class StagedColumn(NamedTuple):
    """A column that staging adds."""

    name: str
    sql: str
    """Its type in DuckDB, Trino and dbt."""
    description: str


class StagedTable(NamedTuple):
    """A table that every build adds to the schema `staging`."""

    name: str
    description: str
    columns: tuple[StagedColumn, ...]

    @property
    def types(self) -> dict[str, str]:
        """Column to its SQL type."""
        return {column.name: column.sql for column in self.columns}


_DATASET = StagedColumn("dataset_id", "varchar", "Dataset.")
_SNAPSHOT = StagedColumn("snapshot_id", "varchar", "Snapshot.")
PARTITION = StagedColumn("snapshot_date", "date", "Day (UTC) of the snapshot.")
"""The folder that a staged file lies in."""
ADDED_COLUMNS = (
    StagedColumn("raw", "varchar", "The row as the source sent it, as JSON text."),
    StagedColumn("snapshot_id", "varchar", "Snapshot that the row belongs to; sorts by time."),
    PARTITION,
)
"""Columns that every staged table has after those of its definition."""
REASON = "reason"
"""Column of a quarantine file: what is wrong with the row."""
TABLES = {
    table.name: table
    for table in (
        StagedTable(
            "snapshots",
            "Every accepted snapshot and what staging made of its rows. Grain: one row per dataset and snapshot.",
            (
                _DATASET,
                StagedColumn("snapshot_id", "varchar", "Snapshot; sorts by time."),
                PARTITION,
                StagedColumn("taken_at", "timestamp", "Moment (UTC) of the snapshot."),
                StagedColumn("rows_in", "bigint", "Rows that the source sent."),
                StagedColumn("rows_staged", "bigint", "Rows that were staged."),
                StagedColumn("rows_quarantined", "bigint", "Quarantined rows, each with a reason."),
                StagedColumn("rows_duplicated", "bigint", "Exact duplicates, of which one copy is staged."),
                StagedColumn("is_demo", "boolean", "True when the source said that it sends demo data."),
                StagedColumn(
                    "source_updated_on",
                    "date",
                    "Day on which the publisher last changed the data; null when the source does not say.",
                ),
            ),
        ),
        StagedTable(
            "controls",
            "Totals that a source publishes beside its rows. Grain: one row per snapshot, control and period.",
            (
                _DATASET,
                _SNAPSHOT,
                StagedColumn("control", "varchar", "Column that the total controls."),
                StagedColumn("period", "varchar", "Period of the total, a year."),
                StagedColumn("published", "bigint", "The source's own total."),
                StagedColumn("computed", "bigint", "Sum over the staged rows."),
            ),
        ),
        StagedTable(
            "quarantined",
            "Keys of the quarantined rows that have a whole key. Grain: one row per snapshot and key.",
            (
                _DATASET,
                _SNAPSHOT,
                StagedColumn(
                    "row_key",
                    "varchar",
                    "Key of the row; the parts of a key of several columns are joined by `/`.",
                ),
            ),
        ),
        StagedTable(
            "invalid_values",
            "Invalid optional values, which were set to null. Grain: one row per snapshot and column.",
            (
                _DATASET,
                _SNAPSHOT,
                StagedColumn("column_name", "varchar", "Column of the values."),
                StagedColumn("rows", "bigint", "Staged rows with such a value."),
            ),
        ),
    )
}
