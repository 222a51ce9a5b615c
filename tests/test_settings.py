from __future__ import annotations

import os
import urllib.request
from datetime import UTC, datetime

import httpx
import pytest
from pydantic import ValidationError

from catalunya.errors import UsageError
from catalunya.settings import PORTAL_VARIABLES, PORTALS, Settings, spare_loopback
from infrastructure.parameters import parameters

VARIABLES = [
    "ENVIRONMENT",
    "CATALUNYA_LAKE",
    "CATALUNYA_ENGINE",
    "CATALUNYA_SOCRATA_URL",
    "CATALUNYA_IDESCAT_URL",
    "CATALUNYA_ICGC_URL",
    "CATALUNYA_NOW",
    "SOCRATA_APP_TOKEN",
    "CATALUNYA_NOTIFY_URLS",
    "CATALUNYA_HOME",
]


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def load(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return Settings.load()


def test_without_variables_it_is_development_on_duckdb_against_the_live_portals(monkeypatch):
    settings = load(monkeypatch)
    assert (settings.environment, settings.resolved_engine, settings.lake) == (
        "development",
        "duckdb",
        "./data",
    )
    assert tuple(settings.base_urls().values()) == tuple(PORTALS.values())


def test_production_takes_athena_by_default_and_an_engine_when_one_is_named(monkeypatch):
    assert load(monkeypatch, ENVIRONMENT="production", CATALUNYA_LAKE="s3://b/p").resolved_engine == "athena"
    assert load(monkeypatch, CATALUNYA_ENGINE="trino").resolved_engine == "trino"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://data.example.cat/", "https://data.example.cat"),
        ("http://127.0.0.1:8081", "http://127.0.0.1:8081"),
        ("http://[::1]:80", "http://[::1]:80"),
        ("ftp://data.example.cat", None),
        ("data.example.cat", None),
        ("https://data.example.cat/path", None),
        ("https://data.example.cat?a=1", None),
        ("https://data.example.cat#a", None),
        ("https://user:secret@data.example.cat", None),
        ("https://data.example.cat:port", None),
        ('https://data"example', None),
        ("https://", None),
    ],
)
def test_the_address_of_the_site_is_an_origin(monkeypatch, url, expected):
    if expected:
        assert load(monkeypatch, CATALUNYA_SITE_URL=url).site_url == expected
    else:
        with pytest.raises(UsageError, match=r"CATALUNYA_SITE_URL: .*no path, no query") as refused:
            load(monkeypatch, CATALUNYA_SITE_URL=url)
        assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://exa mple", "a space"),
        ("http://portal.example\n", "an invisible character"),
        ("http://portal.example\\@other.example", "a backslash"),
        ("http://portal.example?x=1", "a query"),
        ("http://portal.example/#top", "a fragment"),
        ("http://portal..example", "no valid host"),
        ('http://portal"example', "no valid host"),
        ("http://?x", "no valid host"),
        ("http://[::1", "no IPv6 address"),
        ("http://[portal]", "IPv6 address|no valid host"),
        ("http://portal.example:99999", "the port"),
        ("ftp://portal.example", "http://"),
    ],
)
@pytest.mark.parametrize("variable", [*PORTAL_VARIABLES, "CATALUNYA_TRINO_URL"])
def test_a_base_url_that_no_path_can_be_added_to_is_refused(monkeypatch, variable, url, reason):
    with pytest.raises(UsageError, match=f"{variable}: .*({reason})"):
        load(monkeypatch, **{variable: url})


@pytest.mark.parametrize(
    "url",
    [
        "http://[::1]:80", "https://user:pa%2Fss@portal.example/a/b", "https://català.example",
        "http://host_of_compose:8081", "http://portal.example.:80",
    ],
)  # fmt: skip
def test_a_base_url_may_have_a_path_a_password_and_any_name(monkeypatch, url):
    assert load(monkeypatch, CATALUNYA_SOCRATA_URL=f"{url}/").socrata_url == url


@pytest.mark.parametrize("variable", ["CATALUNYA_HEARTBEAT_URL", "CATALUNYA_PROJECT_URL"])
def test_another_address_needs_a_host_and_may_have_a_query(monkeypatch, variable):
    with pytest.raises(UsageError, match=f"{variable}: .*no valid host") as refused:
        load(monkeypatch, **{variable: "https://?key=hidden"})
    assert ("hidden" in str(refused.value)) == (variable == "CATALUNYA_PROJECT_URL")
    load(monkeypatch, **{variable: "https://host.example/x?key=hidden"})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ENVIRONMENT", "prod"),
        ("CATALUNYA_ENGINE", "spark"),
        ("CATALUNYA_SOCRATA_URL", "portal.example"),
        ("CATALUNYA_NOW", "yesterday"),
        ("CATALUNYA_LAKE", "gs://bucket"),
        ("CATALUNYA_KEEP_RELEASES", "1"),
    ],
)
def test_a_wrong_value_is_refused_and_its_variable_named(monkeypatch, variable, value):
    with pytest.raises(UsageError, match=variable):
        load(monkeypatch, **{variable: value})


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "1e300", "99999999999999999999", "-1"])
@pytest.mark.parametrize(
    "variable",
    [
        "CATALUNYA_ATHENA_POLL", "CATALUNYA_DBT_THREADS", "CATALUNYA_HTTP_ATTEMPTS", "CATALUNYA_HTTP_TIMEOUT",
        "CATALUNYA_KEEP_RELEASES", "CATALUNYA_SCAN_USD_PER_TB",
    ],
)  # fmt: skip
def test_every_number_is_bounded(monkeypatch, variable, value):
    with pytest.raises(UsageError, match=variable):
        load(monkeypatch, **{variable: value})


def test_no_number_is_left_without_a_bound():
    numbers = [field for field in Settings.model_fields.values() if field.annotation in (int, float)]
    assert len(numbers) == 6
    for field in numbers:
        assert any(hasattr(bound, "le") for bound in field.metadata), field.validation_alias


@pytest.mark.parametrize("value", ["99999999999999GB", "0MB", "\u0661GB", "1e3MB"])
def test_the_memory_of_duckdb_is_a_size(monkeypatch, value):
    with pytest.raises(UsageError, match="CATALUNYA_DUCKDB_MEMORY"):
        load(monkeypatch, CATALUNYA_DUCKDB_MEMORY=value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CATALUNYA_NOW", "2026-01-05"),
        ("CATALUNYA_LAKE", "./data"),
        ("CATALUNYA_IDESCAT_URL", "http://mirror.example"),
    ],
)
def test_production_refuses_what_is_only_for_a_laptop(monkeypatch, variable, value):
    with pytest.raises(UsageError, match=variable):
        load(monkeypatch, **{"ENVIRONMENT": "production", "CATALUNYA_LAKE": "s3://b/p", variable: value})


@pytest.mark.parametrize(
    ("variable", "value"),
    [("CATALUNYA_LAMBDA_PREFIX", "catalunya-production"), ("CATALUNYA_ROLES", "catalunya-production-")],
)
def test_functions_need_a_lake_that_they_reach_and_roles_an_address(monkeypatch, variable, value):
    with pytest.raises(UsageError, match=variable):
        load(monkeypatch, **{variable: value})


ROLES = "arn:aws:iam::111122223333:role/catalunya-production-"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ()),
        ({"AWS_REGION": "eu-south-2"}, ("arn:aws:sns:eu-south-2:111122223333:catalunya-production-alerts",)),
        ({"AWS_DEFAULT_REGION": "eu-west-1"}, ("arn:aws:sns:eu-west-1:111122223333:catalunya-production-alerts",)),
        ({"CATALUNYA_NOTIFY_URLS": "json://c"}, ("json://c",)),
        (
            {"CATALUNYA_NOTIFY_URLS": "json://c,arn:aws:sns:eu-west-1:111122223333:mine"},
            ("json://c", "arn:aws:sns:eu-west-1:111122223333:mine"),
        ),
    ],
)  # fmt: skip
def test_with_the_stacks_roles_alerts_go_to_its_topic_unless_addresses_are_given(
    monkeypatch, variables, expected
):
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    stack = {"CATALUNYA_ROLES": ROLES, "CATALUNYA_LAMBDA_PREFIX": "x", "CATALUNYA_LAKE": "s3://b"}
    with_roles = stack if variables else {}
    assert load(monkeypatch, **with_roles, **variables).alert_addresses == expected


def test_other_variables_of_the_machine_are_not_settings(monkeypatch):
    settings = load(monkeypatch, HOME="/nowhere", LAKE="elsewhere", ENGINE="trino")
    assert settings.lake == "./data"
    assert settings.home.joinpath("datasets").is_dir()
    assert settings.resolved_engine == "duckdb"


def test_the_clock_can_be_set_and_is_utc(monkeypatch):
    assert load(monkeypatch, CATALUNYA_NOW="2026-01-05T02:00:00+02:00").now() == datetime(
        2026, 1, 5, tzinfo=UTC
    )


@pytest.mark.parametrize(
    "moment",
    [
        "0001-01-01T00:00:00+14:00", "0001-01-01", "1969-12-31T23:59:59Z", "9001-01-01", "9999-12-31T23:59:59Z",
        "9999-12-31T23:59:59-14:00", "inf", "nan", "1e20",
    ],
)  # fmt: skip
def test_a_clock_at_the_edge_of_the_calendar_is_refused(monkeypatch, moment):
    with pytest.raises(UsageError, match="CATALUNYA_NOW"):
        load(monkeypatch, CATALUNYA_NOW=moment)


@pytest.mark.parametrize(
    ("moment", "year"), [("0", 1970), ("1970-01-01", 1970), ("9000-12-31T23:59:59-14:00", 9001)]
)
def test_any_other_clock_is_taken(monkeypatch, moment, year):
    assert load(monkeypatch, CATALUNYA_NOW=moment).now().year == year


def test_secrets_do_not_show_when_settings_are_printed(monkeypatch):
    settings = load(
        monkeypatch, SOCRATA_APP_TOKEN="s3cret", CATALUNYA_NOTIFY_URLS="mailto://a:s3cret@b, json://c"
    )
    assert settings.notify_urls == ("mailto://a:s3cret@b", "json://c")
    assert "s3cret" not in repr(settings)


@pytest.mark.parametrize(
    ("value", "addresses"),
    [
        ("json://a , json://b", ("json://a", "json://b")),
        (
            "json://a,json://b\nslack://c  tgram+x.y-1://d,",
            ("json://a", "json://b", "slack://c", "tgram+x.y-1://d"),
        ),
        ("mailto://u:p@h?to=a@x,b@y,json://h", ("mailto://u:p@h?to=a@x,b@y", "json://h")),
        (" , ,", ()),
    ],
)
def test_a_comma_inside_an_address_for_alerts_does_not_split_it(monkeypatch, value, addresses):
    assert load(monkeypatch, CATALUNYA_NOTIFY_URLS=value).notify_urls == addresses


def test_loopback_is_taken_out_of_what_a_proxy_is_asked_for(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "intranet.example")
    monkeypatch.setenv("no_proxy", "other.example")
    load(monkeypatch)
    assert os.environ["NO_PROXY"] == os.environ["no_proxy"]
    hosts = os.environ["NO_PROXY"].split(",")
    assert {"intranet.example", "other.example", "127.0.0.1", "localhost", "::1"} <= set(hosts)
    load(monkeypatch)
    assert os.environ["NO_PROXY"].split(",") == hosts


def test_the_hosts_that_no_proxy_is_asked_for_can_be_read_by_the_client_of_airflow(monkeypatch):
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    load(monkeypatch)
    # Processes that are started from here inherit the variable; an address that it cannot parse ends every task.
    pytest.importorskip("httpx").Client().close()


def test_a_proxy_that_is_wanted_for_nothing_stays_so(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("NO_PROXY", raising=False)
    load(monkeypatch)
    assert os.environ["no_proxy"] == "*"


def test_every_http_client_can_read_the_hosts_that_are_spared_a_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "internal.example")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "")
    spare_loopback()
    assert "internal.example" in os.environ["no_proxy"].split(",")
    with httpx.Client(trust_env=True):
        pass
    for host in ("127.0.0.1", "localhost", "::1"):
        assert urllib.request.proxy_bypass_environment(host)


@pytest.mark.parametrize("name", ["socrata_url", "idescat_url", "icgc_url"])
def test_a_stack_takes_no_address_with_a_password(name):
    given = {name: "https://reader:p%40ss@portal.example"}
    with pytest.raises(ValidationError, match="holds a user or a password") as refused:
        parameters("development", given)
    assert "p%40ss" not in str(refused.value)
    assert getattr(parameters("development", {name: "https://portal.example"}), name)


@pytest.mark.parametrize("lake", [" ", " ./data", "./data ", "./da\u200bta", "./da\nta"])
def test_a_lake_with_spaces_around_it_or_invisible_characters_in_it_is_named(monkeypatch, lake):
    with pytest.raises(UsageError, match="CATALUNYA_LAKE"):
        load(monkeypatch, CATALUNYA_LAKE=lake)


def test_a_secret_is_read_from_the_file_that_its_variable_names(monkeypatch, tmp_path):
    path = tmp_path / "token"
    path.write_text("of the portal\n")
    monkeypatch.setenv("SOCRATA_APP_TOKEN_FILE", str(path))
    assert Settings.load().socrata_app_token == "of the portal"
    monkeypatch.setenv("SOCRATA_APP_TOKEN", "another")
    with pytest.raises(UsageError, match="SOCRATA_APP_TOKEN and SOCRATA_APP_TOKEN_FILE are both set"):
        Settings.load()
    monkeypatch.delenv("SOCRATA_APP_TOKEN")
    for content, message in (
        (b" \n", "is empty"),
        (b"\xff", "it is no text"),
        (None, "cannot be read: No such file"),
    ):
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(UsageError, match=f"SOCRATA_APP_TOKEN_FILE: .*{message}"):
            Settings.load()
        path.touch()
