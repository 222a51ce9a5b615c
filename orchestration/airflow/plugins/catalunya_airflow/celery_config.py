"""The Celery settings of Airflow; a worker that imports them warms up before it forks, and shows that it lives.

`celery_config_options` in airflow.cfg names this module: Airflow loads plugins in a worker only after the fork.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from airflow.providers.celery.executors.default_celery import DEFAULT_CELERY_CONFIG
from celery.signals import heartbeat_sent, worker_shutdown

from catalunya_airflow.warm_up import warm_up

CONFIG = DEFAULT_CELERY_CONFIG
WORKERS = Path(os.environ.get("CATALUNYA_WORKERS", "/opt/airflow/logs/workers"))
"""Folder in the volume that all services share; docker/healthy.py reads it."""


@heartbeat_sent.connect
def show_life(**_: Any) -> None:
    """Touch the file of this worker, every two seconds while it is connected to the broker."""
    WORKERS.mkdir(exist_ok=True)
    (WORKERS / socket.gethostname()).touch()


@worker_shutdown.connect
def end_life(**_: Any) -> None:
    """Delete the file, so that the scheduler sends no task to a worker that has ended."""
    (WORKERS / socket.gethostname()).unlink(missing_ok=True)


warm_up()
