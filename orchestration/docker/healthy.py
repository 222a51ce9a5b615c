"""The health check of a container: exits with 0 when its service is healthy, else with 1.

    healthy.py api-server | scheduler | dag-processor | triggerer | worker

It checks the address that the service serves, its heartbeat in the database, or its answer over the broker. It does not
import Airflow, which would take seconds every time.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

SECRETS = Path(os.environ.get("CATALUNYA_SECRETS", "/run/catalunya"))
HEARTBEAT_TIMEOUT_S = 30
WORKERS_TIMEOUT_S = 60
WORKERS_MISSING_SINCE = Path(tempfile.gettempdir(), "workers-missing")
JOBS = {"scheduler": "SchedulerJob", "dag-processor": "DagProcessorJob", "triggerer": "TriggererJob"}


def main(service: str) -> str:
    """Return the fault of a service, or an empty text."""
    if service == "api-server":
        # Without a proxy, because it is this machine.
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open("http://localhost:8080/api/v2/version", timeout=5) as answer:
            return "" if answer.status == 200 else f"status {answer.status}"
    if service == "worker":
        return worker()
    fault = heartbeat(JOBS[service])
    if service == "scheduler" and not fault:
        fault = executor()
    return fault


def heartbeat(job: str) -> str:
    """Check the last heartbeat of this container's job in the metadata database."""
    import psycopg2

    address = (SECRETS / "sql_alchemy_conn").read_text().strip().replace("+psycopg2", "")
    with (
        psycopg2.connect(address, connect_timeout=5, application_name="health") as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(
            "select extract(epoch from now() - max(latest_heartbeat)) from job"
            " where job_type = %s and hostname = %s and state = 'running'",
            (job, socket.gethostname()),
        )
        (age,) = cursor.fetchone()
    if age is None:
        return f"no running {job} on {socket.gethostname()}"
    return "" if age < HEARTBEAT_TIMEOUT_S else f"the last heartbeat of {job} is {age:.0f} s old"


def executor() -> str:
    """Restart the scheduler with the other executor when workers have appeared, or are missing for a minute."""
    running = environment(1)["AIRFLOW__CORE__EXECUTOR"]
    wanted = "CeleryExecutor" if workers() else "LocalExecutor"
    if running == wanted:
        WORKERS_MISSING_SINCE.unlink(missing_ok=True)
        return ""
    if wanted == "LocalExecutor":
        # A worker that crashed is back within seconds.
        if not WORKERS_MISSING_SINCE.exists():
            WORKERS_MISSING_SINCE.touch()
        if time.time() - WORKERS_MISSING_SINCE.stat().st_mtime < WORKERS_TIMEOUT_S:
            return ""
    os.kill(1, signal.SIGTERM)
    return f"restarting with {wanted} instead of {running}"


def workers() -> bool:
    """Tell whether the container of at least one worker runs."""
    try:
        return bool(socket.gethostbyname("airflow-worker"))
    except socket.gaierror:
        return False


def environment(process: int) -> dict[str, str]:
    """Return the environment variables of a process, or of the process that it started."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    pairs = Path(f"/proc/{children[0] if children else process}/environ").read_bytes().decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def worker() -> str:
    """Check that the Celery worker of this container answers."""
    from celery import Celery

    app = Celery(broker=(SECRETS / "broker_url").read_text().strip())
    name = f"celery@{socket.gethostname()}"
    return "" if app.control.ping(destination=[name], timeout=5) else f"{name} does not answer"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]) or 0)
