"""The connection URLs that the containers' entrypoint makes of any password."""

from __future__ import annotations

import subprocess
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.project import ROOT

ENTRYPOINT = ROOT / "orchestration" / "docker" / "entrypoint.sh"


def secrets_of(folder: Path, postgres: str, redis: str) -> dict[str, str]:
    """What the entrypoint's own function writes into its folder of secrets."""
    functions = ENTRYPOINT.read_text().partition('case "$ENVIRONMENT" in\n')[0]
    subprocess.run(
        ["bash", "-c", f"{functions}\ncreate_secrets"],
        env={
            "PATH": "/usr/bin:/bin",
            "CATALUNYA_SECRETS": str(folder),
            "POSTGRES_PASSWORD": postgres,
            "REDIS_PASSWORD": redis,
        },
        check=True,
        timeout=600,
    )
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize(
    "password",
    [
        "p@ss",
        "%41",
        "a/b?c#d",
        "a:b@c",
        "50%",
        "a b",
        "clau-Àé€",
        "$HOME `id` \\ \"q\" 'r'",
        "plain-1.2_3~",
        "*[x]",
    ],
)
def test_any_password_comes_back_from_the_connection_urls_as_it_was_given(tmp_path, password):
    made = secrets_of(tmp_path, password, password[::-1])
    assert (made["postgres_password"], made["redis_password"]) == (password, password[::-1])
    expected = {
        "sql_alchemy_conn": ("postgresql+psycopg2", "airflow", password, "postgres", 5432, "/airflow"),
        "sql_alchemy_conn_async": ("postgresql+asyncpg", "airflow", password, "postgres", 5432, "/airflow"),
        "result_backend": ("db+postgresql", "airflow", password, "postgres", 5432, "/airflow"),
        "broker_url": ("redis", "", password[::-1], "redis", 6379, "/0"),
    }
    for name, wanted in expected.items():
        url = urlsplit(made[name])
        found = (url.scheme, url.username, unquote(url.password or ""), url.hostname, url.port, url.path)
        assert found == wanted
        assert (url.query, url.fragment) == ("", "")


def test_a_plain_password_is_in_the_urls_as_it_is(tmp_path):
    assert secrets_of(tmp_path, "0123abcDEF", "x")["sql_alchemy_conn"] == (
        "postgresql+psycopg2://airflow:0123abcDEF@postgres:5432/airflow"
    )


def test_the_configuration_of_redis_keeps_any_password_in_quotes(tmp_path):
    compose = (ROOT / "orchestration" / "docker-compose.yml").read_text()
    lines = compose.partition("printf 'bind")[2].partition("exec redis-server")[0]
    script = f"printf 'bind{lines}".replace("$$", "$")
    script = script.replace("/run/catalunya/redis_password", str(tmp_path / "password"))
    script = script.replace("/tmp/redis.conf", str(tmp_path / "redis.conf"))
    (tmp_path / "password").write_text('a "b" \\c #d')
    subprocess.run(["sh", "-c", script], check=True, timeout=600)
    assert (tmp_path / "redis.conf").read_text().splitlines()[-1] == 'requirepass "a \\"b\\" \\\\c #d"'
