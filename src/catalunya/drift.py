"""Drift: whether a source still has the columns, and the types, that its card declares."""

from __future__ import annotations

from typing import Any

import duckdb

from catalunya import declaration
from catalunya.datasets import Dataset
from catalunya.lake.snapshot import Manifest

_MISTYPED_ROWS = 5
_MISTYPED_RATIO = 0.5
_SOCRATA_TYPES = {
    "string": {"text", "url", "email", "phone", "html", "number", "calendar_date", "drop_down_list"},
    "integer": {"number", "text", "double", "money"},
    "number": {"number", "text", "double", "money", "percent"},
    "date": {"calendar_date", "floating_timestamp", "fixed_timestamp", "date", "text"},
}


class Drift(Exception):
    """The source's columns are not those declared."""

    def __init__(self, message: str, figures: dict[str, Any]) -> None:
        super().__init__(message)
        self.figures = figures


def check_columns(
    dataset: Dataset, manifest: Manifest, previous: Manifest | None, *, lenient: bool
) -> list[str]:
    """Warnings about new columns; raises `Drift` for missing and retyped ones."""
    found = {column.name: column.type for column in manifest.columns}
    before = {column.name: column.type for column in previous.columns} if previous else {}
    missing = [c for c in dataset.columns if not any(name in found for name in c.source)]
    retyped = [
        (name, before.get(name), found[name], column.type)
        for column in dataset.columns
        for name in column.source
        if name in found and _is_retyped(column.type, before.get(name), found[name])
    ]
    complaints = [
        (dataset.drift.missing_column, f"declared column {'/'.join(c.source)} ({c.name}) is missing")
        for c in missing
    ] + [
        (
            dataset.drift.retyped_column,
            f"declared column {name} is retyped: now {now!r}, was {was!r}, declared {declared}"
            if was
            else f"declared column {name} is retyped: the source calls it {now!r}, declared is {declared}",
        )
        for name, was, now, declared in retyped
    ]
    fatal = [text for action, text in complaints if action == "refuse"]
    if fatal and not lenient:
        figures = {"missing": ["/".join(c.source) for c in missing], "retyped": [r[0] for r in retyped]}
        raise Drift("; ".join(fatal), figures)
    known = set(declaration.source_names(dataset)) | set(dataset.ignored)
    new = sorted(name for name in found if name not in known and not name.startswith(":"))
    if new and dataset.drift.new_column == "refuse" and not lenient:
        raise Drift(f"new column {', '.join(new)}", {"new": new})
    warnings = [f"{dataset.id}: {text}" for _, text in complaints]
    if new:
        warnings.append(
            f"{dataset.id}: new column {', '.join(new)} in the source; kept in `raw`. Declare it in "
            f"datasets/{dataset.id}.yml to use it, or list it under `ignored`"
        )
    return warnings


def _is_retyped(declared: str, before: str | None, now: str | None) -> bool:
    if now is None:
        return False
    if before is not None and before != now:
        return True
    return now not in _SOCRATA_TYPES[declared] and before is None


def refuse_mistyped(con: duckdb.DuckDBPyConnection, dataset: Dataset, typed: str) -> None:
    """Raise when most values of a column are of another type: that is a retyped column, not bad rows."""
    bad = con.execute(
        f"""
        select name, count(*) from (select unnest(mistyped) as name from {typed} where len(mistyped) > 0)
        group by name having count(*) >= {_MISTYPED_ROWS} order by name
        """
    ).fetchall()
    for name, wrong in bad:
        column = dataset.column(name)
        found = con.execute(f"select count({name}) from {typed}").fetchone()
        right = found[0] if found else 0
        if column.type == "string":
            right -= wrong
        if wrong > _MISTYPED_RATIO * (right + wrong) and dataset.drift.retyped_column == "refuse":
            raise Drift(
                f"column {'/'.join(column.source)} is retyped: {wrong} of {right + wrong} values are not "
                f"of the declared type {column.type}",
                {
                    "column": column.source[0],
                    "declared": column.type,
                    "wrong": wrong,
                    "values": right + wrong,
                },
            )
