"""Kills tasks of the tests' Airflow, as a machine that runs out of memory would: SIGKILL, in the middle.

Reads the file that CATALUNYA_SABOTAGE names: task id to seconds from the task's beginning, first tries only;
`worker:<task id>` kills the executor's worker that watches over the task, not the task itself.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any, ClassVar

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin


@hookimpl
def on_task_instance_running(previous_state: Any, task_instance: Any) -> None:
    orders = Path(os.environ["CATALUNYA_SABOTAGE"])
    if not orders.exists() or task_instance.try_number != 1:
        return
    moments = json.loads(orders.read_text())
    for name, victim in (
        (task_instance.task_id, os.getpid()),
        (f"worker:{task_instance.task_id}", os.getppid()),
    ):
        if name in moments:
            threading.Timer(moments[name], os.kill, (victim, signal.SIGKILL)).start()


class Saboteur(AirflowPlugin):
    name = "kill_plugin"
    listeners: ClassVar = [sys.modules[__name__]]
