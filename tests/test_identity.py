"""The process becomes the orchestrator and then the role of a step, whatever it is itself, and becomes itself again."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import pytest

from catalunya import identity
from catalunya.errors import UsageError
from catalunya.identity import assume_role, caller
from catalunya.settings import Settings

pytest.importorskip("boto3", reason="boto3 is missing: run `make setup-dev`")
PREFIX = "arn:aws:iam::111122223333:role/catalunya-production-"
TASKS = "arn:aws:sts::111122223333:assumed-role/airflow/i-1"


class Sts:
    """AWS's security token service, as far as roles are assumed: a key is named after its role."""

    def __init__(self) -> None:
        self.base = TASKS
        self.requests: list[dict[str, str]] = []
        self.lasts = timedelta(hours=1)
        self.refuses = ""
        sts = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
                given = {name: values[0] for name, values in form.items()}
                given["key"] = self.headers["authorization"].split("Credential=")[1].split("/")[0]
                status, body = sts.answer(given)
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def answer(self, given: dict[str, str]) -> tuple[int, bytes]:
        self.requests.append(given)
        if given["Action"] == "GetCallerIdentity":
            arn = f"<GetCallerIdentityResult><Arn>{self.base}</Arn></GetCallerIdentityResult>"
            return 200, f"<GetCallerIdentityResponse>{arn}</GetCallerIdentityResponse>".encode()
        name = given["RoleArn"].rpartition("-")[2]
        if name == self.refuses:
            return (
                403,
                b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>",
            )
        until = (datetime.now(UTC) + self.lasts).strftime("%Y-%m-%dT%H:%M:%SZ")
        found = (
            f"<AccessKeyId>{name}</AccessKeyId><SecretAccessKey>s</SecretAccessKey>"
            f"<SessionToken>token-{name}</SessionToken><Expiration>{until}</Expiration>"
        )
        result = f"<AssumeRoleResult><Credentials>{found}</Credentials></AssumeRoleResult>"
        return 200, f"<AssumeRoleResponse>{result}</AssumeRoleResponse>".encode()

    def assumed(self) -> list[tuple[str, str]]:
        """Return who assumed what."""
        return [
            (one["key"], one["RoleArn"].rpartition("-")[2])
            for one in self.requests
            if one["Action"] == "AssumeRole"
        ]


@pytest.fixture
def sts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sts]:
    for name in [name for name in os.environ if name.startswith(("AWS_", "CATALUNYA_", "ENVIRONMENT"))]:
        monkeypatch.delenv(name)
    one = Sts()
    threading.Thread(target=one.server.serve_forever, args=(0.05,), daemon=True).start()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{one.server.server_port}",
        "AWS_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "base",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "ENVIRONMENT": "production",
        "CATALUNYA_LAKE": "s3://lake",
        "CATALUNYA_ROLES": PREFIX,
        "CATALUNYA_LAMBDA_PREFIX": "catalunya-production",
    }.items():
        monkeypatch.setenv(name, value)
    identity._last.clear()
    yield one
    one.server.shutdown()
    one.server.server_close()


def key() -> str | None:
    return os.environ.get("AWS_ACCESS_KEY_ID")


def test_the_base_identity_becomes_the_orchestrator_and_that_the_role_of_a_step(sts):
    Settings.load()
    before = dict(os.environ)
    with assume_role("build"):
        assert (key(), os.environ["AWS_SESSION_TOKEN"]) == ("build", "token-build")
    assert dict(os.environ) == before
    with assume_role("orchestrator"):
        assert key() == "orchestrator"
        with assume_role("publish"):
            assert key() == "publish"
        assert key() == "orchestrator"
    assert sts.assumed() == [("base", "orchestrator"), ("orchestrator", "build"), ("orchestrator", "publish")]


def test_whoever_is_the_role_already_assumes_nothing(sts):
    sts.base = "arn:aws:sts::111122223333:assumed-role/catalunya-production-publish/anna"
    with assume_role("publish"):
        assert key() == "base"
    assert sts.assumed() == []


def test_whoever_is_the_orchestrator_assumes_the_role_of_a_step_only(sts):
    sts.base = "arn:aws:sts::111122223333:assumed-role/catalunya-production-orchestrator/i-1"
    with assume_role("orchestrator"):
        assert key() == "base"
    with assume_role("monitor"):
        assert key() == "monitor"
    assert sts.assumed() == [("base", "monitor")]


def test_the_orchestrator_is_assumed_again_before_its_credentials_end(sts):
    sts.lasts = timedelta(minutes=10)
    for _ in range(2):
        with assume_role("build"):
            pass
    assert [role for _, role in sts.assumed()] == ["orchestrator", "build"] * 2


def test_the_external_id_goes_to_the_orchestrator_only(sts, monkeypatch):
    monkeypatch.setenv("CATALUNYA_EXTERNAL_ID", "from-our-rack")
    with assume_role("build"):
        pass
    ids = [one.get("ExternalId") for one in sts.requests if one["Action"] == "AssumeRole"]
    assert ids == ["from-our-rack", None]


def test_what_belongs_to_the_base_identity_is_hidden_from_a_role(sts, monkeypatch):
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", "2099-01-01T00:00:00Z")
    with assume_role("build"):
        assert "AWS_CREDENTIAL_EXPIRATION" not in os.environ
    assert os.environ["AWS_CREDENTIAL_EXPIRATION"] == "2099-01-01T00:00:00Z"


@pytest.mark.parametrize(("refuses", "hint"), [("orchestrator", "`workers`"), ("build", "deploy the stack")])
def test_a_role_that_may_not_be_assumed_is_named_with_who_wanted_it(sts, refuses, hint):
    sts.refuses = refuses
    with pytest.raises(UsageError, match=f"may not assume {PREFIX}{refuses}") as error, assume_role("build"):
        pass
    assert hint in str(error.value)
    assert key() == "base"


def test_a_machine_without_an_identity_is_told_how_to_get_one(sts, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(UsageError, match="instance profile, with a hop limit of 2"):
        caller(Settings.load())


def test_roles_without_functions_are_refused(sts, monkeypatch):
    monkeypatch.delenv("CATALUNYA_LAMBDA_PREFIX")
    with pytest.raises(UsageError, match="CATALUNYA_ROLES: only the functions"):
        Settings.load()
