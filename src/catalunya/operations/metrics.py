"""Metrics of a lake as OpenMetrics, for Prometheus and whatever else reads that format.

They are read from the lake at every request, as `catalunya status` does: from the records of the last week, the index of
each dataset and the release, so that a request does not take longer as history grows. Only the size of the lake needs a
listing of all of it, and is renewed once an hour.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from catalunya.datasets.model import Dataset
from catalunya.errors import CatalunyaError
from catalunya.lake import layout
from catalunya.lake.storage import MissingKey, Storage
from catalunya.operations.status import describe
from catalunya.release import read_release
from catalunya.runs.record import RunRecord

WINDOW = timedelta(days=7)
"""How far back runs are counted."""
_SIZE_AGE_S = 3600.0
"""Age of the known size of the lake from which on it is listed again."""


@dataclass(eq=False)
class LakeMetrics(Collector):
    """The metrics of one lake; keeps the records and the size that it has read."""

    storage: Storage
    datasets: dict[str, Dataset]
    now: Callable[[], datetime]
    _records: dict[str, RunRecord] = field(default_factory=dict)
    _sizes: dict[str, int] = field(default_factory=dict)
    _sized_at: float | None = None

    def collect(self) -> Iterator[Metric]:
        """Yield every metric family."""
        now = self.now()
        state = describe(self.storage, self.datasets, now)
        yield from self._of_release(state)
        yield from self._of_runs(now)
        yield from _of_datasets(state)
        cadences = [((name,), 86_400 * one.cadence_days) for name, one in self.datasets.items()]
        yield _gauge(
            "dataset_cadence_seconds",
            "How long the source may have nothing new.",
            cadences,
            labels=("dataset",),
        )
        yield _gauge(
            "lake_faults",
            "What is damaged in the lake, or does not belong to it.",
            [((), len(state["faults"]))],
        )
        yield _gauge("lake_bytes", "Size of the lake by folder.", self._size(), labels=("folder",))

    def _of_release(self, state: dict[str, Any]) -> Iterator[Metric]:
        if state["release_id"] is None:
            return
        release = read_release(self.storage, state["release_id"])
        info = InfoMetricFamily("catalunya_release", "The release that readers see.")
        info.add_metric([], {"release_id": release.release_id, "demo": str(release.demo).lower()})
        yield info
        at = release.released_at.timestamp()
        yield _gauge("release_timestamp_seconds", "When the release was published.", [((), at)])
        rows = [((mart,), count) for mart, count in release.rows.items()]
        yield _gauge("release_rows", "Rows of a mart in the release.", rows, labels=("mart",))

    def _of_runs(self, now: datetime) -> Iterator[Metric]:
        records = self._recent(now)
        counts = dict.fromkeys(("released", "unchanged", "refused", "failed"), 0)
        for record in records:
            counts[record.status] += 1
        yield _gauge(
            "recent_runs", f"Runs of the last {WINDOW.days} days by how they ended.",
            [((status,), count) for status, count in counts.items()], labels=("status",),
        )  # fmt: skip
        good = [record for record in records if record.status in {"released", "unchanged"}]
        if good:
            ended = max(_ended(record) for record in good)
            yield _gauge(
                "last_success_timestamp_seconds", "End of the last run that ended well.", [((), ended)]
            )
        if not records:
            return
        last = records[-1]
        yield _gauge("last_run_timestamp_seconds", "End of the last run.", [((), _ended(last))])
        yield _gauge("last_run_duration_seconds", "Duration of the last run.", [((), last.seconds)])
        yield _gauge("last_run_exit_code", "Exit code of the last run.", [((), last.exit_code)])
        yield _gauge("last_run_warnings", "Warnings of the last run.", [((), len(last.warnings))])
        yield _gauge(
            "stage_duration_seconds", "Duration of each stage in the last run that did it.",
            [((name,), seconds) for name, seconds in _stages(records).items()], labels=("stage",),
        )  # fmt: skip
        yield from _of_readings(records)

    def _recent(self, now: datetime) -> list[RunRecord]:
        """The records of the last days, oldest first; each is read once."""
        begin = layout.make_id(now - WINDOW, "0" * 8)
        names = [
            entry.key.removeprefix(f"{layout.LEDGER}/").removesuffix(".json")
            for entry in self.storage.list(layout.LEDGER, after=begin)
        ]
        names = [name for name in names if layout.is_id(name)]
        kept = {name: self._records.get(name) or self._read(name) for name in names}
        self._records = {name: record for name, record in kept.items() if record is not None}
        return list(self._records.values())

    def _read(self, run_id: str) -> RunRecord | None:
        try:
            return RunRecord.model_validate_json(self.storage.read(layout.ledger(run_id)))
        except (MissingKey, ValidationError):
            # `catalunya status` names it among the faults.
            return None

    def _size(self) -> list[tuple[tuple[str, ...], float]]:
        if self._sized_at is None or time.monotonic() - self._sized_at > _SIZE_AGE_S:
            folders = [name for name in self.storage.folders() if name != layout.SITE]
            self._sizes = {name: sum(entry.size for entry in self.storage.list(name)) for name in folders}
            self._sized_at = time.monotonic()
        return [((folder,), size) for folder, size in self._sizes.items()]


def _of_datasets(state: dict[str, Any]) -> Iterator[Metric]:
    stale = {one["dataset_id"] for one in state["stale"]}
    datasets = state["datasets"].items()
    ages = [((name,), 3600 * one["age_hours"]) for name, one in datasets if one["age_hours"] is not None]
    labels = ("dataset",)
    yield _gauge(
        "dataset_age_seconds", "Age of the newest snapshot that is not refused.", ages, labels=labels
    )
    for name, help_text, count in (
        ("dataset_snapshots", "Snapshots that are not refused.", "snapshots"),
        ("dataset_pending_snapshots", "Snapshots that no release contains yet.", "pending"),
        ("dataset_refused_snapshots", "Snapshots that are refused.", "refused"),
    ):
        values = [((dataset,), _count(one[count])) for dataset, one in datasets]
        yield _gauge(name, help_text, values, labels=labels)
    unread = [((dataset,), float(dataset in stale)) for dataset, _ in datasets]
    yield _gauge(
        "dataset_stale", "1 when the release says that the source could not be read.", unread, labels=labels
    )


def _count(found: Any) -> float:
    return float(found if isinstance(found, int) else len(found))


def _of_readings(records: Iterable[RunRecord]) -> Iterator[Metric]:
    """What the last run that read a source says of it."""
    newest = {name: found for record in records for name, found in record.datasets.items()}
    rows = [
        ((name, kind), getattr(found, f"rows_{kind}"))
        for name, found in newest.items()
        for kind in ("in", "staged", "quarantined", "duplicated")
    ]
    yield _gauge(
        "dataset_rows", "Rows of the snapshot that the last run used.", rows, labels=("dataset", "kind")
    )
    for name, help_text in (
        ("requests", "Requests that the last run sent to the portal."),
        ("bytes", "Bytes that the portal sent to the last run."),
    ):
        values = [((dataset,), getattr(found, name)) for dataset, found in newest.items()]
        yield _gauge(f"dataset_{name}", help_text, values, labels=("dataset",))
    unreadable = [((name,), float(found.outcome == "unreadable")) for name, found in newest.items()]
    yield _gauge(
        "dataset_unreadable",
        "1 when the last run could not read the source.",
        unreadable,
        labels=("dataset",),
    )


def _stages(records: Iterable[RunRecord]) -> dict[str, float]:
    return {
        stage.name: stage.seconds for record in records for stage in record.stages if stage.status == "done"
    }


def _ended(record: RunRecord) -> float:
    return record.started_at.timestamp() + record.seconds


def _gauge(
    name: str, help_text: str, values: Iterable[tuple[tuple[str, ...], float]], labels: tuple[str, ...] = ()
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"catalunya_{name}", help_text, labels=labels)
    for given, value in values:
        family.add_metric(given, value)
    return family


def exposition(metrics: LakeMetrics) -> bytes:
    """Return the metrics as OpenMetrics text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(metrics)
    text: bytes = generate_latest(registry)  # type: ignore[no-untyped-call]
    return text


def metrics_app(metrics: LakeMetrics) -> Starlette:
    """Return the application that answers `/metrics`; 503 with the reason while the lake cannot be read."""

    async def answer(request: Request) -> Response:
        try:
            text = await run_in_threadpool(exposition, metrics)
        except CatalunyaError as error:
            return PlainTextResponse(f"{error}\n", 503)
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    return Starlette(routes=[Route("/metrics", answer)])


def serve_metrics(metrics: LakeMetrics, listening: socket.socket) -> None:
    """Answer requests for `/metrics` on a socket until interrupted."""
    # Here: who only prints the metrics does not wait for its import.
    import uvicorn

    config = uvicorn.Config(metrics_app(metrics), log_level="warning", access_log=False)
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])
