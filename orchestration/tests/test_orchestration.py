"""The DAG files: read without a warning, quickly, with the tasks and the order of the design."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from catalunya.publication.demo_notice import NOTICE
from orchestration.scripts import airflow_local
from tests.pipeline.command import CLEAN
from tests.project import ROOT

DAGS = ROOT / "orchestration" / "airflow" / "dags"
PLUGINS = ROOT / "orchestration" / "airflow" / "plugins"
FILES = sorted(DAGS.glob("*.py"))
DATASETS = sorted(path.stem for path in (ROOT / "datasets").glob("*.yml"))
# One process describes the DAGs for all these tests.
pytestmark = pytest.mark.xdist_group("dags")
CHAIN = [
    "wait_for_new_data", "stage", "run_dbt_transformations", "validate_data_quality", "publish_release",
    "generate_dbt_docs", "finish_run",
]  # fmt: skip

SLOW_IMPORTS = {"apprise", "boto3", "dbt", "duckdb", "msgspec", "numpy", "obstore", "starlette", "typer"}
"""What only running tasks need: Airflow reads every DAG file every 30 seconds."""
FUNCTIONS = {"CATALUNYA_LAMBDA_PREFIX": "catalunya-production"}
DESCRIBE = """
import json, os, runpy, sys, warnings
warnings.simplefilter("error")
import airflow.sdk, airflow.triggers.base
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk.definitions import decorators
own = set(sys.modules)
from airflow.sdk.definitions._internal.contextmanager import DagContext
DagContext.current_autoregister_module_name = "__main__"

def describe(path):
    runpy.run_path(path)
    imported = {name.split(".")[0] for name in set(sys.modules) - own}
    dags = {}
    for dag in [d for d, _ in DagContext.autoregistered_dags]:
        dags[dag.dag_id] = {
            "schedule": dag.schedule,
            "tags": sorted(dag.tags), "doc": dag.doc_md,
            "catchup": dag.catchup, "max_active_runs": dag.max_active_runs, "params": sorted(dag.params),
            "deadline_s": dag.deadline[0].interval.total_seconds() if dag.deadline else None,
            "tasks": {t.task_id: {"up": sorted(t.upstream_task_ids), "retries": t.retries,
                      "delay": t.retry_delay.total_seconds(), "kind": t.task_type, "mapped": t.is_mapped,
                      "rule": t.trigger_rule.value, "owner": t.owner,
                      "inlets": [a.name for a in t.inlets], "outlets": [a.name for a in t.outlets]}
                      for t in dag.tasks},
        }
    return {"imported": sorted(imported), "dags": dags}

for order in sys.stdin:
    path, env = json.loads(order)
    if os.fork() == 0:
        os.environ.update(env)
        print(json.dumps(describe(path)), flush=True)
        os._exit(0)
    if os.wait()[1]:
        sys.exit("could not be read: " + path)
"""


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("airflow-home")
    (home / "logs").mkdir()
    env = {**CLEAN, **airflow_local.environment(home, 8080, DAGS), "PYTHONPATH": str(PLUGINS)}
    return {**env, "CATALUNYA_LAKE": str(home / "lake")}


@pytest.fixture(scope="module")
def described(surroundings: dict[str, str]) -> list[dict[str, Any]]:
    """The DAG files as Airflow reads them, each in a process that has imported Airflow only; the last two are the
    pipeline's again, with functions on AWS and in production."""
    orders: list[tuple[str, dict[str, str]]] = [(str(path), {}) for path in FILES]
    orders.append((str(DAGS / "catalunya_data_pipeline.py"), FUNCTIONS))
    orders.append((str(DAGS / "catalunya_data_pipeline.py"), {"ENVIRONMENT": "production"}))
    done = subprocess.run(
        [sys.executable, "-c", DESCRIBE],
        input="".join(json.dumps(order) + "\n" for order in orders),
        env=surroundings, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def pipeline(described: list[dict[str, Any]]) -> dict[str, Any]:
    return described[FILES.index(DAGS / "catalunya_data_pipeline.py")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_dag_file_is_read_without_a_warning_and_imports_nothing_that_takes_long(path, described):
    found = described[FILES.index(path)]
    assert list(found["dags"]) == [path.stem]
    assert set(found["imported"]) & SLOW_IMPORTS == set()


def test_schedule_owner_and_retries_are_those_of_the_design(pipeline):
    dag = pipeline["dags"]["catalunya_data_pipeline"]
    assert dag["schedule"] == "0 */6 * * *"
    assert (dag["catchup"], dag["max_active_runs"]) == (False, 1)
    assert dag["deadline_s"] == timedelta(hours=1).total_seconds()
    assert dag["params"] == ["datasets", "engine", "force", "full_rebuild"]
    for name, task in dag["tasks"].items():
        assert task["owner"] == "catalunya-data-team", name
        assert (task["retries"], task["delay"]) == (2, timedelta(minutes=5).total_seconds()), name


@pytest.mark.parametrize("value", ["", " ", "30", "0"])
def test_a_number_of_the_environment_is_read_and_an_empty_one_is_the_default(value, monkeypatch):
    monkeypatch.syspath_prepend(PLUGINS)
    environment = importlib.import_module("catalunya_airflow.environment")
    monkeypatch.setenv("CATALUNYA_RETRY_DELAY_SECONDS", value)
    assert environment.number("CATALUNYA_RETRY_DELAY_SECONDS", 300) == float(value.strip() or 300)


@pytest.mark.parametrize("value", ["five", "-1", "nan", "inf", "1e300", "1,5"])
def test_a_bad_number_of_the_environment_is_named(value, monkeypatch):
    monkeypatch.syspath_prepend(PLUGINS)
    environment = importlib.import_module("catalunya_airflow.environment")
    monkeypatch.setenv("CATALUNYA_RETRY_DELAY_SECONDS", value)
    with pytest.raises(
        ValueError, match=r"CATALUNYA_RETRY_DELAY_SECONDS: .* is not a number from 0 to 86,400"
    ):
        environment.number("CATALUNYA_RETRY_DELAY_SECONDS", 300)


def test_the_tasks_and_their_order(pipeline):
    tasks = pipeline["dags"]["catalunya_data_pipeline"]["tasks"]
    assert set(tasks) == {"check_dbt_connection", "ingest", *CHAIN, "build_site"}
    assert {name for name, task in tasks.items() if task["mapped"]} == {"ingest", "stage"}
    assert tasks["check_dbt_connection"]["up"] == tasks["ingest"]["up"] == []
    assert tasks["wait_for_new_data"]["up"] == ["check_dbt_connection", "ingest"]
    assert tasks["run_dbt_transformations"]["up"] == ["check_dbt_connection", "stage"]
    for before, after in pairwise(CHAIN):
        assert before in tasks[after]["up"]
    assert tasks["build_site"]["up"] == ["generate_dbt_docs"]
    assert {name for name, task in tasks.items() if "build_site" in task["up"]} == set()
    always = {"wait_for_new_data", "finish_run", "build_site"}
    assert {tasks[name]["rule"] for name in always} == {"all_done"}
    assert {task["rule"] for name, task in tasks.items() if name not in always} == {"all_success"}


def test_functions_replace_two_tasks_and_change_nothing_else(described, pipeline):
    found = described[-2]["dags"]["catalunya_data_pipeline"]["tasks"]
    kinds = {name: task.pop("kind") for name, task in found.items()}
    asked = {name for name, kind in kinds.items() if kind == "InvokeLambdaOperator"}
    assert asked == {"ingest", "stage"}
    own = pipeline["dags"]["catalunya_data_pipeline"]["tasks"]
    assert found == {name: {k: v for k, v in task.items() if k != "kind"} for name, task in own.items()}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_dag_of_the_demo_environment_is_tagged_and_documented_as_demo_data(path, described):
    dag = described[FILES.index(path)]["dags"][path.stem]
    assert dag["tags"] == ["catalunya", "demo data"]
    assert dag["doc"].startswith(f"**{NOTICE}**")


def test_a_dag_of_another_environment_has_no_mark_of_demo_data(described):
    dag = described[-1]["dags"]["catalunya_data_pipeline"]
    assert (dag["tags"], "DEMO" in dag["doc"]) == (["catalunya"], False)


def test_maintenance_has_a_parameter_to_read_everything(described):
    assert described[FILES.index(DAGS / "catalunya_maintenance.py")]["dags"]["catalunya_maintenance"][
        "params"
    ] == ["full"]


def test_lineage_leads_from_datasets_to_marts(pipeline):
    publish = pipeline["dags"]["catalunya_data_pipeline"]["tasks"]["publish_release"]
    assert publish["inlets"] == [f"landing/{name}" for name in DATASETS]
    assert {"marts/coverage_comarca", "marts/dim_municipality", "marts/data_quality"} <= set(
        publish["outlets"]
    )
    assert len(publish["outlets"]) == len(list((ROOT / "dbt" / "mart" / "models" / "marts").glob("*.sql")))
