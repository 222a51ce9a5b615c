"""Every documented command of Compose, as a person types it, on the oldest version that is supported and on newer ones."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from orchestration.tests.stack.stack import CLEAN, ORCHESTRATION
from tests.project import ROOT, missing

pytestmark = pytest.mark.stack

PAGES = (
    "README.md", "CONTRIBUTING.md", "docs/aws.md", "docs/configuration.md", "orchestration/README.md",
    "orchestration/docker-compose.yml", "orchestration/config/environment/development.env.example",
    "orchestration/config/environment/production.env.example", "orchestration/docker/entrypoint.sh",
)  # fmt: skip
TAKE_A_VALUE = {"--env-file", "--file", "-f", "--profile", "--project-directory", "--project-name", "-p"}
AIRFLOW = {
    "secrets-init", "airflow-init", "airflow-apiserver", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer",
    "airflow-cleanup", "demo-portal", "site",
}  # fmt: skip
ALWAYS = {*AIRFLOW, "postgres", "redis"}
PRODUCTION = ("-f", "docker-compose.yml", "--env-file", "config/environment/production.env")


def documented() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each documented command, and what it says before its verb."""
    commands = set()
    for page in PAGES:
        text = (ROOT / page).read_text().replace("\\\n", " ")
        commands |= {found.strip() for found in re.findall(r"docker compose ([^`'#|&;\n…]+)", text)}
    for command in sorted(commands):
        words, before = shlex.split(command), []
        while words and words[0].startswith("-"):
            before += [words.pop(0) for _ in range(2 if words[0] in TAKE_A_VALUE else 1)]
        if words:
            yield command, tuple(before)


@pytest.fixture(params=["docker compose", *os.environ.get("CATALUNYA_COMPOSE", "").split()])
def compose(request, tmp_path) -> Any:
    """Run a version of Compose in a copy of the folder, with the examples as the files of environments.

    CATALUNYA_COMPOSE names binaries of more versions, separated by blanks.
    """
    program = request.param.split(" ") if request.param == "docker compose" else [request.param]
    if (
        shutil.which(program[0]) is None
        or subprocess.run([*program, "version"], capture_output=True, check=False).returncode
    ):
        missing(f"{request.param} does not start; see orchestration/README.md, *Start it*")
    folder = tmp_path / "orchestration"
    (folder / "config" / "environment").mkdir(parents=True)
    for name in (".env", "docker-compose.yml", "docker-compose.override.yml"):
        shutil.copy(ORCHESTRATION / name, folder / name)
    for example in (ORCHESTRATION / "config" / "environment").glob("*.example"):
        shutil.copy(example, folder / "config" / "environment" / example.stem)

    def run(*words: str, **env: str) -> str:
        done = subprocess.run(
            [*program, *words],
            cwd=folder,
            env={**CLEAN, **env},
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), (words, done.stderr)
        return done.stdout

    return run


def model(compose: Any, *before: str, **env: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(compose(*before, "config", "--format", "json", **env))
    return found


def test_commands_are_documented():
    commands = dict(documented())
    assert commands["up --build"] == ()
    assert commands["--profile scale up --build --scale airflow-worker=3"] == ("--profile", "scale")
    assert len(commands) >= 8


@pytest.mark.parametrize(("command", "before"), documented(), ids=[command for command, _ in documented()])
def test_a_documented_command_has_a_configuration_that_compose_reads_without_a_warning(
    compose, command, before
):
    found = set(compose(*before, "config", "--services").split())
    more = {"scale": {"airflow-worker"}, "monitoring": {"metrics", "prometheus", "grafana"}}
    assert found == ALWAYS.union(*(more[name] for name in more if name in before))


def test_the_demo_portal_runs_in_the_demo_environment_only_and_with_workers_too(compose):
    def portals(*before: str) -> int:
        replicas: int = model(compose, *before)["services"]["demo-portal"]["deploy"]["replicas"]
        return replicas

    assert portals() == portals("--profile", "scale") == 1
    assert portals("--env-file", "config/environment/development.env") == portals(*PRODUCTION) == 0


def test_production_builds_nothing_and_runs_the_image_that_is_named(compose):
    own = model(compose, *PRODUCTION)["services"]
    assert [name for name, service in own.items() if "build" in service] == []
    assert {own[name]["pull_policy"] for name in AIRFLOW} == {"never"}
    env = {"CATALUNYA_IMAGE": "registry.example.org/catalunya:1", "AIRFLOW_PULL_POLICY": "missing"}
    pulled = model(compose, *PRODUCTION, **env)["services"]
    assert {pulled[name]["image"] for name in AIRFLOW} == {env["CATALUNYA_IMAGE"]}
    assert {pulled[name]["pull_policy"] for name in AIRFLOW} == {"missing"}


def test_development_builds_the_image_once_for_all_services(compose):
    found = model(compose, PIP_INDEX_URL="https://mirror.example.org/simple")["services"]
    assert [name for name, service in found.items() if "build" in service] == ["secrets-init"]
    assert found["secrets-init"]["build"]["args"]["PIP_INDEX_URL"] == "https://mirror.example.org/simple"
    assert len({found[name]["image"] for name in AIRFLOW}) == 1


def test_each_environment_has_volumes_of_its_own(compose):
    def volumes(**env: str) -> dict[str, str]:
        return {key: volume["name"] for key, volume in model(compose, **env)["volumes"].items()}

    assert volumes() == {
        key: f"catalunya_{key}_demo" for key in ("lake", "logs", "postgres", "redis", "secrets", "site")
    }
    assert volumes(ENVIRONMENT="development")["lake"] == "catalunya_lake_development"
    assert volumes(COMPOSE_PROJECT_NAME="mine")["lake"] == "mine_lake_demo"


def test_an_external_database_and_queue_replace_those_of_the_stack(compose):
    env = {
        "DATABASE_URL": "postgres://u:p@db.example.org/care?sslmode=verify-full", "REDIS_URL": "rediss://:p@cache.example.org",
        "CATALUNYA_DATABASE_SERVER": "0", "CATALUNYA_QUEUE_SERVER": "0",
    }  # fmt: skip
    services = model(compose, "--profile", "scale", **env)["services"]
    assert services["postgres"]["deploy"]["replicas"] == services["redis"]["deploy"]["replicas"] == 0
    for name in AIRFLOW - {"site", "demo-portal"}:
        assert services[name]["environment"]["DATABASE_URL"] == env["DATABASE_URL"]
        needed = services[name].get("depends_on", {})
        assert {one["required"] for other, one in needed.items() if other in {"postgres", "redis"}} <= {False}
    assert model(compose)["services"]["postgres"]["deploy"]["replicas"] == 1


def test_every_secret_can_come_from_a_file_or_from_the_backend(compose):
    script = (ORCHESTRATION / "docker" / "entrypoint.sh").read_text()
    everywhere, by_others = (
        re.findall(r"[A-Z_]{8,}", script.partition(f"{array}=(")[2].partition(")")[0])
        for array in ("given_secrets", "read_by_others")
    )
    assert len(everywhere) > 12 and len(by_others) == 4
    names = everywhere + by_others
    passed = model(compose, "--env-file", os.devnull, **{f"{name}_FILE": "/x" for name in names})["services"]
    for service, of_service in (("airflow-scheduler", everywhere), ("airflow-apiserver", names)):
        given = passed[service]["environment"]
        assert [
            name for name in of_service if given.get(f"{name}_FILE") != "/x" or f"{name}_SECRET" not in given
        ] == [], service


def test_no_service_has_a_limit_of_processors_unless_one_is_set(compose):
    def limits(**env: str) -> dict[str, Any]:
        return {
            name: float(service["deploy"]["resources"]["limits"].get("cpus", 0))
            for name, service in model(compose, **env)["services"].items()
        }

    assert set(limits().values()) == {0.0}
    assert {name: limit for name, limit in limits(CATALUNYA_CPUS="1.5").items() if limit} == {
        "airflow-scheduler": 1.5
    }


def test_no_health_check_runs_more_often_than_every_ten_seconds(compose):
    for name, service in model(compose, "--profile", "scale")["services"].items():
        if not name.endswith("-init"):
            assert service["healthcheck"]["interval"] in {"10s", "15s", "30s"}, name


def test_what_runs_tasks_is_stopped_before_the_api_server(compose):
    services = model(compose, "--profile", "scale")["services"]
    for name in ("airflow-scheduler", "airflow-worker"):
        assert "airflow-apiserver" in services[name]["depends_on"], name
    assert "DUMB_INIT_SETSID=0" in (ORCHESTRATION / "Dockerfile").read_text(), (
        "a signal goes to the main process alone"
    )


def test_mounts_of_the_host_s_folders_are_labelled_for_selinux_when_that_is_set(compose):
    def labels(**env: str) -> set[Any]:
        mounts = [
            mount
            for service in model(compose, CATALUNYA_LAKE_FOLDER="/srv/lake", **env)["services"].values()
            for mount in service.get("volumes", [])
            if mount["type"] == "bind"
        ]
        assert len(mounts) > 50
        return {mount.get("bind", {}).get("selinux") for mount in mounts}

    assert labels() == {None}
    assert labels(CATALUNYA_SELINUX="1") == {"z"}
