"""JSON-stat 2.0 as Idescat sends it: dimensions, and values by position."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from catalunya.sources.http import Unfit


@dataclass(frozen=True)
class Dimension:
    """A dimension and its categories in the order of their positions; code to label."""

    id: str
    categories: dict[str, str]


@dataclass(frozen=True)
class Table:
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


def parse(data: Any) -> Table:
    """The table in decoded JSON; raises `Unfit` when it is not a JSON-stat dataset."""
    if not isinstance(data, dict):
        raise Unfit(f"found a JSON {type(data).__name__} where a JSON-stat dataset is due")
    if data.get("class") == "error":
        raise Unfit(f"found an error: {data.get('label')} ({data.get('id')})")
    try:
        ids, sizes = data["id"], data["size"]
        dimensions = tuple(Dimension(name, _categories(data["dimension"][name]["category"])) for name in ids)
        values = None if data.get("value") is None else _by_position(data["value"])
        status = data.get("status")
        statuses = status if isinstance(status, str) else _by_position(status or {})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Unfit(f"found JSON that is no JSON-stat dataset ({type(error).__name__}: {error})") from None
    table = Table(data.get("updated"), dimensions, values, statuses)
    if [len(dimension.categories) for dimension in dimensions] != list(sizes):
        raise Unfit(f"found sizes {sizes} that are not those of the categories")
    if isinstance(data.get("value"), list) and len(data["value"]) != table.cells:
        raise Unfit(f"found {len(data['value'])} values for {table.cells} cells")
    if values and max(values) >= table.cells:
        raise Unfit(f"found a value at position {max(values)} of {table.cells} cells")
    return table


def _categories(category: dict[str, Any]) -> dict[str, str]:
    labels: dict[str, str] = category.get("label") or {}
    index = category.get("index")
    if index is None:
        codes = list(labels)
    elif isinstance(index, dict):
        codes = sorted(index, key=index.__getitem__)
    else:
        codes = list(index)
    return {code: str(labels.get(code, code)) for code in codes}


def _by_position(cells: Any) -> dict[int, Any]:
    if isinstance(cells, list):
        return {position: value for position, value in enumerate(cells) if value is not None}
    return {int(position): value for position, value in cells.items() if value is not None}
