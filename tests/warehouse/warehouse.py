"""A warehouse for tests: staging tables by hand in a real DuckDB file, and the dbt project built on them.

`build` runs the statements of dbt that a run of the pipeline keeps; `build_by_dbt` runs dbt itself, with its unit tests.
`test_project.py` compares the two.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import io
import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest

from catalunya.datasets.loader import load
from catalunya.datasets.staged import TABLES
from catalunya.warehouse import dbt, dbt_models, dbt_tests
from catalunya.warehouse.code import code_digest
from tests.project import ROOT

PROJECT = ROOT / "dbt" / "mart"

COLUMNS = {
    definition.id: ", ".join(f"{column.name} {column.kind.sql}" for column in definition.columns)
    for definition in load(ROOT / "datasets").values()
}
RESIDENCE = "Servei de residència assistida per a gent gran de caràcter temporal o permanent"
DAY_CENTRE = "Servei de centre de dia per a gent gran de caràcter temporal o permanent"
PUBLIC = "Entitat d'iniciativa pública"
MERCANTILE = "Entitat privada d'iniciativa mercantil"

Row = dict[str, Any]


def parsed() -> Any:
    """The parsed project; dbt names DuckDB's catalogue after the file, so all warehouses share one file name."""
    return dbt.parse(PROJECT, code_digest(ROOT))


@functools.lru_cache(maxsize=1)
def kept_models() -> dbt_models.Models:
    """The statements of dbt that build the project, from the user's cache or a build of empty tables."""
    digest = code_digest(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        models = dbt_models.kept_models(PROJECT, digest)
        if models is None:
            empty = Warehouse(Path(folder, dbt.CANDIDATE), Path(folder))
            variables = (("CATALUNYA_CANDIDATE", str(empty.path)),)
            target = dbt.Target("duckdb", variables, dbt.DUCKDB.parsed_with)
            dbt_models.build_by_dbt(PROJECT, digest, target, lambda *_: ())
            models = dbt_models.kept_models(PROJECT, digest)
    assert models is not None
    return models


def compiled_tests() -> tuple[dbt_tests.CompiledTest, ...]:
    """The tests of the project."""
    tests = dbt_tests.compiled_tests(PROJECT, code_digest(ROOT))
    assert tests is not None
    return tests


def run_tests(con: duckdb.DuckDBPyConnection) -> tuple[dbt.NodeResult, ...]:
    """The tests of the project, compiled by dbt and run by DuckDB alone, as the audit runs them."""
    con.execute("set TimeZone = 'UTC'")

    def sample(query: str, rows: int) -> tuple[str, ...]:
        found = con.execute(f"select * from ({query}) order by all limit {rows}")
        return dbt.pairs([column[0] for column in found.description or []], found.fetchall())

    return dbt_tests.run_tests(con, compiled_tests(), sample)


def query_of(test: str) -> str:
    """The query of a test, which finds the rows that break it."""
    return next(one.query for one in compiled_tests() if one.test.name == test)


def _drop(con: duckdb.DuckDBPyConnection, relation: str) -> None:
    """Remove what an earlier build made."""
    found = con.execute(
        "select table_type from information_schema.tables where table_schema || '.' || table_name = ?",
        [relation],
    )
    for (kind,) in found.fetchall():
        con.execute(f"drop {'view' if kind == 'VIEW' else 'table'} {relation}")


def _invoke(path: Path, work: Path, command: tuple[str, ...], manifest: Any) -> Any:
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager
    from dbt.cli.main import dbtRunner

    arguments = [
        *command,
        "--project-dir", str(PROJECT),
        "--profiles-dir", str(dbt.profiles_folder(PROJECT)),
        "--target-path", str(work / "target"),
        "--log-path", str(work / "logs"),
        "--log-level", "none",
        "--log-level-file", "none",
        "--quiet",
        "--no-version-check",
        "--no-write-json",
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.setenv("CATALUNYA_CANDIDATE", str(path))
        try:
            answer = dbtRunner(manifest=manifest).invoke(arguments)
        finally:
            DuckDBConnectionManager.close_all_connections()
    assert answer.exception is None, answer.exception
    return answer.result


@dataclass
class Warehouse:
    """Staging by hand; `build` makes the rest, `rows` reads it."""

    path: Path
    work: Path
    """Where dbt writes."""
    results: dict[str, str] = field(default_factory=dict)
    """The status of every node, and of every rule of a test that is broken, by name."""
    failures: dict[str, int] = field(default_factory=dict)
    """How many rows break a test."""

    def __post_init__(self) -> None:
        if self.path.exists():
            return
        with duckdb.connect(self.path) as con:
            con.execute("create schema staging")
            for table, columns in COLUMNS.items():
                con.execute(
                    f"create table staging.{table} "
                    f"({columns}, raw varchar, snapshot_id varchar, snapshot_date date)"
                )
            for table, described in TABLES.items():
                listed = ", ".join(f"{column} {kind}" for column, kind in described.types.items())
                con.execute(f"create table staging.{table} ({listed})")

    def add(
        self,
        dataset_id: str,
        moment: str,
        rows: Iterable[Row],
        *,
        updated_on: datetime.date | None = None,
        unusable: Iterable[str] = (),
        invalid: Mapping[str, int] | None = None,
        **counts: int,
    ) -> str:
        """Add one snapshot taken at `moment` (ISO 8601) and return its id; `updated_on` is the publisher's date.

        `unusable` are the keys of rows in quarantine, `invalid` columns to the number of bad values that are null.
        """
        keys = list(unusable)
        taken_at = datetime.datetime.fromisoformat(moment)
        snapshot_id = f"{taken_at:%Y%m%dT%H%M%SZ}-00000000"
        rows = [{**row, "snapshot_id": snapshot_id, "snapshot_date": taken_at.date()} for row in rows]
        with duckdb.connect(self.path) as con:
            if rows:
                file = self.path.with_suffix(".json")
                file.write_text(json.dumps(rows, default=str), encoding="utf-8")
                types = ", ".join(
                    "{}: '{}'".format(*column.split()) for column in COLUMNS[dataset_id].split(", ")
                )
                types += ", snapshot_id: 'varchar', snapshot_date: 'date'"
                con.execute(
                    f"insert into staging.{dataset_id} by name "
                    f"select * from read_json('{file}', format = 'array', columns = {{{types}}})"
                )
            con.execute(
                "insert into staging.snapshots (dataset_id, snapshot_id, snapshot_date, taken_at, rows_in, rows_staged, "
                "rows_quarantined, rows_duplicated, source_updated_on) values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    dataset_id, snapshot_id, taken_at.date(), taken_at,
                    counts.get("rows_in", len(rows) + len(keys)), len(rows),
                    counts.get("rows_quarantined", len(keys)), counts.get("rows_duplicated", 0), updated_on,
                ],
            )  # fmt: skip
            for key in keys:
                con.execute(
                    "insert into staging.quarantined values (?, ?, ?)", [dataset_id, snapshot_id, key]
                )
            for column, count in (invalid or {}).items():
                con.execute(
                    "insert into staging.invalid_values values (?, ?, ?, ?)",
                    [dataset_id, snapshot_id, column, count],
                )
        return snapshot_id

    def dbt(self, *command: str) -> dict[str, str]:
        """Run dbt and return the status of every node by name."""
        answer = _invoke(self.path, self.work, command, parsed().manifest)
        self.results = {r.node.name: str(r.status) for r in answer.results}
        self.failures = {r.node.name: r.failures or 0 for r in answer.results}
        return self.results

    @property
    def manifest(self) -> dict[str, Any]:
        """The parsed project as plain data."""
        return parsed().described

    def build_by_dbt(self) -> Warehouse:
        """Build everything and test it by dbt; fails on an error, not on a warning."""
        self._check(self.dbt("build"))
        return self

    def build(self, *, seeds: bool = True, tests: bool = True) -> Warehouse:
        """Build everything and test it as a run of the pipeline does; fails on an error, not on a warning."""
        self._run("seed", "model") if seeds else self._run("model")
        if tests:
            with duckdb.connect(self.path, read_only=True) as con:
                found = run_tests(con)
            self.results |= {result.name: result.status for result in found}
            self.failures = {result.name: result.failures for result in found}
        self._check(self.results)
        return self

    def seed(self) -> None:
        """Make the tables of the seeds alone."""
        self._run("seed")

    def _run(self, *kinds: str) -> None:
        models = kept_models()
        nodes = tuple(
            msgspec.structs.replace(node, parents=tuple(p for p in node.parents if p.split(".")[0] in kinds))
            for node in models.nodes
            if node.result.kind in kinds
        )
        with duckdb.connect(self.path) as con:
            for node in nodes:
                _drop(con, node.result.relation)
            outcome = dbt_models.run_models(con, msgspec.structs.replace(models, nodes=nodes), threads=1)
        self.results = {result.name: result.status for result in outcome.results}

    def _check(self, results: dict[str, str]) -> None:
        broken = {name for name, status in results.items() if status in {"error", "fail", "skipped"}}
        assert not broken, broken

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What the query finds in the finished file."""
        with duckdb.connect(self.path, read_only=True) as con:
            return con.execute(query).fetchall()

    def column(self, query: str) -> list[Any]:
        """The first column of what the query finds."""
        return [row[0] for row in self.rows(query)]

    def value(self, query: str) -> Any:
        """The only value that the query finds."""
        ((value,),) = self.rows(query)
        return value


def service(service_id: str, **changes: Any) -> Row:
    """A row of the register: a public residence in Olost, but for the changes."""
    return {
        "service_id": service_id,
        "name": f"Residència {service_id}",
        "service_type": RESIDENCE,
        "registered_on": datetime.date(2020, 6, 1),
        "places": 10,
        "address": "carrer Major, 1",
        "municipality_name": "Olost",
        "comarca_name": "Lluçanès",
        "owner_name": "Ajuntament",
        "ownership_name": PUBLIC,
        **changes,
    }


def municipality(municipality_id: str, name: str, comarca_id: str, comarca_name: str | None) -> Row:
    """A row of the municipality list."""
    return {
        "municipality_id": municipality_id,
        "name": name,
        "comarca_id": comarca_id,
        "comarca_name": comarca_name,
        "longitude": 2.0,
        "latitude": 41.5,
    }


def people(municipality_id: str, year: int, aged_65_over: int | None, everybody: int = 1000) -> Row:
    """A row of the population table."""
    return {
        "municipality_id": municipality_id,
        "year": year,
        "people": everybody,
        "people_aged_65_over": aged_65_over,
    }
