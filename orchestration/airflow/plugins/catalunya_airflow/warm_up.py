"""Imports what every task needs in the process that forks the tasks.

Importing dbt and parsing the project take seconds, and three tasks of a run need both. The scheduler (LocalExecutor) and
a Celery worker fork a process for every task, which then has all that is imported already.
`bench/orchestration.py` measures the time of a DAG run.
"""

from __future__ import annotations

import functools
import importlib
import logging
import sys

log = logging.getLogger(__name__)

NEEDED = (
    "airflow.sdk.definitions.decorators", "catalunya_airflow.sensors", "catalunya_airflow.dag_parts",
    "catalunya.operations.doctor", "catalunya.runs.steps", "catalunya.sources.keys",
)  # fmt: skip
"""The imports of the DAG files and their tasks."""


@functools.cache
def warm_up() -> None:
    """Import the library and dbt and parse the dbt project, once, in processes that fork tasks and nowhere else.

    When the project has changed since, the tasks that use dbt parse it again.
    """
    if "scheduler" not in sys.argv[1:2] and sys.argv[1:3] != ["celery", "worker"]:
        return
    try:
        for name in NEEDED:
            importlib.import_module(name)
        from catalunya.datasets import loader
        from catalunya.operations import alerts
        from catalunya.settings import Settings
        from catalunya.warehouse import dbt
        from catalunya.warehouse.code import code_digest

        settings = Settings.load()
        loader.load(settings.home / "datasets")
        alerts.channels(settings.alert_addresses)
        dbt.parse(settings.home / "dbt" / "mart", code_digest(settings.home))
    except Exception:
        log.exception("warm-up failed; every task imports what it needs")
