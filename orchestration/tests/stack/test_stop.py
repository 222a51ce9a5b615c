"""Stop in the middle of a run; deletion of old logs and records."""

from __future__ import annotations

import pytest

from orchestration.tests.api import PIPELINE
from orchestration.tests.stack.stack import ORCHESTRATION, docker

pytestmark = pytest.mark.stack

BUILD = "run_dbt_transformations"
LOGS = "/opt/airflow/logs"


def test_a_task_that_runs_while_the_stack_is_stopped_ends_and_reports_its_success(stack):
    run_id = stack.trigger(force=True)
    stack.running(run_id, BUILD)
    stack.compose("stop")
    [scheduler] = stack.of("airflow-scheduler")
    assert scheduler["State"]["ExitCode"] == 0
    stack.up()
    ended = stack.ended(run_id)
    assert ended.state == "success", ended.states()
    assert ended.tries()[BUILD] == 1


def test_old_logs_and_records_of_runs_are_deleted_and_newer_ones_are_kept(stack):
    old, new = stack.run(force=True), stack.run(force=True)

    def sql(statement: str) -> str:
        return stack.inside("postgres", "psql", "-U", "airflow", "-Atc", statement)

    past = "now() - interval '100 days'"
    for table in ("dag_run", "task_instance"):
        columns = "start_date = {0}, end_date = {0}" + (", run_after = {0}" if table == "dag_run" else "")
        sql(f"update {table} set {columns.format(past)} where run_id = '{old.run_id}'")
    folder = f"{LOGS}/dag_id={PIPELINE}/run_id="
    stack.inside(
        "airflow-scheduler", "sh", "-c", f"find '{folder}{old.run_id}' -exec touch -d '100 days ago' {{}} +"
    )
    clean_up(stack)
    runs = {run["dag_run_id"] for run in stack.request(f"/dags/{PIPELINE}/dagRuns?limit=100")["dag_runs"]}
    assert old.run_id not in runs and new.run_id in runs
    assert sql(f"select count(*) from task_instance where run_id = '{old.run_id}'").strip() == "0"
    left = stack.inside("airflow-scheduler", "find", LOGS, "-name", "*.log")
    assert old.run_id not in left and new.run_id in left
    assert sql("select count(*) from pg_tables where tablename like '_airflow_deleted%'").strip() == "0"


def clean_up(stack) -> None:
    """What `cleanup` does once a day."""
    functions = (
        (ORCHESTRATION / "docker" / "entrypoint.sh").read_text().partition('case "$ENVIRONMENT" in\n')[0]
    )
    [container] = stack.of("airflow-cleanup")
    docker(["docker", "exec", container["Id"], "bash", "-c", f"{functions}\nclean_up"])
