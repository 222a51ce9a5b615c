"""The stack deployed to an emulator of AWS, and its functions invoked the way the DAG invokes them."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import boto3
import pytest

from catalunya.datasets import loader
from catalunya.demo import server
from catalunya.errors import SourceUnreadable, UsageError
from catalunya.lake import layout, snapshot
from catalunya.lake.lock import lake_lock
from catalunya.lake.opening import open_lake
from catalunya.lake.storage import Storage
from catalunya.operations.doctor import examine
from catalunya.operations.doctor_aws import examine_aws
from catalunya.runs import aws_lambda
from catalunya.runs.record import RunRecord
from catalunya.settings import Settings
from infrastructure.package import Package
from tests.aws.emulator import AIRFLOW, PERSON, Deployed, deployed
from tests.aws.gate import Gate
from tests.aws.invocation import DAY, event
from tests.lake.faulty_proxy import FaultyProxy
from tests.project import ROOT

pytestmark = pytest.mark.aws


@pytest.fixture(scope="module")
def portals() -> Iterator[server.RunningPortal]:
    with server.running(day=DAY) as running:
        yield running


@pytest.fixture(scope="module")
def stack(
    tmp_path_factory: pytest.TempPathFactory, bundle: Package, portals: server.RunningPortal
) -> Iterator[Deployed]:
    with deployed(tmp_path_factory.mktemp("aws"), bundle, portals.url) as one:
        yield one


@pytest.fixture
def lake(stack: Deployed, monkeypatch: pytest.MonkeyPatch) -> Storage:
    for name, value in stack.emulator.env.items():
        monkeypatch.setenv(name, value)
    return open_lake(stack.lake)


def invoke(stack: Deployed, stage: str, payload: dict[str, Any]) -> None:
    answer = stack.client("lambda").invoke(
        FunctionName=f"{stack.name}-{stage}", InvocationType="Event", Payload=json.dumps(payload)
    )
    assert answer["StatusCode"] == 202


def wait(find: Callable[[], Any], what: str, timeout_s: float = 60) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := find()):
        assert time.monotonic() < deadline, f"no {what} within {timeout_s:g} s"
        time.sleep(0.2)
    return found


def result(lake: Storage, run_id: str, stage: aws_lambda.Stage, dataset: str) -> RunRecord:
    key = layout.part(run_id, aws_lambda.step_name(stage, dataset))
    wait(lambda: lake.exists(key), f"result of {stage}")
    return RunRecord.model_validate_json(lake.read(key))


def test_the_whole_stack_is_there(stack, templates):
    found = stack.client("cloudformation").list_stack_resources(StackName=stack.name)
    kinds = {resource["ResourceType"] for resource in found["StackResourceSummaries"]}
    assert kinds == {resource["Type"] for resource in templates["production"].template["Resources"].values()}


def test_the_tables_and_the_workgroups_exist(stack):
    glue = stack.client("glue")
    tables = {t["Name"] for t in glue.get_tables(DatabaseName="catalunya_production_staging")["TableList"]}
    assert tables == set(loader.load(ROOT / "datasets"))
    group = stack.client("athena").get_work_group(WorkGroup="catalunya-production-read")["WorkGroup"]
    assert group["Configuration"]["EnforceWorkGroupConfiguration"] is True


def test_a_function_invoked_twice_lands_once_and_the_other_stages_it(stack, lake, portals):
    run_id = layout.make_id(datetime.now(UTC), "1a2b3c4d")
    for _ in range(2):
        invoke(stack, "ingest", event("social_services", run_id))
    read = result(lake, run_id, "ingest", "social_services")
    assert aws_lambda.parse_result("ingest", "social_services", read).outcome == "new"
    invoke(stack, "stage", event("social_services", run_id))
    staged = aws_lambda.parse_result(
        "stage", "social_services", result(lake, run_id, "stage", "social_services")
    )
    assert staged.rows_in == staged.rows_staged + staged.rows_quarantined + staged.rows_duplicated > 11_000
    (only,) = snapshot.complete(lake, "social_services")
    assert lake.exists(layout.staged("social_services", only))
    assert stack.failed("ingest") == stack.failed("stage") == []


def test_a_failure_is_recorded_and_queued_and_the_next_invocation_succeeds(stack, lake, portals):
    run_id = layout.make_id(datetime.now(UTC), "2b3c4d5e")
    portals.faults.add("population:cut_json")
    invoke(stack, "ingest", event("population", run_id))
    failed = result(lake, run_id, "ingest", "population")
    assert failed.datasets["population"].outcome == "unreadable"
    (message,) = wait(lambda: stack.failed("ingest"), "failed invocation")
    assert message["requestPayload"] == event("population", run_id)
    portals.faults.clear()
    lake.delete(layout.part(run_id, "ingest.population"))
    invoke(stack, "ingest", event("population", run_id))
    assert result(lake, run_id, "ingest", "population").datasets["population"].outcome == "new"


@pytest.fixture
def as_airflow(stack: Deployed, lake: Storage, monkeypatch: pytest.MonkeyPatch) -> Deployed:
    """The stack, with the environment of Airflow's tasks and its plugins on the import path."""
    monkeypatch.syspath_prepend(ROOT / "orchestration" / "airflow" / "plugins")
    for name, value in {
        "ENVIRONMENT": "production",
        "CATALUNYA_LAKE": stack.lake,
        "CATALUNYA_LAMBDA_PREFIX": stack.name,
        "CATALUNYA_ROLES": f"arn:aws:iam::{stack.account}:role/{stack.name}-",
    }.items():
        monkeypatch.setenv(name, value)
    return stack


def context(name: str) -> dict[str, Any]:
    from catalunya_airflow import assets

    run = SimpleNamespace(
        dag_id="catalunya_data_pipeline", run_id=name, run_after=datetime(2026, 1, 5, tzinfo=UTC)
    )
    outlet = SimpleNamespace(events=[], add=lambda asset, extra: outlet.events.append((asset.name, extra)))
    return {"params": {}, "dag_run": run, "outlet_events": {assets.landed: outlet}}


def perform(task: Any, given: dict[str, Any]) -> Any:
    """Do what Airflow does with a task: execute it, run its trigger if it defers, and resume it."""
    from airflow.sdk.exceptions import TaskDeferred

    try:
        return type(task).execute.__wrapped__(task, given)
    except TaskDeferred as deferred:
        kind, arguments = deferred.trigger.serialize()
        assert kind == "catalunya_airflow.triggers.StepResultTrigger"
        event = asyncio.run(anext(aiter(type(deferred.trigger)(**arguments).run())))
        return getattr(task, deferred.method_name)(given, event=event.payload)


def test_a_task_invokes_a_function_waits_for_its_result_and_returns_it(as_airflow, lake):
    from catalunya_airflow.operators import InvokeLambdaOperator

    given = context("first")
    read = perform(
        InvokeLambdaOperator(task_id="ingest", stage="ingest", dataset_id="municipalities", poll_s=0.2), given
    )
    assert read["outcome"] == "new"
    assert [name for name, _ in next(iter(given["outlet_events"].values())).events] == [
        "landing/municipalities"
    ]
    typed = perform(
        InvokeLambdaOperator(task_id="stage", stage="stage", dataset_id="municipalities", poll_s=0.2), given
    )
    assert (typed["rows_in"], typed["rows_quarantined"]) == (949, 2)
    again = perform(InvokeLambdaOperator(task_id="again", stage="ingest", dataset_id="municipalities"), given)
    assert again == read


def test_a_task_whose_function_fails_names_the_log_and_its_retry_invokes_again(as_airflow, lake, portals):
    from catalunya_airflow.operators import InvokeLambdaOperator, NoResult

    given = context("second")
    task = InvokeLambdaOperator(task_id="ingest", stage="ingest", dataset_id="service_users", poll_s=0.2)
    portals.faults.add("service_users:cut_json")
    with pytest.raises(SourceUnreadable, match="service_users"):
        perform(task, given)
    portals.faults.clear()
    assert perform(task, given)["outcome"] == "new"
    as_airflow.failed("ingest")
    silent = InvokeLambdaOperator(
        task_id="silent", stage="stage", dataset_id="boundaries", timeout_s=0, poll_s=0.01
    )
    where = r"/catalunya/catalunya-production-stage.*catalunya-production-stage-failed"
    # Another invocation holds the lock of this step, and the function waits for it.
    held = lake_lock(lake, "20260105T230000Z-00000000", "call-stage-boundaries")
    with held, pytest.raises(NoResult, match=where):
        perform(silent, given)


def test_a_task_assumes_its_role_and_restores_the_environment(as_airflow, lake):
    from catalunya.identity import assume_role

    boto3.client("sts", region_name="us-east-1").get_caller_identity()
    before = dict(os.environ)
    with assume_role("build"):
        assert os.environ["AWS_ACCESS_KEY_ID"] != before["AWS_ACCESS_KEY_ID"]
        # A client of the session that boto3 shares, which others of this process use.
        used = boto3.client("s3", region_name="us-east-1")._request_signer._credentials
        assert used.token == os.environ["AWS_SESSION_TOKEN"]
        open_lake(as_airflow.lake).put("candidates/20260105T000000Z-00000000/x", b"x")
    assert dict(os.environ) == before
    assert boto3.client("s3", region_name="us-east-1")._request_signer._credentials.token is None


@pytest.fixture
def front(as_airflow: Deployed, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """The machine that runs Airflow: its own identity may become the orchestrator, and policies are enforced."""
    gate = Gate(as_airflow.policies, as_airflow.place(), as_airflow.principal_of)
    with FaultyProxy(as_airflow.emulator.endpoint) as server:
        server.gate = gate.check
        for name, value in {
            "AWS_ENDPOINT_URL": server.endpoint,
            "AWS_ACCESS_KEY_ID": AIRFLOW,
            "CATALUNYA_SCHEMA": "catalunya_production_marts",
            "CATALUNYA_ATHENA_WORKGROUP": f"{as_airflow.name}-build",
        }.items():
            monkeypatch.setenv(name, value)
        yield gate


def findings() -> dict[str, list[str]]:
    """Return the wrong findings of `catalunya doctor --aws`, by the end of the role's name."""
    found: dict[str, list[str]] = {}
    for one in examine_aws(Settings.load()):
        found.setdefault(one.what.rpartition("-")[2], []).extend([] if one.well else [str(one)])
    return found


def test_the_doctor_tries_what_each_role_has_to_do_and_leaves_nothing(front, lake):
    whats = ("settings of AWS", "base identity", "orchestrator", "build", "publish", "monitor")
    assert findings() == {what: [] for what in whats}
    assert front.denied == []
    # A function of an earlier test may still write to the lake: what counts is what the doctor wrote.
    asked = {need for needs in front.needed.values() for need in needs}
    written = {need.resource.partition("/")[2] for need in asked if need.action == "s3:PutObject"}
    left = written & {entry.key for entry in lake.list()}
    assert left <= {layout.ALERTS, "locks/probe.json"}
    assert len(written - left) >= 2
    assert {need.action for need in front.needed["catalunya-production-publish"]} >= {
        "s3:PutObject", "s3:DeleteObject", "athena:StartQueryExecution", "glue:GetTables",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("role", "action", "resource"),
    [
        ("orchestrator", "lambda:InvokeFunction", "*-stage"),
        ("orchestrator", "sts:AssumeRole", "*-monitor"),
        ("build", "s3:ListBucket", "*-lake-*"),
        ("build", "s3:GetObject", "*/staging/*"),
        ("build", "s3:PutObject", "*/candidates/*"),
        ("build", "athena:StartQueryExecution", "*"),
        ("build", "glue:CreateDatabase", "*_candidate_*"),
        ("publish", "s3:PutObject", "*/current.json"),
        ("build", "athena:GetWorkGroup", "*"),
        ("publish", "glue:DeleteTable", "*_releases/*"),
        ("monitor", "s3:DeleteObject", "*/alerts/*"),
    ],
)
def test_the_doctor_names_the_right_that_is_missing_and_its_role(front, role, action, resource):
    front.policies = front.policies.without(f"catalunya-production-{role}", action, resource)
    found = findings()
    shown = "monitor" if action == "sts:AssumeRole" else role
    wrong = {name: lines for name, lines in found.items() if lines}
    assert set(wrong) == {shown}, wrong
    assert any(action in line for line in wrong[shown]), wrong
    assert all("deploy the stack" in line for line in wrong[shown]), wrong


def test_the_doctor_tells_a_machine_that_is_no_worker_what_to_do(front, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", PERSON)
    found = findings()
    for role in ("orchestrator", "build", "publish", "monitor"):
        [line] = found[role]
        assert f"may not assume {Settings.load().roles}orchestrator" in line
        assert "`workers` of the stack" in line


def test_the_doctor_names_the_variables_that_are_not_set(front, monkeypatch):
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.delenv("CATALUNYA_ROLES")
    [line] = findings()["settings of AWS"]
    assert "not set: AWS_REGION, CATALUNYA_ROLES" in line


def test_doctor_and_status_need_no_more_than_the_machines_own_identity(front, lake):
    with pytest.raises(UsageError, match="s3:ListBucket"):
        open_lake(Settings.load().lake)
    well = {one.what: one.well for one in examine(Settings.load())}
    assert well["identity"] and well["connection"] and well["lake"], well
    done = subprocess.run(
        [sys.executable, "-m", "catalunya", "status", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_alerts_of_the_dag_go_to_the_stacks_topic_without_another_setting(as_airflow, lake, monkeypatch):
    from catalunya.operations.alerts import Alert
    from catalunya_airflow import alerts

    monkeypatch.delenv("CATALUNYA_NOTIFY_URLS", raising=False)
    sqs, topics = as_airflow.client("sqs"), as_airflow.client("sns")
    url = sqs.create_queue(QueueName="reader")["QueueUrl"]
    queue = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    [topic] = [t["TopicArn"] for t in topics.list_topics()["Topics"] if t["TopicArn"].endswith("-alerts")]
    topics.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue)
    alert = Alert(kind="failed", subject="ingest of population", reason="the portal is down", event="x")
    for _ in range(2):
        alerts.deliver([alert])

    def heard() -> list[Any]:
        return list(sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []))

    [message] = wait(heard, "alert")
    body = json.loads(message["Body"])
    assert body["Subject"] == alert.title
    assert "the portal is down" in body["Message"]
    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    assert heard() == []


def test_a_task_of_another_commit_ends_at_once_and_says_what_to_do(as_airflow, lake, portals, monkeypatch):
    from airflow.sdk.exceptions import AirflowFailException

    from catalunya_airflow.operators import InvokeLambdaOperator

    monkeypatch.setattr(aws_lambda, "code_digest", lambda: "0" * 16)
    task = InvokeLambdaOperator(
        task_id="ingest", stage="ingest", dataset_id="population", timeout_s=60, poll_s=0.2
    )
    asked = len(portals.log)
    with pytest.raises(AirflowFailException, match=r"the code of Airflow \(0{16}\) is not.*make deploy"):
        perform(task, context("other commit"))
    assert len(portals.log) == asked
    monkeypatch.undo()
