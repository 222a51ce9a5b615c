"""A warehouse for tests: staging tables by hand in a real DuckDB file, and dbt run on them."""

from __future__ import annotations

import contextlib
import datetime
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pytest

from catalunya.build import code_digest
from catalunya.datasets.loader import load
from catalunya.datasets.staged import TABLES
from catalunya.warehouse import dbt
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
    """Staging by hand; `build` lets dbt make the rest, `rows` reads it."""

    path: Path
    work: Path
    results: dict[str, str] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)

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
        self.messages = {r.node.name: str(r.message) for r in answer.results}
        return self.results

    @property
    def manifest(self) -> dict[str, Any]:
        """The parsed project as plain data."""
        return parsed().described

    def build(self, *arguments: str) -> Warehouse:
        """Build everything and test it; fails on an error, not on a warning."""
        results = self.dbt("build", *arguments)
        broken = {n: self.messages[n] for n, s in results.items() if s in {"error", "fail", "skipped"}}
        assert not broken, broken
        return self

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
