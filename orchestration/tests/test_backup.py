"""Backup and restore without containers: a real PostgreSQL, a real lake, secrets with and without a passphrase."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from catalunya.lake.opening import open_lake
from orchestration.scripts import backup, restore
from orchestration.scripts import backup_parts as parts
from orchestration.scripts.backup_parts import BackupError
from tests.factories import DEFINITIONS, land, local_lake
from tests.project import ROOT, missing
from tools.processes import free_port

NOW = datetime(2026, 11, 27, 3, 15, tzinfo=UTC)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a PostgreSQL without its database, started for these tests."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found or shutil.which("pg_dump") is None:
        missing("no PostgreSQL; install your system's packages `postgresql` and `postgresql-client`")
    # Not below pytest's folder, which only its owner may enter: PostgreSQL refuses to run as root.
    folder = Path(tempfile.mkdtemp(prefix="catalunya-postgres-"))
    as_user: list[str] = []
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
        as_user = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"]
    bin_folder, port = found[-1].parent, free_port()

    def run(tool: str, *words: str) -> None:
        subprocess.run([*as_user, str(bin_folder / tool), *words], check=True, capture_output=True, cwd="/")

    run("initdb", "--pgdata", f"{folder}/data", "--username", "airflow", "--auth", "trust")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
    run(
        "pg_ctl",
        "--pgdata",
        f"{folder}/data",
        "--log",
        f"{folder}/log",
        "--options",
        options,
        "--wait",
        "start",
    )
    try:
        yield f"postgresql://airflow:p%40ss@127.0.0.1:{port}"
    finally:
        run("pg_ctl", "--pgdata", f"{folder}/data", "--mode", "immediate", "stop")
        shutil.rmtree(folder)


def sql(url: str, text: str) -> str:
    done = subprocess.run(
        ["psql", "--no-align", "--tuples-only", "--command", text],
        env={**os.environ, **parts.connection(url)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


@pytest.fixture
def machine(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The variables of a machine with a database, a lake and a file of settings; returns the database's address."""
    name = f"airflow_{os.urandom(4).hex()}"
    sql(f"{server}/postgres", f"create database {name}")
    url = f"{server}/{name}"
    sql(
        url,
        "create table alembic_version as select 'x' as version_num; create table dag_run as select 'run 1' as run_id",
    )
    land(local_lake(tmp_path / "lake"), DEFINITIONS["population"], [[{"a": 1}]])
    (tmp_path / "production.env").write_text("AIRFLOW__CORE__FERNET_KEY=planted-secret\n")
    if not (ROOT / ".venv/bin/catalunya").exists():
        missing("no .venv/bin/catalunya: make setup")
    for variable, value in {
        "DATABASE_URL": url, "CATALUNYA_LAKE": str(tmp_path / "lake"),
        "COMPOSE_ENV_FILES": str(tmp_path / "production.env"),
    }.items():  # fmt: skip
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(parts, "in_containers", lambda: False)
    monkeypatch.setattr(parts, "ORCHESTRATION", tmp_path / "orchestration")
    (tmp_path / "orchestration").mkdir()
    return url


def empty(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let the variables name another machine, which has nothing."""
    name = f"airflow_{os.urandom(4).hex()}"
    sql(f"{server}/postgres", f"create database {name}")
    monkeypatch.setenv("DATABASE_URL", f"{server}/{name}")
    monkeypatch.setenv("CATALUNYA_LAKE", str(tmp_path / "restored"))
    return f"{server}/{name}"


def test_an_empty_machine_gets_database_lake_and_settings(machine, server, tmp_path, monkeypatch, capsys):
    made = backup.backup(tmp_path / "backups", 7, NOW)
    assert "NOT encrypted" in capsys.readouterr().err
    for path in made.iterdir():
        if path.name in {parts.DUMP, parts.SECRETS}:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE((tmp_path / "backups").stat().st_mode) == 0o700
    before = open_lake(str(tmp_path / "lake"))
    other = empty(server, tmp_path, monkeypatch)
    restore.restore(made, force=False)
    assert sql(other, "select run_id from dag_run") == "run 1"
    after = open_lake(str(tmp_path / "restored"))
    assert {e.key: after.read(e.key) for e in after.list("landing")} == {
        e.key: before.read(e.key) for e in before.list("landing")
    }
    settings = tmp_path / "orchestration" / "production.env"
    assert "planted-secret" in settings.read_text() and stat.S_IMODE(settings.stat().st_mode) == 0o600
    with pytest.raises(BackupError, match="FORCE=yes"):
        restore.restore(made, force=False)
    sql(other, "delete from dag_run")
    restore.restore(made, force=True)
    assert sql(other, "select run_id from dag_run") == "run 1"


def test_with_a_passphrase_no_secret_is_in_the_backup(machine, server, tmp_path, monkeypatch):
    (tmp_path / "passphrase").write_text("correct horse")
    monkeypatch.setenv("BACKUP_PASSPHRASE_FILE", str(tmp_path / "passphrase"))
    made = backup.backup(tmp_path / "backups", 7, NOW)
    assert not any(b"planted-secret" in path.read_bytes() for path in made.rglob("*") if path.is_file())
    empty(server, tmp_path, monkeypatch)
    (tmp_path / "passphrase").write_text("wrong")
    with pytest.raises(BackupError, match="right passphrase"):
        restore.restore(made, force=False)
    (tmp_path / "passphrase").write_text("correct horse")
    restore.restore(made, force=False)
    assert "planted-secret" in (tmp_path / "orchestration" / "production.env").read_text()


def test_the_newest_backups_are_kept_and_one_that_was_interrupted_is_none(machine, tmp_path, monkeypatch):
    to = tmp_path / "backups"
    for day in range(4):
        backup.backup(to, 2, NOW + timedelta(days=day))
    names = ["20261129T031500Z", "20261130T031500Z"]
    assert sorted(path.name for path in to.glob("2*")) == names
    monkeypatch.setenv("CATALUNYA_LAKE", str(tmp_path / "no lake"))
    with pytest.raises(BackupError, match="the lake could not be copied") as caught:
        backup.backup(to, 2, NOW + timedelta(days=9))
    assert "no such folder" in str(caught.value)
    assert sorted(path.name for path in to.glob("2*")) == names, "a failed backup deletes none"
    monkeypatch.setenv("CATALUNYA_LAKE", str(tmp_path / "lake"))
    backup.backup(to, 2, NOW + timedelta(days=10))
    assert not [path for path in to.iterdir() if path.name.startswith(".2")]


def test_a_damaged_backup_is_named_before_anything_is_restored(
    machine, server, tmp_path, monkeypatch, capsys
):
    made = backup.backup(tmp_path / "backups", 7, NOW)
    other = empty(server, tmp_path, monkeypatch)
    dump = made / parts.DUMP
    dump.write_bytes(dump.read_bytes()[:-1])
    assert restore.main([str(made)]) == 1
    assert f"{dump} is missing or damaged" in capsys.readouterr().err
    assert sql(other, "select to_regclass('alembic_version')") == ""
    assert restore.main([str(tmp_path)]) == 1
    assert "is no backup" in capsys.readouterr().err


def test_the_password_of_the_database_is_on_no_command_line(machine):
    found = parts.connection(
        "postgresql+psycopg2://u:p%40ss@db.example/air?sslmode=verify-full&sslrootcert=/ca.pem"
    )
    assert found == {
        "PGHOST": "db.example", "PGPORT": "5432", "PGDATABASE": "air", "PGUSER": "u", "PGPASSWORD": "p@ss",
        "PGSSLMODE": "verify-full", "PGSSLROOTCERT": "/ca.pem",
    }  # fmt: skip
    with pytest.raises(BackupError, match="DATABASE_URL is not"):
        parts.connection("sqlite:///x")
