"""Makes the deadline's reference known to Airflow, and loads what every task needs in the process that forks tasks.

Importing dbt and parsing the project take seconds, and three tasks of a run need both. The scheduler
(LocalExecutor) and a Celery worker fork a process for every task; what they have loaded, the task has for nothing.
What it costs to run the DAG is measured by `bench/orchestration.py`.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin

from catalunya_airflow.deadline import SinceCreation

log = logging.getLogger(__name__)


class Catalunya(AirflowPlugin):
    """What Airflow has to know of the pipeline beside its DAGs."""

    name = "catalunya"
    deadline_references: ClassVar = [SinceCreation]

    @classmethod
    def on_load(cls, *args: Any, **kwargs: Any) -> None:
        """Import the library and dbt and parse the dbt project, in processes that fork tasks and nowhere else."""
        if "scheduler" not in sys.argv[1:2] and sys.argv[1:3] != ["celery", "worker"]:
            return
        try:
            import catalunya.doctor
            import catalunya.notify
            import catalunya.relay
            import catalunya.sources.keys  # noqa: F401
            from catalunya import dbt
            from catalunya.build import code_digest
            from catalunya.settings import Settings

            home = Settings.load().home
            dbt.parse(home / "dbt" / "mart", code_digest(home))
        except Exception:
            log.exception("nothing is preloaded; every task loads what it needs")
