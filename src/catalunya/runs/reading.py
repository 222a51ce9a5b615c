"""Read the sources of a run at the same time: each has a thread of its own, which mostly waits for its portal."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime

from catalunya import signals
from catalunya.datasets.model import Dataset
from catalunya.errors import UsageError
from catalunya.ingest import Ingested
from catalunya.lake import index
from catalunya.lake.storage import Storage
from catalunya.runs.reporter import Reporter
from catalunya.settings import Settings
from catalunya.sources import Progress, Stop

_GRACE_S = 10.0
"""Time that a stopped run gives its readings to end; what still waits for a portal then ends with the process."""

Read = Callable[[Dataset, Progress, Stop], Ingested]
"""Reads one source, reports its rows, and ends early once the event is set."""


def read_sources(datasets: Iterable[Dataset], read: Read, reporter: Reporter) -> Iterator[Ingested]:
    """Read all `datasets` at the same time, and yield the results in their order.

    Raises the first error of `read`, in that order, in place of its result, when all readings have ended.
    """
    rows = _Rows(reporter)
    readings = [_Reading(dataset, read, rows) for dataset in datasets]
    with _all_ended(readings):
        for reading in readings:
            reading.thread.start()
        for reading in readings:
            while reading.thread.is_alive():
                reading.thread.join(signals.CHECK_S)
    for reading in readings:
        yield reading.result()


def check_clock(storage: Storage, datasets: Iterable[str], settings: Settings, now: datetime) -> None:
    """Raise `UsageError` when the lake has snapshots of a later time than the run's clock."""
    for dataset_id in datasets:
        later = index.load(storage, dataset_id).later_than(now)
        if later:
            clock = "CATALUNYA_NOW" if settings.now_override else "the clock of this machine"
            raise UsageError(
                f"{clock} says {now:%Y-%m-%d %H:%M:%SZ}, but {dataset_id} has snapshots of a later time: "
                f"{', '.join(later)}. Correct the clock; or, if it was wrong when they were taken, leave each of them "
                f"out: `catalunya refuse {later[-1]} --why …`, and run again"
            )


class _Reading:
    """The reading of one source in a thread."""

    def __init__(self, dataset: Dataset, read: Read, rows: _Rows) -> None:
        self.stopped = Stop()
        self._result: Ingested | None = None
        self._error: BaseException | None = None
        context = contextvars.copy_context()
        self.thread = threading.Thread(
            target=context.run,
            args=(self._read, dataset, read, rows),
            name=f"ingest {dataset.id}",
            daemon=True,
        )

    def _read(self, dataset: Dataset, read: Read, rows: _Rows) -> None:
        try:
            self._result = read(dataset, rows.of(dataset), self.stopped)
        except BaseException as error:  # noqa: BLE001
            self._error = error

    def result(self) -> Ingested:
        if self._result is None:
            assert self._error is not None
            raise self._error
        return self._result


class _Rows:
    """The rows that all readings together have received, shown as one number."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._counts: dict[str, tuple[int, int | None]] = {}
        self._lock = threading.Lock()

    def of(self, dataset: Dataset) -> Progress:
        """Return what counts the rows of one source."""

        def progress(done: int, total: int | None) -> None:
            with self._lock:
                self._counts[dataset.id] = done, total
                read = sum(count for count, _ in self._counts.values())
                totals = [total for _, total in self._counts.values()]
                known = None if None in totals else sum(total or 0 for total in totals)
                self._reporter.step("ingest", ", ".join(self._counts), read, known)

        return progress


@contextmanager
def _all_ended(readings: list[_Reading]) -> Iterator[None]:
    """Stop the readings when the run is interrupted."""
    try:
        yield
    except BaseException:
        for reading in readings:
            reading.stopped.set()
        for reading in readings:
            if reading.thread.ident is not None:
                reading.thread.join(_GRACE_S / len(readings))
        raise
