"""The DAG in production mode: an S3 lake, functions for reading and staging, a role for each task; an emulator of AWS."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import pytest

from catalunya import publish, record
from catalunya.demo import portal
from catalunya.lake import layout, snapshot
from catalunya.lake.storage import Storage
from infrastructure.package import Package
from orchestration.tests.conftest import Airflow, Ended, first_of, started
from tests.aws.conftest import DAY
from tests.aws.emulator import Deployed, deployed
from tests.conftest import ROOT

pytestmark = [pytest.mark.aws, pytest.mark.xdist_group("aws")]

DATASETS = sorted(path.stem for path in (ROOT / "datasets").glob("*.yml"))


@pytest.fixture(scope="module")
def portals() -> Iterator[portal.RunningPortal]:
    with portal.running(day=DAY) as running:
        yield running


@pytest.fixture(scope="module")
def stack(
    tmp_path_factory: pytest.TempPathFactory, bundle: Package, portals: portal.RunningPortal
) -> Iterator[Deployed]:
    with deployed(tmp_path_factory.mktemp("aws"), bundle, portals.url) as one:
        yield one


@pytest.fixture(scope="module")
def production(
    tmp_path_factory: pytest.TempPathFactory, stack: Deployed, portals: portal.RunningPortal
) -> Iterator[Airflow]:
    more = {
        **stack.emulator.env,
        "ENVIRONMENT": "production",
        "CATALUNYA_ENGINE": "duckdb",
        "CATALUNYA_LAKE": stack.lake,
        "CATALUNYA_NOW": "",
        "CATALUNYA_LAMBDA_PREFIX": stack.name,
        "CATALUNYA_LAMBDA_PATIENCE_SECONDS": "90",
        "CATALUNYA_ROLES": f"arn:aws:iam::{stack.account}:role/{stack.name}-",
    }
    with started(tmp_path_factory.mktemp("production"), portals, more) as airflow:
        yield airflow


@pytest.fixture(scope="module")
def first(production: Airflow) -> Ended:
    return first_of(production, patience_s=420)


@pytest.fixture
def lake(stack: Deployed, monkeypatch: pytest.MonkeyPatch) -> Storage:
    for name, value in stack.emulator.env.items():
        monkeypatch.setenv(name, value)
    return Storage.open(stack.lake)


def test_functions_read_and_stage_and_the_run_ends_in_a_release(production, first, stack, lake):
    assert first.state == "success", first.states()
    assert {state for name, state in first.states().items()} == {"success"}
    newest = record.newest(lake)
    assert newest is not None
    assert (newest.status, newest.exit_code) == ("released", 0)
    shown = publish.current(lake)
    assert shown is not None
    assert shown.release_id == newest.release_id
    assert {name: len(snapshot.ids(lake, name)) for name in DATASETS} == dict.fromkeys(DATASETS, 1)
    assert lake.folders(layout.RUNS) == lake.folders(layout.CANDIDATES) == []
    for stage in ("ingest", "stage"):
        said = production.log_of(first, f"{stage}[population]")
        assert f"asked {stack.name}-{stage}" in said
        assert stack.failed(stage) == []


def test_a_run_that_finds_nothing_new_stages_nothing_and_starts_no_dbt(production, first, lake):
    before = publish.current(lake)
    again = production.run()
    assert again.state == "success"
    states = again.states()
    assert {states[f"ingest[{name}]"] for name in DATASETS} == {"success"}
    assert states["wait_for_new_data"] == states["run_dbt_transformations"] == "skipped"
    assert publish.current(lake) == before


def test_a_function_that_fails_is_tried_again_then_told_and_holds_up_nobody(
    production, first, stack, lake, portals
):
    portals.faults.add("population:cut_json")
    portals.set_day(date(2026, 3, 1))
    ended = production.run()
    portals.faults.clear()
    assert ended.states()["ingest[population]"] == "failed"
    assert ended.tries()["ingest[population]"] == 3
    assert ended.states()["publish_release"] == "success"
    shown = publish.current(lake)
    assert shown is not None
    assert [stale.dataset_id for stale in shown.stale] == ["population"]
    assert len(stack.failed("ingest")) == 3
    assert len(snapshot.ids(lake, "social_services")) == 2
    assert len(snapshot.ids(lake, "population")) == 1
    assert [alert for alert in production.ear.heard if "population" in str(alert)]


def test_a_function_that_is_gone_is_told_of_by_its_name(production, first, stack, lake):
    stack.client("lambda").delete_function(FunctionName=f"{stack.name}-ingest")
    ended = production.run(datasets=["population"])
    assert ended.states()["ingest[population]"] == "failed"
    told = [str(alert) for alert in production.ear.heard if "could not be asked" in str(alert)]
    assert len(told) == 1
    assert f"{stack.name}-ingest" in told[0]
