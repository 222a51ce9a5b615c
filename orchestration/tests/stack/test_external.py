"""The stack of Compose with a PostgreSQL and a Redis outside of it, both over TLS."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestration.scripts import airflow_local
from orchestration.tests.stack.procfile import Host, make_host
from orchestration.tests.stack.stack import Stack, docker, make_stack, removed_at_the_end, service_of

pytestmark = pytest.mark.stack

AIRFLOW = (
    "airflow-init",
    "airflow-apiserver",
    "airflow-scheduler",
    "airflow-dag-processor",
    "airflow-triggerer",
)
SETTINGS = (
    "DATABASE_URL", "REDIS_URL", "AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__API__SECRET_KEY",
    "AIRFLOW__API_AUTH__JWT_SECRET", "AIRFLOW_ADMIN_USERNAME", "AIRFLOW_ADMIN_PASSWORD",
)  # fmt: skip


@pytest.fixture(scope="module")
def services(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A database and a queue on a network of their own."""
    found = make_host(image, tmp_path_factory.mktemp("outside"), "outside")
    try:
        found.prepare_services()
        yield found
    finally:
        found.remove()


@pytest.fixture(scope="module")
def outside(services: Host, image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack as docs/configuration.md says, on that network."""
    folder = tmp_path_factory.mktemp("stack")
    authority = f"{services.certificates / 'ca.crt'}:/certificates/ca.crt:ro"
    more = {
        "services": {name: {"volumes": [authority]} for name in ("secrets-init", *AIRFLOW)},
        "networks": {"default": {"name": services.name, "external": True}},
    }
    override = folder / "outside.json"
    override.write_text(json.dumps(more))
    env = {name: services.variables[name] for name in SETTINGS}
    made = make_stack(
        "outside", image, folder, CATALUNYA_DATABASE_SERVER="0", CATALUNYA_QUEUE_SERVER="0", **env
    )
    with removed_at_the_end(replace(made, files=(*made.files, Path(override)))) as found:
        found.up()
        yield found


def test_the_stack_has_no_database_of_its_own_and_a_run_ends_in_a_release(
    outside: Stack, services: Host
) -> None:
    assert {service_of(one) for one in outside.containers()} & {"postgres", "redis"} == set()
    user, password = (services.variables[f"AIRFLOW_ADMIN_{name}"] for name in ("USERNAME", "PASSWORD"))
    login = {"username": user, "password": password}
    outside.token = airflow_local.call_api(f"{outside.url}/auth/token", login)["access_token"]
    ended = outside.run()
    assert ended.state == "success", ended.states()
    outside.assert_release_is_whole()
    sql = "select count(*) from dag_run where state = 'success'"
    psql = ["psql", "-h", "/var/run/postgresql", "-U", "care", "-d", "care", "-Atc", sql]
    assert int(docker(["docker", "exec", f"{services.name}-postgres", *psql])) >= 1
