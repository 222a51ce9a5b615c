"""Faults of the rows: new, missing or retyped columns, duplicate rows, bad values."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from catalunya.demo.data.datasets import PortalColumn, PortalDataset
from catalunya.demo.data.service import Row

DUPLICATE_EVERY = 100
BAD_EVERY = 500
_KIND = "tipologia"
"""A column that each row of the register must have."""


def with_faults(dataset: PortalDataset, faults: tuple[tuple[str, str], ...]) -> PortalDataset:
    """Return the dataset with the faults given by name and value."""
    for name, value in faults:
        dataset = replace(_ROW_FAULTS[name](dataset, value or dataset.faulted_field), lines=None)
    return dataset


def _each_row(
    dataset: PortalDataset, change: Callable[[int, Row], Iterable[Row]]
) -> Callable[[], Iterable[Row]]:
    original = dataset.rows
    return lambda: (new for index, row in enumerate(original()) for new in change(index, row))


def _new_column(dataset: PortalDataset, _: str) -> PortalDataset:
    return replace(
        dataset,
        columns=(*dataset.columns, PortalColumn("Columna nova", "columna_nova")),
        rows=_each_row(dataset, lambda index, row: [row | {"columna_nova": f"valor {index % 7}"}]),
    )


def _missing_column(dataset: PortalDataset, field: str) -> PortalDataset:
    return replace(
        dataset,
        columns=tuple(column for column in dataset.columns if column.field != field),
        rows=_each_row(dataset, lambda _, row: [{key: row[key] for key in row if key != field}]),
    )


def _retyped_column(dataset: PortalDataset, field: str) -> PortalDataset:
    columns = tuple(
        replace(column, type="text" if column.type == "number" else "checkbox")
        if column.field == field
        else column
        for column in dataset.columns
    )
    return replace(
        dataset,
        columns=columns,
        rows=_each_row(dataset, lambda _, row: [row | ({field: "sí"} if field in row else {})]),
    )


def _duplicate_rows(dataset: PortalDataset, _: str) -> PortalDataset:
    return replace(
        dataset,
        rows=_each_row(dataset, lambda index, row: [row, row] if index % DUPLICATE_EVERY == 7 else [row]),
    )


def _bad_rows(dataset: PortalDataset, field: str) -> PortalDataset:
    """Rows without their kind and with a bad value; a bad value alone would become null, not be quarantined."""

    def bad(row: Row) -> Row:
        return {key: value for key, value in row.items() if key != _KIND} | {field: "n/d"}

    return replace(
        dataset,
        rows=_each_row(dataset, lambda index, row: [bad(row) if index % BAD_EVERY == 11 else row]),
    )


_ROW_FAULTS: dict[str, Callable[[PortalDataset, str], PortalDataset]] = {
    "new_column": _new_column,
    "missing_column": _missing_column,
    "retyped_column": _retyped_column,
    "doubled_rows": _duplicate_rows,
    "bad_rows": _bad_rows,
}
