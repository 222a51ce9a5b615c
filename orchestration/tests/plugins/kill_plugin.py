"""Kill tasks of the tests' Airflow with SIGKILL, as the kernel does when memory runs out.

The file that CATALUNYA_KILLS names holds seconds from the start of a task by task id; only first tries are killed.
`worker:<task id>` kills the worker process of the executor that supervises the task, not the task itself.
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
    moments_file = Path(os.environ["CATALUNYA_KILLS"])
    if not moments_file.exists() or task_instance.try_number != 1:
        return
    moments = json.loads(moments_file.read_text())
    for name, victim in (
        (task_instance.task_id, os.getpid()),
        (f"worker:{task_instance.task_id}", os.getppid()),
    ):
        if name in moments:
            threading.Timer(moments[name], os.kill, (victim, signal.SIGKILL)).start()


class KillPlugin(AirflowPlugin):
    name = "kill_plugin"
    listeners: ClassVar = [sys.modules[__name__]]
