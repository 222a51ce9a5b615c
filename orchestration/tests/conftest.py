"""A real Airflow on loopback (scheduler, LocalExecutor, triggerer, API), a portal and an webhook_sink for alerts."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from catalunya.demo import server
from catalunya.demo.server import RunningPortal
from catalunya.lake import layout
from catalunya.lake.opening import open_lake
from catalunya.runs.steps import run_id_of
from catalunya.settings import PORTAL_VARIABLES, Settings
from orchestration.scripts import airflow_local
from orchestration.tests.api import PIPELINE, Api, Ended
from tests.pipeline.command import CLEAN, DAY
from tests.project import ROOT, copy_home
from tests.webhook_sink import WebhookSink, listening

__all__ = ["PIPELINE", "Ended"]

NOW = "2026-01-05T06:00:00Z"
MAINTENANCE = "catalunya_maintenance"


def id_in_lake(run_id: str, dag_id: str = PIPELINE) -> str:
    """The id that a DAG run has in the lake and its ledger."""
    return run_id_of(f"{dag_id} {run_id}", Settings(CATALUNYA_NOW=NOW).now())


@dataclass
class Airflow(Api):
    """A running Airflow and what is around it."""

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
    def sabotage(self) -> Path:
        return Path(self.env["CATALUNYA_SABOTAGE"])

    def wake(self, dag_id: str) -> None:
        """Let a DAG run, by its schedule too."""
        self.ask(f"/dags/{dag_id}?update_mask=is_paused", {"is_paused": False}, "PATCH")

    def pointer(self) -> str | None:
        path = self.lake / "current.json"
        return str(json.loads(path.read_text())["release_id"]) if path.exists() else None

    def record(self, ended: Ended) -> dict[str, Any]:
        """The ledger's record of a run."""
        key = layout.ledger(id_in_lake(ended.run_id, ended.dag_id))
        found: dict[str, Any] = json.loads(open_lake(str(self.lake)).read(key))
        return found


@pytest.fixture(scope="package")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    with server.running(day=DAY) as demo, started(tmp_path_factory.mktemp("airflow"), demo) as found:
        yield found


@contextmanager
def started(folder: Path, demo: RunningPortal, more: dict[str, str] | None = None) -> Iterator[Airflow]:
    """An Airflow of its own in `folder`, on the demo portal's data, with `more` in its environment."""
    with listening() as webhook_sink:
        yield from _started(folder, demo, webhook_sink, more or {})


def _started(
    folder: Path, demo: RunningPortal, webhook_sink: WebhookSink, more: dict[str, str]
) -> Iterator[Airflow]:
    home = copy_home(folder / "home")
    port = _free_port()
    env = {
        **CLEAN,
        **_surroundings(folder),
        **dict.fromkeys(PORTAL_VARIABLES, demo.url),
        "CATALUNYA_HOME": str(home),
        "CATALUNYA_LAKE": str(folder / "lake"),
        "CATALUNYA_NOW": NOW,
        "CATALUNYA_HTTP_ATTEMPTS": "1",
        "CATALUNYA_RETRY_DELAY_SECONDS": "1",
        "CATALUNYA_NOTIFY_URLS": webhook_sink.channel,
        "CATALUNYA_SABOTAGE": str(folder / "sabotage.json"),
        # As many tasks at once as are of use here: the first of each costs its process the imports.
        "AIRFLOW__CORE__PARALLELISM": "3",
        # A DAG runs as soon as it is awake, and its first run beside the pipeline's would only hold that up.
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
        sys.executable,
        airflow_local.__file__,
        *("--port", str(port), "--home", str(folder / "airflow"), "--dags", str(folder / "dags")),
    ]
    with (folder / "out.log").open("wb") as out:
        process = subprocess.Popen(command, env=env, stdout=out, stderr=out)
    found = Airflow(url, folder, env, demo, webhook_sink)
    try:
        _wait_until_ready(found, process)
        yield found
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
    left = _processes_of(folder)
    if process.returncode or left:
        pytest.fail(f"Ctrl-C ended Airflow with code {process.returncode} and left {left}")


def _surroundings(folder: Path) -> dict[str, str]:
    """Folders of DAGs and plugins: the project's, and those of the tests beside them."""
    for kind, own in (("dags", "dags"), ("plugins", "plugins")):
        (folder / kind).mkdir()
        for origin in (ROOT / "orchestration" / "airflow" / own, ROOT / "orchestration" / "tests" / own):
            for path in origin.iterdir():
                if path.name != "__pycache__":
                    (folder / kind / path.name).symlink_to(path)
    return {"AIRFLOW__CORE__PLUGINS_FOLDER": str(folder / "plugins")}


def _processes_of(folder: Path) -> list[str]:
    """The processes that were started with this folder in their environment and still live."""
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
    give_up = time.monotonic() + 180
    while "ready at" not in log.read_text():
        if process.poll() is not None or time.monotonic() > give_up:
            pytest.fail(f"Airflow did not start:\n{log.read_text()}")
        time.sleep(0.5)
    airflow.wait(
        lambda: len(airflow.ask("/dags")["dags"]) >= 6 or None, "the DAGs were not all read", patience_s=90
    )
    for found in airflow.ask("/dags")["dags"]:
        if found["dag_id"] != MAINTENANCE:
            airflow.wake(found["dag_id"])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="package")
def first(airflow: Airflow) -> Ended:
    """The pipeline's first run."""
    return first_of(airflow)


def first_of(airflow: Airflow, dag_id: str = PIPELINE, patience_s: float = 240) -> Ended:
    """The run that the scheduler started by itself, once the DAG is read and awake."""
    runs = airflow.wait(lambda: airflow.ask(f"/dags/{dag_id}/dagRuns")["dag_runs"], "no run was scheduled")
    return airflow.ended(runs[0]["dag_run_id"], dag_id, patience_s)


@pytest.fixture
def quiet(airflow: Airflow) -> Iterator[Airflow]:
    """The same Airflow with a portal that works, nothing broken, and nothing heard."""
    airflow.webhook_sink.heard.clear()
    yield airflow
    airflow.portal.faults.clear()
    airflow.sabotage.unlink(missing_ok=True)
    for stray in (airflow.home / "dbt" / "mart" / "tests").glob("broken_*.sql"):
        stray.unlink()
    for stray in (airflow.home / "dbt" / "mart" / "models").glob("broken_*.sql"):
        stray.unlink()
