"""Row typing: a dataset definition as DuckDB SQL, from JSON objects as sent to typed columns and reasons.

Most rows need no cleaning: one search over a row's JSON text finds those that do, and only their values are cleaned.
`docs/method.md` describes the rules.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib.resources import files

import duckdb

from catalunya.datasets.model import Column, Dataset
from catalunya.sql import quote
from catalunya.staging import polygons

_SPACE = (
    r"[\s\x{0000}-\x{001f}\x{007f}-\x{00a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}"
    r"\x{2800}\x{3000}]+"
)
"""Spaces and controls of every kind: a run of them becomes one space."""
_INVISIBLE = (
    r"[\x{00ad}\x{034f}\x{061c}\x{115f}\x{1160}\x{17b4}\x{17b5}\x{180b}-\x{180f}\x{200b}-\x{200f}"
    r"\x{202a}-\x{202e}\x{2060}-\x{206f}\x{3164}\x{fe00}-\x{fe0f}\x{feff}\x{ffa0}\x{fff0}-\x{fffb}"
    r"\x{1bca0}-\x{1bca3}\x{1d173}-\x{1d17a}\x{e0000}-\x{e0fff}]"
)
"""Unicode's Default_Ignorable_Code_Point and the interlinear annotations: removed."""
_ODD = r"[^\x{0020}-\x{007e}\x{00a1}-\x{00ac}\x{00ae}-\x{024f}\x{2010}-\x{2027}\x{2030}-\x{205e}\x{20a0}-\x{20bf}]"
"""What is neither Latin nor common punctuation, all of which is in NFC and visible."""
_SUSPECT = rf'  |" | "|""|"[Nn][Uu][Ll][Ll]"|"[\[{{]|{_ODD}'
"""What is not in the clean values of a row with `"` before, between and after them: repeated and outer spaces, empty or
null-like text, objects and lists, odd characters."""
_SUSPECT_VALUE = rf"^$|^[Nn][Uu][Ll][Ll]$|^ | $|  |{_ODD}"
"""The same of one value."""
_MISSING = "is missing"
_FAULTS = "struct(name varchar, value varchar, reason varchar, mistyped boolean)[]"

_RULES = (
    "datasets/types.py",
    "staging/row_sql.py",
    "staging/polygons.py",
    "staging/row_problems.py",
    "staging/snapshot_typing.py",
    "staging/schema_drift.py",
    "sources/download.py",
    "sources/idescat.py",
    "sources/idescat_rows.py",
    "sources/jsonstat.py",
    "sources/base.py",
)
"""The modules, in the package `catalunya`, that decide what a landed snapshot is staged as."""


@cache
def rules_digest() -> str:
    """Return the SHA-256 of the code that types rows, and of the version of DuckDB that runs it."""
    found = hashlib.sha256(duckdb.__version__.encode())
    for name in _RULES:
        source = files("catalunya").joinpath(*name.split("/")).read_bytes()
        found.update(hashlib.sha256(source.replace(b"\r\n", b"\n")).digest())
    return found.hexdigest()


def digest(dataset: Dataset) -> str:
    """Return 16 hex digits that change whenever rows would be typed differently: by other code or another definition."""
    content = {
        "rules": rules_digest(),
        "source": dataset.source.model_dump(mode="json"),
        "key": dataset.key,
        "columns": [c.model_dump(mode="json", exclude={"description", "unit"}) for c in dataset.columns],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def definition_digest(dataset: Dataset) -> str:
    """Return 16 hex digits over a whole definition and the typing rules; a refusal is valid as long as they are equal."""
    content = dataset.model_dump_json() + digest(dataset)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def source_names(dataset: Dataset) -> list[str]:
    """Return every source name that the definition reads, once, in its order."""
    return list(dict.fromkeys(name for column in dataset.columns for name in column.source))


def typed_query(
    dataset: Dataset, objects: str, *, taken_on: date, missing: Collection[str] = frozenset()
) -> str:
    """Return SQL that types and judges the rows of `objects`.

    Args:
        dataset: The definition of the rows.
        objects: The relation to read: one column `json`, in the portal's order.
        taken_on: Day of the snapshot, the limit of values that may not be in the future.
        missing: Declared columns that the source did not have then; they are not required, unless in the key.

    Returns:
        A query with the columns `n` (position in the page), `content` and `identity` (64-bit hashes of the row and of
        its key; compare the columns too), `reasons` and `invalid` (what is wrong with required and with optional
        values: lists of name, value, reason, mistyped), the declared columns (null where invalid), `raw`.
    """
    fields = json.dumps(dict.fromkeys(_fields(dataset), "VARCHAR"), ensure_ascii=False)
    columns = dataset.columns
    rules = {column.name: _rules(dataset, column, taken_on, missing) for column in columns}
    needed = [column for column in columns if is_needed(dataset, column)]
    others = [column for column in columns if column not in needed]
    names = ", ".join(column.name for column in columns)
    values = ", ".join(_value(dataset, name) for name in source_names(dataset))
    sent = ", ".join(_text(column) for column in columns)
    texts = ",\n        ".join(f"{_source_value(dataset, column)} as {_text(column)}" for column in columns)
    typed = ",\n        ".join(f"{_cast(column)} as {column.name}" for column in columns)
    kept = ",\n        ".join(
        f"{_unless_invalid(column, rules[column.name])} as {column.name}" for column in columns
    )
    broken = [f"coalesce({rule.broken}, false)" for name in rules for rule in rules[name] if not rule.nested]
    faulty = " or ".join(["nested", *broken])
    return f"""
with objects as (
    select row_number() over () as n, json::varchar as raw, json_transform(json, {quote(fields)}) as v
    from {objects}
), suspected as (
    select n, raw, v, regexp_matches(concat_ws('"', '', {values}, ''), {quote(_SUSPECT)}) as suspect
    from objects
), texts as (
    select n, raw, case when suspect then regexp_matches(raw, ':\\s*[\\[{{]') else false end as nested,
        {texts}
    from suspected
), typed as (
    select *,
        {typed}
    from texts
), judged as (
    select n, raw, {sent}, {faulty} as faulty,
        case when faulty then {_faults(needed, rules)} else []::{_FAULTS} end as reasons,
        case when faulty then {_faults(others, rules)} else []::{_FAULTS} end as invalid,
        {kept}
    from typed
)
select n, case when len(reasons) > 0 then hash({sent}) else hash({names}) end as content,
    hash({", ".join(dataset.key)}) as identity, reasons, invalid, {names}, raw
from judged"""


def is_needed(dataset: Dataset, column: Column) -> bool:
    """Whether a row without a valid value of the column is quarantined."""
    return column.constraints.required or column.name in dataset.key


def _text(column: Column) -> str:
    return f"text_{column.name}"


def _fields(dataset: Dataset) -> list[str]:
    """The source names that are read together, as a struct: DuckDB's optimizer takes `nom` and `NOM` in it for one."""
    return list({name.casefold(): name for name in reversed(source_names(dataset))}.values())


def _value(dataset: Dataset, name: str) -> str:
    """The value of a source name as it was sent."""
    if name in _fields(dataset):
        return f"v[{quote(name)}]"
    path = quote(f'$."{name}"')
    return f"json_extract_string(raw, {path})"


def _clean(value: str) -> str:
    """The value in NFC, trimmed, without invisible characters or runs of spaces; empty text and `null` become null."""
    visible = f"regexp_replace({value}, {quote(_INVISIBLE)}, '', 'g')"
    folded = f"trim(nfc_normalize(regexp_replace({visible}, {quote(_SPACE)}, ' ', 'g')))"
    cleaned = f"nullif(regexp_replace({folded}, '^[Nn][Uu][Ll][Ll]$', ''), '')"
    return f"case when suspect and regexp_matches({value}, {quote(_SUSPECT_VALUE)}) then {cleaned} else {value} end"


def _source_value(dataset: Dataset, column: Column) -> str:
    """The first of the column's sources that is present, cleaned."""
    values = [_clean(_value(dataset, name)) for name in column.source]
    return f"coalesce({', '.join(values)})" if len(values) > 1 else values[0]


def _cast(column: Column) -> str:
    """The value in the column's type; null when it is of another type."""
    text = _text(column)
    if column.type != "string":
        return column.kind.cast(text)
    if column.is_geometry:
        return text
    return f"case when nested and left({text}, 1) in ('{{', '[') and json_valid({text}) then null else {text} end"


@dataclass(frozen=True)
class _Rule:
    """A rule of a column."""

    broken: str
    """SQL that is true for a value that breaks it."""
    reason: str
    mistyped: bool = False
    nested: bool = False
    """True when only a row with objects or lists in it can break it."""


def _rules(dataset: Dataset, column: Column, taken_on: date, missing: Collection[str]) -> list[_Rule]:
    """The rules of a column, the most specific first."""
    name, limits, text = column.name, column.constraints, _text(column)
    rules = []
    if name in dataset.key or (limits.required and name not in missing):
        rules.append(_Rule(f"{text} is null", _MISSING))
    is_nested = column.type == "string"
    rules.append(
        _Rule(f"({text} is not null and {name} is null)", f"is not {column.kind.label}", True, is_nested)
    )
    if column.is_geometry:
        rules += [_Rule(broken, reason) for reason, broken in polygons.faults(text).items()]
    if limits.pattern is not None:
        rules.append(
            _Rule(f"not regexp_matches({text}, {quote(limits.pattern)})", f"does not match {limits.pattern}")
        )
    if limits.minimum is not None:
        rules.append(_Rule(f"{name} < {limits.minimum}", f"is below {plain(limits.minimum)}"))
    if limits.maximum is not None:
        rules.append(_Rule(f"{name} > {limits.maximum}", f"is above {plain(limits.maximum)}"))
    earliest, latest = column.kind.earliest, column.kind.latest
    if earliest is not None:
        rules.append(_Rule(f"{name} < {earliest.sql}", earliest.reason))
    if limits.not_in_future and latest is not None:
        last = latest(taken_on)
        rules.append(_Rule(f"{name} > {last.sql}", last.reason))
    return rules


def _unless_invalid(column: Column, rules: list[_Rule]) -> str:
    """The typed value; null when it breaks a rule."""
    broken = [rule.broken for rule in rules if rule.reason != _MISSING and not rule.mistyped]
    return f"case when {' or '.join(broken)} then null else {column.name} end" if broken else column.name


def _faults(columns: list[Column], rules: dict[str, list[_Rule]]) -> str:
    """The first rule that each column's value breaks, as a list."""
    cases = []
    for column in columns:
        whens = []
        for rule in rules[column.name]:
            value = "null" if rule.reason == _MISSING else f"left({_text(column)}, 60)"
            fault = (
                f"{{'name': {quote(column.name)}, 'value': {value}, 'reason': {quote(rule.reason)}, "
                f"'mistyped': {str(rule.mistyped).lower()}}}"
            )
            whens.append(f"when {rule.broken} then {fault}")
        cases.append(f"case {' '.join(whens)} end")
    return f"list_filter([{', '.join(cases)}], lambda x: x is not null)::{_FAULTS}"


def plain(number: float) -> str:
    """Return the number as text, without `.0`."""
    return str(int(number)) if float(number).is_integer() else repr(number)
