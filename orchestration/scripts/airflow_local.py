"""Airflow on this machine without containers: SQLite, LocalExecutor, everything on loopback.

    make airflow                                     # http://localhost:8080, airflow/airflow; Ctrl-C ends all
    .venv/bin/python orchestration/scripts/airflow_local.py --port 8090 --home /tmp/airflow

It is for development: production runs in containers. Everything it writes lies under `--home`, but for the
lake (CATALUNYA_LAKE, `./data` by default).
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from catalunya.settings import spare_loopback

ORCHESTRATION = Path(__file__).resolve().parents[1]
REPOSITORY = ORCHESTRATION.parent
BIN = Path(sys.executable).parent
LOOPBACK = "127.0.0.1"
STARTED_S = 180
STOPPED_S = 20


def main() -> int:
    """Start, wait until all is healthy, and stay until Ctrl-C; returns 1 when a part does not start or dies."""
    spare_loopback()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, default=8080, help="port of the web interface")
    parser.add_argument("--home", type=Path, default=REPOSITORY / ".airflow", help="AIRFLOW_HOME")
    parser.add_argument("--dags", type=Path, default=ORCHESTRATION / "airflow" / "dags")
    parser.add_argument("--paused", action="store_true", help="leave the DAGs paused")
    options = parser.parse_args()
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, signal.default_int_handler)
    try:
        with ExitStack() as held:
            return _serve(options, held)
    except KeyboardInterrupt:
        _say("stopped")
        return 0


def _serve(options: argparse.Namespace, held: ExitStack) -> int:
    url = f"http://localhost:{options.port}"
    if not _is_free(options.port):
        _say(f"port {options.port} is in use; end what listens there, or choose another with --port")
        return 1
    home: Path = options.home.resolve()
    env = environment(home, options.port, options.dags.resolve(), paused=options.paused)
    (home / "logs").mkdir(parents=True, exist_ok=True)
    _write_password(home)
    if env["ENVIRONMENT"] == "demo" and "CATALUNYA_SOCRATA_URL" not in env:
        port = _free_port()
        for name in ("SOCRATA", "IDESCAT", "ICGC"):
            env[f"CATALUNYA_{name}_URL"] = f"http://{LOOPBACK}:{port}"
        held.enter_context(_running("portal", ["catalunya", "demo", "serve", "--port", str(port)], env, home))
    _say("preparing the database")
    subprocess.run([BIN / "airflow", "db", "migrate"], env=env, check=True, stdout=subprocess.DEVNULL)
    parts = {
        "api-server": ["api-server", "--host", LOOPBACK, "--port", str(options.port), "--workers", "1"],
        "dag-processor": ["dag-processor"],
        # The web interface reads the logs from this machine's disk; no log server has to listen.
        "scheduler": ["scheduler", "--skip-serve-logs"],
        "triggerer": ["triggerer", "--skip-serve-logs"],
    }
    running = {
        name: held.enter_context(_running(name, ["airflow", *words], env, home))
        for name, words in parts.items()
    }
    _say(f"waiting for {', '.join(running)}")
    give_up = time.monotonic() + STARTED_S
    while not healthy(url):
        if _dead(running, home) or time.monotonic() > give_up:
            _say(f"Airflow did not start; look at {home / 'logs'}")
            return 1
        time.sleep(0.5)
    _say(f"ready at {url} (airflow/airflow), environment {env['ENVIRONMENT']}, lake {env['CATALUNYA_LAKE']}")
    while not _dead(running, home):
        time.sleep(1)
    return 1


def environment(home: Path, port: int, dags: Path, *, paused: bool = False) -> dict[str, str]:
    """The variables that every part of a local Airflow is started with."""
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
        # The title of every page and the heading of the first.
        "AIRFLOW__API__INSTANCE_NAME": f"Catalunya ({os.environ.get('ENVIRONMENT', 'demo')} data)",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "30",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
        # A task's end is noticed within so many seconds at the latest.
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "ENVIRONMENT": "demo",
        "PATH": f"{BIN}:{os.environ.get('PATH', '')}",
    }
    return {**settings, **os.environ, "CATALUNYA_LAKE": lake if "://" in lake else str(Path(lake).resolve())}


def healthy(url: str) -> bool:
    """True when the API answers and scheduler, triggerer and DAG processor give signs of life."""
    try:
        with urllib.request.urlopen(f"{url}/api/v2/monitor/health", timeout=5) as answer:
            parts = json.load(answer)
    except (OSError, ValueError):
        return False
    return all(part.get("status") == "healthy" for part in parts.values())


def token(url: str) -> str:
    """A token for the API, as the development user."""
    return str(ask(f"{url}/auth/token", {"username": "airflow", "password": "airflow"})["access_token"])


def ask(url: str, content: Any = None, bearer: str | None = None, method: str | None = None) -> Any:
    """The JSON that the API answers, to `content` as JSON when there is any."""
    headers = {
        "Content-Type": "application/json",
        **({"Authorization": f"Bearer {bearer}"} if bearer else {}),
    }
    data = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        error.msg = f"{error.msg}: {error.read(2000).decode(errors='replace')}"
        raise


@contextmanager
def _running(
    name: str, command: list[str], env: dict[str, str], home: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A part in a process group of its own, which ends whole, also when this process is killed."""
    with (home / "logs" / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [BIN / command[0], *command[1:]],
            env=env,
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
    try:
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    for sign, patience in ((signal.SIGTERM, STOPPED_S), (signal.SIGKILL, 5)):
        if not _group_lives(process):
            return
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            return
        give_up = time.monotonic() + patience
        while _group_lives(process) and time.monotonic() < give_up:
            time.sleep(0.05)


def _group_lives(process: subprocess.Popen[bytes]) -> bool:
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _dead(running: dict[str, subprocess.Popen[bytes]], home: Path) -> bool:
    gone = [name for name, process in running.items() if process.poll() is not None]
    for name in gone:
        _say(f"{name} has ended; its log: {home / 'logs' / (name + '.log')}")
    return bool(gone)


def _write_password(home: Path) -> None:
    path = home / "simple_auth_manager_passwords.json.generated"
    path.write_text(json.dumps({"airflow": "airflow"}))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _say(words: str) -> None:
    print(f"airflow: {words}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
