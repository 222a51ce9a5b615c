"""The faults that lie in the rows themselves: columns that come, go or change type, rows doubled or broken."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from catalunya.demo.data.datasets import Column, Dataset
from catalunya.demo.data.service import Row

EVERY_DOUBLED = 100
EVERY_BAD = 500
_KIND = "tipologia"
"""A column of the register that each row needs."""


def distorted(dataset: Dataset, faults: tuple[tuple[str, str], ...]) -> Dataset:
    """Return the dataset with the named faults in it; without any it is returned as it is."""
    for name, value in faults:
        dataset = replace(_DISTORTIONS[name](dataset, value or dataset.faulted_field), lines=None)
    return dataset


def _each_row(dataset: Dataset, change: Callable[[int, Row], Iterable[Row]]) -> Callable[[], Iterable[Row]]:
    original = dataset.rows

    def rows() -> Iterator[Row]:
        for index, row in enumerate(original()):
            yield from change(index, row)

    return rows


def _new_column(dataset: Dataset, _: str) -> Dataset:
    return replace(
        dataset,
        columns=(*dataset.columns, Column("Columna nova", "columna_nova")),
        rows=_each_row(dataset, lambda index, row: [row | {"columna_nova": f"valor {index % 7}"}]),
    )


def _missing_column(dataset: Dataset, field: str) -> Dataset:
    return replace(
        dataset,
        columns=tuple(column for column in dataset.columns if column.field != field),
        rows=_each_row(dataset, lambda _, row: [{key: row[key] for key in row if key != field}]),
    )


def _retyped_column(dataset: Dataset, field: str) -> Dataset:
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


def _doubled_rows(dataset: Dataset, _: str) -> Dataset:
    return replace(
        dataset,
        rows=_each_row(dataset, lambda index, row: [row, row] if index % EVERY_DOUBLED == 7 else [row]),
    )


def _bad_rows(dataset: Dataset, field: str) -> Dataset:
    """A value that is none, in rows without their kind: a bad value alone would be null, not quarantined."""

    def spoiled(row: Row) -> Row:
        return {key: value for key, value in row.items() if key != _KIND} | {field: "n/d"}

    return replace(
        dataset,
        rows=_each_row(dataset, lambda index, row: [spoiled(row) if index % EVERY_BAD == 11 else row]),
    )


_DISTORTIONS: dict[str, Callable[[Dataset, str], Dataset]] = {
    "new_column": _new_column,
    "missing_column": _missing_column,
    "retyped_column": _retyped_column,
    "doubled_rows": _doubled_rows,
    "bad_rows": _bad_rows,
}
