"""Drift: whether a source still has the columns, and values, that its definition declares."""

from __future__ import annotations

from typing import Any

import duckdb

from catalunya.datasets.model import Column, Dataset
from catalunya.lake.snapshot import Manifest
from catalunya.staging import row_sql
from catalunya.staging.row_sql import is_needed

_FEW = 5
"""Fewer rows, or fewer bad values, prove nothing about a source."""
_MISTYPED_RATIO = 0.5


class Drift(Exception):
    """The source's columns, or most of its rows or values, are not those declared."""

    def __init__(self, message: str, figures: dict[str, Any]) -> None:
        super().__init__(message)
        self.figures = figures


def check_columns(
    dataset: Dataset, manifest: Manifest, previous: Manifest | None, *, lenient: bool
) -> list[str]:
    """Warnings about new columns; raises `Drift` for missing and retyped ones."""
    found = {column.name: column.type for column in manifest.columns}
    before = {column.name: column.type for column in previous.columns} if previous else {}
    missing = missing_columns(dataset, manifest)
    retyped = [
        (name, before.get(name), found[name], column.type)
        for column in dataset.columns
        for name in column.source
        if name in found and _is_retyped(column, before.get(name), found[name])
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
    known = set(row_sql.source_names(dataset)) | set(dataset.ignored)
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


def _is_retyped(declared: Column, before: str | None, now: str | None) -> bool:
    if now is None:
        return False
    if before is not None and before != now:
        return True
    return now not in declared.kind.socrata and before is None


def missing_columns(dataset: Dataset, manifest: Manifest) -> list[Column]:
    """The declared columns that the source did not have when the snapshot was taken."""
    found = {column.name for column in manifest.columns}
    return [column for column in dataset.columns if found.isdisjoint(column.source)]


def refuse_mistyped(con: duckdb.DuckDBPyConnection, dataset: Dataset, typed: str) -> None:
    """Raise when most values of a column are of another type, or invalid: the source is otherwise, not its rows bad."""
    bad = con.execute(
        f"""
        select fault.name, count(*) filter (fault.mistyped), count(*)
        from (select unnest(reasons || invalid) as fault from {typed} where len(reasons) > 0 or len(invalid) > 0)
        where fault.value is not null
        group by fault.name having count(*) >= {_FEW} order by fault.name
        """
    ).fetchall()
    for name, mistyped, wrong in bad:
        column = dataset.column(name)
        row = con.execute(f"select count({name}) from {typed}").fetchone()
        values = wrong + (row[0] if row else 0)
        figures = {"column": column.source[0], "declared": column.type, "wrong": wrong, "values": values}
        if (
            mistyped >= _FEW
            and mistyped > _MISTYPED_RATIO * values
            and dataset.drift.retyped_column == "refuse"
        ):
            raise Drift(
                f"column {'/'.join(column.source)} is retyped: {mistyped} of {values} values are not "
                f"of the declared type {column.type}",
                {**figures, "wrong": mistyped},
            )
        if not is_needed(dataset, column) and wrong > dataset.tolerance.quarantine_ratio * values:
            raise Drift(
                f"column {'/'.join(column.source)} is mostly invalid: {wrong} of {values} values of {name} break "
                f"their declaration ({_most_common(con, typed, name)})",
                figures,
            )


def refuse_quarantined(
    dataset: Dataset, *, rows_in: int, rows_quarantined: int, rows_duplicated: int, reasons: dict[str, int]
) -> None:
    """Raise when more of the rows are quarantined than the definition tolerates."""
    rows = rows_in - rows_duplicated
    ratio = dataset.tolerance.quarantine_ratio
    if rows_in < _FEW or rows_quarantined <= ratio * rows:
        return
    shown = dict(list(reasons.items())[:3])
    most = "; ".join(f"{count} rows: {kind}" for kind, count in shown.items())
    raise Drift(
        f"{rows_quarantined} of {rows} rows would be quarantined, tolerated are {ratio:.0%} ({most})",
        {"rows_in": rows_in, "rows_quarantined": rows_quarantined, "reasons": shown},
    )


def _most_common(con: duckdb.DuckDBPyConnection, typed: str, name: str) -> str:
    """The rule that most invalid values of a column break, with the first of them."""
    row = con.execute(
        f"""
        select fault.words, arg_min(fault.value, n)
        from (select n, unnest(invalid) as fault from {typed} where len(invalid) > 0)
        where fault.name = ? group by fault.words order by count(*) desc, fault.words limit 1
        """,
        [name],
    ).fetchone()
    return f'"{row[1]}" {row[0]}' if row else ""
