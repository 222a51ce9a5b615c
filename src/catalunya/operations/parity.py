"""Builds the marts on several engines and compares them row for row."""

from __future__ import annotations

import secrets
import shutil
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Any

import duckdb
from pydantic import BaseModel, ConfigDict

from catalunya.build import Inputs, build_models, inputs
from catalunya.datasets.model import Dataset
from catalunya.errors import UsageError
from catalunya.lake import layout
from catalunya.lake.storage import Storage
from catalunya.settings import ENGINES, Settings
from catalunya.settings import Engine as EngineName
from catalunya.warehouse import dbt
from catalunya.warehouse.engines import Engine, open_engine
from catalunya.warehouse.engines.base import Cost

SHOWN = 20
"""Differences that are listed for each table and engine; all are counted."""
_ROW = "the whole row"


class Difference(BaseModel):
    """One value, or one row, that differs between two engines."""

    model_config = ConfigDict(frozen=True)

    table: str
    key: dict[str, str | None]
    column: str
    engines: tuple[str, str]
    values: tuple[str | None, str | None]

    def __str__(self) -> str:
        key = ", ".join(f"{name}={value}" for name, value in self.key.items())
        (one, other), (here, there) = self.engines, self.values
        return f"{self.table} ({key}) {self.column}: {one} has {here}, {other} has {there}"


class Built(BaseModel):
    """What one engine built: rows of each mart, seconds, and what the build cost on a distributed engine."""

    model_config = ConfigDict(frozen=True)

    engine: str
    seconds: float
    rows: dict[str, int]
    cost: Cost | None


class Parity(BaseModel):
    """The comparison of all engines with the first one."""

    model_config = ConfigDict(frozen=True)

    snapshots: dict[str, tuple[str, ...]]
    built: tuple[Built, ...]
    different: dict[str, int]
    """Table to the number of its differences; empty when all is equal."""
    differences: tuple[Difference, ...]


def parse_engines(text: str) -> tuple[EngineName, ...]:
    """Return the engines of a text such as `duckdb,trino`; raises `UsageError` for unknown ones or fewer than two."""
    known: dict[str, EngineName] = {name: name for name in ENGINES}
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in known]
    if unknown or len(set(names)) < 2 or len(set(names)) < len(names):
        raise UsageError(f"--engines: name at least two different ones of {', '.join(known)}, not {text!r}")
    return tuple(known[name] for name in names)


def parity(
    storage: Storage,
    datasets: dict[str, Dataset],
    settings: Settings,
    engines: tuple[EngineName, ...],
    *,
    now: datetime,
    on_step: Callable[[str], None] | None = None,
) -> Parity:
    """Build every mart from all staged snapshots on each engine, and compare; what was built is deleted.

    Raises `BuildFailed` when an engine cannot build. Call it only while the lake is locked.
    """
    wanted = inputs(storage, datasets, settings.home)
    opened = [open_engine(storage, settings.model_copy(update={"engine": name})) for name in engines]
    work = storage.scratch() / "parity"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        with duckdb.connect(work / "parity.duckdb") as con:
            built = []
            for engine in opened:
                candidate_id = layout.make_id(now, secrets.token_hex(4))
                built.append(_build(engine, candidate_id, datasets, wanted, settings, con, on_step))
            different, found = _compare_all(con, engines, settings, wanted)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Parity(
        snapshots=wanted.snapshots, built=tuple(built), different=different, differences=tuple(found)
    )


def _build(
    engine: Engine,
    candidate_id: str,
    datasets: dict[str, Dataset],
    wanted: Inputs,
    settings: Settings,
    con: duckdb.DuckDBPyConnection,
    on_step: Callable[[str], None] | None,
) -> Built:
    """Build on one engine and copy the rows of every mart into the schema of its name."""
    started = time.monotonic()
    con.execute(f"create schema {engine.name}")
    rows: dict[str, int] = {}
    try:
        with engine.build(candidate_id, datasets, wanted.snapshots) as (workspace, _):
            on_node = None if on_step is None else lambda line: on_step(f"{engine.name}: {line}")
            outcome = build_models(workspace, settings.home, wanted.code, on_node)
            seconds = round(time.monotonic() - started, 3)
            for mart in outcome.marts:
                table = f"{engine.name}.{mart.name}"
                con.execute(f"create table {table} as select * from {workspace.relation(con, mart)}")
                rows[mart.name] = _count(con, f"from {table}")
            con.execute("detach database if exists candidate")
    finally:
        engine.discard(candidate_id)
    return Built(engine=engine.name, seconds=seconds, rows=rows, cost=engine.cost())


def _compare_all(
    con: duckdb.DuckDBPyConnection, engines: tuple[EngineName, ...], settings: Settings, wanted: Inputs
) -> tuple[dict[str, int], list[Difference]]:
    described = dbt.parse(settings.home / "dbt" / "mart", wanted.code).described
    keys = dbt.keys(described)
    counts: Counter[str] = Counter()
    listed: list[Difference] = []
    for other in engines[1:]:
        for mart in dbt.marts(described):
            count, found = compare(con, mart.name, keys.get(mart.name, ()), (engines[0], other))
            counts[mart.name] += count
            listed += found
    return dict(+counts), listed


def compare(
    con: duckdb.DuckDBPyConnection, table: str, key: tuple[str, ...], schemas: tuple[str, str]
) -> tuple[int, list[Difference]]:
    """Return the number of differences between a table in two schemas, and the first of them by key.

    Rows are matched by `key`, by all columns when it is empty. A row that only one side has is one difference,
    and so is every value that differs, also in its type.
    """

    def whole_table(column: str, values: list[str]) -> Difference:
        return Difference(table=table, key={}, column=column, engines=schemas, values=(values[0], values[1]))

    one, other = (_types(con, schema, table) for schema in schemas)
    if one != other:
        columns = [", ".join(f"{name} {kind}" for name, kind in side.items()) for side in (one, other)]
        return 1, [whole_table("the columns", columns)]
    here, there = (f"select * from {schema}.{table}" for schema in schemas)
    count = _count(con, f"({here} except all {there}) union all ({there} except all {here})")
    if not count:
        return 0, []
    matched = key or tuple(one)
    values = [name for name in one if name not in matched]
    rows = con.execute(_differences(table, matched, values, schemas)).fetchall()
    listed = [
        Difference(
            table=table,
            key=dict(zip(matched, row, strict=False)),
            column=row[-3],
            engines=schemas,
            values=row[-2:],
        )
        for row in rows
    ]
    if not listed:
        sizes = [f"{_count(con, rows)} rows" for rows in (here, there)]
        return count, [whole_table("rows that are there more than once", sizes)]
    return len(listed), listed[:SHOWN]


def _differences(table: str, key: tuple[str, ...], values: list[str], schemas: tuple[str, str]) -> str:
    """Return the query for key, column and both values, as text, of all that differs."""
    one, other = schemas
    keys = ", ".join(f"cast(coalesce(a.{name}, b.{name}) as varchar) as {name}" for name in key)
    same = " and ".join(f"a.{name} is not distinct from b.{name}" for name in key)
    lone = (
        f"select {keys}, '{_ROW}' as column_name, "
        "case when a.is_there then 'it' else 'nothing' end, case when b.is_there then 'it' else 'nothing' end "
        f"from (select *, true as is_there from {one}.{table}) as a "
        f"full join (select *, true as is_there from {other}.{table}) as b on {same} "
        "where a.is_there is null or b.is_there is null"
    )
    parts = [lone] + [
        f"select {keys}, '{name}', cast(a.{name} as varchar), cast(b.{name} as varchar) "
        f"from {one}.{table} as a inner join {other}.{table} as b on {same} "
        f"where a.{name} is distinct from b.{name}"
        for name in values
    ]
    return f"select * from ({' union all '.join(parts)}) order by all"


def _types(con: duckdb.DuckDBPyConnection, schema: str, table: str) -> dict[str, str]:
    return {name: kind for name, kind, *_ in con.execute(f"describe {schema}.{table}").fetchall()}


def _count(con: duckdb.DuckDBPyConnection, query: str) -> int:
    """Return the number of rows of a query."""
    row: tuple[Any, ...] | None = con.execute(f"select count(*) from ({query})").fetchone()
    return int(row[0]) if row else 0
