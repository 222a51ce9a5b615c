"""Makes the deadline's reference known to Airflow, and loads what every task needs in the scheduler, which forks tasks."""

from __future__ import annotations

from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin

from catalunya_airflow.deadline import SinceCreation
from catalunya_airflow.preload import preload


class Catalunya(AirflowPlugin):
    """What Airflow has to know of the pipeline beside its DAGs."""

    name = "catalunya"
    deadline_references: ClassVar = [SinceCreation]

    @classmethod
    def on_load(cls, *args: Any, **kwargs: Any) -> None:
        """Load what tasks need, in a process that forks them."""
        preload()
