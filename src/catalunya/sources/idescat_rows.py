"""Rows and published totals of Idescat's tables in landed files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalunya.errors import SourceDrift
from catalunya.sources import jsonstat
from catalunya.sources.base import PublishedTotal

if TYPE_CHECKING:
    from catalunya.datasets.sources import IdescatSource


def load(path: Path) -> jsonstat.DataTable:
    """Return the table in a landed file; raise `InvalidResponse`."""
    return jsonstat.parse(path.read_bytes())


def rows(table: jsonstat.DataTable, source: IdescatSource) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table, under the source's names, in the order of the categories.

    A row holds the code of each row dimension, `<dimension>.label` where labels differ from codes, and
    `<measure>.<category>`; `status` too when a value is null. Totals are left out (see `controls`).
    """
    labelled = _labelled(table, source)
    for codes, cells in _cells(table, source):
        if any(codes[name] == total for name, total in source.total.items()):
            continue
        row: dict[str, Any] = {}
        for name in source.rows:
            row[name] = codes[name]
            if name in labelled:
                row[f"{name}.label"] = labelled[name][codes[name]]
        statuses: dict[str, None] = {}
        for category, position in cells.items():
            row[f"{source.measure}.{category}"] = value = table.value(position)
            if value is None:
                statuses[table.status(position) or "missing"] = None
        if statuses:
            row["status"] = " ".join(statuses)
        yield row


def row_columns(table: jsonstat.DataTable, source: IdescatSource) -> list[str]:
    """Return the columns of rows that hold the row dimensions."""
    labelled = _labelled(table, source)
    return [column for name in source.rows for column in (name, f"{name}.label")[: 1 + (name in labelled)]]


def controls(table: jsonstat.DataTable, source: IdescatSource) -> Iterator[PublishedTotal]:
    """Yield the published totals of a table: one per measured category and period.

    A total that is no whole number (`".."`), or of a period that is none (`2025p`), is no control.
    """
    for codes, cells in _cells(table, source):
        if not source.total or any(codes[name] != total for name, total in source.total.items()):
            continue
        period = " ".join(codes[name] for name in source.rows if name not in source.total)
        for category, position in cells.items():
            value = _whole_number(table.value(position))
            if value is not None and re.fullmatch(r"[0-9]{1,9}", period):
                yield PublishedTotal(f"{source.measure}.{category}", period, value)


def _whole_number(value: Any) -> int | None:
    """Return `value` as a count; None when it is not a whole number of at most 15 digits."""
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return int(text) if not isinstance(value, bool) and re.fullmatch(r"[0-9]{1,15}", text) else None


def _cells(
    table: jsonstat.DataTable, source: IdescatSource
) -> Iterator[tuple[dict[str, str], dict[str, int]]]:
    """Yield each combination of the row dimensions, with the position of every measured category."""
    dimensions = [_dimension(table, name) for name in source.rows]
    measure = _dimension(table, source.measure)
    others: Mapping[str, int] = {
        one.id: list(one.categories).index(source.fixed[one.id]) if one.id in source.fixed else 0
        for one in table.dimensions
        if one.id not in source.rows and one.id != source.measure
    }
    for combination in product(*(enumerate(dimension.categories) for dimension in dimensions)):
        index = {one.id: number for one, (number, _) in zip(dimensions, combination, strict=True)}
        yield (
            {one.id: code for one, (_, code) in zip(dimensions, combination, strict=True)},
            {
                category: table.position({**others, **index, measure.id: number})
                for number, category in enumerate(measure.categories)
            },
        )


def _dimension(table: jsonstat.DataTable, name: str) -> jsonstat.Dimension:
    dimension = table.dimension(name)
    if dimension is None:
        raise SourceDrift(
            f"the dimension {name} is missing in a landed table; compare it with the definition."
        )
    return dimension


def _labelled(table: jsonstat.DataTable, source: IdescatSource) -> dict[str, dict[str, str]]:
    """Return the labels of the row dimensions whose labels differ from their codes."""
    found = {name: _dimension(table, name).categories for name in source.rows}
    return {
        name: labels
        for name, labels in found.items()
        if any(label != code for code, label in labels.items() if code != source.total.get(name))
    }
