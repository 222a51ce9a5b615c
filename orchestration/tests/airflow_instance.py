"""A real Airflow on loopback (scheduler, LocalExecutor, triggerer, API), and what tests ask of it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from catalunya.demo.server import RunningPortal
from catalunya.lake import layout
from catalunya.lake.opening import open_lake
from catalunya.runs.steps import run_id_of
from catalunya.settings import PORTAL_VARIABLES, Settings
from orchestration.scripts import airflow_local
from orchestration.tests.api import PIPELINE, TIMEOUT_S, AirflowApi, EndedRun
from tests.pipeline.command import CLEAN
from tests.project import ROOT, copy_small_home
from tests.webhook_sink import WebhookSink, listening
from tools.processes import free_port

NOW = "2026-01-05T06:00:00Z"
MAINTENANCE = "catalunya_maintenance"


def id_in_lake(run_id: str, dag_id: str = PIPELINE) -> str:
    """The id that a DAG run has in the lake and its ledger."""
    return run_id_of(f"{dag_id} {run_id}", Settings(CATALUNYA_NOW=NOW).now())


@dataclass
class Airflow(AirflowApi):
    """A running Airflow, its lake, its portal, and the webhook that receives its alerts."""

    env: dict[str, str]
    portal: RunningPortal
    webhook_sink: WebhookSink

    @property
    def lake(self) -> Path:
        return Path(self.env["CATALUNYA_LAKE"])

    @property
    def home(self) -> Path:
        return Path(self.env["CATALUNYA_HOME"])

    @property
    def kills(self) -> Path:
        return Path(self.env["CATALUNYA_KILLS"])

    def unpause(self, dag_id: str) -> None:
        """Let a DAG run, by its schedule too."""
        self.request(f"/dags/{dag_id}?update_mask=is_paused", {"is_paused": False}, "PATCH")

    def pointer(self) -> str | None:
        path = self.lake / "current.json"
        return str(json.loads(path.read_text())["release_id"]) if path.exists() else None

    def record(self, ended: EndedRun) -> dict[str, Any]:
        """The ledger's record of a run."""
        key = layout.ledger(id_in_lake(ended.run_id, ended.dag_id))
        found: dict[str, Any] = json.loads(open_lake(str(self.lake)).read(key))
        return found


@contextmanager
def start_airflow(folder: Path, demo: RunningPortal, more: dict[str, str] | None = None) -> Iterator[Airflow]:
    """Run an Airflow in `folder` with few marts of the demo portal's data, and with `more` in its environment."""
    with listening() as webhook_sink:
        yield from _started(folder, demo, webhook_sink, more or {})


def _started(
    folder: Path, demo: RunningPortal, webhook_sink: WebhookSink, more: dict[str, str]
) -> Iterator[Airflow]:
    home = copy_small_home(folder / "home")
    port = free_port()
    env = {
        **CLEAN,
        **_dags_and_plugins(folder),
        **dict.fromkeys(PORTAL_VARIABLES, demo.url),
        "CATALUNYA_HOME": str(home),
        "CATALUNYA_LAKE": str(folder / "lake"),
        "CATALUNYA_NOW": NOW,
        "CATALUNYA_HTTP_ATTEMPTS": "1",
        "CATALUNYA_RETRY_DELAY_SECONDS": "1",
        "CATALUNYA_NOTIFY_URLS": webhook_sink.channel,
        "CATALUNYA_KILLS": str(folder / "kills.json"),
        # More tasks at once are of no use here: the first task of each process costs its imports.
        "AIRFLOW__CORE__PARALLELISM": "3",
        # An unpaused DAG runs at once, and the first run of another DAG would only delay the pipeline's.
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
        # The DAG files do not change while tests run.
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
        "ENVIRONMENT": "demo",
        **more,
    }
    url = f"http://localhost:{port}"
    command = [
        *(sys.executable, "-m", airflow_local.__name__),
        *("--port", str(port), "--home", str(folder / "airflow"), "--dags", str(folder / "dags")),
    ]
    with (folder / "out.log").open("wb") as out:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=out, stderr=out)
    found = Airflow(url, folder, env, demo, webhook_sink)
    try:
        _wait_until_ready(found, process)
        yield found
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(TIMEOUT_S)
    left = _processes_of(folder)
    if process.returncode or left:
        pytest.fail(f"Ctrl-C ended Airflow with code {process.returncode} and left {left}")


def _dags_and_plugins(folder: Path) -> dict[str, str]:
    """Make folders of DAGs and plugins, with links to those of the project and of the tests."""
    for kind, own in (("dags", "dags"), ("plugins", "plugins")):
        (folder / kind).mkdir()
        for origin in (ROOT / "orchestration" / "airflow" / own, ROOT / "orchestration" / "tests" / own):
            for path in origin.iterdir():
                if path.name != "__pycache__":
                    (folder / kind / path.name).symlink_to(path)
    return {"AIRFLOW__CORE__PLUGINS_FOLDER": str(folder / "plugins")}


def _processes_of(folder: Path) -> list[str]:
    """Return the processes that still run and have this folder in their environment."""
    left = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (process / "environ").read_bytes():
                left.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return left


def _wait_until_ready(airflow: Airflow, process: subprocess.Popen[bytes]) -> None:
    log = airflow.folder / "out.log"
    deadline = time.monotonic() + TIMEOUT_S
    while "ready at" not in log.read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"Airflow did not start:\n{log.read_text()}")
        time.sleep(0.5)
    airflow.wait(lambda: len(airflow.request("/dags")["dags"]) >= 6 or None, "the DAGs were not all read")
    for found in airflow.request("/dags")["dags"]:
        if found["dag_id"] != MAINTENANCE:
            airflow.unpause(found["dag_id"])


def scheduled_run(airflow: Airflow, dag_id: str = PIPELINE) -> EndedRun:
    """Return the run that the scheduler started, once the DAG is read and unpaused."""
    runs = airflow.wait(
        lambda: airflow.request(f"/dags/{dag_id}/dagRuns")["dag_runs"], "no run was scheduled"
    )
    return airflow.ended(runs[0]["dag_run_id"], dag_id)
