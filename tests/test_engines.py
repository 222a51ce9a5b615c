"""The seam between the stages and the engines, as far as it needs no server."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path

import duckdb
import pytest

from catalunya.audit import read_verdict
from catalunya.build import Candidate, Inputs, discard_candidates, newest_candidate, reopen
from catalunya.errors import BuildFailed, UsageError
from catalunya.lake import layout
from catalunya.lake.opening import open_lake
from catalunya.lake.storage import Storage
from catalunya.runs.record import RunRecord, merged
from catalunya.settings import Settings
from catalunya.warehouse import dbt, dbt_parse
from catalunya.warehouse.engines import open_engine
from catalunya.warehouse.engines.base import ENGINE_NOTE, Cost, PublishedRelease
from catalunya.warehouse.engines.hive import HiveEngine
from tests.factories import NOW, local_lake
from tests.s3 import s3_bucket, s3_emulator  # noqa: F401

RUN = "20260105T060000Z-1a2b3c4d"


@pytest.fixture
def lake(tmp_path: Path) -> Storage:
    return local_lake(tmp_path / "lake")


def settings(engine: str, **more: str) -> Settings:
    return Settings(**{"CATALUNYA_ENGINE": engine, **more})


def test_whoever_asks_for_duckdbs_project_asks_for_the_same_one(lake, monkeypatch):
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr(dbt_parse, "_parsed", lambda *key: asked.append(key))
    lake.put(layout.candidate(RUN, dbt.CANDIDATE), b"")
    with open_engine(lake, settings("duckdb")).reopen(RUN) as workspace:
        dbt.parse(Path("p"), "digest", workspace.target)
    dbt.parse(Path("p"), "digest")
    assert asked[0] == asked[1]


def test_a_candidate_is_reopened_only_by_the_engine_that_built_it(lake):
    candidate = Candidate(
        candidate_id=RUN, built_at=NOW, engine="trino", inputs=Inputs(snapshots={}, code=""), staged=(), marts=()
    )  # fmt: skip
    with pytest.raises(UsageError, match=r"CATALUNYA_ENGINE: candidate .* was built by trino, not duckdb"):
        reopen(open_engine(lake, settings("duckdb")), candidate)


class DeniedAthena:
    """Athena for a role that may not create a table."""

    reason = "User: publish is not authorized to perform: glue:CreateTable on resource: table/marts/new"

    def start_query_execution(self, **_: object) -> dict[str, str]:
        return {"QueryExecutionId": "q"}

    def get_query_execution(self, **_: object) -> object:
        return {"QueryExecution": {"Status": {"State": "FAILED", "StateChangeReason": self.reason}}}


@pytest.mark.parametrize(
    ("reason", "hinted"), [(DeniedAthena.reason, True), ("line 1:8: no such column", False)]
)
def test_a_statement_that_the_role_may_not_run_is_denied_with_what_to_do(
    request, monkeypatch, reason, hinted
):
    engine = open_engine(open_lake(f"s3://{request.getfixturevalue('s3_bucket')}/lake"), settings("athena"))
    denied = DeniedAthena()
    denied.reason = reason
    monkeypatch.setattr(engine, "_client", lambda _: denied)
    with pytest.raises(BuildFailed, match=re.escape(reason)) as raised:
        engine.query("create external table new (a int)")
    assert ("`catalunya doctor --aws` names the right" in str(raised.value)) is hinted


def test_candidates_of_a_distributed_engine_are_left_to_that_engine(lake):
    other = "20260105T060000Z-1a2b3c4e"
    lake.put(layout.candidate(RUN, ENGINE_NOTE), json.dumps({"engine": "trino"}).encode())
    lake.put(layout.candidate(other, "candidate.json"), b"{}")
    discard_candidates(lake, open_engine(lake, settings("duckdb")))
    assert lake.folders(layout.CANDIDATES) == [RUN]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff"])
def test_damaged_records_of_candidates_are_passed_over(lake, content):
    whole = Candidate(
        candidate_id=RUN, built_at=NOW, inputs=Inputs(snapshots={}, code=""), staged=(), marts=()
    )  # fmt: skip
    later = "20260106T060000Z-1a2b3c4d"
    lake.put(layout.candidate(RUN, "candidate.json"), whole.model_dump_json().encode())
    lake.put(layout.candidate(RUN, "audit.json"), content)
    lake.put(layout.candidate(later, "candidate.json"), content)
    lake.put(layout.candidate(later, ENGINE_NOTE), content)
    assert newest_candidate(lake) == whole
    with pytest.raises(UsageError, match="was not audited"):
        read_verdict(lake, whole)
    discard_candidates(lake, open_engine(lake, settings("duckdb")))
    assert lake.folders(layout.CANDIDATES) == [later]


@pytest.mark.parametrize("engine", ["trino", "athena"])
def test_a_distributed_engine_needs_a_lake_in_s3(lake, engine):
    with pytest.raises(UsageError, match=f"CATALUNYA_LAKE: {engine} reads a lake in S3"):
        open_engine(lake, settings(engine, CATALUNYA_TRINO_URL="http://127.0.0.1:9"))


@pytest.mark.parametrize(
    ("engine", "notice"), [("trino", "DEMO DATA."), ("trino", ""), ("athena", "DEMO DATA.")]
)
def test_the_views_of_demo_data_are_marked_where_the_engine_has_comments_on_views(
    tmp_path, monkeypatch, request, engine, notice
):
    bucket = open_lake(f"s3://{request.getfixturevalue('s3_bucket')}/lake")
    duckdb.execute(f"copy (select 2024 as year) to '{tmp_path / 'm.parquet'}' (format parquet)")
    bucket.put_file(layout.release(RUN, "parquet/population.parquet"), tmp_path / "m.parquet")
    opened = open_engine(bucket, settings(engine, CATALUNYA_TRINO_URL="http://127.0.0.1:9"))
    assert isinstance(opened, HiveEngine)
    run: list[str] = []
    monkeypatch.setattr(opened, "query", lambda sql, schema=None: run.append(sql) or ([], []))
    monkeypatch.setattr(opened, "create_schema", lambda name, location: None)
    monkeypatch.setattr(opened, "tables", lambda schema: {})
    opened.publish_views(PublishedRelease(RUN, ("population",), notice))
    [view] = [sql for sql in run if "view" in sql]
    marked = "comment 'DEMO DATA.' " if engine == "trino" and notice else ""
    assert view == (
        f"create or replace view marts.population {marked}as "
        "select year from marts_releases.population_20260105t060000z_1a2b3c4d"
    )
    run.clear()
    opened.publish_views(PublishedRelease(RUN, ("population",), notice))
    assert run == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CATALUNYA_SCHEMA", "Marts; drop"),
        ("CATALUNYA_TRINO_URL", "trino:8080"),
        ("CATALUNYA_TRINO_CATALOG", "hive.x"),
        ("CATALUNYA_ATHENA_RESULTS", "/results"),
        ("CATALUNYA_ATHENA_POLL", "0"),
    ],
)
def test_a_wrong_setting_of_an_engine_is_named(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(UsageError, match=variable):
        Settings.load()


def test_the_parts_of_a_run_cost_what_they_cost_together():
    def part(cost: Cost | None) -> RunRecord:
        return RunRecord(
            run_id=RUN, environment="production", engine="athena", lake="s3://b/l",
            started_at=datetime.fromisoformat("2026-01-05T06:00:00+00:00"), cost=cost,
        )  # fmt: skip

    one = Cost(queries=3, bytes_scanned=10, engine_seconds=1.5, usd=0.001, usd_per_tb=5)
    whole = merged([part(None), part(one), part(None), part(one)])
    assert whole is not None
    assert whole.cost == Cost(queries=6, bytes_scanned=20, engine_seconds=3.0, usd=0.002, usd_per_tb=5)
    nothing = merged([part(None)])
    assert nothing is not None and nothing.cost is None
