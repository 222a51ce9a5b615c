"""The stack deployed to an emulator of AWS, and its functions asked as the DAG asks them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from catalunya import datasets, lambdas
from catalunya.demo import portal
from catalunya.lake import layout, snapshot
from catalunya.lake.storage import Storage
from catalunya.record import RunRecord
from infrastructure.package import Package
from tests.aws.conftest import DAY
from tests.aws.emulator import UNSUPPORTED, Deployed, deployed
from tests.conftest import ROOT

pytestmark = pytest.mark.aws


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


@pytest.fixture
def lake(stack: Deployed, monkeypatch: pytest.MonkeyPatch) -> Storage:
    for name, value in stack.emulator.env.items():
        monkeypatch.setenv(name, value)
    return Storage.open(stack.lake)


def ask(stack: Deployed, stage: str, **order: Any) -> None:
    answer = stack.client("lambda").invoke(
        FunctionName=f"{stack.name}-{stage}", InvocationType="Event", Payload=json.dumps(order)
    )
    assert answer["StatusCode"] == 202


def wait(look: Callable[[], Any], what: str, patience_s: float = 60) -> Any:
    give_up = time.monotonic() + patience_s
    while not (found := look()):
        assert time.monotonic() < give_up, f"no {what} within {patience_s:g} s"
        time.sleep(0.2)
    return found


def word(lake: Storage, run_id: str, stage: lambdas.Stage, dataset: str) -> RunRecord:
    key = layout.part(run_id, lambdas.part_of(stage, dataset))
    wait(lambda: lake.exists(key), f"word of {stage}")
    return RunRecord.model_validate_json(lake.read(key))


def test_only_what_the_emulator_lacks_was_left_out_of_the_stack(stack, templates):
    found = stack.client("cloudformation").list_stack_resources(StackName=stack.name)
    kinds = {resource["ResourceType"] for resource in found["StackResourceSummaries"]}
    whole = {resource["Type"] for resource in templates["production"].template["Resources"].values()}
    assert whole - kinds == UNSUPPORTED | {"AWS::IAM::OIDCProvider"}


def test_the_catalogue_and_the_workgroups_are_there(stack):
    glue = stack.client("glue")
    tables = {t["Name"] for t in glue.get_tables(DatabaseName="catalunya_production_staging")["TableList"]}
    assert tables == set(datasets.load(ROOT / "datasets"))
    group = stack.client("athena").get_work_group(WorkGroup="catalunya-production-read")["WorkGroup"]
    assert group["Configuration"]["EnforceWorkGroupConfiguration"] is True


def test_a_function_asked_twice_lands_once_and_the_other_stages_it(stack, lake, portals):
    run_id = layout.make_id(datetime.now(UTC), "1a2b3c4d")
    for _ in range(2):
        ask(stack, "ingest", run_id=run_id, dataset="social_services")
    read = word(lake, run_id, "ingest", "social_services")
    assert lambdas.judged("ingest", "social_services", read).outcome == "new"
    ask(stack, "stage", run_id=run_id, dataset="social_services")
    staged = lambdas.judged("stage", "social_services", word(lake, run_id, "stage", "social_services"))
    assert staged.rows_in == staged.rows_staged + staged.rows_quarantined + staged.rows_duplicated > 11_000
    (only,) = snapshot.ids(lake, "social_services")
    assert lake.exists(layout.staged("social_services", only))
    assert stack.failed("ingest") == stack.failed("stage") == []


def test_a_failure_is_on_record_and_in_the_queue_and_the_next_try_mends_it(stack, lake, portals):
    run_id = layout.make_id(datetime.now(UTC), "2b3c4d5e")
    portals.faults.add("population:cut_json")
    ask(stack, "ingest", run_id=run_id, dataset="population")
    failed = word(lake, run_id, "ingest", "population")
    assert failed.datasets["population"].outcome == "unreadable"
    (message,) = wait(lambda: stack.failed("ingest"), "failed invocation")
    assert message["requestPayload"] == {"run_id": run_id, "dataset": "population"}
    portals.faults.clear()
    lake.delete(layout.part(run_id, "ingest.population"))
    ask(stack, "ingest", run_id=run_id, dataset="population")
    assert word(lake, run_id, "ingest", "population").datasets["population"].outcome == "new"
