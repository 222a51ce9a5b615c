"""Kill tasks of the tests' Airflow with SIGKILL, as the kernel does when memory runs out.

The file that CATALUNYA_KILLS names holds, by task id, the number of the write to the lake right before which the task is
killed, or 0 for its start; only first tries are killed. `worker:<task id>` kills the worker process of the executor that
supervises the task, not the task itself.
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

WRITES = ("put", "put_file", "replace", "copy", "delete", "delete_folder")


def kill_before_write(victim: int, number: int) -> None:
    """Kill a process right before this one's write of this number."""
    from catalunya.lake.local import LocalStorage

    guard, begun = threading.Lock(), 0

    def watch(name: str) -> None:
        real = getattr(LocalStorage, name)

        def call(*args: Any, **more: Any) -> Any:
            nonlocal begun
            with guard:
                begun += 1
                if begun == number:
                    os.kill(victim, signal.SIGKILL)
            return real(*args, **more)

        setattr(LocalStorage, name, call)

    for name in WRITES:
        watch(name)


@hookimpl
def on_task_instance_running(previous_state: Any, task_instance: Any) -> None:
    kills_file = Path(os.environ["CATALUNYA_KILLS"])
    if not kills_file.exists() or task_instance.try_number != 1:
        return
    kills = json.loads(kills_file.read_text())
    for name, victim in (
        (task_instance.task_id, os.getpid()),
        (f"worker:{task_instance.task_id}", os.getppid()),
    ):
        if name not in kills:
            continue
        if kills[name] == 0:
            os.kill(victim, signal.SIGKILL)
        else:
            kill_before_write(victim, kills[name])


class KillPlugin(AirflowPlugin):
    name = "kill_plugin"
    listeners: ClassVar = [sys.modules[__name__]]
