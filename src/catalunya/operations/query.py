"""Rows of a release for people and programs: those of a mart, or the answer of a query. Nothing can be changed by it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb

from catalunya import sql
from catalunya.errors import CatalunyaError, LakeCorrupt, UsageError
from catalunya.lake import layout
from catalunya.lake.storage import MissingKey, Storage
from catalunya.release import RELEASE_DATABASE, Release, current_release, read_release


@dataclass(frozen=True)
class Selection:
    """Which rows of a mart; what is None is not asked about. Each field is a column."""

    municipality_id: str | None = None
    comarca_id: str | None = None
    year: int | None = None
    service_group: str | None = None
    ownership: str | None = None
    service_id: str | None = None

    def wanted(self) -> dict[str, str | int]:
        """Column to the value it must have."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def require_known(self, con: duckdb.DuckDBPyConnection, mart: str, table: str) -> None:
        """Raise `UsageError` that says which column or value the mart does not have, and what it has."""
        names = [name for name, *_ in con.execute(f"describe {table}").fetchall()]
        for column, value in self.wanted().items():
            if column not in names:
                raise UsageError(f"{mart} has no column {column}; its columns are {', '.join(names)}")
            distinct = f"select distinct {column} from {table} where {column} is not null order by 1"
            known = [row[0] for row in con.execute(distinct).fetchall()]
            if value not in known:
                some = f"{known[0]} to {known[-1]}" if len(known) > 12 else ", ".join(map(str, known))
                raise UsageError(f"{mart} has no row with {column} {value}; it has {some or 'none'}")


@dataclass(frozen=True)
class Rows:
    """Rows of a release."""

    release: Release
    columns: tuple[tuple[str, str], ...]
    """Name and type of each column, the types as DuckDB names them."""
    rows: list[tuple[Any, ...]]
    found: int
    """How many rows there are; `rows` has at most as many as were asked for."""


def find_release(storage: Storage, release_id: str | None) -> Release:
    """Return a release by its id, by default the one that readers see; raises `UsageError` when there is none."""
    if release_id is None:
        current = current_release(storage)
        if current is None:
            raise UsageError("there is no release yet; run `catalunya run` first")
        return current
    known = storage.folders(layout.RELEASES)
    if release_id not in known:
        raise UsageError(f"{release_id!r} is no release that is kept; kept are: {', '.join(known) or 'none'}")
    return read_release(storage, release_id)


def require_mart(release: Release, mart: str) -> None:
    """Raise `UsageError` with the marts of the release when this is none of them."""
    if mart not in release.rows:
        raise UsageError(
            f"{mart!r} is no mart of release {release.release_id}; it has {', '.join(release.rows)}"
        )


def fetched(storage: Storage, key: str, work: Path) -> Path:
    """Return a file of a release on this machine; raises `LakeCorrupt` when it is missing."""
    try:
        return storage.fetch(key, work)
    except MissingKey:
        raise LakeCorrupt(f"{storage.uri(key)} is missing; restore it from a backup") from None


def select_rows(
    storage: Storage, mart: str, selection: Selection, *, release_id: str | None = None, limit: int | None
) -> Rows:
    """Return rows of a mart in the order of its columns, at most `limit`.

    Raises `UsageError` for an unknown release, mart, column or value, and `LakeCorrupt` for a damaged release.
    """
    release = find_release(storage, release_id)
    require_mart(release, mart)
    with _database(storage, release) as con:
        try:
            selection.require_known(con, mart, mart)
            wanted = selection.wanted()
            where = " and ".join(f"{column} = ?" for column in wanted) or "true"
            return _fetch(
                con, release, f"from {mart} where {where}", list(wanted.values()), "order by all", limit
            )
        except duckdb.Error as error:
            raise CatalunyaError(f"release {release.release_id}: {mart} cannot be read: {error}") from None


def query(storage: Storage, text: str, *, release_id: str | None = None, limit: int | None) -> Rows:
    """Return the rows of one `select` on the marts of a release, at most `limit`.

    It reads nothing but the release: no file, no network. Raises `UsageError` with DuckDB's words when the query is
    wrong, or is no query.
    """
    release = find_release(storage, release_id)
    with _database(storage, release) as con:
        try:
            statements = con.extract_statements(text)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise UsageError(
                    "one statement that reads is expected, such as `select * from coverage_comarca`"
                )
            return _fetch(con, release, f"from ({statements[0].query.strip().rstrip(';')}\n)", [], "", limit)
        except duckdb.Error as error:
            raise UsageError(f"release {release.release_id}: {error}") from None


def _fetch(
    con: duckdb.DuckDBPyConnection,
    release: Release,
    source: str,
    values: list[str | int],
    order: str,
    limit: int | None,
) -> Rows:
    con.execute(f"create temporary table selected as select * {source}", values)
    [(found,)] = con.execute("select count(*) from selected").fetchall()
    columns = tuple((name, kind.lower()) for name, kind, *_ in con.execute("describe selected").fetchall())
    rows = con.execute(f"from selected {order} limit {'all' if limit is None else limit}").fetchall()
    return Rows(release, columns, rows, found)


def _connect(path: Path, address: str) -> duckdb.DuckDBPyConnection:
    try:
        return duckdb.connect(path, read_only=True)
    except duckdb.Error as error:
        raise LakeCorrupt(
            f"{address} cannot be opened: {error}; `catalunya lake check` names what to do"
        ) from None


@contextmanager
def _database(storage: Storage, release: Release) -> Iterator[duckdb.DuckDBPyConnection]:
    """The database of a release, whose marts are named without a schema; it cannot be changed, nor read other files."""
    work = storage.scratch() / "query"
    try:
        key = layout.release(release.release_id, RELEASE_DATABASE)
        path = fetched(storage, key, work)
        with _connect(path, storage.uri(key)) as con:
            con.execute("set search_path = 'catalunya.marts'")
            con.execute(f"set temp_directory = {sql.quote(str(work))}")
            con.execute("set enable_external_access = false")
            con.execute("set lock_configuration = true")
            yield con
    finally:
        shutil.rmtree(work, ignore_errors=True)
