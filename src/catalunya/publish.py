"""Publish: an immutable release folder from an audited candidate, then one swap of the pointer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

from catalunya.audit import Audit, Baseline, Stale, read_verdict
from catalunya.build import Candidate, reopen
from catalunya.datasets.model import Dataset
from catalunya.errors import Refused, UsageError
from catalunya.lake import disk, layout, pointer, snapshot
from catalunya.lake.index import CLOCK_TOLERANCE
from catalunya.lake.lock import Lock
from catalunya.lake.pointer import Pointer, PointerMoved
from catalunya.lake.storage import Storage
from catalunya.log import get_logger
from catalunya.publication import catalogue, demo_notice
from catalunya.release import (
    RECORD,
    RELEASE_DATABASE,
    SUMS,
    Release,
    ReleasedSnapshot,
    apply_retention,
    marts_digest,
    read_release,
    release_ids,
)
from catalunya.sql import quote
from catalunya.warehouse.dbt import Mart, MartColumn
from catalunya.warehouse.engines.base import Engine, PublishedRelease, Workspace

log = get_logger(__name__)


def baseline(release: Release | None) -> Baseline | None:
    """Return what an audit compares with."""
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
    signing_key: str | None = None,
    require_signature: bool = False,
) -> Release:
    """Write the release of an audited candidate and swap the pointer to it.

    Raises `UsageError` when it has to be signed and there is no key, `Refused` when the candidate did not pass its audit,
    and `PointerMoved` when somebody else published meanwhile: the lake's pointer stays as it was.
    """
    sign = _signer(signing_key, required=require_signature)
    verdict = _require_publishable(storage, candidate)
    work = storage.scratch() / f"publish-{candidate.candidate_id}"
    shutil.rmtree(work, ignore_errors=True)
    folder = work / "release"
    folder.mkdir(parents=True)
    try:
        demo = any(staged.demo for staged in candidate.staged)
        with reopen(engine, candidate) as workspace:
            rows, marts = _export(workspace, candidate.marts, folder, demo=demo)
        release_id = layout.make_id(_moment(storage, now), marts_digest(_sums(folder)))
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
        sign(folder, release)
        _upload(storage.guarded(lock), folder, release_id)
        _swap(storage, release, lock, now)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    apply_retention(storage, keep, lock)
    publish_views(storage, engine)
    return release


def _signer(secret: str | None, *, required: bool) -> Callable[[Path, Release], None]:
    """Return what signs the checksums of a release; without a key it does nothing. Raises `UsageError`."""
    if secret is None:
        if required:
            raise UsageError(
                "CATALUNYA_REQUIRE_SIGNATURE: releases must be signed, and CATALUNYA_SIGNING_KEY is not set; nothing was "
                "published: set it (`catalunya key new` makes a key), or unset the requirement"
            )
        return lambda folder, release: None
    # The functions on AWS come without it; they do not publish.
    from catalunya.publication.signature import SUFFIX, SecretKey

    key = SecretKey.parse(secret, "CATALUNYA_SIGNING_KEY")

    def sign(folder: Path, release: Release) -> None:
        comment = (
            f"timestamp:{int(release.released_at.timestamp())}\tfile:{SUMS}\trelease:{release.release_id}"
        )
        signature = key.sign((folder / SUMS).read_bytes(), comment)
        (folder / f"{SUMS}{SUFFIX}").write_text(signature)

    return sign


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
        notice = demo_notice.NOTICE if release.demo else ""
        engine.publish_views(PublishedRelease(release.release_id, tuple(release.rows), notice))


def _require_publishable(storage: Storage, candidate: Candidate) -> Audit:
    """Return the verdict on a candidate that may be published; raises when it may not."""
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
    found = pointer.read(storage)
    shown = found[0].release_id if found else None
    if shown != candidate.release_before:
        # The candidate may lack what the other release has.
        raise PointerMoved(
            f"candidate {candidate.candidate_id} was built when readers saw {candidate.release_before or 'none'}, "
            f"now they see {shown or 'none'}; nothing was changed: run again"
        )
    return verdict


def _moment(storage: Storage, now: datetime) -> datetime:
    """Return the clock, or one second after the newest release when the clock is not past it.

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
            exported.append(_describe(con, mart, notice))
            for kind in ("parquet", "csv"):
                target = folder / kind / f"{mart.name}.{kind}"
                export_mart(con, table, target, comment=notice + mart.description, demo=demo)
            found = con.execute(f"select count(*) from {table}").fetchone()
            rows[mart.name] = int(found[0]) if found else 0
    return rows, tuple(exported)


def export_mart(
    con: duckdb.DuckDBPyConnection, table: str, target: Path, *, comment: str, demo: bool
) -> None:
    """Write a table as the Parquet or CSV file `target`; `comment` is the table's own, with the mark of demo data."""
    query, options = f"from {table}", f"compression zstd, kv_metadata {{catalunya: {quote(comment)}}}"
    if target.suffix == ".csv":
        mark = f", {quote(demo_notice.SHORT_NOTICE)} as {demo_notice.COLUMN}" if demo else ""
        query, options = f"select *{mark} from {table}", "header"
    con.execute(f"copy ({query}) to {quote(str(target))} (format {target.suffix[1:]}, {options})")


def _describe(con: duckdb.DuckDBPyConnection, mart: Mart, notice: str) -> Mart:
    """Comment the table of a mart; returns the mart with its columns in the table's order and of the table's types."""
    table = f"marts.{mart.name}"
    con.execute(f"comment on table {table} is {quote(notice + mart.description)}")
    for column in mart.columns:
        con.execute(f"comment on column {table}.{column.name} is {quote(column.description)}")
    descriptions = {column.name: column.description for column in mart.columns}
    described = con.execute(f"describe {table}").fetchall()
    columns = tuple(
        MartColumn(name, kind.lower(), descriptions.get(name, "")) for name, kind, *_ in described
    )
    return Mart(mart.name, mart.description, columns)


def _released(candidate: Candidate) -> dict[str, ReleasedSnapshot]:
    newest = candidate.inputs.newest()
    return {
        s.dataset_id: ReleasedSnapshot.model_validate(s, from_attributes=True)
        for s in candidate.staged
        if newest.get(s.dataset_id) == s.snapshot_id
    }


def _write_metadata(
    folder: Path, release: Release, marts: tuple[Mart, ...], datasets: dict[str, Dataset]
) -> None:
    definitions = [datasets[name] for name in sorted(datasets)]
    tables = {f"csv/{mart.name}.csv": folder / "csv" / f"{mart.name}.csv" for mart in marts}
    package: dict[str, Any] = catalogue.data_package(
        marts,
        definitions,
        release_id=release.release_id,
        created=release.released_at.isoformat(),
        files={name: (path.stat().st_size, disk.sha256(path)) for name, path in tables.items()},
        demo=release.demo,
    )
    (folder / "datapackage.json").write_text(json.dumps(package, ensure_ascii=False, indent=1) + "\n")
    (folder / "dictionary.md").write_text(catalogue.dictionary(marts, demo=release.demo))
    (folder / "LICENCES.md").write_text(catalogue.licences(definitions, demo=release.demo))
    (folder / RECORD).write_text(release.model_dump_json(indent=1) + "\n")
    (folder / SUMS).write_text("".join(f"{sha256}  {name}\n" for name, sha256 in _sums(folder).items()))


def _sums(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): disk.sha256(path) for path in _files(folder)}


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _upload(storage: Storage, folder: Path, release_id: str) -> None:
    """Put every file of the release into the lake, `release.json` last: with it the release is whole."""

    def put(path: Path) -> None:
        storage.put_file(layout.release(release_id, path.relative_to(folder).as_posix()), path)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(put, (path for path in _files(folder) if path.name != RECORD)))
    put(folder / RECORD)


def _swap(storage: Storage, release: Release, lock: Lock, now: datetime) -> None:
    found = pointer.read(storage)
    before, version = found if found else (None, None)
    lock.check()
    after = Pointer(
        release_id=release.release_id,
        previous=before.release_id if before else None,
        swapped_at=now,
        run_id=release.run_id,
    )
    pointer.swap(storage, after, version)
    log.info("released", release=release.release_id)
