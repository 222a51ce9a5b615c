"""What orchestration costs: the DAG on a warm Airflow against the command, and against Astronomer Cosmos.

    .venv/bin/python bench/orchestration.py                    # 6 minutes
    .venv/bin/python bench/orchestration.py --without cosmos

One Airflow (scheduler, LocalExecutor, SQLite), one demo portal, the same data for all. Time is from trigger to
the release, where the command ends, and to the end of the DAG run, which makes dbt's documentation and the site as
well, as Airflow records them; of several runs the fastest counts. Cosmos runs seeds, models and tests of the same dbt
project on rows that are staged already; our DAG reads the portals, stages, builds, judges and publishes as well.
Exits with 1 when a bound is broken.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from orchestration.scripts import airflow_local  # noqa: E402

ENVIRONMENT = ROOT / "bench" / ".env"
PROFILES = ROOT / "orchestration" / "dbt"
COSMOS = "astronomer-cosmos==1.15.*"
PIPELINE = "catalunya_data_pipeline"
MOST_RATIO = 2.0
"""Of a DAG run, up to the release, to the command on the same data."""
MOST_IDLE_S = 15.0
PORT = 18080

COSMOS_DAGS = '''"""airflow dag: the same dbt project through Astronomer Cosmos."""
import os
from pathlib import Path
from cosmos import DbtDag, ExecutionConfig, ProfileConfig, ProjectConfig, RenderConfig
from cosmos.constants import ExecutionMode, InvocationMode, LoadMode

project = Path(os.environ["BENCH_PROJECT"])
for mode in ("local", "watcher"):
    globals()[mode] = DbtDag(
        dag_id=f"cosmos_{mode}",
        project_config=ProjectConfig(
            project, manifest_path=project / "target" / "manifest.json", install_dbt_deps=False
        ),
        profile_config=ProfileConfig(
            profile_name="catalunya",
            target_name="duckdb",
            profiles_yml_filepath=Path(os.environ["BENCH_PROFILES"]) / "profiles.yml",
        ),
        execution_config=ExecutionConfig(
            execution_mode=ExecutionMode(mode), invocation_mode=InvocationMode.DBT_RUNNER
        ),
        render_config=RenderConfig(load_method=LoadMode.DBT_MANIFEST),
        schedule=None,
        catchup=False,
        # DuckDB has one writer.
        max_active_tasks=1 if mode == "local" else 16,
    )
'''


def main() -> int:
    """Measure, print a table, judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--without", nargs="*", default=[], choices=["cosmos"])
    options = parser.parse_args()
    python = Path(sys.executable)
    if "cosmos" not in options.without:
        python = environment()
    with tempfile.TemporaryDirectory() as scratch:
        return measure(Path(scratch), python, options.runs, cosmos="cosmos" not in options.without)


def environment() -> Path:
    """The locked environment with Cosmos beside it; Cosmos is no dependency of this project."""
    python = ENVIRONMENT / "bin" / "python"
    if not (ENVIRONMENT / "bin" / "astronomer-cosmos").exists():
        requirements = ENVIRONMENT.with_suffix(".txt")
        uv = shutil.which("uv") or str(ROOT / ".uv/bin/uv")
        run(uv, "export", "--frozen", "--quiet", "--group", "airflow", "--no-hashes", "-o", str(requirements))
        run(uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(ENVIRONMENT))
        run(uv, "pip", "install", "--quiet", "--python", str(python), "-r", str(requirements), COSMOS)
        (ENVIRONMENT / "bin" / "astronomer-cosmos").touch()
    return python


def run(*words: str, env: dict[str, str] | None = None) -> str:
    """The standard output of a command that ends well."""
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\n{done.stderr}")
    return done.stdout


def measure(scratch: Path, python: Path, runs: int, *, cosmos: bool) -> int:
    env = {**os.environ, "ENVIRONMENT": "demo", "CATALUNYA_HOME": str(ROOT)}
    with portal(python, env) as url:
        env |= dict.fromkeys(("CATALUNYA_SOCRATA_URL", "CATALUNYA_IDESCAT_URL", "CATALUNYA_ICGC_URL"), url)
        command = best(runs, lambda: command_run(python, {**env, "CATALUNYA_LAKE": str(scratch / "command")}))
        dags = scratch / "dags"
        dags.mkdir()
        (dags / f"{PIPELINE}.py").symlink_to(ROOT / "orchestration" / "airflow" / "dags" / f"{PIPELINE}.py")
        env |= {
            "CATALUNYA_LAKE": str(scratch / "lake"),
            "CATALUNYA_CANDIDATE": str(scratch / "candidate.duckdb"),
        }
        if cosmos:
            env["BENCH_PROFILES"] = str(PROFILES)
            env["BENCH_PROJECT"] = str(prepare_for_cosmos(python, env, scratch))
            (dags / "through_cosmos.py").write_text(COSMOS_DAGS)
        with airflow(python, env, scratch) as request:
            ended(request, PIPELINE, scheduled_run(request))
            ours = [
                ended(request, PIPELINE, trigger(request, PIPELINE, {"force": True})) for _ in range(runs)
            ]
            idle = best(runs, lambda: ended(request, PIPELINE, trigger(request, PIPELINE, {})).whole)
            others = {}
            for mode in ("watcher", "local") if cosmos else ():
                others[f"cosmos {mode}"] = best(
                    1,
                    lambda mode=mode: (
                        ended(request, f"cosmos_{mode}", trigger(request, f"cosmos_{mode}", {})).whole
                    ),
                )
    return report(command, min(ours), idle, others)


@dataclass(frozen=True, order=True)
class Times:
    """Seconds of a DAG run."""

    release: float
    """From trigger to the end of `publish_release`; of a run without one, to its end."""
    whole: float
    dbt: float
    """Of the two tasks that build and judge."""


def report(command: float, run: Times, idle: float, others: dict[str, float]) -> int:
    dbt, ratio = run.dbt, run.release / command
    rows = [
        ("catalunya run", command, ""),
        ("DAG run, to the release", run.release, f"{ratio:.2f} times the command (bound {MOST_RATIO:g})"),
        ("DAG run, everything", run.whole, "with dbt's documentation and the site"),
        ("DAG run, nothing new", idle, f"bound {MOST_IDLE_S:g} s"),
        ("our two dbt tasks", dbt, ""),
        *(
            (name, seconds, f"{seconds / dbt:.1f} times our two dbt tasks")
            for name, seconds in others.items()
        ),
    ]
    for name, seconds, words in rows:
        print(f"{name:24} {seconds:7.1f} s  {words}")
    broken = []
    if ratio > MOST_RATIO:
        broken.append(f"a DAG run takes {ratio:.2f} times the command to its release")
    if idle > MOST_IDLE_S:
        broken.append(f"a DAG run with nothing new takes {idle:.1f} s")
    broken += [
        f"{name} is faster than our two dbt tasks" for name, seconds in others.items() if seconds < dbt
    ]
    for line in broken:
        print("broken:", line)
    return 1 if broken else 0


def best(runs: int, work: Callable[[], float]) -> float:
    return min(work() for _ in range(runs))


def command_run(python: Path, env: dict[str, str]) -> float:
    """Seconds of `catalunya run` as a person waits for them, its start included."""
    began = time.perf_counter()
    run(str(python.parent / "catalunya"), "run", "--force", "--json", env=env)
    return time.perf_counter() - began


def prepare_for_cosmos(python: Path, env: dict[str, str], scratch: Path) -> Path:
    """The dbt project with its manifest, Cosmos' fastest way, and a DuckDB file with the staged rows."""
    project = scratch / "project"
    shutil.copytree(ROOT / "dbt" / "mart", project, ignore=shutil.ignore_patterns("target", "logs"))
    dbt = str(python.parent / "dbt")
    run(dbt, "--quiet", "parse", "--project-dir", str(project), "--profiles-dir", str(PROFILES), env=env)
    own = {**env, "CATALUNYA_LAKE": str(scratch / "command")}
    run(str(python.parent / "catalunya"), "build", "--json", env=own)
    [built] = (scratch / "command" / "candidates").glob("*/candidate.duckdb")
    shutil.copyfile(built, scratch / "candidate.duckdb")
    return project


@contextmanager
def portal(python: Path, env: dict[str, str]) -> Iterator[str]:
    words = [python.parent / "catalunya", "demo", "serve", "--port", str(PORT + 1)]
    server = subprocess.Popen(words, env=env, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{PORT + 1}"
    try:
        wait(lambda: answers(f"{url}/health"), "the demo portal did not start", 60)
        yield url
    finally:
        server.terminate()
        server.wait()


Request = Callable[..., Any]


@contextmanager
def airflow(python: Path, env: dict[str, str], scratch: Path) -> Iterator[Request]:
    words = [
        python, "-m", airflow_local.__name__, "--port", str(PORT),
        "--home", scratch / "airflow", "--dags", scratch / "dags",
    ]  # fmt: skip
    with (scratch / "airflow.log").open("wb") as log:
        process = subprocess.Popen(words, cwd=ROOT, env=env, stdout=log, stderr=log)
    url = f"http://localhost:{PORT}"
    try:
        wait(lambda: b"ready at" in (scratch / "airflow.log").read_bytes(), "Airflow did not start", 240)
        bearer = airflow_local.token(url)

        def request(path: str, content: dict[str, Any] | None = None) -> Any:
            return airflow_local.call_api(f"{url}/api/v2{path}", content, bearer)

        yield request
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except OSError:
        return False


def wait(look: Callable[[], Any], complaint: str, timeout_s: float) -> Any:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.3)
    raise SystemExit(complaint)


def scheduled_run(request: Request) -> str:
    """Return the run that the scheduler starts by itself; it fills the caches."""
    runs = wait(lambda: request(f"/dags/{PIPELINE}/dagRuns")["dag_runs"], "no run was scheduled", 120)
    return str(runs[0]["dag_run_id"])


def trigger(request: Request, dag_id: str, conf: dict[str, Any]) -> str:
    wait(
        lambda: dag_id in {d["dag_id"] for d in request("/dags?limit=100")["dags"]},
        f"{dag_id} was not read",
        180,
    )
    return str(request(f"/dags/{dag_id}/dagRuns", {"logical_date": None, "conf": conf})["dag_run_id"])


def ended(request: Request, dag_id: str, run_id: str) -> Times:
    """The seconds of a run, once it has succeeded."""
    path = f"/dags/{dag_id}/dagRuns/{run_id}"
    found = wait(
        lambda: (r := request(path))["state"] in {"success", "failed"} and r, f"{dag_id} did not end", 600
    )
    if found["state"] != "success":
        raise SystemExit(f"{dag_id} {run_id} failed")
    tasks = {t["task_id"]: t for t in request(f"{path}/taskInstances?limit=200")["task_instances"]}
    dbt = 0.0
    if "run_dbt_transformations" in tasks and tasks["validate_data_quality"]["state"] == "success":
        dbt = moment(tasks["validate_data_quality"]["end_date"]) - moment(
            tasks["run_dbt_transformations"]["scheduled_when"]
        )
    began, end = moment(found["queued_at"]), moment(found["end_date"])
    published = tasks.get("publish_release", {})
    released = moment(published["end_date"]) if published.get("state") == "success" else end
    return Times(released - began, end - began, dbt)


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


if __name__ == "__main__":
    sys.exit(main())
