"""Ingest: what a portal sends, kept in landing as one complete snapshot, or "unchanged"."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from catalunya import signals, sources
from catalunya.address import redacted
from catalunya.datasets.model import Dataset
from catalunya.errors import CatalunyaError, LakeBusy, LakeCorrupt, SourceDrift, UsageError
from catalunya.lake import disk, index, layout, snapshot
from catalunya.lake.lock import LockLost
from catalunya.lake.snapshot import LandedFile, Manifest
from catalunya.lake.storage import Storage
from catalunya.log import get_logger
from catalunya.settings import PORTALS, Settings
from catalunya.sources import Fetched, FetchRequest, Http, Progress, Stop
from catalunya.sources.egress import Egress
from catalunya.staging.row_sql import source_names

log = get_logger(__name__)

Outcome = Literal["new", "unchanged", "unreadable", "drifted", "unknown"]
"""The last: the demo portal does not know the dataset."""


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
    previous_validators: dict[str, Any] | None = None,
    force: bool = False,
    progress: Progress = lambda rows, total: None,
    stopped: Stop | None = None,
) -> Ingested:
    """Read the source of `dataset` and land what is new.

    `previous_validators` are those of a reading after the last snapshot; `force` reads the source in any case. A source
    that cannot be read gives the outcome "unreadable" with the reason, as does a full disk or an unexpected error, so
    that the other sources are landed all the same. Only a wrong setting and a lost lock are raised. Once `stopped` is set,
    no request is sent any more.
    """
    if storage.is_local:
        # On S3 no role may delete what was landed; what is not complete is passed over in any case.
        snapshot.discard_incomplete(storage, dataset.id)
    last = snapshot.latest(storage, dataset.id, now)
    validators = (previous_validators or last.validators) if last else {}
    # What could not be decoded is read again, though the portal says that nothing changed since.
    force = force or last is None or _is_unreadable(storage, dataset.id, last.snapshot_id)
    spool = storage.scratch() / f"ingest-{dataset.id}"
    shutil.rmtree(spool, ignore_errors=True)
    spool.mkdir(parents=True)
    with Http(
        attempts=settings.http_attempts,
        timeout_s=settings.http_timeout_s,
        app_token=settings.socrata_app_token,
        project_url=settings.project_url,
        egress=Egress.of(settings.base_urls().values(), PORTALS.values(), settings.allowed_hosts),
        stopped=stopped,
    ) as http:

        def result(
            outcome: Outcome,
            message: str = "",
            *,
            newest: Manifest | None = last,
            validators: dict[str, Any] = validators,
            rows: int = 0,
        ) -> Ingested:
            if message:
                log.warning("source " + outcome, dataset=dataset.id, reason=message)
            snapshot_id = newest.snapshot_id if newest else None
            requests, size = http.requests, http.bytes_received
            return Ingested(dataset.id, outcome, snapshot_id, validators, requests, size, message, rows)

        try:
            request = FetchRequest(
                source=dataset.source,
                base_url=getattr(settings, sources.protocol(dataset.source.protocol).base_url),
                http=http,
                spool=spool,
                dataset=dataset.id,
                previous_validators=None if force else validators,
                key=tuple(dataset.column(name).source[0] for name in dataset.key),
                wanted=tuple(source_names(dataset)),
                progress=progress,
            )
            with disk.explained(spool):
                fetched = sources.fetch(request)
            if fetched is None:
                return result("unchanged")
            manifest = _new_manifest(storage, dataset, fetched, last, http, run_id=run_id, now=now)
            if manifest is None:
                return result("unchanged", validators=fetched.validators)
            snapshot.write(storage, manifest, {file.name: spool / file.name for file in fetched.files})
            landed = {"snapshot": manifest.snapshot_id, "rows": manifest.rows, "bytes": manifest.bytes}
            log.info("landed", dataset=dataset.id, **landed)
            return result("new", newest=manifest, validators=fetched.validators, rows=fetched.rows)
        except (UsageError, LakeBusy, LockLost):
            raise
        except SourceDrift as error:
            return result("drifted", str(error))
        except CatalunyaError as error:
            message = str(error)
            return result(
                "unreadable", message if message.startswith(dataset.id) else f"{dataset.id}: {message}"
            )
        except Exception as error:
            signals.check()
            # One source must not keep the others from landing.
            log.exception("unexpected error", dataset=dataset.id)
            found = f"{type(error).__name__}: {redacted(error)}"
            return result(
                "unreadable", f"{dataset.id}: unexpected error {found}; this is a defect: please report it"
            )
        finally:
            shutil.rmtree(spool, ignore_errors=True)


def _is_unreadable(storage: Storage, dataset_id: str, snapshot_id: str) -> bool:
    """Return True when the snapshot is refused because its bytes cannot be decoded."""
    return index.load(storage, dataset_id).gate(snapshot_id) == snapshot.UNREADABLE


def holds_demo(storage: Storage) -> bool | None:
    """Return True when the lake holds demo data, False when it holds real data, None when it holds none."""
    for dataset_id in storage.folders(layout.LANDING):
        with contextlib.suppress(LakeCorrupt):
            manifest = snapshot.latest(storage, dataset_id)
            if manifest is not None:
                return manifest.demo
    return None


def _same_roles(last: Manifest, files: tuple[LandedFile, ...]) -> bool:
    """Compare the role of each file with the last snapshot's; a snapshot without roles is equal to any."""
    return all(old.role in {None, new.role} for old, new in zip(last.files, files, strict=True))


def _new_manifest(
    storage: Storage,
    dataset: Dataset,
    fetched: Fetched,
    last: Manifest | None,
    http: Http,
    *,
    run_id: str,
    now: datetime,
) -> Manifest | None:
    """Return the manifest of the snapshot to land; None when it would equal the last one."""
    held = holds_demo(storage) if last is None else last.demo
    if held is not None and held != fetched.demo:
        kinds = {True: "demo data", False: "data of a real portal"}
        raise UsageError(
            f"CATALUNYA_LAKE: {storage.url} holds {kinds[held]}, {dataset.id} now sends "
            f"{kinds[fetched.demo]}; the two never mix: set CATALUNYA_LAKE to another lake, in containers "
            "CATALUNYA_LAKE_FOLDER to another folder"
        )
    content = snapshot.content_hash(fetched.files)
    if (
        last is not None
        and (last.content_sha256, last.columns) == (content, fetched.columns)
        and _same_roles(last, fetched.files)
    ):
        return None
    taken_at = snapshot.moment_after(last, now)
    return Manifest(
        dataset_id=dataset.id,
        snapshot_id=layout.make_id(taken_at, content),
        taken_at=taken_at,
        run_id=run_id,
        protocol=dataset.source.protocol,
        request=fetched.request,
        validators=fetched.validators,
        columns=fetched.columns,
        rows_before=fetched.rows_before,
        rows_after=fetched.rows_after,
        rows=fetched.rows,
        demo=fetched.demo,
        content_sha256=content,
        requests=http.requests,
        bytes=http.bytes_received,
        files=fetched.files,
    )
