"""Publish: an immutable release folder from an audited candidate, then one swap of the pointer."""

from __future__ import annotations

import hashlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import structlog

from catalunya.audit import Audit, Baseline, Stale, read_verdict
from catalunya.build import Candidate, reopen
from catalunya.datasets.model import Dataset
from catalunya.errors import Refused, UsageError
from catalunya.lake import layout, pointer, snapshot
from catalunya.lake.index import CLOCK_TOLERANCE
from catalunya.lake.lock import Lock
from catalunya.lake.pointer import Pointer, PointerMoved
from catalunya.lake.storage import Storage
from catalunya.publication import catalogue, demo_notice
from catalunya.release import (
    RECORD,
    SUMS,
    Release,
    ReleasedSnapshot,
    apply_retention,
    read_release,
    release_ids,
)
from catalunya.sql import quote
from catalunya.warehouse.dbt import Column, Mart
from catalunya.warehouse.engines.base import Engine, Shown, Workspace

log = structlog.get_logger(__name__)

RELEASE_DATABASE = "catalunya.duckdb"


def baseline(release: Release | None) -> Baseline | None:
    """What an audit compares with."""
    if release is None:
        return None
    return Baseline(
        accepted=release.snapshots,
        code=release.code_sha256,
        release_id=release.release_id,
        marts=tuple(release.rows),
        figures=release.figures or None,
    )


def publish(
    storage: Storage,
    datasets: dict[str, Dataset],
    engine: Engine,
    candidate: Candidate,
    lock: Lock,
    *,
    run_id: str,
    now: datetime,
    stale: tuple[Stale, ...] = (),
    warnings: tuple[str, ...] = (),
    versions: dict[str, str],
    code_revision: str | None = None,
    keep: int,
) -> Release:
    """Write the release of an audited candidate and swap the pointer to it.

    Raises `Refused` when the candidate did not pass its audit, and `PointerMoved` when somebody else
    published meanwhile: the lake's pointer stays as it was.
    """
    verdict = _verdict(storage, candidate)
    _follows(storage, candidate)
    work = storage.scratch() / f"publish-{candidate.candidate_id}"
    shutil.rmtree(work, ignore_errors=True)
    folder = work / "release"
    folder.mkdir(parents=True)
    try:
        demo = any(staged.demo for staged in candidate.staged)
        with reopen(engine, candidate) as workspace:
            rows, marts = _export(workspace, candidate.marts, folder, demo=demo)
        release_id = layout.make_id(_moment(storage, now), _digest(folder))
        release = Release(
            release_id=release_id,
            run_id=run_id,
            released_at=now,
            demo=demo,
            engine=engine.name,
            inputs_sha256=candidate.inputs.fingerprint,
            code_sha256=candidate.inputs.code,
            snapshots=candidate.inputs.snapshots,
            datasets=_released(candidate),
            lineage=_lineage(candidate),
            accepted_by_hand={
                snapshot_id: why
                for dataset_id, ids in candidate.inputs.snapshots.items()
                for snapshot_id, why in snapshot.reasons_of_acceptance(storage, dataset_id, ids).items()
            },
            stale=stale,
            rows=rows,
            figures=verdict.figures,
            warnings=tuple(dict.fromkeys([*warnings, *verdict.sentences("warn")])),
            tests=verdict.tests,
            versions=versions,
            code_revision=code_revision,
        )
        _write_metadata(folder, release, marts, datasets)
        _upload(storage.guarded(lock), folder, release_id)
        _swap(storage, release, lock, now)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    apply_retention(storage, keep, lock)
    publish_views(storage, engine)
    return release


def _lineage(candidate: Candidate) -> dict[str, tuple[str, ...]]:
    sources = {node.relation: node.sources for node in candidate.nodes}
    return {
        mart.name: tuple(s for s in sources.get(f"marts.{mart.name}", ()) if s in candidate.inputs.snapshots)
        for mart in candidate.marts
    }


def publish_views(storage: Storage, engine: Engine) -> None:
    """Let readers of the engine's own schema see the release that the pointer names, if they do not yet."""
    found = pointer.read(storage) if engine.has_readers else None
    if found is not None:
        release = read_release(storage, found[0].release_id)
        engine.show(Shown(release.release_id, tuple(release.rows)))


def _verdict(storage: Storage, candidate: Candidate) -> Audit:
    if candidate.left_out:
        raise UsageError(
            f"candidate {candidate.candidate_id} lacks {', '.join(candidate.left_out)}, which an audit left out to find a "
            "fault; build and audit again"
        )
    verdict = read_verdict(storage, candidate)
    if not verdict.passed:
        raise Refused(
            f"candidate {candidate.candidate_id} was refused: {'; '.join(verdict.sentences('error'))}"
        )
    return verdict


def _follows(storage: Storage, candidate: Candidate) -> None:
    """Raise when another release was shown since the candidate was built: it may know less than that one."""
    found = pointer.read(storage)
    shown = found[0].release_id if found else None
    if shown != candidate.release_before:
        raise PointerMoved(
            f"candidate {candidate.candidate_id} was built when readers saw {candidate.release_before or 'none'}, "
            f"now they see {shown or 'none'}; nothing was changed: run again"
        )


def _moment(storage: Storage, now: datetime) -> datetime:
    """The clock, or one second after the newest release when the clock is not past it.

    Releases from a clock that was ahead do not count: ids would stay in the future for good.
    """
    moments = [layout.moment_of(name) for name in release_ids(storage)]
    known = [moment for moment in moments if moment <= now + CLOCK_TOLERANCE]
    return max(now, max(known) + timedelta(seconds=1)) if known else now


def _export(
    workspace: Workspace, marts: tuple[Mart, ...], folder: Path, *, demo: bool
) -> tuple[dict[str, int], tuple[Mart, ...]]:
    """Write every mart as Parquet, CSV and a table of one DuckDB file, rows in a fixed order.

    Demo data are marked in each: in the Parquet file's metadata, in the table's comment, and in a last column of
    the CSV file, which has nothing else to say it in.
    """
    (folder / "parquet").mkdir()
    (folder / "csv").mkdir()
    rows: dict[str, int] = {}
    exported = []
    notice = f"{demo_notice.NOTICE} " if demo else ""
    with duckdb.connect(folder / RELEASE_DATABASE) as con:
        con.execute("create schema marts")
        for mart in marts:
            table = f"marts.{mart.name}"
            source = workspace.relation(con, mart)
            con.execute(f"create table {table} as select * from {source} order by all")
            _describe(con, mart, notice)
            metadata = f"kv_metadata {{catalunya: {quote(notice + mart.description)}}}"
            mark = f", {quote(demo_notice.SHORT_NOTICE)} as {demo_notice.COLUMN}" if demo else ""
            for kind, query, options in (
                ("parquet", f"from {table}", f"compression zstd, {metadata}"),
                ("csv", f"select *{mark} from {table}", "header"),
            ):
                target = folder / kind / f"{mart.name}.{kind}"
                con.execute(f"copy ({query}) to {quote(str(target))} (format {kind}, {options})")
            found = con.execute(f"select count(*) from {table}").fetchone()
            rows[mart.name] = int(found[0]) if found else 0
            exported.append(_with_types(con, mart))
    return rows, tuple(exported)


def _describe(con: duckdb.DuckDBPyConnection, mart: Mart, notice: str) -> None:
    con.execute(f"comment on table marts.{mart.name} is {quote(notice + mart.description)}")
    for column in mart.columns:
        con.execute(f"comment on column marts.{mart.name}.{column.name} is {quote(column.description)}")


def _with_types(con: duckdb.DuckDBPyConnection, mart: Mart) -> Mart:
    """The mart with its columns in the table's order and with the types they really have."""
    words = {column.name: column.description for column in mart.columns}
    described = con.execute(f"describe marts.{mart.name}").fetchall()
    columns = tuple(Column(name, kind.lower(), words.get(name, "")) for name, kind, *_ in described)
    return Mart(mart.name, mart.description, columns)


def _digest(folder: Path) -> str:
    """SHA-256 over the marts alone, so that the same data have the same hash whenever they are released."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("parquet/*"), *folder.glob("csv/*")]):
        digest.update(f"{path.name} {_sha256(path)}\n".encode())
    return digest.hexdigest()


def _released(candidate: Candidate) -> dict[str, ReleasedSnapshot]:
    newest = candidate.inputs.newest()
    return {
        s.dataset_id: ReleasedSnapshot(
            snapshot_id=s.snapshot_id,
            rows_in=s.rows_in,
            rows_staged=s.rows_staged,
            rows_quarantined=s.rows_quarantined,
            rows_duplicated=s.rows_duplicated,
        )
        for s in candidate.staged
        if newest.get(s.dataset_id) == s.snapshot_id
    }


def _write_metadata(
    folder: Path, release: Release, marts: tuple[Mart, ...], datasets: dict[str, Dataset]
) -> None:
    definitions = [datasets[name] for name in sorted(datasets)]
    files = {
        f"csv/{mart.name}.csv": (path.stat().st_size, _sha256(path))
        for mart in marts
        for path in [folder / "csv" / f"{mart.name}.csv"]
    }
    package: dict[str, Any] = catalogue.data_package(
        marts,
        definitions,
        release_id=release.release_id,
        created=release.released_at.isoformat(),
        files=files,
        demo=release.demo,
    )
    (folder / "datapackage.json").write_text(json.dumps(package, ensure_ascii=False, indent=1) + "\n")
    (folder / "dictionary.md").write_text(catalogue.dictionary(marts, demo=release.demo))
    (folder / "LICENCES.md").write_text(catalogue.licences(definitions, demo=release.demo))
    (folder / RECORD).write_text(release.model_dump_json(indent=1) + "\n")
    sums = [
        f"{_sha256(path)}  {path.relative_to(folder).as_posix()}\n"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    (folder / SUMS).write_text("".join(sums))


def _upload(storage: Storage, folder: Path, release_id: str) -> None:
    """Put every file of the release into the lake, `release.json` last: with it the release is whole."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != RECORD)
    with ThreadPoolExecutor(4) as pool:
        jobs = [
            pool.submit(
                storage.put_file, layout.release(release_id, path.relative_to(folder).as_posix()), path
            )
            for path in paths
        ]
        for job in jobs:
            job.result()
    storage.put_file(layout.release(release_id, RECORD), folder / RECORD)


def _swap(storage: Storage, release: Release, lock: Lock, now: datetime) -> None:
    found = pointer.read(storage)
    before, version = found if found else (None, None)
    lock.check()
    pointer.swap(
        storage,
        Pointer(
            release_id=release.release_id,
            previous=before.release_id if before else None,
            swapped_at=now,
            run_id=release.run_id,
        ),
        version,
    )
    log.info("released", release=release.release_id)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
