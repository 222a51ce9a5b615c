"""A real Airflow on loopback, its first run, and the demo portal."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from catalunya.demo import server
from orchestration.tests.airflow_instance import Airflow, scheduled_run, start_airflow
from orchestration.tests.api import EndedRun
from tests.pipeline.command import DAY, SMALL


@pytest.fixture(scope="package")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    folder = tmp_path_factory.mktemp("airflow")
    with server.running(rows=SMALL, day=DAY) as demo, start_airflow(folder, demo) as found:
        yield found


@pytest.fixture(scope="package")
def first(airflow: Airflow) -> EndedRun:
    """The pipeline's first run."""
    return scheduled_run(airflow)


@pytest.fixture
def quiet(airflow: Airflow) -> Iterator[Airflow]:
    """The same Airflow with a portal that works, no broken model or test, and no alert received."""
    airflow.webhook_sink.heard.clear()
    yield airflow
    airflow.portal.faults.clear()
    airflow.kills.unlink(missing_ok=True)
    for stray in (airflow.home / "dbt" / "mart").glob("*/broken_*.sql"):
        stray.unlink()
