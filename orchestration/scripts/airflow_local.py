"""Run Airflow on this machine without containers: SQLite, LocalExecutor, everything on loopback.

    make airflow                                     # http://localhost:8080, airflow/airflow; stop it with Ctrl-C
    .venv/bin/python -m orchestration.scripts.airflow_local --port 8090 --home /tmp/airflow

It is for development: production runs in containers. It writes into `--home` and into the lake (CATALUNYA_LAKE, `./data`
by default).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from catalunya.settings import PORTAL_VARIABLES, spare_loopback
from orchestration.scripts import health_check
from tools.processes import LOOPBACK, free_port, is_free, process_group

ORCHESTRATION = Path(__file__).resolve().parents[1]
REPOSITORY = ORCHESTRATION.parent
BIN = Path(sys.executable).parent
START_TIMEOUT_S = 600


def main() -> int:
    """Start every part and wait for Ctrl-C; returns 1 when a part does not start, or ends."""
    spare_loopback()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, default=8080, help="port of the web interface")
    parser.add_argument("--home", type=Path, default=REPOSITORY / ".airflow", help="AIRFLOW_HOME")
    parser.add_argument("--dags", type=Path, default=ORCHESTRATION / "airflow" / "dags")
    parser.add_argument("--paused", action="store_true", help="leave the DAGs paused")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        with ExitStack() as processes:
            return _serve(options, processes)
    except KeyboardInterrupt:
        _print("stopped")
        return 0


def _serve(options: argparse.Namespace, processes: ExitStack) -> int:
    url = f"http://localhost:{options.port}"
    if not is_free(options.port):
        _print(f"port {options.port} is in use; stop what listens there, or choose another port with --port")
        return 1
    home: Path = options.home.resolve()
    env = environment(home, options.port, options.dags.resolve(), paused=options.paused)
    logs = home / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    passwords = home / "simple_auth_manager_passwords.json.generated"
    passwords.write_text(json.dumps({"airflow": "airflow"}))

    def start(name: str, *command: str) -> subprocess.Popen[bytes]:
        words = [BIN / command[0], *command[1:]]
        return processes.enter_context(process_group(words, env=env, folder=home, log=logs / f"{name}.log"))

    if env["ENVIRONMENT"] == "demo" and "CATALUNYA_SOCRATA_URL" not in env:
        port = free_port()
        env |= dict.fromkeys(PORTAL_VARIABLES, f"http://{LOOPBACK}:{port}")
        start("portal", "catalunya", "demo", "serve", "--port", str(port))
    _print("preparing the database")
    subprocess.run([BIN / "airflow", "db", "migrate"], env=env, check=True, stdout=subprocess.DEVNULL)
    listen = ("--host", LOOPBACK, "--port", str(options.port), "--workers", "1")
    running = {
        "api-server": start("api-server", "airflow", "api-server", *listen),
        "dag-processor": start("dag-processor", "airflow", "dag-processor"),
        # The web interface reads the logs from this machine's disk; no log server is needed.
        "scheduler": start("scheduler", "airflow", "scheduler", "--skip-serve-logs"),
        "triggerer": start("triggerer", "airflow", "triggerer", "--skip-serve-logs"),
    }
    _print(f"waiting for {', '.join(running)}")
    deadline = time.monotonic() + START_TIMEOUT_S
    while not all(part.healthy for part in health_check.airflow(url)):
        if _any_ended(running, logs) or time.monotonic() > deadline:
            _print(f"Airflow did not start; see the logs in {logs}")
            return 1
        time.sleep(0.5)
    _print(
        f"ready at {url} (airflow/airflow), environment {env['ENVIRONMENT']}, lake {env['CATALUNYA_LAKE']}"
    )
    while not _any_ended(running, logs):
        time.sleep(1)
    return 1


def environment(home: Path, port: int, dags: Path, *, paused: bool = False) -> dict[str, str]:
    """Return the environment variables of every part of a local Airflow."""
    url = f"http://localhost:{port}"
    lake = os.environ.get("CATALUNYA_LAKE", str(REPOSITORY / "data"))
    settings = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ORCHESTRATION / "airflow" / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "8",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": str(paused),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "airflow:admin",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://{LOOPBACK}:{port}/execution/",
        "AIRFLOW__API__BASE_URL": url,
        # The title of every page and the heading of the first page.
        "AIRFLOW__API__INSTANCE_NAME": f"Catalunya ({os.environ.get('ENVIRONMENT', 'demo')} data)",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "30",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
        # The longest delay in seconds until the end of a task is noticed.
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "ENVIRONMENT": "demo",
        "PATH": f"{BIN}:{os.environ.get('PATH', '')}",
    }
    return {**settings, **os.environ, "CATALUNYA_LAKE": lake if "://" in lake else str(Path(lake).resolve())}


def token(url: str) -> str:
    """Return a token for the API, as the development user."""
    login = {"username": "airflow", "password": "airflow"}
    return str(call_api(f"{url}/auth/token", login)["access_token"])


def call_api(url: str, content: Any = None, bearer: str | None = None, method: str | None = None) -> Any:
    """Return the JSON of the API's response; `content` is sent as JSON, if there is any."""
    headers = {
        "Content-Type": "application/json",
        **({"Authorization": f"Bearer {bearer}"} if bearer else {}),
    }
    data = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        error.msg = f"{error.msg}: {error.read(2000).decode(errors='replace')}"
        raise


def _any_ended(running: dict[str, subprocess.Popen[bytes]], logs: Path) -> bool:
    ended = [name for name, process in running.items() if process.poll() is not None]
    for name in ended:
        _print(f"{name} has ended; its log: {logs / name}.log")
    return bool(ended)


def _print(text: str) -> None:
    print(f"airflow: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
