"""Is this service well? Exits with 0 or 1; what `docker compose ps` shows.

    healthy.py api-server | scheduler | dag-processor | triggerer | worker

Asks what the service itself keeps up: the address it serves, its heartbeat in the database, its answer over the
broker. Imports no Airflow, which would take seconds every time.
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
LATE_S = 30
GONE_S = 60
GONE_SINCE = Path(tempfile.gettempdir(), "workers-gone")
JOBS = {"scheduler": "SchedulerJob", "dag-processor": "DagProcessorJob", "triggerer": "TriggererJob"}


def main(service: str) -> str:
    """What is wrong with `service`; nothing when it is well."""
    if service == "api-server":
        # Without any proxy: it is this machine.
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open("http://localhost:8080/api/v2/version", timeout=5) as answer:
            return "" if answer.status == 200 else f"status {answer.status}"
    if service == "worker":
        return worker()
    wrong = heartbeat(JOBS[service])
    if service == "scheduler" and not wrong:
        wrong = executor()
    return wrong


def heartbeat(job: str) -> str:
    """This container's own job in the metadata database has given a sign of life."""
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
    return "" if age < LATE_S else f"the last heartbeat of {job} is {age:.0f} s old"


def executor() -> str:
    """The scheduler starts again with the other executor when workers came, or are gone for a while."""
    running = environment(1)["AIRFLOW__CORE__EXECUTOR"]
    wanted = "CeleryExecutor" if workers() else "LocalExecutor"
    if running == wanted:
        GONE_SINCE.unlink(missing_ok=True)
        return ""
    if wanted == "LocalExecutor":
        # Workers that crash are back within seconds.
        if not GONE_SINCE.exists():
            GONE_SINCE.touch()
        if time.time() - GONE_SINCE.stat().st_mtime < GONE_S:
            return ""
    os.kill(1, signal.SIGTERM)
    return f"starting again with {wanted} instead of {running}"


def workers() -> bool:
    """True when at least one worker's container runs."""
    try:
        return bool(socket.gethostbyname("airflow-worker"))
    except socket.gaierror:
        return False


def environment(process: int) -> dict[str, str]:
    """The variables that the main process, or the one it started, was given."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    pairs = Path(f"/proc/{children[0] if children else process}/environ").read_bytes().decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def worker() -> str:
    """This container's Celery worker answers."""
    from celery import Celery

    app = Celery(broker=(SECRETS / "broker_url").read_text().strip())
    name = f"celery@{socket.gethostname()}"
    return "" if app.control.ping(destination=[name], timeout=5) else f"{name} does not answer"


if __name__ == "__main__":
    wrong = main(sys.argv[1])
    if wrong:
        print(wrong, file=sys.stderr)
    sys.exit(1 if wrong else 0)
