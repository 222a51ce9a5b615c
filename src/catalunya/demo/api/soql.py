"""The part of SoQL that clients of the portal use: select, where, order, limit, offset and field filters."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from catalunya.demo.data.datasets import PortalColumn
from catalunya.demo.data.service import Row

DEFAULT_LIMIT = 1_000
MAXIMUM_LIMIT = 50_000
SYSTEM_FIELDS = (":id", ":version", ":created_at", ":updated_at")
KNOWN_PARAMETERS = frozenset(
    {"$select", "$where", "$order", "$limit", "$offset", "$$app_token", "$$exclude_system_fields"}
)
_COUNT = re.compile(r"count\(\s*\*\s*\)(?:\s+as\s+(\w+))?", re.IGNORECASE)
_CONDITION = re.compile(
    r"\s*`?(?P<field>:?@?[A-Za-z_][\w@:]*)`?\s*"
    r"(?:is\s+(?P<negated>not\s+)?(?P<null>null)\b"
    r"|(?P<operator><=|>=|!=|<>|=|<|>)\s*(?:'(?P<text>(?:[^']|'')*)'|(?P<number>-?\d+(?:\.\d+)?)))"
    r"\s*(?:and\b|(?P<end>$))",
    re.IGNORECASE,
)
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "!=": operator.ne, "<>": operator.ne,
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
Condition = Callable[[Row], bool]


class Malformed(Exception):
    """A query that is not SoQL, or not the part of it that this portal knows; `position` counts characters."""

    def __init__(self, found: str, expected: str, position: int = 1) -> None:
        super().__init__(f"Expected {expected}, but got `{found}'")
        self.position = position


class NoSuchColumn(Exception):
    """A query that names a column which the dataset does not have."""

    def __init__(self, column: str) -> None:
        super().__init__(column)
        self.column = column


@dataclass(frozen=True)
class Query:
    """What a request asks for. `fields` are None for `*`; all `conditions` must hold; `count` names a count of rows."""

    fields: tuple[str, ...] | None
    system_fields: bool
    count: str | None
    conditions: tuple[Condition, ...]
    order: tuple[tuple[str, bool], ...]
    limit: int
    offset: int


def parse(parameters: Mapping[str, str], columns: Sequence[PortalColumn]) -> Query:
    """Return the query of a request's parameters; raises Malformed and NoSuchColumn."""
    types = {column.field: column.type for column in columns} | dict.fromkeys(SYSTEM_FIELDS, "text")
    conditions = list(_where(parameters["$where"], types)) if "$where" in parameters else []
    for name, value in parameters.items():
        if not name.startswith("$"):
            conditions.append(_compare(_known(name, types), "=", value, types))
        elif name not in KNOWN_PARAMETERS:
            raise Malformed(name, "a known parameter")
    selected = parameters.get("$select", "*")
    count = _COUNT.fullmatch(selected.strip())
    fields, system_fields = (None, False) if count else _select(selected, types)
    return Query(
        fields=fields,
        system_fields=system_fields or parameters.get("$$exclude_system_fields") == "false",
        count=(count[1] or "count") if count else None,
        conditions=tuple(conditions),
        order=tuple(_order(parameters["$order"], types)) if parameters.get("$order") else (),
        limit=min(_whole(parameters, "$limit", DEFAULT_LIMIT), MAXIMUM_LIMIT),
        offset=_whole(parameters, "$offset", 0),
    )


def as_text(parameters: Mapping[str, str], columns: Sequence[PortalColumn]) -> str:
    """Return the query as the portal repeats it in its errors."""
    selected = parameters.get("$select") or ", ".join(f"`{column.field}`" for column in columns)
    filters = [parameters["$where"]] if "$where" in parameters else []
    filters += [f'`{name}` = "{value}"' for name, value in parameters.items() if not name.startswith("$")]
    where = " WHERE " + " AND ".join(filters) if filters else ""
    order = f" ORDER BY {parameters['$order']}" if "$order" in parameters else ""
    limit, offset = parameters.get("$limit", DEFAULT_LIMIT), parameters.get("$offset", 0)
    return f"SELECT {selected}{where}{order} LIMIT {limit} OFFSET {offset}"


def sort_key(row: Row, field: str, kind: str) -> tuple[bool, float | str]:
    """Return what a row is ordered by; rows without a value come last."""
    value = row.get(field)
    if kind == "number":
        try:
            return value is None, float(str(value))
        except ValueError:
            return True, 0.0
    return value is None, "" if value is None else str(value)


def _known(field: str, types: Mapping[str, str]) -> str:
    if field not in types:
        raise NoSuchColumn(field)
    return field


def _whole(parameters: Mapping[str, str], name: str, default: int) -> int:
    text = parameters.get(name, str(default))
    if not text.isdigit():
        raise Malformed(text, "a whole number")
    return int(text)


def _select(text: str, types: Mapping[str, str]) -> tuple[tuple[str, ...] | None, bool]:
    """Return the fields, None for all, and whether the system fields come before them."""
    items = [item.strip().strip("`") for item in text.split(",")]
    if set(items) <= {"*", ":*"}:
        return (None if "*" in items else ()), ":*" in items
    fields: list[str] = []
    for item in items:
        if item == "*":
            fields += [field for field in types if field not in SYSTEM_FIELDS]
        elif item == ":*":
            fields += SYSTEM_FIELDS
        elif re.fullmatch(r"[:@\w]+", item):
            fields.append(_known(item, types))
        else:
            raise Malformed(item, "an expression", max(1, text.find(item) + 1))
    return tuple(fields), False


def _order(text: str, types: Mapping[str, str]) -> Iterator[tuple[str, bool]]:
    """Yield each field and whether its order is descending."""
    for item in text.split(","):
        field, _, direction = item.replace("`", "").strip().partition(" ")
        if direction.strip().lower() not in ("", "asc", "desc"):
            raise Malformed(direction, "asc or desc")
        yield _known(field, types), direction.strip().lower() == "desc"


def _where(text: str, types: Mapping[str, str]) -> Iterator[Condition]:
    position, end = 0, False
    while not end:
        match = _CONDITION.match(text, position)
        if match is None:
            raise Malformed(text[position:].strip() or "end of input", "a condition", position + 1)
        field = _known(match["field"], types)
        if match["null"]:
            yield _is_null(field, negated=bool(match["negated"]))
        else:
            literal = match["number"] or match["text"].replace("''", "'")
            yield _compare(field, match["operator"], literal, types)
        position, end = match.end(), match["end"] is not None


def _is_null(field: str, *, negated: bool) -> Condition:
    return lambda row: (row.get(field) is not None) == negated


def _compare(field: str, sign: str, literal: str, types: Mapping[str, str]) -> Condition:
    kind = types[field]
    wanted = sort_key({field: literal}, field, kind)[1]

    def holds(row: Row) -> bool:
        missing, value = sort_key(row, field, kind)
        return not missing and _OPERATORS[sign](value, wanted)

    return holds
