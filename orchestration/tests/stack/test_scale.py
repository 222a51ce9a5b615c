"""Three workers: tasks reach them over Redis, and a killed worker loses nothing."""

from __future__ import annotations

import pytest

from orchestration.tests.stack.stack import docker

pytestmark = pytest.mark.stack

WORKERS = 3


@pytest.fixture(scope="module")
def scaled(stack):
    stack.profiles = ("scale",)
    stack.up("--scale", f"airflow-worker={WORKERS}")
    stack.wait_for_executor("CeleryExecutor")
    yield stack
    stack.compose("rm", "--stop", "--force", "airflow-worker")
    stack.profiles = ()


def test_a_run_s_tasks_ran_on_more_than_one_worker(scaled):
    workers = {one["Config"]["Hostname"] for one in scaled.of("airflow-worker")}
    assert len(workers) == WORKERS
    ended = scaled.ended(scaled.trigger(force=True))
    assert ended.state == "success", ended.states()
    hosts = {task["hostname"] for task in ended.tasks.values()}
    assert len(hosts) > 1 and hosts <= workers, hosts
    scaled.assert_release_is_whole()


def test_a_worker_killed_in_the_middle_loses_nothing(scaled):
    before = scaled.pointer()
    run_id = scaled.trigger(force=True)
    task = scaled.running(run_id, "run_dbt_transformations")
    [worker] = [one for one in scaled.of("airflow-worker") if one["Config"]["Hostname"] == task["hostname"]]
    scaled.kill(worker)
    ended = scaled.ended(run_id)
    assert ended.state == "success", ended.states()
    assert ended.tries()["run_dbt_transformations"] > 1
    assert scaled.pointer() != before
    scaled.assert_release_is_whole()
    scaled.wait(lambda: scaled.is_back(worker), "the worker did not come back")


def test_a_task_of_a_worker_that_is_stopped_ends_and_reports_its_success(scaled):
    run_id = scaled.trigger(force=True)
    task = scaled.running(run_id, "run_dbt_transformations")
    [worker] = [one for one in scaled.of("airflow-worker") if one["Config"]["Hostname"] == task["hostname"]]
    docker(["docker", "stop", "--time", "60", worker["Id"]])
    ended = scaled.ended(run_id)
    docker(["docker", "start", worker["Id"]])
    assert ended.state == "success", ended.states()
    assert ended.tries()["run_dbt_transformations"] == 1


def test_without_workers_the_scheduler_runs_the_tasks_itself_again(scaled):
    scaled.compose("rm", "--stop", "--force", "airflow-worker")
    scaled.wait_for_executor("LocalExecutor")
    ended = scaled.run(force=True)
    assert ended.state == "success", ended.states()
    [scheduler] = scaled.of("airflow-scheduler")
    assert {task["hostname"] for task in ended.tasks.values()} == {scheduler["Config"]["Hostname"]}
