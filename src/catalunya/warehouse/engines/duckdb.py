"""DuckDB in this process: a candidate is one file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import duckdb

from catalunya import sql
from catalunya.datasets.model import Dataset
from catalunya.datasets.staged import ADDED_COLUMNS
from catalunya.errors import BuildFailed, CatalunyaError
from catalunya.lake import layout
from catalunya.lake.staged import Staged
from catalunya.lake.storage import Storage
from catalunya.lake.temporary import temporary_folder
from catalunya.settings import Settings
from catalunya.warehouse import dbt, dbt_models, dbt_tests
from catalunya.warehouse.engines import staged_tables
from catalunya.warehouse.engines.base import Cost, PublishedRelease, Snapshots

DATABASE = dbt.CANDIDATE


class DuckDBWorkspace:
    """A candidate's file, and its key in the lake."""

    def __init__(self, storage: Storage, candidate_id: str, database: Path, settings: Settings) -> None:
        self._storage = storage
        self._memory, self._threads = settings.duckdb_memory, settings.dbt_threads
        self._key = layout.candidate(candidate_id, DATABASE)
        self._database = database
        self._attached: duckdb.DuckDBPyConnection | None = None

    @property
    def target(self) -> dbt.Target:
        """The output `duckdb` of the profile, on this file."""
        return dbt.Target(
            dbt.DUCKDB.name, (("CATALUNYA_CANDIDATE", str(self._database)),), dbt.DUCKDB.parsed_with
        )

    def sample(self, query: str, rows: int) -> tuple[str, ...]:
        """Return the first rows of a query, in order."""
        with duckdb.connect(self._database, read_only=True) as con:
            return _sample(con, query, rows)

    def relation(self, con: duckdb.DuckDBPyConnection, mart: dbt.Mart) -> str:
        """Return the mart in this file, which `con` attaches."""
        if self._attached is not con:
            con.execute(f"attach {sql.quote(str(self._database))} as candidate (read_only)")
            self._attached = con
        return f"candidate.marts.{mart.name}"

    def build(self, project: Path, digest: str, on_node: Callable[[str], None] | None = None) -> dbt.Outcome:
        """Run dbt's statements in this process; dbt itself builds a state of the project for the first time."""
        models = dbt_models.kept_models(project, digest)
        if models is None:
            return dbt_models.build_by_dbt(project, digest, self.target, self.sample, on_node)
        with duckdb.connect(self._database, config=self._limits()) as con:
            return dbt_models.run_models(con, models, self._threads, on_node)

    def test(
        self, project: Path, digest: str, on_node: Callable[[str], None] | None = None
    ) -> tuple[dbt.NodeResult, ...]:
        """Run dbt's compiled tests in this process; those of a project that is not repeatable are run by dbt."""
        tests = dbt_tests.compiled_tests(project, digest)
        if tests is None:
            return dbt.invoke(
                dbt.TEST,
                project=project,
                digest=digest,
                target=self.target,
                sample=self.sample,
                on_node=on_node,
            ).results
        with duckdb.connect(self._database, read_only=True, config=self._limits()) as con:
            con.execute("set TimeZone = 'UTC'")
            # On this connection: DuckDB opens no second one on the file with other settings.
            return dbt_tests.run_tests(con, tests, partial(_sample, con), on_node)

    def _limits(self) -> dict[str, str | bool | int | float | list[str]]:
        return {"memory_limit": self._memory} if self._memory else {}

    def persist(self) -> None:
        """Put the file into the lake."""
        if self._database.with_name(f"{self._database.name}.wal").exists():
            # DuckDB reports nothing when it closes a file that it cannot write: the tables are in its log alone.
            try:
                with duckdb.connect(self._database) as con:
                    con.execute("checkpoint")
            except duckdb.Error as error:
                raise BuildFailed(
                    f"the candidate could not be written to {self._database}: {error}; check the disk and its free space, "
                    "then run again"
                ) from None
        self._storage.put_file(self._key, self._database)


class DuckDBEngine:
    """Builds each candidate in a local file that is then put into the lake."""

    name = "duckdb"
    has_readers = False

    def __init__(self, storage: Storage, settings: Settings) -> None:
        self._storage = storage
        self._settings = settings

    def check(self) -> str:
        """Write and close a file."""
        with temporary_folder(self._storage, "check") as work:
            try:
                with duckdb.connect(work / "probe.duckdb") as con:
                    con.execute("create table probe as select 42 as answer")
                    con.execute("checkpoint")
            except duckdb.Error as error:
                raise CatalunyaError(f"DuckDB cannot write to {work}: {error}") from None
        return f"DuckDB {duckdb.__version__} opens, writes and closes a file"

    @contextmanager
    def build(
        self, candidate_id: str, datasets: dict[str, Dataset], snapshots: Snapshots
    ) -> Iterator[tuple[DuckDBWorkspace, list[Staged]]]:
        """Open a new file whose schema `staging` reads the staged files."""
        with temporary_folder(self._storage, f"build-{candidate_id}") as work:
            database = work / DATABASE
            staged = self._write_staging(datasets, snapshots, database, work)
            yield DuckDBWorkspace(self._storage, candidate_id, database, self._settings), staged

    @contextmanager
    def reopen(self, candidate_id: str) -> Iterator[DuckDBWorkspace]:
        """Open the file of the lake."""
        with temporary_folder(self._storage, f"open-{candidate_id}") as work:
            database = self._storage.fetch(layout.candidate(candidate_id, DATABASE), work)
            yield DuckDBWorkspace(self._storage, candidate_id, database, self._settings)

    def discard(self, candidate_id: str) -> None:
        """Do nothing: all of a candidate is in its folder of the lake."""

    def publish_views(self, release: PublishedRelease) -> None:
        """Do nothing: readers open the file of the release."""

    def cost(self) -> Cost | None:
        """Return None: it runs in this process."""
        return None

    def _write_staging(
        self, datasets: dict[str, Dataset], snapshots: Snapshots, database: Path, work: Path
    ) -> list[Staged]:
        """Create the schema `staging` that dbt reads: a view per dataset, and the tables of `datasets.staged`."""
        staged: list[Staged] = []
        with duckdb.connect(database) as con:
            con.execute("create schema staging")
            for dataset_id, dataset in datasets.items():
                keys = staged_tables.staged_keys(self._storage, dataset, snapshots[dataset_id])
                files = staged_tables.fetch_all(self._storage, keys, work / "staging" / dataset.id)
                _create_view(con, dataset, files)
                staged += staged_tables.records(con, files)
            staged_tables.create_tables(con, self._storage, datasets, staged, work / "quarantine")
        return staged


def _sample(con: duckdb.DuckDBPyConnection, query: str, rows: int) -> tuple[str, ...]:
    found = con.execute(f"select * from ({query}) order by all limit {rows}")
    names = [column[0] for column in found.description or []]
    return dbt.pairs(names, found.fetchall())


def _create_view(con: duckdb.DuckDBPyConnection, dataset: Dataset, files: list[Path]) -> None:
    names = [column.name for column in dataset.columns]
    if files:
        day = "cast(strptime(left(snapshot_id, 8), '%Y%m%d') as date) as snapshot_date"
        query = f"select {', '.join(names)}, raw, snapshot_id, {day} from {sql.read_parquet(files)}"
    else:
        typed = [f"cast(null as {c.kind.sql}) as {c.name}" for c in dataset.columns]
        extra = [f"cast(null as {kind}) as {name}" for name, kind, _ in ADDED_COLUMNS]
        query = f"select {', '.join([*typed, *extra])} where false"
    con.execute(f"create view staging.{dataset.id} as {query}")


ENGINE = DuckDBEngine
