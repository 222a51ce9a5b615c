"""Loads what every task needs in the process that forks tasks.

Importing dbt and parsing the project take seconds, and three tasks of a run need both. The scheduler
(LocalExecutor) and a Celery worker fork a process for every task; what they have loaded, the task has for nothing.
What it costs to run the DAG is measured by `bench/orchestration.py`.
"""

from __future__ import annotations

import functools
import importlib
import logging
import sys

log = logging.getLogger(__name__)

NEEDED = (
    "airflow.sdk.definitions.decorators", "catalunya_airflow.sensor", "catalunya_airflow.wiring",
    "catalunya.operations.doctor", "catalunya.runs.steps", "catalunya.sources.keys",
)  # fmt: skip
"""What the DAG files and their tasks import."""


@functools.cache
def preload() -> None:
    """Import the library and dbt and parse the dbt project, in processes that fork tasks and nowhere else.

    Once: what they fork loads the plugin anew, and has it all. When the project has changed since, only the
    tasks that use dbt parse it.
    """
    if "scheduler" not in sys.argv[1:2] and sys.argv[1:3] != ["celery", "worker"]:
        return
    try:
        for name in NEEDED:
            importlib.import_module(name)
        from catalunya.build import code_digest
        from catalunya.datasets import loader
        from catalunya.operations import alerts
        from catalunya.settings import Settings
        from catalunya.warehouse import dbt

        settings = Settings.load()
        loader.load(settings.home / "datasets")
        alerts.channels(settings.notify_urls)
        dbt.preload(settings.home / "dbt" / "mart", code_digest(settings.home))
    except Exception:
        log.exception("nothing is preloaded; every task loads what it needs")
