"""An engine that works on the lake itself, in SQL: what Trino and Athena have in common.

A candidate is two schemas of its own, named after its run: one over the staged files, one that dbt fills. All their
files lie under the run's own prefix, `candidates/<run>/`; a dataset none of whose staged files is passed over is read
where it lies. What readers query are views in one schema, over copies of the released Parquet files that are kept as
long as their release is.
"""

from __future__ import annotations

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import structlog

from catalunya import sql
from catalunya.datasets.model import Dataset
from catalunya.datasets.staged import ADDED_COLUMNS, PARTITION, TABLES
from catalunya.errors import BuildFailed, LakeCorrupt, UsageError
from catalunya.lake import layout
from catalunya.lake.s3 import S3Storage
from catalunya.lake.staged import Staged
from catalunya.lake.storage import Storage
from catalunya.settings import Settings
from catalunya.warehouse import dbt
from catalunya.warehouse.engines import staged_tables
from catalunya.warehouse.engines.base import ENGINE_NOTE, Cost, Shown, Snapshots

log = structlog.get_logger(__name__)

_TAIL_BYTES = 256 * 1024
"""Enough for the foot of most Parquet files; longer ones are asked for again."""
Columns = dict[str, str]
"""Column to its type, in the words that DuckDB and Trino share."""


class Candidate:
    """A candidate on a distributed engine."""

    def __init__(self, engine: HiveEngine, candidate_id: str, work: Path) -> None:
        self._engine = engine
        self._id = candidate_id
        self._work = work
        self._read: dict[str, set[str]] = {}

    @property
    def target(self) -> dbt.Target:
        """The profile's output of the engine, on this candidate's schema."""
        variables = tuple(sorted(self._engine.variables(self._id).items()))
        return dbt.Target(self._engine.name, variables, variables)

    def sample(self, query: str, rows: int) -> tuple[str, ...]:
        """The first rows of a query, in order."""
        schema = self._engine.schema(self._id)
        names, _ = self._engine.query(f"select * from ({query}) as rows_of_test limit 0", schema)
        order = ", ".join(str(place + 1) for place in range(len(names)))
        sql = f"select * from ({query}) as rows_of_test order by {order} limit {rows}"
        return dbt.pairs(*self._engine.query(sql, schema))

    def relation(self, con: duckdb.DuckDBPyConnection, mart: dbt.Mart) -> str:
        """The files of the mart's table, fetched into this process's scratch folder."""
        files = self._engine.fetch_table(self._id, mart.name, self._work / "marts" / mart.name)
        typed = ", ".join(
            f"cast({column.name if files else 'null'} as {column.type}) as {column.name}"
            for column in mart.columns
        )
        source = f"from {sql.read_parquet(files)}" if files else "where false"
        return f"(select {typed} {source})"

    def keep(self) -> None:
        """Nothing to move; raises `BuildFailed` when what was read is no longer what was asked for."""
        self._engine.check_sources(self._id)


class HiveEngine(ABC):
    """What Trino and Athena have in common."""

    name: str
    has_readers = True

    def __init__(self, storage: Storage, settings: Settings) -> None:
        if not isinstance(storage, S3Storage):
            raise UsageError(
                f"CATALUNYA_LAKE: {settings.resolved_engine} reads a lake in S3 (s3://bucket/prefix), "
                f"not {settings.lake!r}"
            )
        self.storage = storage
        self.settings = settings
        self._sources: dict[str, dict[str, list[str]]] = {}

    @abstractmethod
    def query(self, sql: str, schema: str | None = None) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Run a statement; names of columns, and rows."""

    @abstractmethod
    def variables(self, candidate_id: str) -> dict[str, str]:
        """What the profile reads from the environment."""

    @abstractmethod
    def create_schema(self, name: str, location: str) -> None:
        """Make a schema, if there is none."""

    @abstractmethod
    def create_table(
        self, schema: str, name: str, columns: Columns, location: str, partition: str | None = None
    ) -> None:
        """A table over the Parquet files at a place; with `partition`, a column that folders are named after."""

    @abstractmethod
    def tables(self, schema: str) -> dict[str, str]:
        """The tables and views of a schema: name to `table` or `view`; empty when there is no such schema."""

    @abstractmethod
    def drop_table(self, schema: str, name: str, kind: str, prefix: str) -> bool:
        """Take a table out of the catalogue; False when that would delete files outside `prefix`, and it was left."""

    @abstractmethod
    def drop_schema(self, name: str) -> None:
        """Remove an empty schema, if there is one."""

    @abstractmethod
    def check(self) -> str:
        """See whether the engine can be used."""

    @abstractmethod
    def cost(self) -> Cost | None:
        """What was asked of the engine so far."""

    def schema(self, candidate_id: str) -> str:
        """The schema that dbt fills."""
        layout.moment_of(candidate_id)
        return f"{self.settings.sql_schema}_candidate_{_word(candidate_id)}"

    def staging_schema(self, candidate_id: str) -> str:
        """The schema over the staged files; the project knows that it is called so."""
        return f"{self.schema(candidate_id)}_staging"

    def prefix(self, candidate_id: str) -> str:
        """The address under which all files of a candidate lie, and nothing else."""
        return self.storage.uri(layout.candidate(candidate_id, "x")).removesuffix("/x")

    def tables_location(self, candidate_id: str) -> str:
        """Where the tables that dbt makes lie, in a folder of each schema."""
        return f"{self.prefix(candidate_id)}/tables"

    @contextmanager
    def build(
        self, candidate_id: str, datasets: dict[str, Dataset], snapshots: Snapshots
    ) -> Iterator[tuple[Candidate, list[Staged]]]:
        """New schemas of the candidate, the first of them over exactly these snapshots."""
        self.check()
        self.discard(candidate_id)
        note = json.dumps({"engine": self.name}).encode()
        self.storage.put(layout.candidate(candidate_id, ENGINE_NOTE), note)
        kept = False
        try:
            with self._work(candidate_id) as work:
                staged = self._write_staging(candidate_id, datasets, snapshots, work)
                schema = self.schema(candidate_id)
                self.create_schema(schema, f"{self.tables_location(candidate_id)}/{schema}")
                yield Candidate(self, candidate_id, work), staged
                kept = True
        finally:
            if not kept:
                self.discard(candidate_id)

    @contextmanager
    def reopen(self, candidate_id: str) -> Iterator[Candidate]:
        """A candidate whose schemas are there."""
        with self._work(candidate_id) as work:
            yield Candidate(self, candidate_id, work)

    def discard(self, candidate_id: str) -> None:
        """Delete a candidate's schemas, and the files under its own prefix.

        A table whose files lie elsewhere is left, with a warning: whoever put it there has to look at it.
        """
        prefix = f"{self.prefix(candidate_id)}/"
        for schema in (self.schema(candidate_id), self.staging_schema(candidate_id)):
            found = self.tables(schema)
            left = [
                name
                for name, kind in sorted(found.items(), key=lambda item: item[1] != "view")
                if not self.drop_table(schema, name, kind, prefix)
            ]
            if left:
                log.warning("tables left", schema=schema, tables=left, reason=f"files outside {prefix}")
            else:
                self.drop_schema(schema)
        self.storage.delete_folder(f"{layout.CANDIDATES}/{candidate_id}")

    def fetch_table(self, candidate_id: str, name: str, folder: Path) -> list[Path]:
        """The files of a table that dbt made, downloaded."""
        place = f"{layout.CANDIDATES}/{candidate_id}/tables/{self.schema(candidate_id)}/{name}"
        return [self.storage.fetch(entry.key, folder) for entry in self.storage.list(place) if entry.size]

    def show(self, release: Shown) -> None:
        """Make tables over the released files, then let the views read them, each view at once and whole."""
        note = layout.published(self.settings.sql_schema)
        shown = json.loads(self.storage.read(note)) if self.storage.exists(note) else {}
        if shown.get("release_id") == release.release_id:
            return
        schema, tables = self.settings.sql_schema, f"{self.settings.sql_schema}_releases"
        self.create_schema(schema, self.storage.uri(f"{layout.PUBLISHED}/{schema}"))
        self.create_schema(tables, self.storage.uri(f"{layout.PUBLISHED}/{tables}"))
        known = self.tables(tables)
        columns = {mart: self._publish_table(release, mart, tables, known) for mart in release.marts}
        for mart, names in columns.items():
            listed = ", ".join(names)
            source = f"{tables}.{_table_of(mart, release.release_id)}"
            self.query(f"create or replace view {schema}.{mart} as select {listed} from {source}", schema)
        content = json.dumps({"release_id": release.release_id, "marts": sorted(columns)})
        self.storage.put(note, content.encode())
        self._forget_old(tables)

    def _publish_table(self, release: Shown, mart: str, schema: str, known: dict[str, str]) -> list[str]:
        """A table over a copy of the mart's released file, in a folder of its own; its columns."""
        source = layout.release(release.release_id, f"parquet/{mart}.parquet")
        target = layout.published_file(release.release_id, mart)
        if not self.storage.exists(target):
            self.storage.copy(source, target)
        with self._work(f"show-{release.release_id}") as work:
            columns = _columns_of(self._foot(source, work))
        name = _table_of(mart, release.release_id)
        if name not in known:
            self.create_table(schema, name, columns, self.storage.uri(target).rpartition("/")[0])
        return list(columns)

    def _forget_old(self, schema: str) -> None:
        """Remove the tables of releases that are no longer kept."""
        kept = set(self.storage.folders(layout.RELEASES))
        gone = [r for r in self.storage.folders(f"{layout.PUBLISHED}/files") if r not in kept]
        known = self.tables(schema) if gone else {}
        for release_id in gone:
            for name, kind in known.items():
                if name.endswith(f"_{_word(release_id)}"):
                    prefix = self.storage.uri(f"{layout.PUBLISHED}/files/{release_id}")
                    self.drop_table(schema, name, kind, f"{prefix}/")
            self.storage.delete_folder(f"{layout.PUBLISHED}/files/{release_id}")

    def check_sources(self, candidate_id: str) -> None:
        """Raise `BuildFailed` when a folder that was read as a whole has other files by now."""
        for dataset_id, keys in self._sources.pop(candidate_id, {}).items():
            if _staged_files(self.storage, dataset_id) != keys:
                raise BuildFailed(
                    f"{dataset_id}: snapshots were staged while the marts were built from them; run again"
                )

    def _write_staging(
        self, candidate_id: str, datasets: dict[str, Dataset], snapshots: Snapshots, work: Path
    ) -> list[Staged]:
        schema = self.staging_schema(candidate_id)
        self.create_schema(schema, f"{self.prefix(candidate_id)}/staging")
        feet: list[Path] = []
        for dataset in datasets.values():
            keys = staged_tables.staged_keys(self.storage, dataset, snapshots[dataset.id])
            with ThreadPoolExecutor(staged_tables.FETCHES_AT_ONCE) as pool:
                feet += pool.map(lambda key: self._foot(key, work / "feet"), keys)
            location = self._location(candidate_id, dataset.id, keys)
            columns = {column.name: column.kind.sql for column in dataset.columns}
            columns |= {column.name: column.sql for column in ADDED_COLUMNS}
            self.create_table(schema, dataset.id, columns, location, PARTITION.name)
        with duckdb.connect() as con:
            staged = staged_tables.records(con, feet)
            staged_tables.check_digests(datasets, staged)
            quarantine = staged_tables.fetch_quarantined(self.storage, staged, work / "quarantine")
            con.execute("create schema staging")
            staged_tables.create_tables(con, datasets, staged, quarantine)
            for name, table in TABLES.items():
                file = work / f"{name}.parquet"
                con.execute(f"copy staging.{name} to {sql.quote(str(file))} (format parquet)")
                key = layout.candidate(candidate_id, f"staging/{name}/{file.name}")
                self.storage.put_file(key, file)
                self.create_table(schema, name, table.types, self.storage.uri(key).rpartition("/")[0])
        return staged

    def _location(self, candidate_id: str, dataset_id: str, keys: list[str]) -> str:
        """A place that holds exactly these staged files: theirs, or one of copies when others lie among them."""
        if keys and _staged_files(self.storage, dataset_id) == keys:
            self._sources.setdefault(candidate_id, {})[dataset_id] = keys
            return self.storage.uri(f"{layout.STAGING}/{dataset_id}")
        for key in keys:
            self.storage.copy(key, layout.candidate(candidate_id, key))
        return self.storage.uri(layout.candidate(candidate_id, f"{layout.STAGING}/{dataset_id}"))

    def _foot(self, key: str, folder: Path) -> Path:
        """A file of the stored one's size with only its last bytes: all that reading Parquet metadata needs."""
        size, tail = self.storage.read_tail(key, _TAIL_BYTES)
        if tail[-4:] != b"PAR1":
            raise LakeCorrupt(f"{self.storage.uri(key)} is no Parquet file; run `catalunya run --rebuild`")
        needed = int.from_bytes(tail[-8:-4], "little") + 8
        if needed > len(tail):
            size, tail = self.storage.read_tail(key, needed)
        path = folder / key.replace("/", "-")
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.truncate(size)
            file.seek(size - len(tail))
            file.write(tail)
        return path

    @contextmanager
    def _work(self, name: str) -> Iterator[Path]:
        work = self.storage.scratch() / f"{self.name}-{name}"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _staged_files(storage: Storage, dataset_id: str) -> list[str]:
    """Every staged file of a dataset, also of snapshots that are refused."""
    found = storage.list(f"{layout.STAGING}/{dataset_id}")
    return sorted(entry.key for entry in found if entry.key.endswith(".parquet"))


def _columns_of(file: Path) -> Columns:
    """Columns of a Parquet file with their types."""
    with duckdb.connect() as con:
        rows = con.execute(f"describe from {sql.read_parquet(file)}").fetchall()
    return {str(name): str(kind).lower() for name, kind, *_ in rows}


def _word(identifier: str) -> str:
    """An id as part of an SQL name."""
    return identifier.lower().replace("-", "_")


def _table_of(mart: str, release_id: str) -> str:
    return f"{mart}_{_word(release_id)}"
