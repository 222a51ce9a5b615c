"""The health check of a container: exits with 0 when its service is healthy, else with 1.

    healthy.py scheduler | dag-processor | triggerer | worker
    healthy.py executor                             # prints the executor that the scheduler must have

It checks the heartbeat of the service: in the database, of a worker in the volume that all services share. It imports
neither Airflow nor Celery, which would take seconds every time, and asks no name server for a service that may be absent.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

SECRETS = Path(os.environ.get("CATALUNYA_SECRETS", "/run/catalunya"))
HEARTBEAT_TIMEOUT_S = 30
WORKERS_TIMEOUT_S = 60
WORKERS = Path(os.environ.get("CATALUNYA_WORKERS", "/opt/airflow/logs/workers"))
"""A worker touches the file with its host name here every two seconds (catalunya_airflow/celery_config.py)."""
RESTARTING = Path(tempfile.gettempdir(), "restarting")
JOBS = {"scheduler": "SchedulerJob", "dag-processor": "DagProcessorJob", "triggerer": "TriggererJob"}


def main(service: str) -> str:
    """Return the fault of a service, or an empty text."""
    if service == "executor":
        print(executor())
        return ""
    if service == "worker":
        return worker()
    fault = heartbeat(JOBS[service])
    # A host of a Procfile has a fixed executor.
    if service == "scheduler" and not fault and "DYNO" not in os.environ:
        fault = restart_with_other_executor()
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
    """Return the executor that the scheduler must have: with workers, they run the tasks."""
    ages = [age(file) for file in WORKERS.glob("*")]
    return "CeleryExecutor" if any(one < WORKERS_TIMEOUT_S for one in ages) else "LocalExecutor"


def restart_with_other_executor() -> str:
    """Restart the scheduler when workers have appeared, or when none has had a heartbeat for a minute."""
    running, wanted = environment(1)["AIRFLOW__CORE__EXECUTOR"], executor()
    if running == wanted:
        return ""
    if not RESTARTING.exists():
        # Once: a second signal would kill the tasks that the scheduler waits for.
        RESTARTING.touch()
        os.kill(1, signal.SIGTERM)
    return f"restarting with {wanted} instead of {running}"


def age(file: Path) -> float:
    """Return the seconds since a worker's heartbeat; infinite when the file is gone."""
    try:
        return time.time() - file.stat().st_mtime
    except FileNotFoundError:
        return math.inf


def environment(process: int) -> dict[str, str]:
    """Return the environment variables of a process, or of the process that it started."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    pairs = Path(f"/proc/{children[0] if children else process}/environ").read_bytes().decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def worker() -> str:
    """Check the last heartbeat of the Celery worker of this container."""
    seconds = age(WORKERS / socket.gethostname())
    return "" if seconds < HEARTBEAT_TIMEOUT_S else f"the last heartbeat of the worker is {seconds:.0f} s old"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]) or 0)
