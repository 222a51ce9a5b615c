"""Production starts only with its own secrets; errors before the start name their cause."""

from __future__ import annotations

import base64
import os
import re
import secrets
import socket
import subprocess
from pathlib import Path

import pytest

from orchestration.scripts import airflow_local
from orchestration.tests.stack.stack import (
    CLEAN,
    ORCHESTRATION,
    PRODUCTION,
    docker,
    make_stack,
    removed_at_the_end,
    service_of,
)
from tests.s3 import installed

S3 = Path(__file__).with_name("s3.yml")

pytestmark = pytest.mark.stack


def proper() -> dict[str, str]:
    """Settings that production starts with."""
    return {
        "ENVIRONMENT": "production",
        "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "POSTGRES_PASSWORD": secrets.token_hex(16),
        "REDIS_PASSWORD": secrets.token_hex(16),
        "AIRFLOW_ADMIN_PASSWORD": secrets.token_hex(16),
        "CATALUNYA_LAKE": "s3://lake/production",
    }


BUCKET = {
    "CATALUNYA_ENGINE": "duckdb",
    "AWS_ENDPOINT_URL": "http://s3:4566",
    "AWS_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
}
"""A lake in the emulator of s3.yml."""

SECRETS = sorted(set(proper()) - {"ENVIRONMENT"})


def start(image: str, env: dict[str, str], *options: str) -> tuple[int, str]:
    """Return the exit code and the output of `secrets` in a container of the image."""
    named = [word for name, value in env.items() for word in ("--env", f"{name}={value}")]
    command = ["docker", "run", "--rm", "--network", "none", *options, *named, image, "secrets"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    return done.returncode, done.stdout + done.stderr


def named(said: str) -> list[str]:
    """Return the variables that the entrypoint requires."""
    return sorted(set(re.findall(r"entrypoint: set (\w+)", said)))


@pytest.mark.parametrize("name", SECRETS)
def test_production_refuses_to_start_without(image, name):
    code, said = start(image, {key: value for key, value in proper().items() if key != name})
    assert code == 1
    assert named(said) == [name], said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AIRFLOW_ADMIN_PASSWORD", "airflow"),
        ("POSTGRES_PASSWORD", "short"),
        ("AIRFLOW__CORE__FERNET_KEY", "not a key, however long it is made"),
        ("CATALUNYA_LAKE", "/var/lib/catalunya/lake"),
        ("AIRFLOW_BIND", "0.0.0.0"),
    ],
)
def test_production_refuses_a_development_value_of(image, name, value):
    code, said = start(image, {**proper(), name: value})
    assert code == 1
    assert named(said) == [name], said


def test_an_unknown_environment_is_refused(image):
    code, said = start(image, {"ENVIRONMENT": "prod"})
    assert (code, "set ENVIRONMENT to demo, development or production, not 'prod'" in said) == (1, True)


def test_the_stack_in_production_does_not_start_with_defaults_and_does_with_settings_of_its_own(
    image, tmp_path
):
    stack = make_stack("production", image, tmp_path)
    stack.files, stack.profiles, stack.env_file = (*PRODUCTION, S3), (), tmp_path / "production.env"
    stack.env["MINISTACK"] = str(next((installed().parents[1] / "lib").glob("python*/site-packages")))
    stack.env_file.write_text("ENVIRONMENT=production\n")
    with removed_at_the_end(stack):
        said = stack.compose("up", "--wait", "--wait-timeout", "60", check=False)
        assert "didn't complete successfully" in said or "exited (1)" in said, said
        logs = stack.compose("logs", "secrets-init", "--no-log-prefix")
        assert set(named(logs)) == set(SECRETS)
        running = {service_of(one) for one in stack.containers() if one["State"]["Running"]}
        assert running <= {"s3"}, running
        stack.down("--volumes")

        settings = {**proper(), **BUCKET, "AIRFLOW_ADMIN_USERNAME": "chief"}
        stack.env_file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        stack.compose("up", "--wait", "s3")
        stack.inside("s3", "curl", "-sf", "-X", "PUT", "http://localhost:4566/lake")
        stack.up()
        states = {one["Name"]: one["State"] for one in stack.containers()}
        assert all(state["Status"] == "running" or state["ExitCode"] == 0 for state in states.values()), (
            states
        )
        login = {"username": "chief", "password": settings["AIRFLOW_ADMIN_PASSWORD"]}
        assert airflow_local.call_api(f"{stack.url}/auth/token", login)["access_token"]


@pytest.mark.parametrize("environment", ["development", "production"])
def test_the_example_of_an_environment_is_a_configuration_that_compose_reads(engine, environment):
    example = ORCHESTRATION / "config" / "environment" / f"{environment}.env.example"
    command = ["docker", "compose", "--project-directory", str(ORCHESTRATION)]
    command += ["--env-file", str(example), "config"]
    found = docker(command, CLEAN)
    assert f"ENVIRONMENT: {environment}" in found
    assert "airflow-worker" not in docker([*command, "--services"], CLEAN).split()


def test_a_port_in_use_is_named_with_what_to_do(image):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        env = {**CLEAN, "AIRFLOW_PORT": str(port), "COMPOSE_PROJECT_NAME": "catalunya-port"}
        up = [str(ORCHESTRATION / "scripts" / "up.sh")]
        done = subprocess.run(up, env=env, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 1
    assert f"port {port} is in use" in done.stderr and "AIRFLOW_PORT=" in done.stderr


def test_too_little_memory_is_reported_before_anything_is_created(image):
    code, said = start(image, {"CATALUNYA_LEAST_MEMORY_MB": "99999999"})
    assert code == 1
    assert "MB of memory are free and the stack needs 99999999" in said and "give Docker more" in said


def test_a_lake_that_cannot_be_written_is_reported_with_the_command_that_corrects_it(image, tmp_path):
    folder = tmp_path / "lake"
    folder.mkdir(mode=0o755)
    os.chown(folder, 0, 0)
    code, said = start(image, {}, "--volume", f"{folder}:/var/lib/catalunya/lake")
    assert code == 1
    assert "cannot be written by user 50000" in said and "chown -R 50000:0" in said
