"""The connections that the entrypoint makes of DATABASE_URL and REDIS_URL, as Airflow, Celery and libpq read them."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from kombu import Connection
from sqlalchemy.engine import make_url

from orchestration.docker import connections
from tests.project import ROOT

SCRIPT = ROOT / "orchestration" / "docker" / "connections.py"
PASSWORDS = [
    "plain-1.2_3~",
    "p%40ss",
    "p@ss",
    "a%2Fb%3Fc%23d",
    "50%25",
    "clau-%C3%80%E2%82%AC",
    "a:b",
    "*%5Bx%5D",
    "a%20b",
]
MEANT = ["plain-1.2_3~", "p@ss", "p@ss", "a/b?c#d", "50%", "clau-À€", "a:b", "*[x]", "a b"]


@pytest.mark.parametrize(("password", "meant"), list(zip(PASSWORDS, MEANT, strict=True)))
def test_a_database_url_of_any_password_leads_every_client_to_the_same_database(
    password: str, meant: str
) -> None:
    made = connections.from_database(
        f"postgres://care:{password}@dokku-postgres-care:5433/care?sslmode=verify-full"
    )
    drivers = {
        "sql_alchemy_conn": "postgresql+psycopg2", "sql_alchemy_conn_async": "postgresql+psycopg",
        "result_backend": "postgresql+psycopg2",
    }  # fmt: skip
    for name, driver in drivers.items():
        url = make_url(made[name].removeprefix("db+"))
        assert (url.drivername, url.username, url.password) == (driver, "care", meant)
        assert (url.host, url.port, url.database) == ("dokku-postgres-care", 5433, "care")
        assert dict(url.query) == {"sslmode": "verify-full"}
    assert made["result_backend"].startswith("db+")


@pytest.mark.parametrize(("password", "meant"), list(zip(PASSWORDS, MEANT, strict=True)))
def test_a_redis_url_of_any_password_leads_celery_to_its_queue(password: str, meant: str) -> None:
    made = connections.from_redis(f"redis://:{password}@dokku-redis-care:6380")["broker_url"]
    found = Connection(made)
    assert (found.hostname, found.port, found.password, found.virtual_host) == (
        "dokku-redis-care", 6380, meant, "0",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "verified"),
    [
        ("", "CERT_REQUIRED"),
        ("?ssl_cert_reqs=none", "CERT_NONE"),
        ("?ssl_cert_reqs=CERT_OPTIONAL", "CERT_OPTIONAL"),
    ],
)
def test_over_tls_the_certificate_of_redis_is_verified_unless_the_url_says_otherwise(
    given: str, verified: str
) -> None:
    made = connections.from_redis(f"rediss://:x@cache.example.org:6380/2{given}")["broker_url"]
    assert made == f"rediss://:x@cache.example.org:6380/2?ssl_cert_reqs={verified}"
    assert hasattr(ssl, verified)


def test_all_parameters_of_tls_are_kept() -> None:
    query = "sslmode=verify-ca&sslrootcert=/etc/ssl/own.crt&target_session_attrs=read-write"
    made = connections.from_database(f"postgresql://u:p@[2001:db8::1]:6432/care?{query}")
    assert dict(make_url(made["sql_alchemy_conn"]).query) == {
        "sslmode": "verify-ca", "sslrootcert": "/etc/ssl/own.crt", "target_session_attrs": "read-write",
    }  # fmt: skip
    redis = connections.from_redis("rediss://u:p@h:6380/0?ssl_ca_certs=/etc/ssl/own.crt")["broker_url"]
    assert redis.endswith("?ssl_ca_certs=/etc/ssl/own.crt&ssl_cert_reqs=CERT_REQUIRED")


@pytest.mark.parametrize(
    ("variable", "url"),
    [
        ("DATABASE_URL", "mysql://u:secret-1@h/care"), ("DATABASE_URL", "postgres://u:secret-1/2@h/care"),
        ("DATABASE_URL", "postgres://u:secret-1#2@h/care"), ("DATABASE_URL", "postgres://u:secret-1@h"),
        ("DATABASE_URL", "secret-1"), ("REDIS_URL", "http://:secret-1@h"), ("REDIS_URL", "redis://:secret-1@:6379/0"),
    ],
)  # fmt: skip
def test_a_url_that_cannot_be_used_is_named_and_not_shown(tmp_path: Path, variable: str, url: str) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path)],
        env={"PATH": os.environ["PATH"], variable: url}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith(f"entrypoint: set {variable} ")
    assert "secret-1" not in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_files_are_for_this_user_alone_and_are_replaced_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "broker_url").write_text("old")
    env = {"DATABASE_URL": "postgres://u:p@h/care", "REDIS_URL": "redis://h", "PATH": os.environ["PATH"]}
    for _ in range(2):
        subprocess.run([sys.executable, str(SCRIPT), str(tmp_path)], env=env, check=True)
    files = {path.name: (path.stat().st_mode & 0o777, path.read_text()) for path in tmp_path.iterdir()}
    assert files["broker_url"] == (0o400, "redis://h/0")
    assert set(files) == {"broker_url", "sql_alchemy_conn", "sql_alchemy_conn_async", "result_backend"}
    assert {mode for mode, _ in files.values()} == {0o400}


def test_an_address_has_the_port_of_its_kind() -> None:
    def address(url: str) -> str:
        command = [sys.executable, str(SCRIPT), "address", url]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    assert address("postgres://u:p@db.example.org/care") == "db.example.org 5432"
    assert address("rediss://:p@cache.example.org:6380/0") == "cache.example.org 6380"
