"""Every process of the Procfile, with the variables that Dokku sets, on a real PostgreSQL and Redis over TLS."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.request
from collections.abc import Iterator

import pytest

from orchestration.tests.stack.procfile import PROCESSES, Host, environment_of, make_host
from orchestration.tests.stack.stack import docker
from orchestration.tests.stack.test_kills import DOWN_S

pytestmark = pytest.mark.stack

BUILD = "run_dbt_transformations"


@pytest.fixture(scope="module")
def host(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """The app after its first deployment."""
    found = make_host(image, tmp_path_factory.mktemp("procfile"))
    try:
        found.prepare()
        found.deploy("1")
        yield found
    finally:
        found.remove()


def test_the_first_deployment_ends_in_a_release_that_the_site_shows(host: Host) -> None:
    assert {process: host.state(process)["restarts"] for process in PROCESSES} == dict.fromkeys(PROCESSES, 0)
    [run] = host.wait(
        lambda: host.request("/dags/catalunya_data_pipeline/dagRuns")["dag_runs"], "no run was scheduled"
    )
    ended = host.ended(run["dag_run_id"])
    assert ended.state == "success", ended.states()
    host.assert_release_is_whole()
    with urllib.request.urlopen(f"http://localhost:{host.site_port}/site.json", timeout=60) as answer:
        assert json.load(answer)["release_id"] == host.pointer()
    assert "entrypoint: CeleryExecutor, dbt on" in docker(
        ["docker", "logs", host.running["scheduler"]], check=False
    )
    assert "succeeded in" in docker(["docker", "logs", host.running["worker"]], check=False), (
        "the worker ran the tasks"
    )


def test_no_secret_is_in_the_environment_of_a_service(host: Host) -> None:
    secrets = {
        name: value
        for name, value in host.variables.items()
        if "KEY" in name or "SECRET" in name or "URL" in name
    }
    secrets = {name: value for name, value in secrets.items() if "://" not in value or "@" in value}
    assert len(secrets) == 5
    for process in ("web", "scheduler", "dag-processor", "triggerer", "worker"):
        found = environment_of(host.running[process])
        assert not [name for name, value in secrets.items() if value in found.values()], process
        assert host.password not in "".join(found.values())
        assert host.admin not in found.values()


def test_connections_are_over_tls(host: Host) -> None:
    sql = "select bool_and(ssl), count(*) from pg_stat_ssl join pg_stat_activity using (pid) where usename = 'care'"
    command = [
        "docker",
        "exec",
        f"{host.name}-postgres",
        "psql",
        "-h",
        "/var/run/postgresql",
        "-U",
        "care",
        "-d",
        "care",
    ]
    said = docker([*command, "-Atc", sql + " and client_addr is not null"])
    encrypted, count = said.strip().split("|")
    assert encrypted == "t" and int(count) >= 5


def test_a_new_version_takes_over_in_the_middle_of_a_run_and_nothing_is_lost(host: Host) -> None:
    before = host.pointer()
    run_id = host.trigger(force=True)
    host.wait(lambda: host.state_of(run_id, BUILD) == "running", f"{BUILD} did not run")
    host.deploy("2")
    ended = host.ended(run_id)
    assert ended.state == "success", (ended.states(), ended.tries())
    assert max(ended.tries().values()) <= 2
    host.assert_release_is_whole()
    assert host.pointer() != before
    again = host.ended(host.trigger())
    assert again.state == "success", again.states()


@pytest.mark.parametrize("process", ["web", "scheduler", "dag-processor", "triggerer", "worker"])
def test_a_killed_process_comes_back_and_costs_at_most_one_run(host: Host, process: str) -> None:
    run_id = host.trigger(force=True)
    host.wait(lambda: host.state_of(run_id, BUILD) == "running", f"{BUILD} did not run")
    before = host.state(process)
    os.kill(before["Pid"], signal.SIGKILL)
    host.wait(lambda: host.state(process)["restarts"] > before["restarts"], f"{process} did not come back")
    host.check(process)
    host.this_or_the_next_run_succeeds(run_id)


def test_a_database_that_is_down_in_the_middle_of_a_run_loses_nothing(host: Host) -> None:
    """As long as in `test_kills.py`. The processes come back by themselves: nobody restarts them."""
    before = host.pointer()
    run_id = host.trigger(force=True)
    host.wait(lambda: host.state_of(run_id, BUILD) == "running", f"{BUILD} did not run")
    docker(["docker", "stop", f"{host.name}-postgres"])
    time.sleep(DOWN_S)
    assert host.pointer() == before
    docker(["docker", "start", f"{host.name}-postgres"])
    for process in PROCESSES:
        host.check(process)
    host.this_or_the_next_run_succeeds(run_id)
    assert host.pointer() != before


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"DATABASE_URL": "mysql://u:p@h/care"}, "set DATABASE_URL to a URL such as postgres://"),
        (
            {"AIRFLOW__CORE__FERNET_KEY": ""},
            "set AIRFLOW__CORE__FERNET_KEY: with DATABASE_URL production has no default",
        ),
        ({"AIRFLOW_ADMIN_PASSWORD": "airflow"}, "set AIRFLOW_ADMIN_PASSWORD to a secret of your own"),
        ({"REDIS_URL_FILE": "/none"}, "set REDIS_URL or REDIS_URL_FILE, not both"),
    ],
)
def test_a_wrong_setting_is_named_before_anything_starts(
    host: Host, given: dict[str, str], said: str
) -> None:
    assert said in host.run("scheduler", check=False, **given)
