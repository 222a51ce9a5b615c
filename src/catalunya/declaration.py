"""The declaration of a card as DuckDB SQL: from JSON objects as sent to typed columns and reasons.

Values are cleaned together, as one text per row joined by the unit separator, because one pass of
normalisation over a row is several times faster than one over each of its values.
"""

from __future__ import annotations

import hashlib
import json

from catalunya.datasets import Column, Dataset

_SEPARATOR = "chr(31)"
_SPACE = r"[\s\x{00a0}\x{2000}-\x{200b}\x{3000}\x{feff}]"
_COMBINING = r"[\x{0300}-\x{036f}\x{212a}\x{212b}]"
_ODD = ["'  '", "chr(9)", "chr(10)", "chr(13)", "chr(160)", "chr(8203)", "chr(65279)"]
_MISSING = "is missing"
_RULES_VERSION = 1
"""Raise it when the SQL below types rows differently, so that kept snapshots are staged again."""

SQL_TYPES = {"string": "varchar", "integer": "bigint", "number": "double", "date": "date"}
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

    Columns: `n` (position in the page), `content` and `identity` (128-bit hashes of the row and of its
    key), `reasons` (list of text), `mistyped` (list of column names), the declared columns, `raw`.
    """
    paths = ", ".join(quote(f'$."{name}"') for name in source_names(dataset))
    columns = dataset.columns
    cleaned = ",\n        ".join(f"{_pick(dataset, column)} as {_text(column)}" for column in columns)
    typed = ",\n        ".join(f"{_cast(column)} as {column.name}" for column in columns)
    rules = [(column, rule, words) for column in columns for rule, words in _rules(column)]
    reasons = [f"case when {rule} then {_reason(column, words)} end" for column, rule, words in rules]
    mistyped = [
        (f"case when {rule} then {quote(column.name)} end", rule)
        for column in columns
        if (rule := _is_mistyped(column)) is not None
    ]
    return f"""
with read as (
    select row_number() over () as n, json::varchar as raw,
        {_SEPARATOR} || array_to_string(
            list_transform(json_extract_string(json, [{paths}]), lambda x: replace(coalesce(x, ''), {_SEPARATOR}, ' ')),
            {_SEPARATOR}
        ) || {_SEPARATOR} as sent
    from {objects}
), cleaned as (
    select n, raw, case when {_needs_cleaning("sent")} then {_clean("sent")} else sent end as content
    from read
), split as (
    select n, raw, md5_number(content) as content, string_split(content, {_SEPARATOR}) as v
    from cleaned
), texts as (
    select n, raw, content,
        {cleaned}
    from split
), typed as (
    select n, raw, content, {", ".join(_text(column) for column in columns)},
        {typed}
    from texts
)
select n, content,
    md5_number(concat_ws({_SEPARATOR}, {", ".join(f"text_{name}" for name in dataset.key)})) as identity,
    {_listed(reasons, [rule for _, rule, _ in rules])} as reasons,
    {_listed([case for case, _ in mistyped], [rule for _, rule in mistyped])} as mistyped,
    {", ".join(column.name for column in columns)},
    raw
from typed"""


def _text(column: Column) -> str:
    return f"text_{column.name}"


def _listed(cases: list[str], rules: list[str]) -> str:
    """The texts of the rules that a row breaks; nearly every row breaks none, so they are tried together first."""
    if not cases:
        return "[]::varchar[]"
    broken = " or ".join(f"coalesce({rule}, false)" for rule in rules)
    return f"case when {broken} then list_filter([{', '.join(cases)}], lambda x: x is not null) else [] end"


def _needs_cleaning(text: str) -> str:
    odd = [f"contains({text}, {character})" for character in _ODD]
    edges = [f"contains({text}, ' ' || {_SEPARATOR})", f"contains({text}, {_SEPARATOR} || ' ')"]
    return " or ".join([*odd, *edges, f"regexp_matches({text}, {quote(_COMBINING)})"])


def _clean(text: str) -> str:
    folded = f"regexp_replace(nfc_normalize({text}), {quote(_SPACE + '+')}, ' ', 'g')"
    return f"regexp_replace({folded}, ' ?\\x1f ?', {_SEPARATOR}, 'g')"


def _pick(dataset: Dataset, column: Column) -> str:
    names = source_names(dataset)
    start = names.index(column.source[0])
    values = [f"v[{start + offset + 2}]" for offset in range(len(column.source))]
    nulls = [f"case when len({v}) > 4 or lower({v}) not in ('', 'null') then {v} end" for v in values]
    return nulls[0] if len(nulls) == 1 else f"coalesce({', '.join(nulls)})"


def _cast(column: Column) -> str:
    text = _text(column)
    if column.type == "integer":
        whole = (
            f"case when regexp_full_match({text}, '[+-]?[0-9]+([.]0+)?') then split_part({text}, '.', 1) end"
        )
        return f"try_cast({whole} as bigint)"
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
    return f"(left({text}, 1) in ('{{', '[') and json_valid({text}))"


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
