"""The deadline of a DAG run, after which an alert goes out."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import AsyncCallback, DeadlineAlert
from airflow.sdk.definitions.deadline import BaseDeadlineReference

from catalunya_airflow import alerts
from catalunya_airflow.environment import number


class SinceCreation(BaseDeadlineReference):
    """Counts from the creation of the DAG run.

    With Airflow's own reference, DAGRUN_QUEUED_AT, clearing a task of a run fails with "Internal Server Error"
    in 3.3 (apache/airflow#70368).
    """

    def _evaluate_with(self, **_: Any) -> datetime:
        return datetime.now(UTC)


def deadline() -> DeadlineAlert | None:
    """Return an alert for runs longer than CATALUNYA_DEADLINE_MINUTES (60 by default), None for 0.

    `airflow dags test` of Airflow 3.3.2 cannot end a run that has a deadline (apache/airflow#73428).
    """
    minutes = number("CATALUNYA_DEADLINE_MINUTES", 60, most=525_600)
    if not minutes or sys.argv[1:3] == ["dags", "test"]:
        return None
    return DeadlineAlert(
        reference=SinceCreation(), interval=timedelta(minutes=minutes), callback=AsyncCallback(alerts.late)
    )
