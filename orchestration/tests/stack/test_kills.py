"""Each service is killed during a run; the database is down for a minute, or for `CATALUNYA_DOWN_SECONDS`."""

from __future__ import annotations

import os
import time

import pytest

pytestmark = pytest.mark.stack

BUILD = "run_dbt_transformations"
DOWN_S = int(os.environ.get("CATALUNYA_DOWN_SECONDS", "60"))


@pytest.mark.parametrize("service", ["airflow-scheduler", "airflow-apiserver", "postgres"])
def test_a_killed_service_that_runs_need_costs_at_most_one_run(stack, service):
    [before] = stack.of(service)
    run_id = stack.trigger(force=True)
    stack.running(run_id, BUILD)
    stack.kill(before)
    stack.wait(lambda: stack.is_back(before), f"{service} did not come back")
    stack.assert_this_or_the_next_run_succeeds(run_id)


def test_killed_services_that_runs_do_not_need_come_back(stack):
    run_id = stack.trigger(force=True)
    killed = []
    for service, task_id in (
        ("demo-portal", "ingest"),
        ("airflow-triggerer", "ingest"),
        ("redis", BUILD),
        ("airflow-dag-processor", BUILD),
    ):
        stack.running(run_id, task_id)
        [before] = stack.of(service)
        stack.kill(before)
        killed.append(before)
    for before in killed:
        stack.wait(lambda before=before: stack.is_back(before), f"{before['Name']} did not come back")
    stack.assert_this_or_the_next_run_succeeds(run_id)


def test_a_database_that_is_down_in_the_middle_of_a_run_loses_nothing(stack):
    before = stack.pointer()
    run_id = stack.trigger(force=True)
    stack.running(run_id, BUILD)
    stack.compose("stop", "postgres")
    time.sleep(DOWN_S)
    stack.compose("start", "postgres")
    stack.wait(
        lambda: all(
            one["State"].get("Health", {}).get("Status") == "healthy"
            for one in stack.containers()
            if one["State"]["Running"] or one["State"]["ExitCode"]
        ),
        "not every service came back",
    )
    ended = stack.assert_this_or_the_next_run_succeeds(run_id)
    assert stack.pointer() != before, ended.states()
