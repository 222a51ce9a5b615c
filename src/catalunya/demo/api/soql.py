"""The part of SoQL that clients of the portal use: select, where, order, limit, offset and field filters."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from catalunya.demo.data.datasets import Column
from catalunya.demo.data.service import Row

DEFAULT_LIMIT = 1_000
MAXIMUM_LIMIT = 50_000
SYSTEM_FIELDS = (":id", ":version", ":created_at", ":updated_at")
KNOWN_PARAMETERS = frozenset(
    {"$select", "$where", "$order", "$limit", "$offset", "$$app_token", "$$exclude_system_fields"}
)
_TOKEN = re.compile(
    r"\s*(?:'((?:[^']|'')*)'|(<=|>=|!=|<>|=|<|>|\(|\)|,)|(-?\d+(?:\.\d+)?)(?![\w.])|`?(:?@?[A-Za-z_][\w@:]*)`?)"
)
_AGGREGATE = re.compile(r"(count|min|max)\(\s*([:@\w*]+)\s*\)(?:\s+as\s+(\w+))?$", re.IGNORECASE)
Condition = Callable[[Row], bool]


class Malformed(Exception):
    """A query that is no SoQL, or none that this portal understands; `position` is a character."""

    def __init__(self, found: str, expected: str, position: int) -> None:
        super().__init__(f"Expected {expected}, but got `{found}'")
        self.position = position


class NoSuchColumn(Exception):
    """A query that names a column which the dataset does not have."""

    def __init__(self, column: str) -> None:
        super().__init__(column)
        self.column = column


@dataclass(frozen=True)
class Aggregate:
    """`count(*)`, `min(field)` or `max(field)`, and the name of the result."""

    function: str
    field: str
    alias: str


@dataclass(frozen=True)
class Query:
    """What a request asks for. `fields` is None for `*`; `conditions` must all hold."""

    fields: tuple[str, ...] | None
    system_fields: bool
    aggregates: tuple[Aggregate, ...]
    conditions: tuple[Condition, ...]
    order: tuple[tuple[str, bool], ...]
    limit: int
    offset: int


def parse(parameters: Mapping[str, str], columns: Sequence[Column]) -> Query:
    """Return the query that the parameters of a request stand for; raises Malformed and NoSuchColumn."""
    types = {column.field: column.type for column in columns} | dict.fromkeys(SYSTEM_FIELDS, "text")
    conditions = list(_where(parameters["$where"], types)) if "$where" in parameters else []
    for name, value in parameters.items():
        if name.startswith("$"):
            if name not in KNOWN_PARAMETERS:
                raise Malformed(name, "a known parameter", 1)
            continue
        _check(name, types)
        conditions.append(_compare(name, "=", value, types[name]))
    fields, system, aggregates = _select(parameters.get("$select", "*"), types)
    if parameters.get("$$exclude_system_fields") == "false":
        system = True
    return Query(
        fields=fields,
        system_fields=system,
        aggregates=aggregates,
        conditions=tuple(conditions),
        order=tuple(_order(parameters["$order"], types)) if parameters.get("$order") else (),
        limit=min(_whole(parameters, "$limit", DEFAULT_LIMIT), MAXIMUM_LIMIT),
        offset=_whole(parameters, "$offset", 0),
    )


def as_text(parameters: Mapping[str, str], columns: Sequence[Column]) -> str:
    """Return the query as the portal repeats it in its errors."""
    selected = parameters.get("$select") or ", ".join(f"`{column.field}`" for column in columns)
    filters = [parameters["$where"]] if "$where" in parameters else []
    filters += [f'`{name}` = "{value}"' for name, value in parameters.items() if not name.startswith("$")]
    text = f"SELECT {selected}"
    if filters:
        text += " WHERE " + " AND ".join(filters)
    if "$order" in parameters:
        text += f" ORDER BY {parameters['$order']}"
    return f"{text} LIMIT {parameters.get('$limit', DEFAULT_LIMIT)} OFFSET {parameters.get('$offset', 0)}"


def sort_key(row: Row, field: str, kind: str) -> tuple[bool, float | str]:
    """Return what a row is ordered by; rows without a value come last."""
    value = row.get(field)
    if kind == "number":
        try:
            return value is None, float(str(value))
        except ValueError:
            return True, 0.0
    return value is None, "" if value is None else str(value)


def _check(field: str, types: Mapping[str, str]) -> None:
    if field not in types:
        raise NoSuchColumn(field)


def _whole(parameters: Mapping[str, str], name: str, default: int) -> int:
    text = parameters.get(name, str(default))
    if not text.isdigit():
        raise Malformed(text, "a whole number", 1)
    return int(text)


def _select(
    text: str, types: Mapping[str, str]
) -> tuple[tuple[str, ...] | None, bool, tuple[Aggregate, ...]]:
    items = [item.strip().strip("`") for item in text.split(",")]
    aggregates = [match for item in items if (match := _AGGREGATE.match(item))]
    if aggregates:
        if len(aggregates) < len(items):
            raise Malformed(text, "either aggregates or columns", 1)
        for match in aggregates:
            if match[2] != "*":
                _check(match[2], types)
        return None, False, tuple(_aggregate(match[1].lower(), match[2], match[3]) for match in aggregates)
    if set(items) <= {"*", ":*"}:
        fields = None if "*" in items else ()
        return fields, ":*" in items, ()
    fields_asked: list[str] = []
    for item in items:
        if item == "*":
            fields_asked += [field for field in types if field not in SYSTEM_FIELDS]
        elif item == ":*":
            fields_asked += SYSTEM_FIELDS
        else:
            if not re.fullmatch(r"[:@\w]+", item):
                raise Malformed(item, "an expression", max(1, text.find(item) + 1))
            _check(item, types)
            fields_asked.append(item)
    return tuple(fields_asked), False, ()


def _aggregate(function: str, field: str, alias: str | None) -> Aggregate:
    if alias is None:
        alias = function if field == "*" else f"{function}_{field.lstrip(':')}"
    return Aggregate(function, field, alias)


def _order(text: str, types: Mapping[str, str]) -> list[tuple[str, bool]]:
    order = []
    for item in text.split(","):
        field, *direction = item.replace("`", "").split()
        if len(direction) > 1 or (direction and direction[0].lower() not in ("asc", "desc")):
            raise Malformed(" ".join(direction), "asc or desc", 1)
        _check(field, types)
        order.append((field, bool(direction) and direction[0].lower() == "desc"))
    return order


def _tokens(text: str) -> list[tuple[str, str, int]]:
    tokens, position = [], 0
    while text[position:].strip():
        match = _TOKEN.match(text, position)
        if match is None:
            raise Malformed(text[position:].split(maxsplit=1)[0], "an expression", position + 1)
        if match[1] is not None:
            tokens.append(("literal", match[1].replace("''", "'"), position + 1))
        elif match[2]:
            tokens.append(("sign", match[2], position + 1))
        elif match[3]:
            tokens.append(("literal", match[3], position + 1))
        else:
            tokens.append(("name", match[4], position + 1))
        position = match.end()
    return tokens


def _where(text: str, types: Mapping[str, str]) -> list[Condition]:
    tokens = [*_tokens(text), ("end", "end of input", len(text) + 1)]
    conditions: list[Condition] = []
    at = 0

    def take(*kinds: str) -> tuple[str, str, int]:
        nonlocal at
        kind, value, position = tokens[at]
        if kind not in kinds:
            raise Malformed(value, "an expression", position)
        at += 1
        return kind, value, position

    while True:
        _, field, _ = take("name")
        _check(field, types)
        kind, operator, position = take("sign", "name")
        if kind == "name" and operator.lower() == "is":
            _, word, _ = take("name")
            negated = word.lower() == "not"
            if negated:
                take("name")
            conditions.append(_is_null(field, negated=negated))
        elif kind == "name" and operator.lower() == "in":
            take("sign")
            values = [take("literal")[1]]
            while take("sign")[1] == ",":
                values.append(take("literal")[1])
            conditions.append(_one_of(field, frozenset(values)))
        elif kind == "sign" and operator not in "(),":
            conditions.append(_compare(field, operator, take("literal")[1], types[field]))
        else:
            raise Malformed(operator, "an operator", position)
        kind, word, position = take("name", "end")
        if kind == "end":
            return conditions
        if word.lower() != "and":
            raise Malformed(word, "`and' or end of input", position)


def _is_null(field: str, *, negated: bool) -> Condition:
    return lambda row: (row.get(field) is not None) == negated


def _one_of(field: str, values: frozenset[str]) -> Condition:
    return lambda row: row.get(field) in values


def _compare(field: str, operator: str, literal: str, kind: str) -> Condition:
    wanted = sort_key({field: literal}, field, kind)[1]

    def holds(row: Row) -> bool:
        missing, value = sort_key(row, field, kind)
        return not missing and _holds(value, operator, wanted)

    return holds


def _holds(value: float | str, operator: str, wanted: float | str) -> bool:
    if operator == "=":
        return value == wanted
    if operator in ("!=", "<>"):
        return value != wanted
    smaller = value < wanted  # type: ignore[operator]
    if operator == "<":
        return smaller
    if operator == ">=":
        return not smaller
    return value > wanted if operator == ">" else smaller or value == wanted  # type: ignore[operator]
