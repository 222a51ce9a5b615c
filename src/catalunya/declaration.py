"""The declaration of a card as DuckDB SQL: from JSON objects as sent to typed columns and reasons.

Most rows need no cleaning, and a few substring searches over a row's JSON text tell which do; only those
pay for it. Their values are cleaned one by one.
"""

from __future__ import annotations

import hashlib
import json

from catalunya.datasets import Column, Dataset

_SPACE = r"[\s\x{0000}-\x{001f}\x{00a0}\x{2000}-\x{200b}\x{3000}\x{feff}]+"
_ODD = r"\x{00a0}\x{0300}-\x{036f}\x{2000}-\x{200b}\x{212a}\x{212b}\x{3000}\x{feff}"
_SUSPECT = rf'  |" | "|""|"[Nn][Uu][Ll][Ll]"|[\\\t\n\r{_ODD}]|:[\[{{]'
"""What is not in the compact JSON of a clean row: odd spaces, empty or null-like text, escapes, marks to compose,
objects and lists."""
_SUSPECT_VALUE = rf"^$|^[Nn][Uu][Ll][Ll]$|^ | $|  |[\x{{0000}}-\x{{001f}}{_ODD}]"
"""The same of one value."""
_MISSING = "is missing"
_NOT_TEXT = "is not text"
_RULES_VERSION = 1
"""Raise it when the SQL below types rows differently, so that kept snapshots are staged again."""

SQL_TYPES = {"string": "varchar", "integer": "integer", "number": "double", "date": "date"}
_ARTICLES = {"string": "text", "integer": "an integer", "number": "a number", "date": "a date (YYYY-MM-DD)"}


def digest(dataset: Dataset) -> str:
    """16 hex digits that change whenever rows would be typed otherwise."""
    declared = {
        "rules": _RULES_VERSION,
        "source": dataset.source.model_dump(mode="json"),
        "key": dataset.key,
        "columns": [c.model_dump(mode="json", exclude={"description", "unit"}) for c in dataset.columns],
    }
    return hashlib.sha256(json.dumps(declared, sort_keys=True).encode()).hexdigest()[:16]


def quote(text: str) -> str:
    """`text` as an SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def source_names(dataset: Dataset) -> list[str]:
    """Every source name that the card reads, in its order."""
    return [name for column in dataset.columns for name in column.source]


def typed_query(dataset: Dataset, objects: str) -> str:
    """Rows of `objects` (one column `json`, in the portal's order) typed and judged.

    Columns: `n` (position in the page), `content` and `identity` (64-bit hashes of the row and of its key;
    compare the columns too), `reasons` (list of text), `mistyped` (list of column names), the declared
    columns, `raw`.
    """
    paths = ", ".join(quote(f'$."{name}"') for name in source_names(dataset))
    columns = dataset.columns
    texts = ",\n        ".join(f"{_pick(dataset, column)} as {_text(column)}" for column in columns)
    typed = ",\n        ".join(f"{_cast(column)} as {column.name}" for column in columns)
    rules = [(column, rule, words) for column in columns for rule, words in _rules(column)]
    broken = " or ".join(f"coalesce({rule}, false)" for _, rule, words in rules if words != _NOT_TEXT)
    reasons = ", ".join(
        f"case when {rule} then {_reason(column, words)} end" for column, rule, words in rules
    )
    mistyped = ", ".join(
        f"case when {rule} then {quote(column.name)} end"
        for column in columns
        if (rule := _is_mistyped(column))
    )
    return f"""
with sent as (
    select row_number() over () as n, json::varchar as raw, json_extract_string(json, [{paths}]) as v,
        case when contains(json::varchar, '": ') then json_extract(json, '$')::varchar
            else json::varchar end as compact
    from {objects}
), suspected as (
    select n, raw, v, compact, regexp_matches(compact, {quote(_SUSPECT)}) as suspect
    from sent
), cleaned as (
    select n, raw, suspect and (contains(compact, ':{{') or contains(compact, ':[')) as nested,
        case when suspect then list_transform(v, lambda x: {_clean("x")}) else v end as v
    from suspected
), texts as (
    select n, raw, nested, hash(v) as content,
        {texts}
    from cleaned
), typed as (
    select n, raw, nested, content, {", ".join(_text(column) for column in columns)},
        {typed}
    from texts
)
select n, content, hash({", ".join(f"text_{name}" for name in dataset.key)}) as identity,
    case when nested or {broken} then list_filter([{reasons}], lambda x: x is not null) else [] end as reasons,
    case when nested or {broken} then list_filter([{mistyped}], lambda x: x is not null) else [] end as mistyped,
    {", ".join(column.name for column in columns)},
    raw
from typed"""


def _text(column: Column) -> str:
    return f"text_{column.name}"


def _clean(value: str) -> str:
    """Unicode NFC, runs of space folded, the ends trimmed; empty text and the word `null` are null."""
    folded = f"trim(regexp_replace(nfc_normalize({value}), {quote(_SPACE)}, ' ', 'g'))"
    nothing = f"lower({folded}) in ('', 'null')"
    cleaned = f"case when {nothing} then null else {folded} end"
    return f"case when regexp_matches({value}, {quote(_SUSPECT_VALUE)}) then {cleaned} else {value} end"


def _pick(dataset: Dataset, column: Column) -> str:
    """The first of the column's sources that is present."""
    start = source_names(dataset).index(column.source[0]) + 1
    values = [f"v[{start + offset}]" for offset in range(len(column.source))]
    return values[0] if len(values) == 1 else f"coalesce({', '.join(values)})"


def _cast(column: Column) -> str:
    text = _text(column)
    if column.type == "integer":
        whole = (
            f"case when regexp_full_match({text}, '[+-]?[0-9]+([.]0+)?') then split_part({text}, '.', 1) end"
        )
        return f"try_cast({whole} as integer)"
    if column.type == "number":
        return f"case when isfinite(try_cast({text} as double)) then try_cast({text} as double) end"
    if column.type == "date":
        day = f"case when regexp_full_match({text}, '.{{10}}(T[0-9:.]+Z?)?') then left({text}, 10) end"
        return f"try_cast({day} as date)"
    return text


def _is_mistyped(column: Column) -> str | None:
    text = _text(column)
    if column.type != "string":
        return f"({text} is not null and {column.name} is null)"
    if column.source == ("geometry",):
        return None
    return f"(nested and left({text}, 1) in ('{{', '[') and json_valid({text}))"


def _rules(column: Column) -> list[tuple[str, str]]:
    """Pairs of an SQL condition that is true for a value that breaks a rule, and the words for it."""
    name, limits = column.name, column.constraints
    rules: list[tuple[str, str]] = []
    if limits.required:
        rules.append((f"{_text(column)} is null", _MISSING))
    wrong_type = _is_mistyped(column)
    if wrong_type is not None:
        rules.append((wrong_type, f"is not {_ARTICLES[column.type]}"))
    if limits.pattern is not None:
        matches = f"regexp_matches({_text(column)}, {quote(limits.pattern)})"
        rules.append((f"not {matches}", f"does not match {limits.pattern}"))
    if limits.minimum is not None:
        rules.append((f"{name} < {limits.minimum}", f"is below {limits.minimum:g}"))
    if limits.maximum is not None:
        rules.append((f"{name} > {limits.maximum}", f"is above {limits.maximum:g}"))
    return rules


def _reason(column: Column, words: str) -> str:
    if words == _MISSING:
        return quote(f"{column.name} is missing")
    shown = f"left({_text(column)}, 60)"
    return f"{quote(column.name + ': ')} || chr(34) || {shown} || chr(34) || {quote(' ' + words)}"
