"""Celery's settings, as Airflow has them; a worker that reads them loads what its tasks need before it forks.

Named by `celery_config_options` in airflow.cfg: of the project's own code it is the first that a worker runs, and
Airflow loads plugins in a worker only after the fork.
"""

from __future__ import annotations

from airflow.providers.celery.executors.default_celery import DEFAULT_CELERY_CONFIG

from catalunya_airflow.preload import preload

CONFIG = DEFAULT_CELERY_CONFIG

preload()
