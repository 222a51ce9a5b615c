"""Schema drift: whether a source still has the columns and values that its definition declares."""

from __future__ import annotations

from typing import Any

import duckdb

from catalunya.datasets.model import Column, Dataset
from catalunya.lake.snapshot import Manifest
from catalunya.staging import row_sql
from catalunya.staging.row_sql import is_needed

_FEW = 5
"""Fewer rows, or fewer invalid values, are no evidence about a source."""
_MISTYPED_RATIO = 0.5


class Drift(Exception):
    """The columns of a source, or most of its rows or values, do not fit the definition."""

    def __init__(self, message: str, figures: dict[str, Any]) -> None:
        super().__init__(message)
        self.figures = figures


def check_columns(
    dataset: Dataset, manifest: Manifest, previous: Manifest | None, *, lenient: bool
) -> list[str]:
    """Return warnings about the columns of a source; raises `Drift` for those that the definition refuses.

    With `lenient` nothing is refused, as for a snapshot that a release contains.
    """
    found = {column.name: column.type for column in manifest.columns}
    before = {column.name: column.type for column in previous.columns} if previous else {}
    missing = missing_columns(dataset, manifest)
    retyped = {
        name: f"declared column {name} is retyped: now {found[name]!r}, "
        + (f"was {before[name]!r}, " if before.get(name) else "")
        + f"declared {column.type}"
        for column in dataset.columns
        for name in column.source
        if _is_retyped(column, before.get(name), found.get(name))
    }
    texts = [
        (dataset.drift.missing_column, f"declared column {'/'.join(c.source)} ({c.name}) is missing")
        for c in missing
    ] + [(dataset.drift.retyped_column, text) for text in retyped.values()]
    fatal = [text for action, text in texts if action == "refuse"]
    if fatal and not lenient:
        figures = {"missing": ["/".join(c.source) for c in missing], "retyped": list(retyped)}
        raise Drift("; ".join(fatal), figures)
    known = set(row_sql.source_names(dataset)) | set(dataset.ignored)
    new = sorted(name for name in found if name not in known and not name.startswith(":"))
    if new and dataset.drift.new_column == "refuse" and not lenient:
        raise Drift(f"new column {', '.join(new)}", {"new": new})
    warnings = [f"{dataset.id}: {text}" for _, text in texts]
    if new:
        warnings.append(
            f"{dataset.id}: new column {', '.join(new)} in the source; kept in `raw`. Declare it in "
            f"datasets/{dataset.id}.yml to use it, or list it under `ignored`"
        )
    return warnings


def _is_retyped(declared: Column, before: str | None, now: str | None) -> bool:
    if now is None:
        return False
    return now not in declared.kind.socrata if before is None else now != before


def missing_columns(dataset: Dataset, manifest: Manifest) -> list[Column]:
    """Return the declared columns that the source did not have when the snapshot was taken."""
    found = {column.name for column in manifest.columns}
    return [column for column in dataset.columns if found.isdisjoint(column.source)]


def refuse_mistyped(con: duckdb.DuckDBPyConnection, dataset: Dataset, typed: str) -> None:
    """Raise `Drift` when most values of a column are of another type, or invalid: the source changed, not some rows."""
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
        is_retyped = mistyped >= _FEW and mistyped > _MISTYPED_RATIO * values
        if is_retyped and dataset.drift.retyped_column == "refuse":
            raise Drift(
                f"column {'/'.join(column.source)} is retyped: {mistyped} of {values} values are not "
                f"of the declared type {column.type}",
                {**figures, "wrong": mistyped},
            )
        if not is_needed(dataset, column) and wrong > dataset.tolerance.quarantine_ratio * values:
            raise Drift(
                f"column {'/'.join(column.source)} is mostly invalid: {wrong} of {values} values of {name} break its "
                f"rules ({_most_common(con, typed, name)})",
                figures,
            )


def refuse_quarantined(dataset: Dataset, counts: dict[str, int], reasons: dict[str, int]) -> None:
    """Raise `Drift` when more of the rows are quarantined than the definition tolerates.

    Args:
        dataset: the definition.
        counts: `rows_in`, `rows_quarantined` and `rows_duplicated`.
        reasons: why rows are quarantined, the most common reason first, with the number of rows.
    """
    rows, quarantined = counts["rows_in"] - counts["rows_duplicated"], counts["rows_quarantined"]
    ratio = dataset.tolerance.quarantine_ratio
    if counts["rows_in"] < _FEW or quarantined <= ratio * rows:
        return
    common = dict(list(reasons.items())[:3])
    most = "; ".join(f"{count} rows: {kind}" for kind, count in common.items())
    raise Drift(
        f"{quarantined} of {rows} rows would be quarantined, tolerated are {ratio:.0%} ({most})",
        {"rows_in": counts["rows_in"], "rows_quarantined": quarantined, "reasons": common},
    )


def _most_common(con: duckdb.DuckDBPyConnection, typed: str, name: str) -> str:
    """The rule that most invalid values of a column break, with the first of them."""
    row = con.execute(
        f"""
        select fault.reason, arg_min(fault.value, n)
        from (select n, unnest(invalid) as fault from {typed} where len(invalid) > 0)
        where fault.name = ? group by fault.reason order by count(*) desc, fault.reason limit 1
        """,
        [name],
    ).fetchone()
    return f'"{row[1]}" {row[0]}' if row else ""
