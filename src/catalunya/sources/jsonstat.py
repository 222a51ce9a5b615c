"""JSON-stat 2.0 as Idescat sends it: dimensions, and values by position."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from catalunya.sources.responses import InvalidResponse


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
    """The table in decoded JSON, its values as they came (`".."` too); raises `InvalidResponse` when it is no JSON-stat."""
    if not isinstance(data, dict):
        raise InvalidResponse(f"found a JSON {type(data).__name__} where a JSON-stat dataset is due")
    if data.get("class") == "error":
        raise InvalidResponse(f"found an error: {data.get('label')} ({data.get('id')})")
    try:
        ids, sizes = list(data["id"]), list(data["size"])
        if len(set(ids)) != len(ids):
            raise ValueError(f"a dimension named twice among {ids}")
        dimensions = tuple(Dimension(name, _categories(data["dimension"][name]["category"])) for name in ids)
        values = None if data.get("value") is None else _by_position(data["value"])
        status = data.get("status")
        statuses = status if isinstance(status, str) else _by_position(status or {})
        _refuse_odd(data.get("updated"), values or {}, statuses)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        said = f"{type(error).__name__}: {error}"[:200]
        raise InvalidResponse(f"found JSON that is no JSON-stat dataset ({said})") from None
    table = Table(data.get("updated"), dimensions, values, statuses)
    if [len(dimension.categories) for dimension in dimensions] != sizes:
        raise InvalidResponse(f"found sizes {str(sizes)[:80]} that are not those of the categories")
    if isinstance(data.get("value"), list) and len(data["value"]) != table.cells:
        raise InvalidResponse(f"found {len(data['value'])} values for {table.cells} cells")
    if values and max(values) >= table.cells:
        raise InvalidResponse(f"found a value at position {max(values)} of {table.cells} cells")
    return table


def _categories(category: dict[str, Any]) -> dict[str, str]:
    labels: dict[str, str] = category.get("label") or {}
    index = category.get("index")
    if index is None:
        codes = list(labels)
    elif isinstance(index, dict):
        codes = sorted(index, key=index.__getitem__)
        if [index[code] for code in codes] != list(range(len(codes))):
            raise ValueError("positions of categories that do not count from 0")
    else:
        codes = list(index)
    categories = {code: labels.get(code, code) for code in codes}
    if len(categories) != len(codes):
        raise ValueError("a category that comes twice")
    odd = next((one for pair in categories.items() for one in pair if not isinstance(one, str)), None)
    if odd is not None:
        raise TypeError(f"a category that is no text: {str(odd)[:40]}")
    return categories


def _by_position(cells: Any) -> dict[int, Any]:
    if isinstance(cells, list):
        return {position: value for position, value in enumerate(cells) if value is not None}
    found = {int(position): value for position, value in cells.items() if value is not None}
    if any(str(int(position)) != position or int(position) < 0 for position in cells):
        raise ValueError("a position that is no number from 0")
    return found


def _refuse_odd(updated: object, values: Mapping[int, Any], statuses: Mapping[int, Any] | str) -> None:
    """Raise `TypeError` for what has the wrong type where any of its type would do."""
    if not isinstance(updated, str | None):
        raise TypeError(f"`updated` is {str(updated)[:40]}, no text")
    nested = next((value for value in values.values() if isinstance(value, list | dict)), None)
    if nested is not None:
        raise TypeError(f"a value that is neither number nor text: {str(nested)[:40]}")
    if not isinstance(statuses, str) and not all(isinstance(one, str) for one in statuses.values()):
        raise TypeError("a status that is no text")
