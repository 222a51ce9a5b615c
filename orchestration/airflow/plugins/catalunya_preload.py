"""Loads what every task needs once, in the process that tasks are forked from.

Importing dbt and parsing the project take some five seconds, and three tasks of a run need both. The scheduler
(LocalExecutor) and a Celery worker fork a process for every task; what they have loaded, the task has for nothing.
Without this plugin everything works all the same, only slower. Measured by `bench/orchestration.py`.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from airflow.plugins_manager import AirflowPlugin

log = logging.getLogger(__name__)


class Preload(AirflowPlugin):
    """Acts in processes that fork tasks and nowhere else."""

    name = "catalunya_preload"

    @classmethod
    def on_load(cls, *args: Any, **kwargs: Any) -> None:
        """Import the library and dbt, and parse the dbt project."""
        if "scheduler" not in sys.argv[1:2] and sys.argv[1:3] != ["celery", "worker"]:
            return
        try:
            import catalunya.doctor
            import catalunya.notify
            import catalunya.relay  # noqa: F401
            from catalunya import dbt
            from catalunya.build import code_digest
            from catalunya.settings import Settings

            home = Settings.load().home
            dbt.parse(home / "dbt" / "mart", code_digest(home))
        except Exception:
            log.exception("nothing is preloaded; every task loads what it needs")
