"""By when a DAG run has to be done, or people are told."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import AsyncCallback, DeadlineAlert
from airflow.sdk.definitions.deadline import BaseDeadlineReference

from catalunya_airflow import alerts


class SinceCreation(BaseDeadlineReference):
    """Counts from the moment that the DAG run is made.

    Airflow's own reference for this, DAGRUN_QUEUED_AT, makes every attempt to clear a task of a run fail with
    "Internal Server Error" in 3.3 (apache/airflow#70368).
    """

    def _evaluate_with(self, **_: Any) -> datetime:
        return datetime.now(UTC)


def deadline() -> DeadlineAlert | None:
    """An alert for a run that takes longer than CATALUNYA_DEADLINE_MINUTES, 60 by default; 0 means none.

    `airflow dags test` of Airflow 3.3.2 cannot end a run that has a deadline (apache/airflow#73428).
    """
    minutes = float(os.environ.get("CATALUNYA_DEADLINE_MINUTES", "60"))
    if not minutes or sys.argv[1:3] == ["dags", "test"]:
        return None
    return DeadlineAlert(
        reference=SinceCreation(), interval=timedelta(minutes=minutes), callback=AsyncCallback(alerts.late)
    )
