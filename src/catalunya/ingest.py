"""Ingest: what a portal sends, kept in landing as one complete snapshot, or "unchanged"."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import structlog

from catalunya import sources
from catalunya.address import redacted
from catalunya.datasets.model import Dataset
from catalunya.errors import CatalunyaError, LakeBusy, LakeCorrupt, SourceDrift, UsageError
from catalunya.lake import disk, index, layout, snapshot
from catalunya.lake.lock import LockLost
from catalunya.lake.snapshot import LandedColumn, LandedFile, Manifest
from catalunya.lake.storage import Storage
from catalunya.settings import Settings
from catalunya.sources import Fetched, Http
from catalunya.staging.row_sql import source_names

log = structlog.get_logger(__name__)

Outcome = Literal["new", "unchanged", "unreadable", "drifted", "unknown"]
"""The last: the demo portal does not know the dataset."""
Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Ingested:
    """Result of one ingest."""

    dataset_id: str
    outcome: Outcome
    snapshot_id: str | None
    """The newest complete snapshot; None when there never was one."""
    validators: dict[str, Any]
    """What the next run sends or compares to learn that nothing changed."""
    requests: int
    bytes: int
    message: str = ""
    rows: int = 0
    """Rows that landed now; 0 unless the outcome is "new"."""


def ingest(
    storage: Storage,
    dataset: Dataset,
    settings: Settings,
    *,
    run_id: str,
    now: datetime,
    known: dict[str, Any] | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Ingested:
    """Read the source of `dataset` and land what is new.

    `known` are validators seen later than those of the last manifest. A source that cannot be read gives
    the outcome "unreadable" with the reason, as does a full disk or a defect of the code; nothing is raised,
    so that the others are landed all the same, but for a wrong setting and a lost lock.
    """
    if storage.is_local:
        # On S3 no role may delete what was landed; what is not complete is passed over in any case.
        snapshot.discard_incomplete(storage, dataset.id)
    last = snapshot.latest(storage, dataset.id, now)
    validators = (known or last.validators) if last else {}
    # What could not be decoded is read again, though the portal says that nothing changed since.
    force = force or (last is not None and _is_unreadable(storage, dataset.id, last.snapshot_id))
    spool = storage.scratch() / f"ingest-{dataset.id}"
    shutil.rmtree(spool, ignore_errors=True)
    spool.mkdir(parents=True)
    last_id = last.snapshot_id if last else None
    with Http(
        attempts=settings.http_attempts,
        timeout_s=settings.http_timeout_s,
        app_token=settings.socrata_app_token,
    ) as http:

        def failed(outcome: Outcome, message: str) -> Ingested:
            log.warning("source " + outcome, dataset=dataset.id, reason=message)
            return Ingested(dataset.id, outcome, last_id, validators, http.requests, http.bytes, message)

        try:
            with disk.explained(spool):
                fetched = sources.fetch(
                    dataset.source,
                    base_url=getattr(settings, sources.protocol(dataset.source.protocol).base_url),
                    http=http,
                    spool=spool,
                    known=None if force or last is None else validators,
                    key=tuple(dataset.column(name).source[0] for name in dataset.key),
                    wanted=tuple(source_names(dataset)),
                    progress=progress,
                    dataset=dataset.id,
                )
            if fetched is None:
                return Ingested(dataset.id, "unchanged", last_id, validators, http.requests, http.bytes)
            return _land(storage, dataset, fetched, last, http, run_id=run_id, now=now)
        except (UsageError, LakeBusy, LockLost):
            raise
        except SourceDrift as error:
            return failed("drifted", str(error))
        except CatalunyaError as error:
            message = str(error)
            return failed(
                "unreadable", message if message.startswith(dataset.id) else f"{dataset.id}: {message}"
            )
        except Exception as error:
            # A defect met by one source must not keep the others from landing.
            log.exception("unexpected error", dataset=dataset.id)
            said = f"{type(error).__name__}: {redacted(error)}"
            return failed(
                "unreadable", f"{dataset.id}: unexpected error {said}; this is a defect: please report it"
            )
        finally:
            shutil.rmtree(spool, ignore_errors=True)


def _is_unreadable(storage: Storage, dataset_id: str, snapshot_id: str) -> bool:
    """Whether the snapshot is refused because its bytes cannot be decoded."""
    return index.load(storage, dataset_id).gate(snapshot_id) == snapshot.UNREADABLE


def holds_demo(storage: Storage) -> bool | None:
    """True when the lake holds demo data, False when it holds real data, None when it holds none."""
    for dataset_id in storage.folders(layout.LANDING):
        with contextlib.suppress(LakeCorrupt):
            manifest = snapshot.latest(storage, dataset_id)
            if manifest is not None:
                return manifest.demo
    return None


def _same(last: Manifest, files: tuple[LandedFile, ...]) -> bool:
    """Whether each file is what it was; a snapshot of before roles were recorded says nothing of it."""
    return all(old.role in {None, new.role} for old, new in zip(last.files, files, strict=True))


def _land(
    storage: Storage,
    dataset: Dataset,
    fetched: Fetched,
    last: Manifest | None,
    http: Http,
    *,
    run_id: str,
    now: datetime,
) -> Ingested:
    held = holds_demo(storage) if last is None else last.demo
    if held is not None and held != fetched.demo:
        kinds = {True: "demo data", False: "data of a real portal"}
        raise UsageError(
            f"CATALUNYA_LAKE: {storage.url} holds {kinds[held]}, {dataset.id} now sends "
            f"{kinds[fetched.demo]}; the two never mix: use another lake"
        )
    files = tuple(
        LandedFile(name=f.name, url=f.url, size=f.size, sha256=f.sha256, rows=f.rows, role=f.role)
        for f in fetched.files
    )
    content = snapshot.content_hash(files)
    columns = tuple(LandedColumn(name=c.name, type=c.type) for c in fetched.columns)
    if last is not None and last.content_sha256 == content and last.columns == columns and _same(last, files):
        return Ingested(
            dataset.id, "unchanged", last.snapshot_id, fetched.validators, http.requests, http.bytes
        )
    taken_at = snapshot.moment_after(last, now)
    manifest = Manifest(
        dataset_id=dataset.id,
        snapshot_id=layout.make_id(taken_at, content),
        taken_at=taken_at,
        run_id=run_id,
        protocol=dataset.source.protocol,
        request=fetched.request,
        validators=fetched.validators,
        columns=columns,
        rows_before=fetched.rows_before,
        rows_after=fetched.rows_after,
        rows=fetched.rows,
        demo=fetched.demo,
        content_sha256=content,
        requests=http.requests,
        bytes=http.bytes,
        files=files,
    )
    snapshot.write(storage, manifest, {f.name: f.path for f in fetched.files})
    log.info("landed", dataset=dataset.id, snapshot=manifest.snapshot_id, rows=fetched.rows, bytes=http.bytes)
    return Ingested(
        dataset.id,
        "new",
        manifest.snapshot_id,
        fetched.validators,
        http.requests,
        http.bytes,
        rows=fetched.rows,
    )
