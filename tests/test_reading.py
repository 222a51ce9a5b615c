"""The sources of a run are read at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from catalunya.datasets import loader
from catalunya.datasets.model import Dataset
from catalunya.errors import UsageError
from catalunya.ingest import Ingested
from catalunya.runs.reading import read_sources
from catalunya.runs.reporter import NullReporter
from catalunya.sources import Progress, Stop
from tests.project import ROOT

DATASETS = tuple(loader.load(ROOT / "datasets").values())
LONG_S = 300
"""What never happens when the code is right, ends the test after this."""


def read(work: Callable[[Dataset], None]) -> list[Ingested]:
    """Read all sources by `work`."""

    def one(dataset: Dataset, progress: Progress, _: Stop) -> Ingested:
        progress(1, None)
        work(dataset)
        return Ingested(dataset.id, "unchanged", None, {}, 0, 0)

    return list(read_sources(DATASETS, one, NullReporter()))


def test_every_source_waits_for_its_portal_at_the_same_time_and_results_are_in_order():
    together = threading.Barrier(len(DATASETS))
    found = read(lambda _: bool(together.wait(LONG_S)))
    assert [one.dataset_id for one in found] == [dataset.id for dataset in DATASETS]


def test_a_wrong_setting_is_raised_after_the_other_sources_were_read():
    ended = []

    def work(dataset: Dataset) -> None:
        if dataset is DATASETS[1]:
            raise UsageError("wrong")
        ended.append(dataset)

    with pytest.raises(UsageError, match="wrong"):
        read(work)
    assert len(ended) == len(DATASETS) - 1


def test_readings_are_stopped_when_the_run_is_interrupted(monkeypatch):
    stopped = []

    def one(dataset: Dataset, _: Progress, stop: Stop) -> Ingested:
        assert stop.wait(LONG_S)
        stopped.append(dataset.id)
        return Ingested(dataset.id, "unreadable", None, {}, 0, 0)

    join, joined = threading.Thread.join, []

    def interrupted(thread: threading.Thread, timeout: float | None = None) -> None:
        """Be interrupted as Ctrl-C interrupts the first `join`."""
        joined.append(thread)
        if len(joined) == 1:
            raise KeyboardInterrupt
        join(thread, timeout)

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(read_sources(DATASETS, one, NullReporter()))
    assert sorted(stopped) == sorted(dataset.id for dataset in DATASETS)
