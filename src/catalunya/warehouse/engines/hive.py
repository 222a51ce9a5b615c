"""What Trino and Athena have in common: engines with a Hive catalogue that read and write the lake by SQL.

A candidate has two schemas that are named after its run: one over the staged files, one that dbt fills. Their files are
under the prefix `candidates/<run>/`; a dataset of which every staged file is used is read in place. Readers query views
in one schema, over copies of the released Parquet files that are deleted with their release.
"""

from __future__ import annotations

import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from catalunya import sql
from catalunya.datasets.model import Dataset
from catalunya.datasets.staged import ADDED_COLUMNS, PARTITION, TABLES
from catalunya.errors import BuildFailed, LakeCorrupt, UsageError
from catalunya.lake import layout
from catalunya.lake.s3 import S3Storage
from catalunya.lake.staged import Staged
from catalunya.lake.storage import Storage
from catalunya.lake.temporary import temporary_folder
from catalunya.log import get_logger
from catalunya.settings import Settings
from catalunya.warehouse import dbt
from catalunya.warehouse.engines import staged_tables
from catalunya.warehouse.engines.base import ENGINE_NOTE, Engine, PublishedRelease, Snapshots

log = get_logger(__name__)

_TAIL_BYTES = 256 * 1024
"""Enough for the footer of most Parquet files; a longer one is read again."""
Columns = dict[str, str]
"""Column to its type, by a name that DuckDB and Trino share."""


class HiveWorkspace:
    """An open candidate on a distributed engine."""

    def __init__(self, engine: HiveEngine, candidate_id: str, work: Path) -> None:
        self._engine = engine
        self._id = candidate_id
        self._work = work

    @property
    def target(self) -> dbt.Target:
        """The output of the profile for the engine, on this candidate's schema."""
        variables = tuple(sorted(self._engine.variables(self._id).items()))
        return dbt.Target(self._engine.name, variables, variables)

    def sample(self, query: str, rows: int) -> tuple[str, ...]:
        """Return the first rows of a query, in order."""
        schema = self._engine.schema(self._id)
        names, _ = self._engine.query(f"select * from ({query}) as rows_of_test limit 0", schema)
        order = ", ".join(str(place + 1) for place in range(len(names)))
        ordered = f"select * from ({query}) as rows_of_test order by {order} limit {rows}"
        return dbt.pairs(*self._engine.query(ordered, schema))

    def build(self, project: Path, digest: str, on_node: Callable[[str], None] | None = None) -> dbt.Outcome:
        """Let dbt build them."""
        return dbt.invoke(
            dbt.BUILD, project=project, digest=digest, target=self.target, sample=self.sample, on_node=on_node
        )

    def test(
        self, project: Path, digest: str, on_node: Callable[[str], None] | None = None
    ) -> tuple[dbt.NodeResult, ...]:
        """Let dbt run them."""
        return dbt.invoke(
            dbt.TEST, project=project, digest=digest, target=self.target, sample=self.sample, on_node=on_node
        ).results

    def relation(self, con: duckdb.DuckDBPyConnection, mart: dbt.Mart) -> str:
        """Download the files of the mart's table, and return them as a relation."""
        files = self._engine.fetch_table(self._id, mart.name, self._work / "marts" / mart.name)
        typed = ", ".join(
            f"cast({column.name if files else 'null'} as {column.type}) as {column.name}"
            for column in mart.columns
        )
        source = f"from {sql.read_parquet(files)}" if files else "where false"
        return f"(select {typed} {source})"

    def persist(self) -> None:
        """Move nothing; raises `BuildFailed` when other staged files were read than those of the build."""
        self._engine.check_sources(self._id)


class HiveEngine(Engine, ABC):
    """An engine with a Hive catalogue over the lake."""

    name: str
    has_readers = True
    has_view_comments = False
    """True when `create view` takes a comment."""

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
        """Run a statement; returns the names of its columns and its rows."""

    @abstractmethod
    def variables(self, candidate_id: str) -> dict[str, str]:
        """Return the environment variables that the profile reads."""

    @abstractmethod
    def create_schema(self, name: str, location: str) -> None:
        """Create a schema if there is none."""

    @abstractmethod
    def create_table(
        self, schema: str, name: str, columns: Columns, location: str, partition: str | None = None
    ) -> None:
        """Create a table over the Parquet files of a folder; with `partition` its folders are named after that column."""

    @abstractmethod
    def tables(self, schema: str) -> dict[str, str]:
        """Return the tables and views of a schema: name to `table` or `view`; empty when there is no such schema."""

    @abstractmethod
    def drop_table(self, schema: str, name: str, kind: str, prefix: str) -> bool:
        """Remove a table from the catalogue; False when it was left, since that would delete files outside `prefix`."""

    @abstractmethod
    def drop_schema(self, name: str) -> None:
        """Remove an empty schema if there is one."""

    def schema(self, candidate_id: str) -> str:
        """Return the schema that dbt fills; raises `UsageError` for an id that is none."""
        layout.moment_of(candidate_id)
        return f"{self.settings.sql_schema}_candidate_{sql_identifier(candidate_id)}"

    def staging_schema(self, candidate_id: str) -> str:
        """Return the schema over the staged files; dbt's source `staging` has the same name."""
        return f"{self.schema(candidate_id)}_staging"

    def prefix(self, candidate_id: str) -> str:
        """Return the address under which all files of a candidate are, and no other file."""
        return self.storage.uri(layout.candidate(candidate_id, "x")).removesuffix("/x")

    def tables_location(self, candidate_id: str) -> str:
        """Return the address of the tables that dbt makes, in a folder per schema."""
        return f"{self.prefix(candidate_id)}/tables"

    @contextmanager
    def build(
        self, candidate_id: str, datasets: dict[str, Dataset], snapshots: Snapshots
    ) -> Iterator[tuple[HiveWorkspace, list[Staged]]]:
        """Open new schemas of the candidate, the first of them over exactly these snapshots."""
        self.check()
        self.discard(candidate_id)
        note = json.dumps({"engine": self.name}).encode()
        self.storage.put(layout.candidate(candidate_id, ENGINE_NOTE), note)
        done = False
        try:
            with temporary_folder(self.storage, f"{self.name}-{candidate_id}") as work:
                staged = self._write_staging(candidate_id, datasets, snapshots, work)
                schema = self.schema(candidate_id)
                self.create_schema(schema, f"{self.tables_location(candidate_id)}/{schema}")
                yield HiveWorkspace(self, candidate_id, work), staged
                done = True
        finally:
            if not done:
                self.discard(candidate_id)

    @contextmanager
    def reopen(self, candidate_id: str) -> Iterator[HiveWorkspace]:
        """Open a candidate that was persisted."""
        with temporary_folder(self.storage, f"{self.name}-{candidate_id}") as work:
            yield HiveWorkspace(self, candidate_id, work)

    def discard(self, candidate_id: str) -> None:
        """Delete a candidate's schemas, and the files under its prefix.

        A table whose files are elsewhere is left, with a warning: no run of the pipeline created it.
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
        """Download the files of a table that dbt made, and return their paths."""
        place = f"{layout.CANDIDATES}/{candidate_id}/tables/{self.schema(candidate_id)}/{name}"
        return [self.storage.fetch(entry.key, folder) for entry in self.storage.list(place) if entry.size]

    def publish_views(self, release: PublishedRelease) -> None:
        """Create tables over the released files, then replace each view in one statement."""
        note = layout.published(self.settings.sql_schema)
        published = json.loads(self.storage.read(note)) if self.storage.exists(note) else {}
        if published.get("release_id") == release.release_id:
            return
        schema, tables = self.settings.sql_schema, f"{self.settings.sql_schema}_releases"
        self.create_schema(schema, self.storage.uri(f"{layout.PUBLISHED}/{schema}"))
        self.create_schema(tables, self.storage.uri(f"{layout.PUBLISHED}/{tables}"))
        known = self.tables(tables)
        columns = {mart: self._publish_table(release, mart, tables, known) for mart in release.marts}
        comment = f"comment {sql.quote(release.notice)} " if release.notice and self.has_view_comments else ""
        for mart, names in columns.items():
            listed = ", ".join(names)
            source = f"{tables}.{mart}_{sql_identifier(release.release_id)}"
            self.query(
                f"create or replace view {schema}.{mart} {comment}as select {listed} from {source}", schema
            )
        content = json.dumps({"release_id": release.release_id, "marts": sorted(columns)})
        self.storage.put(note, content.encode())
        self._drop_old_tables(tables)

    def _publish_table(
        self, release: PublishedRelease, mart: str, schema: str, known: dict[str, str]
    ) -> list[str]:
        """Create a table over a copy of the mart's released file, in a folder of its own; returns its columns."""
        source = layout.release(release.release_id, f"parquet/{mart}.parquet")
        target = layout.published_file(release.release_id, mart)
        if not self.storage.exists(target):
            self.storage.copy(source, target)
        with temporary_folder(self.storage, f"publish-{release.release_id}") as work:
            columns = _columns_of(self._footer(source, work))
        name = f"{mart}_{sql_identifier(release.release_id)}"
        if name not in known:
            self.create_table(schema, name, columns, self.storage.uri(target).rpartition("/")[0])
        return list(columns)

    def _drop_old_tables(self, schema: str) -> None:
        """Remove the tables of releases that were deleted."""
        kept = set(self.storage.folders(layout.RELEASES))
        gone = [r for r in self.storage.folders(f"{layout.PUBLISHED}/files") if r not in kept]
        known = self.tables(schema) if gone else {}
        for release_id in gone:
            for name, kind in known.items():
                if name.endswith(f"_{sql_identifier(release_id)}"):
                    prefix = self.storage.uri(f"{layout.PUBLISHED}/files/{release_id}")
                    self.drop_table(schema, name, kind, f"{prefix}/")
            self.storage.delete_folder(f"{layout.PUBLISHED}/files/{release_id}")

    def check_sources(self, candidate_id: str) -> None:
        """Raise `BuildFailed` when a folder that was read in place has other files than at the start of the build."""
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
        footers: list[Path] = []
        for dataset in datasets.values():
            keys = staged_tables.staged_keys(self.storage, dataset, snapshots[dataset.id])
            with ThreadPoolExecutor(staged_tables.FETCHES_AT_ONCE) as pool:
                footers += pool.map(lambda key: self._footer(key, work / "footers"), keys)
            location = self._location(candidate_id, dataset.id, keys)
            columns = {column.name: column.kind.sql for column in dataset.columns}
            columns |= {column.name: column.sql for column in ADDED_COLUMNS}
            self.create_table(schema, dataset.id, columns, location, PARTITION.name)
        with duckdb.connect() as con:
            staged = staged_tables.records(con, footers)
            con.execute("create schema staging")
            staged_tables.create_tables(con, self.storage, datasets, staged, work / "quarantine")
            for name, table in TABLES.items():
                file = work / f"{name}.parquet"
                con.execute(f"copy staging.{name} to {sql.quote(str(file))} (format parquet)")
                key = layout.candidate(candidate_id, f"staging/{name}/{file.name}")
                self.storage.put_file(key, file)
                self.create_table(schema, name, table.types, self.storage.uri(key).rpartition("/")[0])
        return staged

    def _location(self, candidate_id: str, dataset_id: str, keys: list[str]) -> str:
        """The address of a folder with exactly these staged files: theirs, or one of copies when it has others too."""
        if keys and _staged_files(self.storage, dataset_id) == keys:
            self._sources.setdefault(candidate_id, {})[dataset_id] = keys
            return self.storage.uri(f"{layout.STAGING}/{dataset_id}")
        for key in keys:
            self.storage.copy(key, layout.candidate(candidate_id, key))
        return self.storage.uri(layout.candidate(candidate_id, f"{layout.STAGING}/{dataset_id}"))

    def _footer(self, key: str, folder: Path) -> Path:
        """A sparse file with the stored one's size and its last bytes: all that reading Parquet metadata needs."""
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


def _staged_files(storage: Storage, dataset_id: str) -> list[str]:
    """Every staged file of a dataset, those of refused snapshots included."""
    found = storage.list(f"{layout.STAGING}/{dataset_id}")
    return sorted(entry.key for entry in found if entry.key.endswith(".parquet"))


def _columns_of(file: Path) -> Columns:
    """Columns of a Parquet file with their types."""
    with duckdb.connect() as con:
        rows = con.execute(f"describe from {sql.read_parquet(file)}").fetchall()
    return {str(name): str(kind).lower() for name, kind, *_ in rows}


def import_driver(engine: str, *modules: str) -> Any:
    """Import the modules that an engine needs, and return the last; raises `UsageError` when one is not installed."""
    try:
        return [importlib.import_module(name) for name in modules][-1]
    except ImportError as error:
        raise UsageError(
            f"CATALUNYA_ENGINE: {engine} needs the packages of the group `{engine}` ({error}): "
            f"`uv sync --group {engine}`"
        ) from None


def shortened(statement: str) -> str:
    """Return a statement in one line of at most 200 characters, for messages."""
    line = " ".join(statement.split())
    return line if len(line) <= 200 else f"{line[:197]}…"


def sql_identifier(run_or_release_id: str) -> str:
    """Return an id as part of an SQL name."""
    return run_or_release_id.lower().replace("-", "_")
