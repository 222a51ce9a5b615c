"""Makes the deadline's reference known to Airflow, loads what every task needs in the scheduler, which forks tasks, and
marks the first page of demo data."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin

from catalunya.publication.demo_notice import NOTICE
from catalunya_airflow.deadline import SinceCreation
from catalunya_airflow.preload import preload


class Catalunya(AirflowPlugin):
    """What Airflow has to know of the pipeline beside its DAGs."""

    name = "catalunya"
    deadline_references: ClassVar = [SinceCreation]

    @classmethod
    def on_load(cls, *args: Any, **kwargs: Any) -> None:
        """Load what tasks need, in a process that forks them, and mark Airflow's first page of demo data."""
        preload()
        if os.environ.get("ENVIRONMENT") == "demo":
            _mark()


def _mark() -> None:
    """Put the notice of demo data on Airflow's first page; the pages of each DAG have it in their documentation."""
    from airflow import settings
    from airflow.api_fastapi.common.types import UIAlert

    if NOTICE not in [alert.text for alert in settings.DASHBOARD_UIALERTS]:
        settings.DASHBOARD_UIALERTS.append(UIAlert(text=NOTICE, category="warning"))
