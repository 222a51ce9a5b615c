"""`airflow dags test` with debug logs and signed releases: one run that publishes and one that fails in many ways.

The first ends in the release of the command and sends lineage. No secret of the settings is in what they leave: logs,
Airflow's database with XComs and rendered templates, lineage, and the lake with ledger and releases.
"""

from __future__ import annotations

import gzip
import json
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest

from catalunya.demo import server
from catalunya.publication.signature import SecretKey
from catalunya.settings import PORTAL_VARIABLES
from orchestration.scripts import airflow_local
from orchestration.tests.airflow_instance import NOW
from orchestration.tests.test_orchestration import DAGS
from tests import planted
from tests.pipeline.command import CLEAN, DAY, SMALL, Command
from tests.project import ROOT, allow_small_register, copy_home

pytestmark = pytest.mark.xdist_group("dags")

PROJECT_URL = "https://example.org/care"
BROKEN = "broken_model"


@dataclass
class Runs:
    """What the runs left."""

    folder: Path
    secrets: dict[str, str]
    records: list[dict[str, object]]

    @property
    def lake(self) -> Path:
        return self.folder / "lake"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("secrets")
    home = allow_small_register(copy_home(folder / "home"))
    (folder / "airflow" / "logs").mkdir(parents=True)
    key = SecretKey.generate()
    names = (
        "token", "notify", "webhook", "heartbeat", "trino", "portal", "database", "queue", "fernet", "jwt", "api",
    )  # fmt: skip
    secrets = {name: f"planted-{name}-{number:04x}" for number, name in enumerate(names, 0xA17)}
    secrets["signing"] = key.file().splitlines()[1]
    secrets["fernet"] = "cGxhbnRlZC1mZXJuZXQta2V5LW9mLTMyLWJ5dGVzISE="
    with server.running(rows=SMALL, day=DAY) as portal:
        address = portal.url.replace("://", f"://reader:{secrets['portal']}@")
        env = {
            **CLEAN,
            **airflow_local.environment(folder / "airflow", 8080, DAGS),
            **dict.fromkeys(PORTAL_VARIABLES, address),
            "CATALUNYA_HOME": str(home),
            "CATALUNYA_LAKE": str(folder / "lake"),
            "CATALUNYA_NOW": NOW,
            "CATALUNYA_HTTP_ATTEMPTS": "1",
            "CATALUNYA_RETRY_DELAY_SECONDS": "1",
            "CATALUNYA_PROJECT_URL": PROJECT_URL,
            "SOCRATA_APP_TOKEN": secrets["token"],
            # Nobody answers there: what is said of the failure is in the logs.
            "CATALUNYA_NOTIFY_URLS": f"json://alerts:{secrets['notify']}@127.0.0.1:9/{secrets['webhook']}",
            "CATALUNYA_HEARTBEAT_URL": f"http://127.0.0.1:9/{secrets['heartbeat']}",
            "CATALUNYA_TRINO_URL": f"https://reader:{secrets['trino']}@127.0.0.1:9",
            "CATALUNYA_TRINO_PASSWORD": secrets["trino"],
            "CATALUNYA_SIGNING_KEY": secrets["signing"],
            "CATALUNYA_PUBLIC_KEYS": str(key.public),
            "AIRFLOW__CORE__FERNET_KEY": secrets["fernet"],
            "AIRFLOW__API__SECRET_KEY": secrets["api"],
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets["jwt"] * 4,
            "AIRFLOW__CELERY__BROKER_URL": f"redis://:{secrets['queue']}@127.0.0.1:9/0",
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+postgresql://airflow:{secrets['database']}@127.0.0.1:9/a",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG",
            # As `entrypoint.sh` does for CATALUNYA_LOG_FORMAT=json.
            "AIRFLOW__LOGGING__JSON_LOGS": "True",
            "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(
                {"type": "file", "log_file_path": str(folder / "lineage"), "append": True}
            ),
        }  # fmt: skip
        airflow("db", "migrate", env=env, folder=folder)
        airflow("dags", "test", "catalunya_data_pipeline", env=env, folder=folder)
        portal.faults.add("population:down")
        (home / f"dbt/mart/models/{BROKEN}.sql").write_text("select nothing from {{ ref('population') }}")
        airflow(
            "dags", "test", "catalunya_data_pipeline", "--conf", '{"force": true}', env=env, folder=folder
        )
        (home / f"dbt/mart/models/{BROKEN}.sql").unlink()
    ledger = sorted((folder / "lake" / "ledger").glob("*.json"))
    return Runs(folder, secrets, [json.loads(path.read_text("utf-8")) for path in ledger])


def airflow(*words: str, env: dict[str, str], folder: Path) -> None:
    """Run a command of Airflow; what it prints is a log, as that of a container is."""
    with (folder / f"{len(list(folder.iterdir()))}.log").open("wb") as log:
        command = [Path(sys.executable).parent / "airflow", *words]
        subprocess.run(command, env=env, stdout=log, stderr=log, check=False)


def test_one_run_published_a_signed_release_and_one_failed(runs):
    assert sorted(str(record["status"]) for record in runs.records) == ["failed", "released"]
    assert list((runs.folder / "lake" / "releases").glob("*/*.minisig"))
    events = events_of(runs)
    assert {event["level"] for event in events} >= {"debug", "info", "error"}
    assert any(BROKEN in str(event) for event in events)


def test_the_run_that_published_ends_in_the_release_of_the_command(runs, small_demo, fork_server, tmp_path):
    released = json.loads((runs.lake / "current.json").read_text())["release_id"]
    command = Command(str(tmp_path / "lake"), small_demo.url, home=runs.folder / "home")
    own = command.run()
    assert own.json["release_id"] == released
    theirs, ours = (
        {
            line.split("  ")[1]: line.split("  ")[0]
            for line in (folder / "SHA256SUMS").read_text().splitlines()
            if line.split("  ")[1].startswith(("csv/", "parquet/"))
        }
        for folder in (runs.lake / "releases" / released, Path(own.json["release"]))
    )
    assert ours == theirs != {}
    site = runs.lake / "site" / "current"
    assert json.loads((site / "site.json").read_text())["release_id"] == released
    assert (site / "ca" / "municipis" / "080193-barcelona" / "index.html").is_file()


def test_every_model_sends_openlineage_events(runs):
    lines = (runs.folder / "lineage").read_text("utf-8").splitlines()
    events = [event for event in map(json.loads, lines) if event["job"]["namespace"] == "catalunya"]
    models: dict[str, set[str]] = {}
    for event in events:
        models.setdefault(event["job"]["name"], set()).add(event["eventType"])
        assert event["producer"] == PROJECT_URL
        assert event["run"]["facets"]["parent"]["job"]["name"].endswith("run_dbt_transformations")
    project = ROOT / "dbt" / "mart" / "models"
    assert {name.rpartition(".")[2] for name in models} >= {path.stem for path in project.rglob("*.sql")}
    assert models["dbt.marts.coverage_comarca"] == {"START", "COMPLETE"}
    inputs = [
        {read["name"] for read in event["inputs"]}
        for event in events
        if event["job"]["name"] == "dbt.marts.coverage_comarca" and event["eventType"] == "COMPLETE"
    ]
    assert inputs
    assert all(
        read >= {"intermediate.int_services_by_year", "intermediate.int_population_by_year"}
        for read in inputs
    )


def test_no_deprecated_function_of_airflow_is_called(runs):
    lines = [line for path in runs.folder.glob("*.log") for line in path.read_text("utf-8").splitlines()]
    assert [line for line in lines if "catalunya" in line and "Deprecat" in line] == []
    assert lines


def events_of(runs: Runs) -> list[dict[str, Any]]:
    """The lines of the logs that are JSON objects."""
    lines = [line for path in runs.folder.glob("*.log") for line in path.read_text("utf-8").splitlines()]
    return [json.loads(line) for line in lines if line.startswith("{")]


def test_events_of_the_pipeline_name_run_and_dataset_beside_airflow_s_task(runs):
    landed = [event for event in events_of(runs) if event["event"] == "landed"]
    assert {event["dataset"] for event in landed} >= {"population", "social_services"}
    assert {event["run"] for event in landed} <= {record["run_id"] for record in runs.records}
    assert {event["logger"] for event in landed} == {"catalunya.ingest"}


def test_no_planted_secret_is_anywhere_after_a_run_that_failed(runs):
    assert planted.found(runs.secrets, runs.folder) == []


def test_the_search_finds_a_secret_in_every_kind_of_file(tmp_path):
    secret = "planted-x-1"
    (tmp_path / "plain").write_text(f"a={secret}&b")
    (tmp_path / "header").write_text("Basic cGxhbnRlZC14LTE=")
    (tmp_path / "packed.gz").write_bytes(gzip.compress(secret.encode()))
    with duckdb.connect(str(tmp_path / "x.duckdb")) as con:
        con.execute(f"create table t as select '{secret}' as a, 1 as b")
        con.execute(f"copy t to '{tmp_path}/x.parquet'")
    with sqlite3.connect(tmp_path / "x.db") as con:
        con.execute("create table t (a text)")
        con.execute("insert into t values (?)", ("y" * 9000 + secret,))
    assert len(planted.found({"x": secret}, tmp_path)) == 6
