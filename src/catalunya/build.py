"""Build: dbt makes the whole warehouse from all staged snapshots, in a candidate that nobody reads yet."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import duckdb
import structlog
from pydantic import BaseModel, ConfigDict

from catalunya import dbt, declaration
from catalunya.datasets import Dataset
from catalunya.errors import BuildFailed, UsageError
from catalunya.lake import layout, pointer, snapshot
from catalunya.lake.storage import Storage
from catalunya.settings import Settings
from catalunya.stage import Staged, read_record

log = structlog.get_logger(__name__)

DATABASE = dbt.CANDIDATE
RECORD = "candidate.json"


class Inputs(BaseModel):
    """What a candidate is made of: all accepted snapshots, and the code that transforms them."""

    model_config = ConfigDict(frozen=True)

    snapshots: dict[str, tuple[str, ...]]
    """Dataset to its accepted snapshots, oldest first."""
    code: str
    """SHA-256 over the dbt project and the dataset cards, 64 hex digits."""

    @property
    def fingerprint(self) -> str:
        """64 hex digits; equal inputs give an equal release."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def newest(self) -> dict[str, str]:
        """Dataset to its newest accepted snapshot, for the datasets that have one."""
        return {dataset_id: ids[-1] for dataset_id, ids in self.snapshots.items() if ids}


class Candidate(BaseModel):
    """The record of a built candidate; written last, so that its existence means the candidate is whole."""

    model_config = ConfigDict(frozen=True)

    candidate_id: str
    built_at: datetime
    inputs: Inputs
    staged: tuple[Staged, ...]
    marts: tuple[dbt.Mart, ...]
    nodes: tuple[dbt.NodeResult, ...] = ()
    """The result of every seed and model."""
    release_before: str | None = None
    """The release that readers saw when it was built: it follows that one or none."""


def inputs(storage: Storage, datasets: dict[str, Dataset], home: Path) -> Inputs:
    """What a build would read now."""
    return Inputs(
        snapshots={name: tuple(snapshot.accepted(storage, name)) for name in sorted(datasets)},
        code=code_digest(home),
    )


def code_digest(home: Path) -> str:
    """SHA-256 over the dbt project and the dataset cards, 64 hex digits."""
    digest = hashlib.sha256()
    project = home / "dbt" / "mart"
    wanted = {".sql", ".yml", ".csv"}
    generated = {"target", "logs", "dbt_packages"}
    files = [
        path
        for path in [*project.rglob("*"), *(home / "datasets").glob("*.yml")]
        if path.suffix in wanted and not generated & set(path.relative_to(home).parts)
    ]
    for path in sorted(files):
        digest.update(f"{path.relative_to(home).as_posix()}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def build(
    storage: Storage,
    datasets: dict[str, Dataset],
    settings: Settings,
    *,
    candidate_id: str,
    now: datetime,
    on_node: Callable[[str], None] | None = None,
) -> Candidate:
    """Build a candidate from every staged snapshot and keep it in the lake.

    Raises `BuildFailed` with the models that failed; nothing that others read is touched.
    """
    engine = settings.resolved_engine
    if engine != "duckdb":
        raise UsageError(f"CATALUNYA_ENGINE: this version builds on duckdb only, not {engine}; unset it")
    wanted = inputs(storage, datasets, settings.home)
    shown = pointer.read(storage)
    work = storage.scratch() / f"build-{candidate_id}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        database = work / DATABASE
        staged = _write_staging(storage, datasets, wanted, database, work)
        outcome = dbt.invoke(
            ["build", "--resource-type", "seed", "--resource-type", "model"],
            project=settings.home / "dbt" / "mart",
            digest=wanted.code,
            candidate=database,
            on_node=on_node,
        )
        _raise_for(outcome)
        record = Candidate(
            candidate_id=candidate_id,
            built_at=now,
            inputs=wanted,
            staged=tuple(staged),
            marts=outcome.marts,
            nodes=outcome.results,
            release_before=shown[0].release_id if shown else None,
        )
        storage.put_file(layout.candidate(candidate_id, DATABASE), database)
        storage.put(layout.candidate(candidate_id, RECORD), record.model_dump_json(indent=1).encode())
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return record


def newest_candidate(storage: Storage) -> Candidate | None:
    """The newest whole candidate; None when there is none."""
    found = (read_candidate(storage, name) for name in reversed(storage.folders(layout.CANDIDATES)))
    return next((candidate for candidate in found if candidate), None)


def read_candidate(storage: Storage, candidate_id: str) -> Candidate | None:
    """The record of a whole candidate; None when it was never completed."""
    key = layout.candidate(candidate_id, RECORD)
    return Candidate.model_validate_json(storage.read(key)) if storage.exists(key) else None


def discard_candidates(storage: Storage) -> None:
    """Delete candidates that killed or refused runs left; call it only while holding the lake.

    Those of a relay that is still going on are kept.
    """
    going_on = set(storage.folders(layout.RUNS))
    for candidate_id in storage.folders(layout.CANDIDATES):
        if candidate_id not in going_on:
            storage.delete_folder(f"{layout.CANDIDATES}/{candidate_id}")


def _write_staging(
    storage: Storage, datasets: dict[str, Dataset], wanted: Inputs, database: Path, work: Path
) -> list[Staged]:
    """Make the schema `staging` that dbt reads: a view per dataset, the snapshots and the controls."""
    staged: list[Staged] = []
    with duckdb.connect(database) as con:
        con.execute("create schema staging")
        for dataset_id, dataset in datasets.items():
            files = _staged_files(storage, dataset, wanted.snapshots[dataset_id], work)
            _create_view(con, dataset, files)
            staged += _records(con, files)
        _create_tables(con, staged)
    _require_one_kind(staged)
    return staged


def _require_one_kind(staged: list[Staged]) -> None:
    """Demo data and real data never meet in a release, even when two processes landed them at once."""
    kinds = {kind: sorted({s.dataset_id for s in staged if s.demo is kind}) for kind in (True, False)}
    if kinds[True] and kinds[False]:
        raise UsageError(
            f"CATALUNYA_LAKE: the lake mixes demo data ({', '.join(kinds[True])}) with data of real portals "
            f"({', '.join(kinds[False])}); use a lake for each"
        )


def _staged_files(
    storage: Storage, dataset: Dataset, snapshot_ids: tuple[str, ...], work: Path
) -> list[Path]:
    paths = []
    for snapshot_id in snapshot_ids:
        key = layout.staged(dataset.id, snapshot_id)
        if not storage.exists(key):
            raise BuildFailed(
                f"{dataset.id}: snapshot {snapshot_id} is not staged; run `catalunya stage` first"
            )
        paths.append(storage.fetch(key, work / "staging" / dataset.id))
    return paths


def _create_view(con: duckdb.DuckDBPyConnection, dataset: Dataset, files: list[Path]) -> None:
    names = [column.name for column in dataset.columns]
    if files:
        listed = ", ".join(declaration.quote(str(path)) for path in files)
        day = "cast(strptime(left(snapshot_id, 8), '%Y%m%d') as date) as snapshot_date"
        query = f"select {', '.join(names)}, raw, snapshot_id, {day} from read_parquet([{listed}])"
    else:
        typed = [f"cast(null as {declaration.SQL_TYPES[c.type]}) as {c.name}" for c in dataset.columns]
        extra = [f"cast(null as {kind}) as {name}" for name, kind in _ADDED.items()]
        query = f"select {', '.join([*typed, *extra])} where false"
    con.execute(f"create view staging.{dataset.id} as {query}")


_ADDED = {"raw": "varchar", "snapshot_id": "varchar", "snapshot_date": "date"}


def _records(con: duckdb.DuckDBPyConnection, files: list[Path]) -> list[Staged]:
    if not files:
        return []
    listed = ", ".join(declaration.quote(str(path)) for path in files)
    rows = con.execute(
        f"select decode(value) from parquet_kv_metadata([{listed}]) where decode(key) = 'catalunya'"
    ).fetchall()
    return sorted((read_record(row[0]) for row in rows), key=lambda record: record.snapshot_id)


def _create_tables(con: duckdb.DuckDBPyConnection, staged: list[Staged]) -> None:
    con.execute(
        """
        create table staging.snapshots (
            dataset_id varchar, snapshot_id varchar, snapshot_date date, taken_at timestamp,
            rows_in bigint, rows_staged bigint, rows_quarantined bigint, rows_duplicated bigint, is_demo boolean
        );
        create table staging.controls (
            dataset_id varchar, snapshot_id varchar, control varchar, period varchar,
            published bigint, computed bigint
        )
        """
    )
    snapshots = [
        [
            s.dataset_id, s.snapshot_id, layout.moment_of(s.snapshot_id).date(), s.taken_at.replace(tzinfo=None),
            s.rows_in, s.rows_staged, s.rows_quarantined, s.rows_duplicated, s.demo,
        ]
        for s in staged
    ]  # fmt: skip
    controls = [[s.dataset_id, s.snapshot_id, *asdict(c).values()] for s in staged for c in s.controls]
    if snapshots:
        con.executemany("insert into staging.snapshots values (?, ?, ?, ?, ?, ?, ?, ?, ?)", snapshots)
    if controls:
        con.executemany("insert into staging.controls values (?, ?, ?, ?, ?, ?)", controls)


def _raise_for(outcome: dbt.Outcome) -> None:
    failed = [r for r in outcome.results if r.status in {"error", "fail"}]
    if failed:
        lines = "\n".join(f"  {r.kind} {r.name}: {r.message.strip()}" for r in failed)
        skipped = sum(r.status == "skipped" for r in outcome.results)
        raise BuildFailed(
            f"dbt could not build {len(failed)} of {len(outcome.results)} nodes ({skipped} skipped):\n{lines}",
            outcome.results,
        )
