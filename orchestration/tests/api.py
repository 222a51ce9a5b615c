"""The API of an Airflow, as tests use it, wherever that Airflow runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from orchestration.scripts import airflow_local

PIPELINE = "catalunya_data_pipeline"
FINAL_STATES = {"success", "failed"}
TIMEOUT_S = 1800.0
"""How long a test waits for what must come, on a machine that does much else; what never comes ends it."""


@dataclass
class EndedRun:
    """A DAG run that has ended."""

    dag_id: str
    run_id: str
    state: str
    seconds: float
    tasks: dict[str, dict[str, Any]]
    """By task id, mapped ones as `ingest[population]`."""

    def states(self) -> dict[str, str]:
        return {name: task["state"] for name, task in self.tasks.items()}

    def tries(self) -> dict[str, int]:
        return {name: task["try_number"] for name, task in self.tasks.items()}


@dataclass
class AirflowApi:
    """The API of a running Airflow, as the development user."""

    url: str
    folder: Path
    """The folder of its logs."""
    token: str = field(default="", kw_only=True)

    def request(self, path: str, content: Any = None, method: str | None = None) -> Any:
        self.token = self.token or airflow_local.token(self.url)
        return airflow_local.call_api(f"{self.url}/api/v2{path}", content, self.token, method)

    def trigger(self, dag_id: str = PIPELINE, *, name: str | None = None, **conf: Any) -> str:
        content = {"logical_date": None, "conf": conf, **({"dag_run_id": name} if name else {})}
        return str(self.request(f"/dags/{dag_id}/dagRuns", content)["dag_run_id"])

    def run(self, dag_id: str = PIPELINE, **conf: Any) -> EndedRun:
        return self.ended(self.trigger(dag_id, **conf), dag_id)

    def ended(self, run_id: str, dag_id: str = PIPELINE) -> EndedRun:
        path = f"/dags/{dag_id}/dagRuns/{run_id}"
        run = self.wait(lambda: self._if_ended(path), f"{dag_id} {run_id} did not end")
        found = self.request(f"{path}/taskInstances?limit=100")["task_instances"]
        tasks = {}
        for task in found:
            name = task["task_id"]
            if task["map_index"] >= 0:
                name += f"[{task['rendered_map_index']}]"
            tasks[name] = task
        return EndedRun(dag_id, run_id, run["state"], run["duration"], tasks)

    def _if_ended(self, path: str) -> Any:
        run = self.request(path)
        return run if run["state"] in FINAL_STATES else None

    def wait(self, look: Callable[[], Any], failure: str) -> Any:
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            found = look()
            if found:
                return found
            time.sleep(0.5)
        pytest.fail(f"{failure} within {TIMEOUT_S:g} s; the logs: {self.folder}")

    def log_of(self, ended: EndedRun, name: str) -> str:
        task = ended.tasks[name]
        path = f"/dags/{ended.dag_id}/dagRuns/{ended.run_id}/taskInstances/{task['task_id']}/logs/{task['try_number']}"
        content = self.request(f"{path}?map_index={task['map_index']}&full_content=true")["content"]
        return "\n".join(str(line["event"]) for line in content)
