"""The variables of the log-in: what they become for Flask-AppBuilder, and the error of each wrong one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project import ROOT

ENTRYPOINT = ROOT / "orchestration" / "docker" / "entrypoint.sh"
FILE = ROOT / "orchestration" / "config" / "webserver_config.py"
OIDC = {
    "AIRFLOW_LOGIN": "oidc",
    "AIRFLOW_OIDC_ISSUER": "https://login.example.org/realms/care",
    "AIRFLOW_OIDC_CLIENT_ID": "airflow",
    "AIRFLOW_OIDC_CLIENT_SECRET": "secret",
    "AIRFLOW_ROLE_GROUPS": "Viewer=care-readers; Admin=care-admins",
}
LDAP = {
    "AIRFLOW_LOGIN": "ldap",
    "AIRFLOW_LDAP_URL": "ldaps://ldap.example.org",
    "AIRFLOW_LDAP_BIND_DN": "cn=airflow,dc=example,dc=org",
    "AIRFLOW_LDAP_BIND_PASSWORD": "secret",
    "AIRFLOW_LDAP_SEARCH": "ou=people,dc=example,dc=org",
    "AIRFLOW_LDAP_CA_FILE": str(FILE),
    "AIRFLOW_ROLE_GROUPS": "Admin=cn=admins,ou=groups,dc=example,dc=org\nViewer=cn=all,dc=example,dc=org",
}


def settings(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> dict[str, object]:
    """Execute the file as Flask does."""
    for name in list(os.environ):
        if name.startswith(("AIRFLOW_LOGIN", "AIRFLOW_OIDC", "AIRFLOW_LDAP", "AIRFLOW_ROLE_GROUPS")):
            monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found: dict[str, object] = {"__name__": "config", "__file__": str(FILE)}
    exec(compile(FILE.read_text("utf-8"), str(FILE), "exec"), found)
    return {name: value for name, value in found.items() if name.isupper()}


@pytest.fixture
def ldap_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of that name, which has to be compiled in reality."""
    (tmp_path / "ldap.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))


def test_without_variables_users_are_those_of_the_database(monkeypatch):
    found = settings(monkeypatch, {})
    assert found["AUTH_TYPE"] == 1
    assert "AUTH_USER_REGISTRATION" not in found


def test_the_numbers_of_the_kinds_are_those_of_flask_appbuilder(monkeypatch):
    const = pytest.importorskip("flask_appbuilder.const")
    found = settings(monkeypatch, {})
    for name in ("AUTH_DB", "AUTH_LDAP", "AUTH_OAUTH"):
        assert found[name] == getattr(const, name)


def test_groups_of_ldap_are_dns(monkeypatch, ldap_package):
    monkeypatch.delenv("LDAPTIMEOUT", raising=False)
    found = settings(monkeypatch, LDAP)
    assert os.environ["LDAPTIMEOUT"] == "10"
    assert found["AUTH_TYPE"] == 2
    assert found["AUTH_ROLES_MAPPING"] == {
        "cn=admins,ou=groups,dc=example,dc=org": ["Admin"],
        "cn=all,dc=example,dc=org": ["Viewer"],
    }
    assert found["AUTH_ROLES_SYNC_AT_LOGIN"] is True
    assert found["AUTH_USER_REGISTRATION_ROLE"] == "Public"
    assert found["AUTH_LDAP_TLS_DEMAND"] is True


@pytest.mark.parametrize(
    ("given", "change", "message"),
    [
        (OIDC, {"AIRFLOW_LOGIN": "saml"}, "set AIRFLOW_LOGIN to database, oidc or ldap, not 'saml'"),
        (
            OIDC,
            {"AIRFLOW_OIDC_ISSUER": ""},
            "set AIRFLOW_OIDC_ISSUER to an address that begins with https://",
        ),
        (OIDC, {"AIRFLOW_OIDC_ISSUER": "http://login.example.org"}, "is not encrypted: use https://"),
        (OIDC, {"AIRFLOW_OIDC_CLIENT_ID": ""}, "set AIRFLOW_OIDC_CLIENT_ID"),
        (OIDC, {"AIRFLOW_OIDC_CLIENT_SECRET": ""}, "set AIRFLOW_OIDC_CLIENT_SECRET: a secret"),
        (OIDC, {"AIRFLOW_OIDC_CLIENT_SECRET_FILE": "/x"}, "AIRFLOW_OIDC_CLIENT_SECRET_FILE, not both"),
        (
            OIDC,
            {"AIRFLOW_OIDC_CLIENT_SECRET": "", "AIRFLOW_OIDC_CLIENT_SECRET_FILE": "/nowhere"},
            "/nowhere cannot be read: No such file",
        ),
        (OIDC, {"AIRFLOW_ROLE_GROUPS": ""}, "set AIRFLOW_ROLE_GROUPS"),
        (OIDC, {"AIRFLOW_ROLE_GROUPS": "Viewer=a"}, "give some group the role Admin"),
        (OIDC, {"AIRFLOW_ROLE_GROUPS": "Owner=a; Admin=b"}, "'Owner=a' is not ROLE=GROUP"),
        (OIDC, {"AIRFLOW_ROLE_GROUPS": "Admin"}, "'Admin' is not ROLE=GROUP"),
        (LDAP, {"AIRFLOW_LDAP_URL": "ldap://ldap.example.org"}, "is not encrypted: use ldaps://"),
        (LDAP, {"AIRFLOW_LDAP_BIND_DN": ""}, "set AIRFLOW_LDAP_BIND_DN"),
        (LDAP, {"AIRFLOW_LDAP_SEARCH": ""}, "set AIRFLOW_LDAP_SEARCH"),
        (LDAP, {"AIRFLOW_LDAP_CA_FILE": "/nowhere"}, "set AIRFLOW_LDAP_CA_FILE to a file"),
    ],
)
def test_a_wrong_variable_of_the_log_in_is_named_before_the_start(given, change, message):
    done = subprocess.run(
        [sys.executable, str(FILE)], env={**given, **change}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_airflow_does_not_start_with_another_log_in_than_the_one_asked_for(monkeypatch):
    with pytest.raises(ValueError, match="AIRFLOW_OIDC_CLIENT_ID"):
        settings(monkeypatch, {**OIDC, "AIRFLOW_OIDC_CLIENT_ID": ""})


def test_the_entrypoint_ends_before_the_start_with_every_fault():
    functions = ENTRYPOINT.read_text("utf-8").partition('case "$ENVIRONMENT" in\n')[0]
    env = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "AIRFLOW_LOGIN": "oidc"}
    done = subprocess.run(
        ["bash", "-c", f"{functions}\ncheck_log_in; echo started"],
        cwd=ROOT, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("log-in: ") == 4
    assert "the log-in cannot work with these settings" in done.stderr


def test_the_page_names_the_version_of_python_ldap_that_is_tested():
    version = re.search(r"^PYTHON_LDAP := (.+)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert version
    assert f"install {version[1]}\n" in (ROOT / "docs" / "log-in.md").read_text("utf-8")
