"""The log-in at an OpenLDAP server with TLS, with the settings of docs/log-in.md. `make test-ldap` runs it."""

from __future__ import annotations

import importlib.util
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cryptography import x509

from orchestration.tests import ldap_server
from orchestration.tests.ldap_server import GROUPS, PEOPLE, SERVICE, SERVICE_PASSWORD, Authority, Directory
from orchestration.tests.log_in import (
    Browser,
    allowed,
    password_of,
    prepare,
    roles_of_the_page,
    serving,
    session_of,
    token,
    token_of,
)
from tests.project import ROOT

PACKAGE = importlib.util.find_spec("ldap")
GROUP_OF = {"Viewer": "readers", "User": "starters", "Op": "operators", "Admin": "admins"}
PASSWORD = "the password of everybody"
ADDRESSES = (f"192.0.2.{number}" for number in itertools.count(1))
"""One for each attempt, because Airflow limits those from an address."""

pytestmark = [
    pytest.mark.xdist_group("log_in"),
    # Not `missing`, which fails where everything is required: a package that has to be compiled is in no lock.
    pytest.mark.skipif(
        not (PACKAGE and ldap_server.installed()),
        reason="slapd or python-ldap is missing: apt-get install slapd ldap-utils gcc python3-dev libldap2-dev "
        "libsasl2-dev; make test-ldap",
    ),
]


def documented() -> dict[str, str]:
    """The variables in the section LDAP of docs/log-in.md."""
    page = (ROOT / "docs" / "log-in.md").read_text("utf-8")
    block = re.search(r"^## LDAP\n.*?^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert block
    pairs = (line.split("=", 1) for line in block[1].splitlines())
    return {name: value.strip('"') for name, value in pairs}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Directory]:
    with ldap_server.directory(tmp_path_factory.mktemp("ldap")) as found:
        for group in GROUP_OF.values():
            found.add_group(group, found.add_person(f"one-of-{group}", PASSWORD))
        yield found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("airflow")


@pytest.fixture(scope="module")
def url(home: Path, directory: Directory) -> Iterator[str]:
    assert PACKAGE and PACKAGE.origin
    secret = home / "airflow_ldap"
    secret.write_text(SERVICE_PASSWORD + "\n")
    page = documented()
    here = {
        "AIRFLOW_LDAP_URL": directory.url,
        "AIRFLOW_LDAP_BIND_PASSWORD_FILE": str(secret),
        "AIRFLOW_ROLE_GROUPS": f"{page['AIRFLOW_ROLE_GROUPS']}; User=cn=starters,{GROUPS}; Op=cn=operators,{GROUPS}"
        f"; Admin=CN=Capitals, {GROUPS}",
    }
    assert here.keys() <= page.keys()
    more = {
        "AIRFLOW_LDAP_CA_FILE": str(directory.authority_file),
        "PYTHONPATH": str(Path(PACKAGE.origin).parents[1]),
        # Else the roles of a user are remembered for 30 seconds.
        "AIRFLOW__FAB__CACHE_TTL": "0",
        "LDAPTIMEOUT": "1",
    }
    with serving(home, {**prepare(home), **page, **here, **more}, "ldap") as found:
        yield found


def log_in(url: str, name: str, password: str = PASSWORD) -> set[str]:
    """Log in with the form; returns what the person may do."""
    done = Browser(url, next(ADDRESSES)).log_in(name, password)
    assert done.headers["location"] == "/auth/"
    return allowed(url, token_of(done))


def refused(url: str, name: str, password: str = PASSWORD) -> None:
    """Be refused by the form, which says so, and by the API."""
    browser = Browser(url, next(ADDRESSES))
    done = browser.log_in(name, password)
    assert done.status_code == 302
    assert not any(line.startswith("_token=") for line in done.headers.get_list("set-cookie"))
    page = browser.client.get("/auth/login/", headers=session_of(done)).text
    assert "Invalid login. Please try again." in page
    assert "Traceback" not in page
    assert 'name="password"' in page
    answer = token(url, name, password)
    assert (answer.status_code, answer.json()) == (401, {"detail": "Invalid credentials"})


def users(url: str) -> set[str]:
    """The names of the users in Airflow's database."""
    bearer = token(url, "admin", password_of("Admin")).json()["access_token"]
    answer = httpx.get(
        f"{url}/auth/fab/v1/users?limit=100", headers={"Authorization": f"Bearer {bearer}"}, timeout=120
    )
    return {user["username"] for user in answer.json()["users"]}


@pytest.mark.parametrize(("role", "group"), GROUP_OF.items())
def test_a_group_gives_its_role(url, role, group):
    assert log_in(url, f"one-of-{group}") == roles_of_the_page()[role]
    bearer = token(url, f"one-of-{group}", PASSWORD).json()["access_token"]
    assert allowed(url, bearer) == roles_of_the_page()[role]


def test_who_is_in_no_group_may_do_nothing(url, directory):
    directory.add_person("alone", PASSWORD)
    assert log_in(url, "alone") == set()


def test_a_group_has_to_be_written_as_the_server_does(url, directory):
    directory.add_group("capitals", directory.add_person("capital", PASSWORD))
    service = ("-D", SERVICE, "-w", SERVICE_PASSWORD)
    written = directory.run("ldapsearch", *service, "-b", PEOPLE, "uid=capital", "memberOf")
    assert f"\nmemberOf: cn=capitals,{GROUPS}\n" in written
    assert log_in(url, "capital") == set()


@pytest.mark.parametrize("kind", ["person", "account"])
def test_who_left_the_group_has_no_role_at_the_next_log_in(url, directory, kind):
    """An account has no name and no address: when it leaves its only group, no attribute is left but its name."""
    name = f"leaving-{kind}"
    person = (
        directory.add_person(name, PASSWORD) if kind == "person" else directory.add_account(name, PASSWORD)
    )
    group = directory.add_group(f"group-of-{kind}", person)
    directory.leave(group, person)
    operators = f"cn=operators,{GROUPS}"
    directory.join(operators, person)
    assert log_in(url, name) == roles_of_the_page()["Op"]
    directory.leave(operators, person)
    assert log_in(url, name) == set()


@pytest.mark.parametrize(
    ("name", "password"),
    [
        pytest.param("one-of-admins", "another password", id="a wrong password"),
        pytest.param("one-of-admins", PASSWORD.upper(), id="a password in capitals"),
        pytest.param("nobody", PASSWORD, id="an unknown user"),
        pytest.param("*", PASSWORD, id="any user"),
        pytest.param("one-of-admin*", PASSWORD, id="the beginning of a name"),
        pytest.param("*)(uid=*", PASSWORD, id="a filter of any user"),
        pytest.param("one-of-admins)(uid=one-of-admins", PASSWORD, id="two filters"),
        pytest.param("one-of-admins\x00", PASSWORD, id="an end of the name"),
        pytest.param(f"uid=one-of-admins,{PEOPLE}", PASSWORD, id="a DN"),
        pytest.param("airflow", SERVICE_PASSWORD, id="the service user"),
        pytest.param(SERVICE, SERVICE_PASSWORD, id="the DN of the service user"),
        pytest.param("x" * 5000, PASSWORD, id="a long name"),
    ],
)
def test_no_log_in(url, name, password):
    before = users(url)
    refused(url, name, password)
    assert users(url) == before


def test_an_empty_password_is_refused_though_the_server_takes_it(url, directory):
    person = f"uid=one-of-admins,{PEOPLE}"
    assert directory.run("ldapwhoami", "-D", person, "-w", "") == "anonymous\n"
    for password in ("", " "):
        page = Browser(url, next(ADDRESSES)).log_in("one-of-admins", password)
        assert page.status_code == 200
        assert "This field is required." in page.text
        assert not any(line.startswith("_token=") for line in page.headers.get_list("set-cookie"))
    assert token(url, "one-of-admins", "").status_code == 400
    assert token(url, "one-of-admins", " ").status_code == 401


def test_a_user_of_the_database_has_tokens_but_no_form(url):
    done = Browser(url, next(ADDRESSES)).log_in("viewer", password_of("Viewer"))
    assert not any(line.startswith("_token=") for line in done.headers.get_list("set-cookie"))
    bearer = token(url, "viewer", password_of("Viewer")).json()["access_token"]
    assert allowed(url, bearer) == roles_of_the_page()["Viewer"]


def test_whose_address_a_user_has_cannot_log_in(url, directory):
    """What docs/log-in.md says of it. When Airflow refuses it in the form, the page can be shorter."""
    directory.add_person("same-address", PASSWORD, mail="viewer@localhost.invalid")
    done = Browser(url, next(ADDRESSES)).log_in("same-address", PASSWORD)
    assert done.status_code == 500
    assert "IntegrityError" not in done.text
    assert "same-address" not in users(url)


@pytest.mark.parametrize(
    "server",
    [
        pytest.param({"authority": Authority("another authority")}, id="another authority"),
        pytest.param({"host": x509.DNSName("elsewhere.example")}, id="another host"),
    ],
)
def test_no_password_is_sent_to_a_server_that_cannot_prove_who_it_is(url, directory, server):
    directory.stop()
    directory.start(**server)
    try:
        before = directory.log.stat().st_size
        refused(url, "one-of-admins")
        said = directory.log.read_text("utf-8", "replace")[before:]
        assert "ACCEPT" in said and "BIND" not in said
    finally:
        directory.stop()
        directory.start()
    log_in(url, "one-of-admins")


def test_a_server_that_is_down_is_a_refusal_and_a_line_of_the_log(url, directory, home):
    directory.stop()
    try:
        refused(url, "one-of-admins")
    finally:
        directory.start()
    assert "Can't contact LDAP server" in (home / "ldap.log").read_text("utf-8")
    log_in(url, "one-of-admins")


def test_a_server_that_is_silent_is_a_refusal(url, directory):
    directory.stop()
    try:
        with ldap_server.silent(directory):
            refused(url, "one-of-admins")
    finally:
        directory.start()
    log_in(url, "one-of-admins")


def test_a_wrong_password_of_the_service_is_a_refusal_and_a_line_of_the_log(url, directory, home):
    directory.set_password(SERVICE, "another password")
    try:
        refused(url, "one-of-admins")
    finally:
        directory.set_password(SERVICE, SERVICE_PASSWORD)
    assert "AUTH_LDAP_BIND_PASSWORD are not valid" in (home / "ldap.log").read_text("utf-8")
    log_in(url, "one-of-admins")


def test_no_password_is_in_the_log(url, home):
    log_in(url, "one-of-admins")
    refused(url, "one-of-admins", "a guessed password")
    log = (home / "ldap.log").read_text("utf-8", "replace")
    assert "one-of-admins" in log
    for password in (PASSWORD, SERVICE_PASSWORD, "a guessed password"):
        assert password not in log
