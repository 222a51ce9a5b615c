"""How large the image is, and how long the stack takes from `docker compose up` until every service is healthy.

    .venv/bin/python bench/stack.py [--runs 3]                                    # needs an engine with Compose
    orchestration/scripts/engine.sh .venv/bin/python bench/stack.py               # as root, starts one

The image is built first, which is not measured. Each run starts the stack with empty volumes and again with those that it
left, and beside it the same parts of Airflow without containers (`orchestration/scripts/airflow_local.py`: SQLite, one
worker of the web server); the fastest of each counts. Exits with 1 when a bound is broken.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from orchestration.scripts import airflow_local  # noqa: E402
from tools.processes import free_port  # noqa: E402

ORCHESTRATION = ROOT / "orchestration"
PROJECT = "catalunya-bench"
IMAGE = "catalunya/airflow:bench"
TIMEOUT_S = 900
MOST_RATIO = 4.0
"""Of the stack with empty volumes to the parts of Airflow without containers."""
FOLDERS = ("/opt/catalunya/.venv", "/home/airflow/.duckdb", "/usr", "/opt/airflow", "/var")


def main() -> int:
    """Measure, print a table, judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    env = {
        **{
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AIRFLOW", "CATALUNYA_"))
        },
        "COMPOSE_PROJECT_NAME": PROJECT,
        "CATALUNYA_IMAGE": IMAGE,
        "AIRFLOW_PORT": str(free_port()),
        "CATALUNYA_SITE_PORT": str(free_port()),
    }
    docker(env, "compose", "--project-directory", str(ORCHESTRATION), "build", "--quiet")
    size = int(docker(env, "image", "inspect", "--format", "{{.Size}}", IMAGE)) / 1e6
    print(f"image {size:,.0f} MB, unpacked")
    for line in docker(
        env, "run", "--rm", "--user", "0", "--entrypoint", "sh", IMAGE, "-c",
        f"du -sm {' '.join(FOLDERS)} 2>/dev/null || true",
    ).splitlines():  # fmt: skip
        megabytes, folder = line.split()
        print(f"  {int(megabytes):>6,} MB  {folder}")
    first, again, local = [], [], []
    for _ in range(options.runs):
        try:
            first.append(seconds(lambda: up(env)))
            docker(env, "compose", "--project-directory", str(ORCHESTRATION), "stop")
            again.append(seconds(lambda: up(env)))
        finally:
            docker(env, "compose", "--project-directory", str(ORCHESTRATION), "down", "--volumes")
        local.append(without_containers())
    return report(min(first), min(again), min(local))


def report(first: float, again: float, local: float) -> int:
    """Print the times and their ratios; returns 1 when the bound is broken."""
    print(f"{'without containers, to ready':40} {local:6.1f} s")
    print(
        f"{'compose up, empty volumes, to healthy':40} {first:6.1f} s  {first / local:.2f} times, bound {MOST_RATIO:g}"
    )
    print(f"{'compose up after stop, to healthy':40} {again:6.1f} s  {again / local:.2f} times")
    if first / local > MOST_RATIO:
        print(f"broken: the stack takes {first / local:.2f} times what its parts take without containers")
        return 1
    return 0


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def up(env: dict[str, str]) -> None:
    """Start every service and wait until all are healthy."""
    wait = ("up", "--wait", "--wait-timeout", str(TIMEOUT_S))
    docker(env, "compose", "--project-directory", str(ORCHESTRATION), *wait)


def docker(env: dict[str, str], *words: str) -> str:
    """What a command of Docker prints; it has to end well."""
    done = subprocess.run(["docker", *words], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"docker {' '.join(words)}\n{done.stdout}{done.stderr}")
    return done.stdout


def without_containers() -> float:
    """Seconds until a new Airflow on this machine says that it is ready."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "out.log")
        words = [
            sys.executable, "-m", airflow_local.__name__, "--port", str(free_port()),
            "--home", str(Path(folder, "airflow")), "--paused",
        ]  # fmt: skip
        env = {**os.environ, "ENVIRONMENT": "demo", "CATALUNYA_LAKE": str(Path(folder, "lake"))}
        with log.open("wb") as out:
            process = subprocess.Popen(words, cwd=ROOT, env=env, stdout=out, stderr=out)
        try:
            return seconds(lambda: _wait_for(log, process))
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()


def _wait_for(log: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while b"ready at" not in log.read_bytes():
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"Airflow did not start:\n{log.read_text()}")
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
