"""JSON-stat 2.0 as Idescat sends it: dimensions, and values by position."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import msgspec

from catalunya.sources.responses import InvalidResponse, decode


@dataclass(frozen=True)
class Dimension:
    """A dimension and its categories in the order of their positions; code to label."""

    id: str
    categories: dict[str, str]


@dataclass(frozen=True)
class DataTable:
    """A JSON-stat dataset. Without data (metadata only) `values` is None."""

    updated: str | None
    dimensions: tuple[Dimension, ...]
    values: Mapping[int, Any] | None
    statuses: Mapping[int, str] | str

    @property
    def cells(self) -> int:
        """The product of the sizes."""
        return prod(len(dimension.categories) for dimension in self.dimensions)

    def dimension(self, name: str) -> Dimension | None:
        """The dimension called `name`, or None."""
        return next((one for one in self.dimensions if one.id == name), None)

    def position(self, codes: Mapping[str, int]) -> int:
        """The row-major position of the cell at `codes`, which gives every dimension's index."""
        position = 0
        for dimension in self.dimensions:
            position = position * len(dimension.categories) + codes[dimension.id]
        return position

    def value(self, position: int) -> Any:
        """The value at `position`; None where there is none."""
        return (self.values or {}).get(position)

    def status(self, position: int) -> str | None:
        """The status at `position`; None where there is none."""
        return self.statuses if isinstance(self.statuses, str) else self.statuses.get(position)


_Cell = bool | int | float | str | None


class _Category(msgspec.Struct):
    index: list[str] | dict[str, int] | None = None
    label: dict[str, str] | None = None


class _Dimension(msgspec.Struct):
    category: _Category


class _Dataset(msgspec.Struct):
    id: list[str]
    size: list[int]
    dimension: dict[str, _Dimension]
    value: list[_Cell] | dict[str, _Cell] | None = None
    status: str | list[str | None] | dict[str, str | None] | None = None
    updated: str | None = None


def parse(body: bytes) -> DataTable:
    """Return the table in a body, its values as they came (`".."` too); raise `InvalidResponse` for anything else."""
    data: _Dataset = decode(body, _Dataset, "a JSON-stat dataset")
    try:
        if len(set(data.id)) != len(data.id):
            raise ValueError(f"a dimension named twice among {data.id}")
        dimensions = tuple(Dimension(name, _categories(data.dimension[name].category)) for name in data.id)
        values = None if data.value is None else _by_position(data.value)
        statuses = data.status if isinstance(data.status, str) else _by_position(data.status or {})
    except (KeyError, ValueError) as error:
        found = f"{type(error).__name__}: {error}"[:200]
        raise InvalidResponse(f"found {found}, expected a JSON-stat dataset") from None
    table = DataTable(data.updated, dimensions, values, statuses)
    if [len(dimension.categories) for dimension in dimensions] != data.size:
        raise InvalidResponse(f"found sizes {str(data.size)[:80]} that are not those of the categories")
    if isinstance(data.value, list) and len(data.value) != table.cells:
        raise InvalidResponse(f"found {len(data.value)} values for {table.cells} cells")
    if values and max(values) >= table.cells:
        raise InvalidResponse(f"found a value at position {max(values)} of {table.cells} cells")
    return table


def _categories(category: _Category) -> dict[str, str]:
    labels = category.label or {}
    index = list(labels) if category.index is None else category.index
    if isinstance(index, dict):
        codes = sorted(index, key=index.__getitem__)
        if [index[code] for code in codes] != list(range(len(codes))):
            raise ValueError("positions of categories that do not count from 0")
    else:
        codes = index
    categories = {code: labels.get(code, code) for code in codes}
    if len(categories) != len(codes):
        raise ValueError("a category that occurs twice")
    return categories


def _by_position(cells: list[Any] | dict[str, Any]) -> dict[int, Any]:
    if isinstance(cells, list):
        return {position: value for position, value in enumerate(cells) if value is not None}
    found = {int(position): value for position, value in cells.items() if value is not None}
    if any(str(int(position)) != position or int(position) < 0 for position in cells):
        raise ValueError("a position that is no number from 0")
    return found
