"""From what Athena is told to what Trino and Glue are told.

Athena takes data definition in Hive's words and everything else in Trino's. Tables are written where they are told
to, under properties of its own names. Nothing here judges a statement: `refusals.py` does.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

CATALOG = "awsdatacatalog"
ICEBERG = "iceberg"

_COMMENT = re.compile(r"^(?:\s+|--[^\n]*(?:\n|$)|/\*.*?\*/)", re.DOTALL)
_NAME = r'[`"]?([A-Za-z0-9_]+)[`"]?'
_QUALIFIED = rf'(?:[`"]?{CATALOG}[`"]?\s*\.\s*)?(?:{_NAME}\s*\.\s*)?{_NAME}'
_CTAS = re.compile(
    rf"^create\s+table\s+(if\s+not\s+exists\s+)?{_QUALIFIED}\s*(with\s*\(|as\b)", re.IGNORECASE
)
_EXTERNAL = re.compile(
    rf"^create\s+external\s+table\s+(if\s+not\s+exists\s+)?{_QUALIFIED}\s*\(", re.IGNORECASE
)
_ICEBERG_TABLE = re.compile(rf"^create\s+table\s+(if\s+not\s+exists\s+)?{_QUALIFIED}\s*\(", re.IGNORECASE)
_SCHEMA = re.compile(
    rf"^create\s+(?:schema|database)\s+(if\s+not\s+exists\s+)?{_NAME}(?:\s+comment\s+'[^']*')?"
    r"(?:\s+location\s+'([^']*)')?",
    re.IGNORECASE,
)
_ALTER_PROPERTIES = re.compile(rf"^alter\s+table\s+{_QUALIFIED}\s+set\s+tblproperties\s*\(", re.IGNORECASE)
_ADD_PARTITION = re.compile(
    rf"^alter\s+table\s+{_QUALIFIED}\s+add\s+(?:if\s+not\s+exists\s+)?partition\b", re.IGNORECASE
)
_REPAIR = re.compile(rf"^msck\s+repair\s+table\s+{_QUALIFIED}", re.IGNORECASE)
_PAIR = re.compile(r"'([^']*)'\s*=\s*'([^']*)'")
_SERDES = {
    "parquet": "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe",
    "textfile": "org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe",
}
_FORMATS = {
    "parquet": (
        "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
        "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
    ),
    "textfile": (
        "org.apache.hadoop.mapred.TextInputFormat",
        "org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat",
    ),
}


@dataclass(frozen=True)
class Table:
    """The name of a table; without a schema it is in the one that the query was started in."""

    schema: str | None
    name: str


@dataclass(frozen=True)
class Trino:
    """A statement for Trino, in `catalog`, with session properties."""

    sql: str
    catalog: str = CATALOG
    session: dict[str, str] = field(default_factory=dict)
    writes_to: str | None = None
    """Where a new table's files go; that has to be empty."""


@dataclass(frozen=True)
class CreateTable:
    """A table over files that exist, for Glue."""

    table: Table
    if_not_exists: bool
    columns: tuple[tuple[str, str], ...]
    partition_keys: tuple[tuple[str, str], ...]
    serde: str
    formats: tuple[str, str]
    serde_properties: dict[str, str]
    location: str
    properties: dict[str, str]


@dataclass(frozen=True)
class CreateSchema:
    """A database, for Glue."""

    name: str
    if_not_exists: bool
    location: str | None


@dataclass(frozen=True)
class SetProperties:
    """New properties of a table, for Glue."""

    table: Table
    properties: dict[str, str]


@dataclass(frozen=True)
class AddPartitions:
    """Partitions at places of their own, for Glue."""

    table: Table
    partitions: tuple[tuple[tuple[str, ...], str | None], ...]


Order = Trino | CreateTable | CreateSchema | SetProperties | AddPartitions


class SyntaxWrong(Exception):
    """A statement of Hive's kind that does not read as one."""


def bare(sql: str) -> str:
    """The statement without the comments in front and the semicolon behind."""
    sql = sql.strip()
    while match := _COMMENT.match(sql):
        sql = sql[match.end() :]
    return sql.rstrip().removesuffix(";").rstrip()


def translate(sql: str, default_location: str) -> Order:
    """What carries out `sql`; a table without a place of its own goes to `default_location`."""
    text = bare(sql)
    for pattern, make in _KINDS:
        if match := pattern.match(text):
            return make(text, match)
    if match := _CTAS.match(text):
        return _create_table_as(text, match, default_location)
    if match := _ICEBERG_TABLE.match(text):
        return _create_iceberg(text, match)
    if re.match(r"(drop|alter|describe|show)\b", text, re.IGNORECASE):
        return Trino(text.replace("`", '"'))
    return Trino(text)


def _table(match: re.Match[str], group: int) -> Table:
    schema = match[group]
    return Table(schema.lower() if schema else None, match[group + 1].lower())


def _create_table_as(text: str, match: re.Match[str], default_location: str) -> Trino:
    table = _table(match, 2)
    rest, properties = text[match.end() - len("as") :], {}
    if match[4].lower() != "as":
        inside, rest = _parenthesis(text, match.end() - 1)
        properties = _properties(inside)
    query = re.sub(r"^\s*as\b", "", rest, flags=re.IGNORECASE).strip()
    kind = properties.get("table_type", "'HIVE'").strip("'").upper()
    exists = "if not exists " if match[1] else ""
    if kind == "ICEBERG":
        return _iceberg(table, exists, properties, query)
    location = properties.get("external_location", f"'{default_location}'")
    made = {"external_location": location, "format": properties.get("format", "'PARQUET'").upper()}
    for name in ("partitioned_by", "bucketed_by", "bucket_count"):
        if name in properties:
            made[name] = properties[name]
    if "field_delimiter" in properties:
        made["textfile_field_separator"] = properties["field_delimiter"]
    compression = properties.get("write_compression", properties.get("parquet_compression"))
    session = {f"{CATALOG}.compression_codec": compression.strip("'").upper()} if compression else {}
    listed = ", ".join(f"{name} = {value}" for name, value in made.items())
    sql = f"create table {exists}{_quoted(table)} with ({listed}) as {query}"
    return Trino(sql, session=session, writes_to=location.strip("'"))


def _iceberg(table: Table, exists: str, properties: dict[str, str], query: str | None) -> Trino:
    made = {"format": properties.get("format", "'PARQUET'").upper(), "location": properties["location"]}
    if "partitioning" in properties:
        made["partitioning"] = properties["partitioning"]
    listed = ", ".join(f"{name} = {value}" for name, value in made.items())
    target = f"{ICEBERG}.{_quoted(table)}" if table.schema else _quoted(table)
    catalog = CATALOG if table.schema else ICEBERG
    return Trino(f"create table {exists}{target} with ({listed}) as {query}", catalog=catalog)


def _create_iceberg(text: str, match: re.Match[str]) -> Trino:
    """`create table … location … tblproperties ('table_type'='iceberg')`, the one kind that is not external."""
    table = _table(match, 2)
    columns, rest = _parenthesis(text, match.end() - 1)
    location = re.search(r"\blocation\s+'([^']*)'", rest, re.IGNORECASE)
    if location is None:
        raise SyntaxWrong("an Iceberg table needs a location")
    listed = ", ".join(f'"{name}" {_trino_type(kind)}' for name, kind in _columns(columns))
    partitioned = re.search(r"\bpartitioned\s+by\s*\(", rest, re.IGNORECASE)
    made = [f"location = '{location[1].rstrip('/')}'"]
    if partitioned:
        inside, _ = _parenthesis(rest, partitioned.end() - 1)
        parts = ", ".join("'" + part.strip().replace("`", "") + "'" for part in _split(inside))
        made.append(f"partitioning = array[{parts}]")
    exists = "if not exists " if match[1] else ""
    return Trino(
        f"create table {exists}{_quoted(table)} ({listed}) with ({', '.join(made)})", catalog=ICEBERG
    )


def _create_external(text: str, match: re.Match[str]) -> CreateTable:
    inside, rest = _parenthesis(text, match.end() - 1)
    keys: tuple[tuple[str, str], ...] = ()
    if partitioned := re.search(r"\bpartitioned\s+by\s*\(", rest, re.IGNORECASE):
        listed, _ = _parenthesis(rest, partitioned.end() - 1)
        keys = _columns(listed)
    stored = re.search(r"\bstored\s+as\s+(\w+)", rest, re.IGNORECASE)
    kind = stored[1].lower() if stored else "textfile"
    serde = re.search(r"\brow\s+format\s+serde\s+'([^']*)'", rest, re.IGNORECASE)
    location = re.search(r"\blocation\s+'([^']*)'", rest, re.IGNORECASE)
    if location is None or kind not in _FORMATS:
        raise SyntaxWrong(f"an external table needs a location and a format of {', '.join(_FORMATS)}")
    return CreateTable(
        table=_table(match, 2),
        if_not_exists=bool(match[1]),
        columns=_columns(inside),
        partition_keys=keys,
        serde=serde[1] if serde else _SERDES[kind],
        formats=_FORMATS[kind],
        serde_properties=_pairs_after(r"\bserdeproperties\s*\(", rest),
        location=location[1].rstrip("/"),
        properties={"EXTERNAL": "TRUE", **_pairs_after(r"\btblproperties\s*\(", rest)},
    )


def _partitions(text: str) -> tuple[tuple[tuple[str, ...], str | None], ...]:
    found = re.findall(r"partition\s*\(([^)]*)\)(?:\s*location\s+'([^']*)')?", text, re.IGNORECASE)
    return tuple(
        (tuple(re.findall(r"=\s*(?:date\s*)?'([^']*)'", values)), place.rstrip("/") or None)
        for values, place in found
    )


def _pairs_after(opening: str, text: str) -> dict[str, str]:
    found = re.search(opening, text, re.IGNORECASE)
    return dict(_PAIR.findall(_parenthesis(text, found.end() - 1)[0])) if found else {}


def _columns(text: str) -> tuple[tuple[str, str], ...]:
    pairs = [part.strip().split(None, 1) for part in _split(text)]
    if any(len(pair) != 2 for pair in pairs):
        raise SyntaxWrong(f"not a list of columns with their types: {text.strip()}")
    return tuple(
        (name.strip('`"').lower(), re.sub(r"\s+comment\s+'.*", "", kind.strip().lower()))
        for name, kind in pairs
    )


def _trino_type(kind: str) -> str:
    return {"string": "varchar", "int": "integer", "float": "real", "timestamp": "timestamp(6)"}.get(
        kind, kind
    )


def _properties(text: str) -> dict[str, str]:
    pairs = [part.split("=", 1) for part in _split(text)]
    return {name.strip().lower(): value.strip() for name, value in pairs}


def _quoted(table: Table) -> str:
    return f'"{table.schema}"."{table.name}"' if table.schema else f'"{table.name}"'


def _parenthesis(text: str, start: int) -> tuple[str, str]:
    """What stands between the parenthesis that opens at `start` and its end, and what follows."""
    depth, quoted = 0, False
    for place in range(start, len(text)):
        letter = text[place]
        if letter == "'":
            quoted = not quoted
        elif not quoted:
            depth += (letter == "(") - (letter == ")")
            if depth == 0:
                return text[start + 1 : place], text[place + 1 :]
    raise SyntaxWrong("a parenthesis does not close")


def _split(text: str) -> list[str]:
    """Parts between commas that are in no brackets and no quotes."""
    parts, depth, quoted, begin = [], 0, False, 0
    for place, letter in enumerate(text):
        if letter == "'":
            quoted = not quoted
        elif not quoted and letter in "([<":
            depth += 1
        elif not quoted and letter in ")]>":
            depth -= 1
        elif not quoted and not depth and letter == ",":
            parts.append(text[begin:place])
            begin = place + 1
    return [part for part in [*parts, text[begin:]] if part.strip()]


def _create_schema(text: str, match: re.Match[str]) -> CreateSchema:
    return CreateSchema(match[2].lower(), bool(match[1]), match[3])


def _set_properties(text: str, match: re.Match[str]) -> SetProperties:
    return SetProperties(_table(match, 1), dict(_PAIR.findall(text[match.end() :])))


def _add_partitions(text: str, match: re.Match[str]) -> AddPartitions:
    return AddPartitions(_table(match, 1), _partitions(text[match.end() - len("partition") :]))


def _repair(text: str, match: re.Match[str]) -> Trino:
    table = _table(match, 1)
    if table.schema is None:
        raise SyntaxWrong("the stand-in repairs tables that are named with their schema")
    return Trino(f"call system.sync_partition_metadata('{table.schema}', '{table.name}', 'ADD')")


_KINDS: list[tuple[re.Pattern[str], Callable[[str, re.Match[str]], Order]]] = [
    (_EXTERNAL, _create_external),
    (_SCHEMA, _create_schema),
    (_ALTER_PROPERTIES, _set_properties),
    (_ADD_PARTITION, _add_partitions),
    (_REPAIR, _repair),
]
