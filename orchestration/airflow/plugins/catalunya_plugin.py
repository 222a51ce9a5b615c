"""The plugin of Airflow: registers the deadline, warms up processes that fork tasks, and marks demo data."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin

from catalunya.publication.demo_notice import NOTICE
from catalunya_airflow.deadline import SinceCreation
from catalunya_airflow.warm_up import warm_up


class Catalunya(AirflowPlugin):
    """Registers what Airflow needs of the pipeline besides its DAGs."""

    name = "catalunya"
    deadline_references: ClassVar = [SinceCreation]

    @classmethod
    def on_load(cls, *args: Any, **kwargs: Any) -> None:
        """Warm up in a process that forks tasks, and mark demo data in the web interface."""
        warm_up()
        if os.environ.get("ENVIRONMENT") == "demo":
            _mark_demo_data()


def _mark_demo_data() -> None:
    """Put the notice on the first page; the page of each DAG has it in its documentation."""
    from airflow import settings
    from airflow.api_fastapi.common.types import UIAlert

    if NOTICE not in [alert.text for alert in settings.DASHBOARD_UIALERTS]:
        settings.DASHBOARD_UIALERTS.append(UIAlert(text=NOTICE, category="warning"))
