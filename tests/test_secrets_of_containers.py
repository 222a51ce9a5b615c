"""What the containers' entrypoint makes of secrets in files, in a backend, and in the URLs of a host's services."""

from __future__ import annotations

import os
import subprocess
import sys
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from tests import s3
from tests.project import ROOT
from tests.s3 import S3Emulator

ENTRYPOINT = ROOT / "orchestration" / "docker" / "entrypoint.sh"
FERNET = urlsafe_b64encode(b"0123456789abcdef0123456789abcdef").decode()
OWN = {
    "AIRFLOW__CORE__FERNET_KEY": FERNET, "AIRFLOW__API__SECRET_KEY": "a" * 32, "AIRFLOW__API_AUTH__JWT_SECRET": "b" * 32,
    "AIRFLOW_ADMIN_PASSWORD": "c" * 32,
}  # fmt: skip
LINKS = {
    "DATABASE_URL": "postgres://care:p%40ss@db.example.org/care?sslmode=require",
    "REDIS_URL": "rediss://:p%40ss@cache.example.org:6380",
}


def start(folder: Path, *command: str, **env: str) -> tuple[int, dict[str, str], str]:
    """Return exit code, variables of the process that the entrypoint starts, and what it says."""
    (folder / "secrets").mkdir(exist_ok=True)
    given = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "CATALUNYA_SECRETS": str(folder / "secrets"),
        "CATALUNYA_LAKE": "s3://lake/production", "CATALUNYA_HOME": str(ROOT), "HOME": str(folder), **env,
    }  # fmt: skip
    done = subprocess.run(
        ["bash", str(ENTRYPOINT), *(command or ("env", "-0"))],
        cwd=ROOT, env=given, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    found = dict(pair.split("=", 1) for pair in done.stdout.split("\0") if "=" in pair)
    return done.returncode, found, done.stderr


def test_a_secret_comes_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a token\n")
    code, found, said = start(tmp_path, SOCRATA_APP_TOKEN_FILE=str(tmp_path / "token"))
    assert (code, found.get("SOCRATA_APP_TOKEN"), "SOCRATA_APP_TOKEN_FILE" in found) == (
        0,
        "a token",
        False,
    ), said


@pytest.mark.parametrize("links", [LINKS, {}], ids=["outside", "of the stack"])
def test_the_secrets_of_the_stack_lead_to_the_database_that_is_named(
    tmp_path: Path, links: dict[str, str]
) -> None:
    env = {**OWN, "POSTGRES_PASSWORD": "d" * 32, "ENVIRONMENT": "demo", "CATALUNYA_LEAST_MEMORY_MB": "1"}
    code, _, said = start(tmp_path, "secrets", **env, **links)
    assert code == 0, said
    database = (tmp_path / "secrets" / "sql_alchemy_conn").read_text()
    queue = (tmp_path / "secrets" / "broker_url").read_text()
    host, cache = ("db.example.org", "cache.example.org") if links else ("postgres", "redis")
    assert f"@{host}" in database and f"@{cache}:" in queue


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"REDIS_PASSWORD_FILE": "/none"}, "set REDIS_PASSWORD_FILE to a file that user"),
        (
            {"REDIS_PASSWORD_FILE": "/none", "REDIS_PASSWORD": "x"},
            "set REDIS_PASSWORD or REDIS_PASSWORD_FILE, not both",
        ),
        ({"REDIS_PASSWORD_SECRET": "x"}, "set AIRFLOW__SECRETS__BACKEND: it is asked for REDIS_PASSWORD"),
    ],
)
def test_a_secret_that_cannot_be_read_is_named(tmp_path: Path, env: dict[str, str], expected: str) -> None:
    code, _, said = start(tmp_path, **env)
    assert (code, expected in said) == (1, True), said


def test_linked_services_are_in_files_and_no_secret_stays_in_the_environment(tmp_path: Path) -> None:
    code, found, said = start(tmp_path, **OWN, **LINKS)
    assert code == 0, said
    files = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    assert (
        files["sql_alchemy_conn_async"]
        == "postgresql+psycopg://care:p%40ss@db.example.org/care?sslmode=require"
    )
    assert files["broker_url"] == "rediss://:p%40ss@cache.example.org:6380/0?ssl_cert_reqs=CERT_REQUIRED"
    assert files["fernet_key"] == FERNET
    left = set(found.values()) & {*OWN.values(), *LINKS.values()}
    assert left == {OWN["AIRFLOW_ADMIN_PASSWORD"]}, "the release step needs it"
    assert start(tmp_path, **OWN, **LINKS)[0] == 0, "a container that starts again"


def test_a_host_of_a_procfile_says_port_commit_and_executor(tmp_path: Path) -> None:
    dokku = {
        "DYNO": "web.1",
        "PORT": "5000",
        "GIT_REV": "0123abc",
        "AIRFLOW__API__BASE_URL": "https://a.example.org/",
    }
    _, found, said = start(tmp_path, **OWN, **LINKS, **dokku)
    assert (found["AIRFLOW__API__PORT"], found["CATALUNYA_REVISION"]) == ("5000", "0123abc"), said
    assert found["AIRFLOW__CORE__EXECUTOR"] == "CeleryExecutor"
    assert found["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "https://a.example.org/execution/"
    alone = {**OWN, "DATABASE_URL": LINKS["DATABASE_URL"]}
    assert (
        start(tmp_path, **alone, DYNO="scheduler.1", PORT="")[1]["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor"
    )


@pytest.mark.parametrize("environment", ["demo", "development", "production"])
def test_with_linked_services_no_environment_starts_without_secrets_of_its_own(
    tmp_path: Path, environment: str
) -> None:
    code, _, said = start(tmp_path, **LINKS, ENVIRONMENT=environment)
    assert code == 1
    named = {line.split()[2].rstrip(":") for line in said.splitlines() if line.startswith("entrypoint: set ")}
    assert named == set(OWN), said
    assert start(tmp_path, **OWN, **LINKS, ENVIRONMENT=environment)[0] == 0


def test_the_release_step_is_the_same_by_its_path_and_by_its_name(tmp_path: Path) -> None:
    wrong = {**OWN, **LINKS, "CATALUNYA_LAKE": "/none", "ENVIRONMENT": "development"}
    by_path, by_name = (
        start(tmp_path, *words, **wrong) for words in ([str(ENTRYPOINT), "release"], ["release"])
    )
    assert by_path == by_name
    assert "the lake /none cannot be written" in by_name[2]


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Emulator]:
    with s3.running(tmp_path_factory.mktemp("aws"), "secretsmanager", "ssm") as emulator:
        yield emulator


BACKENDS = "airflow.providers.amazon.aws.secrets."


@pytest.mark.parametrize(
    ("backend", "kwargs"),
    [
        ("secrets_manager.SecretsManagerBackend", '{"config_prefix": "care"}'),
        ("systems_manager.SystemsManagerParameterStoreBackend", '{"config_prefix": "/care"}'),
    ],
)
@pytest.mark.slow
def test_secrets_come_from_the_backend_of_airflow(
    aws: S3Emulator, tmp_path: Path, backend: str, kwargs: str
) -> None:
    others = {
        "CATALUNYA_SIGNING_KEY": "a key", "CATALUNYA_HEARTBEAT_URL": "https://ping.example.org/x",
        "AIRFLOW_OIDC_CLIENT_SECRET": "of a client", "AIRFLOW_LDAP_BIND_PASSWORD": "of a reader",
    }  # fmt: skip
    values = {"database": LINKS["DATABASE_URL"], "fernet": FERNET, **others}
    for name, value in values.items():
        if "secrets_manager" in backend:
            client = boto3.client("secretsmanager", "us-east-1", endpoint_url=aws.endpoint, **KEYS)
            client.create_secret(Name=f"care/{name}", SecretString=value)
        else:
            client = boto3.client("ssm", "us-east-1", endpoint_url=aws.endpoint, **KEYS)
            client.put_parameter(Name=f"/care/{name}", Value=value, Type="SecureString")
    asked = {
        **aws.env, "AWS_DEFAULT_REGION": "us-east-1", "AIRFLOW__SECRETS__BACKEND": BACKENDS + backend,
        "AIRFLOW__SECRETS__BACKEND_KWARGS": kwargs, "AIRFLOW_HOME": str(tmp_path),
    }  # fmt: skip
    own = {name: value for name, value in OWN.items() if "FERNET" not in name}
    secrets = {"DATABASE_URL_SECRET": "database", "AIRFLOW__CORE__FERNET_KEY_SECRET": "fernet"}
    secrets |= {f"{name}_SECRET": name for name in others}
    code, found, said = start(tmp_path, **own, **asked, **secrets)
    assert code == 0, said
    assert (tmp_path / "secrets" / "fernet_key").read_text() == FERNET, "its last character is a ="
    assert (tmp_path / "secrets" / "sql_alchemy_conn").read_text().endswith("/care?sslmode=require")
    assert not [name for name in found if name in secrets and name not in others]
    assert {name: found.get(name) for name in others} == others
    code, _, said = start(tmp_path, **own, **asked, DATABASE_URL_SECRET="none-such")
    assert (code, "set DATABASE_URL_SECRET to a secret that exists: there is no none-such" in said) == (
        1,
        True,
    ), said


KEYS = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
