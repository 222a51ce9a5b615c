"""The DAG in production: a lake in S3, functions that ingest and stage, Athena, a role for each task; AWS is emulated.

One emulator holds the deployed stack, behind a proxy that can throttle. The emulator of Athena works in the workgroups,
buckets and schemas of the stack. One module, because its cases share that stack and its engine, which take minutes to start.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, Any

import pytest

from catalunya.demo import server as portal
from catalunya.lake import layout, snapshot
from catalunya.lake.opening import open_lake
from catalunya.lake.storage import Storage
from catalunya.release import Release, current_release
from catalunya.runs import record
from catalunya.runs.record import RunRecord
from infrastructure.package import Package
from infrastructure.permissions import ROLES
from orchestration.tests.airflow_instance import Airflow, scheduled_run, start_airflow
from orchestration.tests.api import EndedRun
from tests.aws.emulator import AIRFLOW, PERSON, Deployed, deployed
from tests.aws.engine import asker, documented, of_engine
from tests.aws.gate import ADMINISTRATOR, Gate
from tests.aws.invocation import DAY
from tests.aws.needs import necessary
from tests.lake.faulty_proxy import SLOW_DOWN, FaultyProxy
from tests.project import ROOT, missing
from tools.athena_emulator.install import NotInstalled

if TYPE_CHECKING:
    from tools.athena_emulator.environment import Environment

pytestmark = [pytest.mark.aws, pytest.mark.xdist_group("aws")]

DATASETS = sorted(path.stem for path in (ROOT / "datasets").glob("*.yml"))
SCHEMA = "catalunya_production_marts"


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
def gate(stack: Deployed) -> Gate:
    """The policies of the stack, which every request has to pass."""
    return Gate(stack.policies, stack.place(), stack.principal_of)


def always(role: str) -> Callable[[str], str]:
    return lambda key: role


@pytest.fixture(scope="module")
def front(stack: Deployed, gate: Gate) -> Iterator[FaultyProxy]:
    """A proxy of the emulator that denies and can throttle; all clients use it, the functions by one of their own."""
    with FaultyProxy(stack.emulator.endpoint) as server, ExitStack() as functions:
        server.gate = gate.check
        for stage in ("ingest", "stage"):
            name = f"{stack.name}-{stage}"
            own = functions.enter_context(FaultyProxy(server.endpoint))
            own.gate = replace(gate, role_of=always(name)).check
            stack.set_variables(name, AWS_ENDPOINT_URL=own.endpoint)
        yield server


@pytest.fixture(scope="module")
def athena(
    tmp_path_factory: pytest.TempPathFactory, stack: Deployed, front: FaultyProxy, gate: Gate
) -> Iterator[Environment]:
    """Athena over the emulator that holds the stack, behind a proxy that denies."""
    from tools.athena_emulator.environment import running

    region = stack.emulator.env["AWS_REGION"]
    try:
        with running(tmp_path_factory.mktemp("athena"), aws=front.endpoint, region=region) as environment:
            gate.asker = lambda: asker(environment.requests)
            with FaultyProxy(environment.athena) as server:
                server.gate = gate.check
                yield replace(environment, athena=server.endpoint)
    except NotInstalled as error:
        missing(str(error))


@pytest.fixture(scope="module")
def production(
    tmp_path_factory: pytest.TempPathFactory,
    stack: Deployed,
    athena: Environment,
    portals: portal.RunningPortal,
) -> Iterator[Airflow]:
    """Airflow with the variables of docs/aws.md."""
    more = {
        **{name: value for name, value in athena.variables().items() if name.startswith("AWS_")},
        "AWS_ACCESS_KEY_ID": AIRFLOW,
        "ENVIRONMENT": "production",
        # The definitions of the functions, which have to be Airflow's.
        "CATALUNYA_HOME": str(ROOT),
        "CATALUNYA_LAKE": stack.lake,
        "CATALUNYA_NOW": "",
        "CATALUNYA_LAMBDA_PREFIX": stack.name,
        "CATALUNYA_LAMBDA_PATIENCE_SECONDS": "90",
        "CATALUNYA_ROLES": f"arn:aws:iam::{stack.account}:role/{stack.name}-",
        "CATALUNYA_SCHEMA": SCHEMA,
        "CATALUNYA_ATHENA_WORKGROUP": f"{stack.name}-build",
        "CATALUNYA_ATHENA_POLL": "0.1",
    }
    with start_airflow(tmp_path_factory.mktemp("production"), portals, more) as airflow:
        yield airflow


@pytest.fixture(scope="module")
def first(production: Airflow) -> EndedRun:
    return scheduled_run(production)


@pytest.fixture
def lake(stack: Deployed, monkeypatch: pytest.MonkeyPatch) -> Storage:
    for name, value in stack.emulator.env.items():
        monkeypatch.setenv(name, value)
    return open_lake(stack.lake)


def run(production: Airflow, **conf: Any) -> EndedRun:
    """A run; on a busy machine one that builds on Trino takes minutes."""
    return production.ended(production.trigger(**conf))


def read(stack: Deployed, athena: Environment, sql: str) -> list[tuple[Any, ...]]:
    """Query the published marts in the workgroup for people, as one of them."""
    from pyathena import connect

    keys = {
        name.lower(): value
        for name, value in stack.keys("reader", as_key=PERSON, endpoint=athena.aws).items()
    }
    with connect(
        work_group=f"{stack.name}-read", schema_name=SCHEMA, region_name=athena.region, poll_interval=0.1,
        endpoint_url=athena.athena, **keys,
    ) as con:  # fmt: skip
        return list(con.cursor().execute(sql).fetchall())


def rows_shown(stack: Deployed, athena: Environment, marts: Any) -> dict[str, int]:
    """Published view to its number of rows."""
    counts = " union all ".join(
        f"select '{mart}' as mart, count(*) as n from {mart}" for mart in sorted(marts)
    )
    return dict(read(stack, athena, counts))


def executions(stack: Deployed, athena: Environment) -> list[str]:
    """Return the ids of all queries that Athena received, in all workgroups."""
    client = stack.client("athena", endpoint=athena.athena)
    groups = ("primary", f"{stack.name}-build", f"{stack.name}-read")
    pages = [
        page
        for group in groups
        for page in client.get_paginator("list_query_executions").paginate(WorkGroup=group)
    ]
    return sorted(query_id for page in pages for query_id in page["QueryExecutionIds"])


def newest(lake: Storage) -> RunRecord:
    found = record.newest(lake)
    assert found is not None
    return found


def shown(lake: Storage) -> Release:
    found = current_release(lake)
    assert found is not None
    return found


def counted(lake: Storage) -> dict[str, int]:
    """Dataset to the number of its snapshots."""
    return {name: len(snapshot.complete(lake, name)) for name in DATASETS}


def test_functions_ingest_and_stage_athena_builds_and_the_run_ends_in_a_release(
    production, first, stack, athena, lake
):
    assert first.state == "success", first.states()
    assert {name for name, state in first.states().items() if state != "success"} == {"build_site"}
    kept = newest(lake)
    assert (kept.status, kept.exit_code, kept.engine) == ("released", 0, "athena")
    assert kept.cost is not None
    assert kept.cost.queries > 50
    assert kept.cost.bytes_scanned > 1_000_000
    assert kept.cost.usd is not None and kept.cost.usd > 0
    release = shown(lake)
    assert (release.release_id, release.engine) == (kept.release_id, "athena")
    assert counted(lake) == dict.fromkeys(DATASETS, 1)
    assert lake.folders(layout.RUNS) == lake.folders(layout.CANDIDATES) == []
    for stage in ("ingest", "stage"):
        log = production.log_of(first, f"{stage}[population]")
        assert f"invoked {stack.name}-{stage}" in log
        assert stack.failed(stage) == []
    assert rows_shown(stack, athena, release.rows) == release.rows
    assert sum(release.rows.values()) > 10_000


def test_a_run_that_finds_nothing_new_stages_nothing_and_starts_neither_dbt_nor_a_query(
    production, first, stack, athena, lake
):
    before, queries, count = shown(lake), executions(stack, athena), len(athena.requests)
    again = run(production)
    assert again.state == "success"
    states = again.states()
    assert {states[f"ingest[{name}]"] for name in DATASETS} == {"success"}
    assert states["wait_for_new_data"] == states["run_dbt_transformations"] == "skipped"
    assert {one.operation for one in athena.requests[count:]} == {"athena:GetWorkGroup"}
    assert executions(stack, athena) == queries
    kept = newest(lake)
    assert (kept.status, kept.cost) == ("unchanged", None)
    assert shown(lake) == before


def test_one_change_at_a_portal_is_one_snapshot_and_readers_see_it(
    production, first, stack, athena, lake, portals
):
    before = shown(lake)
    portals.set_day(date(2026, 2, 2))
    ended = run(production)
    assert ended.state == "success", ended.states()
    assert counted(lake) == {**dict.fromkeys(DATASETS, 1), "social_services": 2}
    release = shown(lake)
    assert release.release_id > before.release_id
    assert release.run_id == newest(lake).run_id
    assert rows_shown(stack, athena, release.rows) == release.rows
    found = read(
        stack, athena, "select snapshot_id from data_quality where dataset_id = 'social_services' order by 1"
    )
    assert [snapshot_id for (snapshot_id,) in found] == snapshot.complete(lake, "social_services")


def test_a_function_that_fails_is_retried_then_alerted_and_blocks_no_other_dataset(
    production, first, stack, lake, portals
):
    before = counted(lake)
    portals.faults.add("population:cut_json")
    portals.set_day(date(2026, 3, 1))
    ended = run(production)
    portals.faults.clear()
    assert ended.states()["ingest[population]"] == "failed"
    assert ended.tries()["ingest[population]"] == 3
    assert ended.states()["publish_release"] == "success"
    assert [stale.dataset_id for stale in shown(lake).stale] == ["population"]
    assert len(stack.failed("ingest")) == 3
    assert counted(lake)["social_services"] == before["social_services"] + 1
    assert len(snapshot.complete(lake, "population")) == 1
    assert [alert for alert in production.webhook_sink.heard if "population" in str(alert)]


class Throttle:
    """Answer "slow down" to the first two requests for every third address of each prefix."""

    def __init__(self, buckets: str) -> None:
        self.buckets = buckets
        self.requests: dict[str, int] = {}
        self.addresses: dict[tuple[str, str, str], int] = {}
        self._one_at_a_time = threading.Lock()

    def __call__(self, method: str, path: str) -> tuple[int, bytes] | None:
        if not path.startswith(self.buckets):
            return None
        bucket, _, key = path[1:].partition("/")
        place = (method, bucket, key.split("/")[0].split("?")[0])
        with self._one_at_a_time:
            address = f"{method} {path}"
            if address not in self.requests:
                number = self.addresses[place] = self.addresses.get(place, 0) + 1
                self.requests[address] = 0 if number % 3 == 1 else 2
            self.requests[address] += 1
            return (503, SLOW_DOWN) if self.requests[address] <= 2 else None

    def throttled(self, method: str) -> set[str]:
        """The prefixes of the lake in which requests of a method were throttled."""
        return {prefix for (by, bucket, prefix) in self.addresses if by == method and "-lake-" in bucket}


def test_a_throttled_s3_costs_time_and_neither_loses_nor_duplicates_anything(
    production, first, stack, athena, front, lake, portals
):
    before = counted(lake)
    portals.set_day(date(2026, 4, 6))
    front.fault = throttle = Throttle(f"/{stack.name}-")
    ended = run(production)
    front.fault = lambda method, path: None
    written = "landing staging candidates releases published runs locks"
    assert throttle.throttled("PUT") >= set(written.split())
    assert throttle.throttled("GET") >= {"landing", "staging", "candidates"}
    assert ended.state == "success", ended.states()
    assert set(ended.tries().values()) == {1}
    release = shown(lake)
    assert release.run_id == newest(lake).run_id
    assert release.stale == ()
    assert counted(lake) == {**before, "social_services": before["social_services"] + 1}
    for name in DATASETS:
        landed = lake.folders(f"{layout.LANDING}/{name}")
        assert landed == snapshot.complete(lake, name)
        assert all(lake.exists(layout.landing(name, one, "manifest.json")) for one in landed)
        assert all(lake.exists(layout.staged(name, one)) for one in landed)
    assert lake.folders(layout.RUNS) == lake.folders(layout.CANDIDATES) == []
    assert rows_shown(stack, athena, release.rows) == release.rows
    same = command(production, "run", "--force", CATALUNYA_ENGINE="duckdb")
    assert same["status"] == "released", same
    assert counted(lake)["social_services"] == before["social_services"] + 1
    assert same["release_id"].split("-")[1] == release.release_id.split("-")[1]


def command(production: Airflow, *arguments: str, **more: str) -> dict[str, Any]:
    """Run `catalunya` on the same lake, with unchanged portals, as an administrator: no role may do all of a run."""
    administrator = {"AWS_ACCESS_KEY_ID": ADMINISTRATOR, "CATALUNYA_ROLES": ""}
    done = subprocess.run(
        [sys.executable, "-m", "catalunya", *arguments, "--json"],
        env={**production.env, **administrator, **more}, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_an_audit_that_refuses_leaves_pointer_and_views_and_sends_one_alert(
    production, first, stack, athena, lake
):
    before = shown(lake)
    views = rows_shown(stack, athena, before.rows)
    production.webhook_sink.heard.clear()
    broken = production.home / "dbt" / "mart" / "tests" / "broken_audit.sql"
    broken.write_text("select * from {{ ref('population') }}")
    try:
        ended = run(production)
    finally:
        broken.unlink()
    assert ended.state == "failed"
    states = ended.states()
    assert states["run_dbt_transformations"] == "success"
    assert states["validate_data_quality"] == "failed"
    assert ended.tries()["validate_data_quality"] == 1
    assert states["publish_release"] == "upstream_failed"
    kept = newest(lake)
    assert kept.status == "refused"
    assert kept.cost is not None and kept.cost.queries > 50
    assert shown(lake) == before
    assert rows_shown(stack, athena, before.rows) == views
    [alert] = [alert for alert in production.webhook_sink.heard if "refused" in alert["title"]]
    assert "broken_audit" in alert["message"]
    assert not [alert for alert in production.webhook_sink.heard if "failed" in alert["title"]]


def test_no_request_of_these_runs_was_denied_and_each_role_was_used(production, first, gate, stack):
    assert gate.denied == []
    assert {name.removeprefix(f"{stack.name}-") for name in gate.needed} == {
        "orchestrator", "ingest", "stage", "build", "publish", "reader",
    }  # fmt: skip


def test_who_asked_a_query_may_do_what_the_engine_did_for_it(production, first, stack, athena, gate):
    found = of_engine(stack, athena, gate)
    assert set(found) == {f"{stack.name}-{name}" for name in ("build", "publish", "reader")}
    refused = {
        (role, need.action, need.resource)
        for role, listed in found.items()
        for need in listed
        if not stack.policies.may(role, need.action, need.resource, **need.context)
    }
    assert refused == set()


@pytest.mark.parametrize("role", [role.name for role in ROLES])
def test_without_any_one_of_its_other_rights_a_role_could_not_do_its_steps(
    production, first, stack, athena, gate, role
):
    """The rights in the lake are those of `test_permissions.py`, but for the copies that readers of Athena read."""
    name = f"{stack.name}-{role}"
    found = gate.needed.get(name, set()) | of_engine(stack, athena, gate).get(name, set())
    found |= documented(stack).get(role, set())
    lake = f"arn:aws:s3:::{stack.place().lake}"
    rights = {
        right
        for right in stack.policies.rights(name)
        if not right.resource.startswith(lake)
        or right.action == "s3:GetBucketLocation"
        or right.resource.startswith(f"{lake}/{layout.PUBLISHED}")
    }
    assert rights - necessary(stack.policies, name, found) == set()


def test_a_function_that_does_not_exist_is_named_in_the_alert(production, first, stack, lake):
    stack.client("lambda").delete_function(FunctionName=f"{stack.name}-ingest")
    ended = run(production, datasets=["population"])
    assert ended.states()["ingest[population]"] == "failed"
    alerts = [str(alert) for alert in production.webhook_sink.heard if "could not be invoked" in str(alert)]
    assert len(alerts) == 1
    assert f"{stack.name}-ingest" in alerts[0]
