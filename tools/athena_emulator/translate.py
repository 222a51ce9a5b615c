"""Translate a statement for Athena into what Trino, Glue or ministack is asked to do.

Athena takes data definition in Hive's dialect and everything else in Trino's. sqlglot reads the definitions; queries
are left as they are. What Athena does not support is named in `unsupported.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import sqlglot
from sqlglot import TokenType, exp
from sqlglot.errors import SqlglotError

from tools.athena_emulator.unsupported import StatementFailed

CATALOG = "awsdatacatalog"
ICEBERG = "iceberg"

_LEADING_COMMENT = re.compile(r"^(?:\s+|--[^\n]*(?:\n|$)|/\*.*?\*/)+", re.DOTALL)
_HIVE_PROPERTIES = {
    "external_location": "external_location",
    "format": "format",
    "partitioned_by": "partitioned_by",
    "bucketed_by": "bucketed_by",
    "bucket_count": "bucket_count",
    "field_delimiter": "textfile_field_separator",
}
"""Properties of `create table as` in Athena to those of Trino's Hive connector."""
_ICEBERG_PROPERTIES = ("format", "location", "partitioning")


@dataclass(frozen=True)
class Table:
    """The name of a table; without a schema it is in the one of the query."""

    schema: str | None
    name: str


@dataclass(frozen=True)
class TrinoStatement:
    """A statement for Trino, in `catalog`, with session properties."""

    sql: str
    catalog: str = CATALOG
    session: dict[str, str] = field(default_factory=dict)
    writes_to: str | None = None
    """Where the files of a new table go; that has to be empty."""


@dataclass(frozen=True)
class CreateExternalTable:
    """A table over files that exist, for ministack."""

    table: Table
    sql: str


@dataclass(frozen=True)
class SetProperties:
    """New properties of a table, for Glue."""

    table: Table
    properties: dict[str, str]


@dataclass(frozen=True)
class AddPartitions:
    """Partitions with their values and, where given, their own locations, for Glue."""

    table: Table
    partitions: tuple[tuple[tuple[str, ...], str | None], ...]


GlueStatement = CreateExternalTable | SetProperties | AddPartitions


def without_leading_comments(sql: str) -> str:
    """Return the statement without the comments before it and the semicolon after it."""
    return _LEADING_COMMENT.sub("", sql).rstrip().removesuffix(";").rstrip()


def translate(sql: str, default_location: str) -> TrinoStatement | GlueStatement:
    """Return what carries out `sql`; a table without a location of its own goes to `default_location`.

    Raises:
        StatementFailed: a definition cannot be read.
    """
    text = without_leading_comments(sql)
    kind = " ".join(text.lower().split(None, 2)[:2])
    try:
        if kind == "create table":
            return _create_table(text, default_location)
        if kind in _DEFINITIONS:
            return _DEFINITIONS[kind](text)
    except SqlglotError as error:
        raise StatementFailed(f"SYNTAX_ERROR: {error}") from error
    is_hive = kind.startswith(("drop ", "alter ", "describe ", "show "))
    return TrinoStatement(text.replace("`", '"') if is_hive else text)


def _parse(text: str) -> exp.Expr:
    parsed = sqlglot.parse_one(text, read="athena")
    if isinstance(parsed, exp.Command):
        raise StatementFailed(f"SYNTAX_ERROR: cannot read the definition: {text}")
    return parsed


def _table(statement: exp.Expr) -> Table:
    found = statement.find(exp.Table)
    if found is None or not found.name:
        raise StatementFailed(f"SYNTAX_ERROR: no name of a table: {statement.sql()}")
    return Table(found.db.lower() or None, found.name.lower())


def _split_query(text: str) -> tuple[str, str | None]:
    """Split `create table … as query` before and after its `as`; None for a table without a query."""
    depth = 0
    for token in sqlglot.tokenize(text, read="athena"):
        depth += (token.token_type == TokenType.L_PAREN) - (token.token_type == TokenType.R_PAREN)
        if depth == 0 and token.token_type == TokenType.ALIAS:
            return text[: token.start], text[token.end + 1 :].strip()
    return text, None


def _create_table(text: str, default_location: str) -> TrinoStatement:
    head, query = _split_query(text)
    if query is None:
        return _create_iceberg_table(_parse(text), text)
    return _create_table_as(_parse(f"{head} as select 1"), query, default_location)


def _properties(create: exp.Expr) -> dict[str, str]:
    """Return the properties of a table by lower-case name, with their values as Trino writes them."""
    written = [each.sql("trino") for each in create.args["properties"] or ()]
    return {name.lower(): value for name, value in (each.split("=", 1) for each in written)}


def _create_table_as(create: exp.Expr, query: str, default_location: str) -> TrinoStatement:
    given = _properties(create)
    if given.get("table_type", "").lower() == "'iceberg'":
        if "location" not in given:
            raise StatementFailed("an Iceberg table needs a location")
        made = {name: given[name] for name in _ICEBERG_PROPERTIES if name in given}
        # The query reads tables of the default catalog; only the new table is Iceberg's.
        catalog = ICEBERG if _table(create).schema else ""
        sql = _create(create, made, f" as {query}", catalog=catalog)
        return TrinoStatement(sql, catalog=CATALOG if catalog else ICEBERG)
    location = given.setdefault("external_location", f"'{default_location}'")
    made = {name: given[athena] for athena, name in _HIVE_PROPERTIES.items() if athena in given}
    codec = given.get("write_compression", given.get("parquet_compression"))
    session = {f"{CATALOG}.compression_codec": codec.strip("'").upper()} if codec else {}
    return TrinoStatement(
        _create(create, made, f" as {query}"), session=session, writes_to=location.strip("'")
    )


def _create_iceberg_table(create: exp.Expr, text: str) -> TrinoStatement:
    """`create table … location … tblproperties ('table_type'='iceberg')`: the only kind that is not external."""
    location = create.find(exp.LocationProperty)
    if location is None:
        raise StatementFailed("an Iceberg table needs a location")
    made = {"location": f"'{location.name.rstrip('/')}'"}
    if partitioned := re.search(r"\bpartitioned\s+by\s*\(((?:[^()]|\([^()]*\))*)\)", text, re.I):
        parts = re.findall(r"[^\s,()]+(?:\s*\([^()]*\))?", partitioned[1].replace("`", ""))
        made["partitioning"] = "array[" + ", ".join(f"'{part}'" for part in parts) + "]"
    columns = ", ".join(
        # Timestamps of Iceberg have six digits.
        f'"{each.name.lower()}" {each.args["kind"].sql("trino").lower().replace("timestamp", "timestamp(6)")}'
        for each in create.find_all(exp.ColumnDef)
    )
    return TrinoStatement(_create(create, made, columns=f" ({columns})"), catalog=ICEBERG)


def _create(
    create: exp.Expr, properties: dict[str, str], query: str = "", columns: str = "", catalog: str = ""
) -> str:
    """Return `create table` for Trino; names are in lower case, as in Glue."""
    table = _table(create)
    name = ".".join(f'"{part}"' for part in (catalog, table.schema, table.name) if part)
    exists = "if not exists " if create.args["exists"] else ""
    listed = ", ".join(
        f"{key} = {value.upper() if key == 'format' else value}" for key, value in properties.items()
    )
    return f"create table {exists}{name}{columns} with ({listed}){query}"


def _create_external_table(text: str) -> CreateExternalTable:
    create = _parse(text)
    if create.find(exp.LocationProperty) is None:
        raise StatementFailed("an external table needs a location")
    return CreateExternalTable(_table(create), text)


def _create_schema(text: str) -> TrinoStatement:
    create = _parse(text)
    create.set("kind", "SCHEMA")
    for comment in list(create.find_all(exp.SchemaCommentProperty)):
        comment.pop()
    return TrinoStatement(create.sql("trino"))


def _alter_table(text: str) -> TrinoStatement | GlueStatement:
    """Alter a table; partitions are read by hand, since sqlglot reads one of them in a statement, not several."""
    if added := re.match(r"(.*?)\badd\s+(?:if\s+not\s+exists\s+)?(partition\b.*)", text, re.I | re.S):
        found = re.findall(r"partition\s*\(([^)]*)\)(?:\s*location\s+'([^']*)')?", added[2], re.I)
        partitions = (
            (tuple(re.findall(r"=\s*(?:date\s*)?'([^']*)'", values)), location.rstrip("/") or None)
            for values, location in found
        )
        return AddPartitions(_table(_parse(f"{added[1]} drop column x")), tuple(partitions))
    if re.search(r"\bset\s+tblproperties\b", text, re.I):
        alter = _parse(text)
        properties = {each.name: each.args["value"].name for each in alter.find_all(exp.Property)}
        return SetProperties(_table(alter), properties)
    return TrinoStatement(text.replace("`", '"'))


def _repair(text: str) -> TrinoStatement:
    table = _table(_parse(re.sub(r"^msck\s+repair", "drop", text, flags=re.I)))
    if table.schema is None:
        raise StatementFailed("the emulator repairs tables that are named with their schema")
    return TrinoStatement(f"call system.sync_partition_metadata('{table.schema}', '{table.name}', 'ADD')")


_DEFINITIONS: dict[str, Callable[[str], TrinoStatement | GlueStatement]] = {
    "create external": _create_external_table,
    "create schema": _create_schema,
    "create database": _create_schema,
    "alter table": _alter_table,
    "msck repair": _repair,
}
