"""Loads what every task needs in the process that forks tasks.

Importing dbt and parsing the project take seconds, and three tasks of a run need both. The scheduler
(LocalExecutor) and a Celery worker fork a process for every task; what they have loaded, the task has for nothing.
What it costs to run the DAG is measured by `bench/orchestration.py`.
"""

from __future__ import annotations

import logging
import sys

log = logging.getLogger(__name__)


def preload() -> None:
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
