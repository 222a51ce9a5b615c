"""The Celery settings of Airflow; a worker that imports them warms up before it forks.

`celery_config_options` in airflow.cfg names this module: Airflow loads plugins in a worker only after the fork.
"""

from __future__ import annotations

from airflow.providers.celery.executors.default_celery import DEFAULT_CELERY_CONFIG

from catalunya_airflow.warm_up import warm_up

CONFIG = DEFAULT_CELERY_CONFIG

warm_up()
