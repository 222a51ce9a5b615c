"""The templates: the permissions of each role, and the resources.

One module, because its cases share the templates, whose synthesis takes seconds.
"""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from catalunya.datasets import loader
from infrastructure import costs
from tests.aws.policy import ACCOUNT, REGION, Account
from tests.aws.synthesis import synthesise
from tests.project import ROOT

pytestmark = pytest.mark.aws

SNAPSHOT = "20260105T060000Z-1a2b3c4d"
PAGE = f"landing/population/{SNAPSHOT}/page-00000.json"
MANIFEST = f"landing/population/{SNAPSHOT}/manifest.json"
REFUSED = f"landing/population/{SNAPSHOT}/refused.json"
ACCEPTED = f"landing/population/{SNAPSHOT}/accepted.json"
INDEX = "staging/population/_index.json"
RECORD = f"ledger/{SNAPSHOT}.json"
ARCHIVE = "ledger/archive/2026-01.jsonl"
STAGED = f"staging/population/snapshot_date=2026-01-05/{SNAPSHOT}.parquet"
QUARANTINED = f"quarantine/population/snapshot_date=2026-01-05/{SNAPSHOT}.parquet"
CANDIDATE = f"candidates/{SNAPSHOT}/candidate.duckdb"
RELEASE = f"releases/{SNAPSHOT}/csv/population.csv"
MART = f"releases/{SNAPSHOT}/parquet/population.parquet"
COPY = f"published/files/{SNAPSHOT}/population/population.parquet"
KEYS = (
    PAGE, MANIFEST, REFUSED, ACCEPTED, STAGED, QUARANTINED, CANDIDATE, RELEASE, INDEX, "current.json", RECORD, ARCHIVE,
    f"runs/{SNAPSHOT}/ingest.population.json", f"runs/{SNAPSHOT}/stage.population.json", f"runs/{SNAPSHOT}/wait.json",
    f"runs/{SNAPSHOT}/build.json", f"runs/{SNAPSHOT}/publish.json", "alerts/1a2b.json", f"docs/{SNAPSHOT}/index.html",
    COPY, "locks/run.json", "locks/dataset-population.json", "locks/call-ingest-population.json",
    "locks/call-stage-population.json", "locks/probe.json", "something/else.json",
)  # fmt: skip
PUTS = {
    "ingest": {
        PAGE, MANIFEST, INDEX, f"runs/{SNAPSHOT}/ingest.population.json", "locks/dataset-population.json",
        "locks/call-ingest-population.json",
    },
    "stage": {
        REFUSED, STAGED, INDEX, QUARANTINED, f"runs/{SNAPSHOT}/stage.population.json", "locks/dataset-population.json",
        "locks/call-stage-population.json",
    },
    "build": {
        REFUSED, INDEX, CANDIDATE, f"runs/{SNAPSHOT}/wait.json", f"runs/{SNAPSHOT}/build.json", "locks/run.json",
    },
    "publish": {
        RELEASE, COPY, "current.json", RECORD, ARCHIVE, REFUSED, INDEX, f"runs/{SNAPSHOT}/publish.json",
        "alerts/1a2b.json", f"docs/{SNAPSHOT}/index.html", "locks/run.json",
    },
    "monitor": {"alerts/1a2b.json"},
    "steward": {ACCEPTED, REFUSED, INDEX, "locks/run.json"},
    "orchestrator": {"alerts/1a2b.json"},
    "reader": set(),
}  # fmt: skip
DELETES = {
    "stage": {REFUSED},
    "build": {CANDIDATE, REFUSED},
    "publish": {
        CANDIDATE, RELEASE, REFUSED, RECORD, COPY, f"docs/{SNAPSHOT}/index.html", "alerts/1a2b.json",
        *(key for key in KEYS if key.startswith("runs/")),
    },
    "monitor": {"alerts/1a2b.json"},
    "steward": {REFUSED},
    "orchestrator": {
        "alerts/1a2b.json", f"runs/{SNAPSHOT}/ingest.population.json", f"runs/{SNAPSHOT}/stage.population.json",
    },
}  # fmt: skip
READS_DATA = {
    "ingest": {PAGE, MANIFEST, REFUSED, ACCEPTED, INDEX},
    "stage": {PAGE, MANIFEST, REFUSED, ACCEPTED, STAGED, QUARANTINED, INDEX},
    "build": {MANIFEST, REFUSED, ACCEPTED, STAGED, QUARANTINED, CANDIDATE, MART, INDEX},
    "publish": {MANIFEST, REFUSED, ACCEPTED, CANDIDATE, RELEASE, MART, INDEX},
    "monitor": {PAGE, MANIFEST, REFUSED, ACCEPTED, INDEX},
    "steward": {MANIFEST, REFUSED, ACCEPTED, INDEX},
    "orchestrator": set(),
    "reader": {RELEASE, MART},
}
DATA = (PAGE, MANIFEST, REFUSED, ACCEPTED, INDEX, STAGED, QUARANTINED, CANDIDATE, RELEASE, MART)


def in_lake(environment: str, key: str) -> str:
    return f"arn:aws:s3:::catalunya-{environment}-lake-{ACCOUNT}/{key}"


def allowed(account: Account, environment: str, name: str, action: str, keys: tuple[str, ...]) -> set[str]:
    role = f"catalunya-{environment}-{name}"
    return {key for key in keys if account.may(role, action, in_lake(environment, key))}


def test_there_are_these_roles_and_no_others(account, environment):
    assert set(account.roles()) == {f"catalunya-{environment}-{name}" for name in PUTS}


@pytest.mark.parametrize("name", PUTS)
def test_a_role_may_write_delete_and_read_what_its_steps_need_and_nothing_else(account, environment, name):
    conditional = {"locks/probe.json"} if PUTS[name] else set()
    assert allowed(account, environment, name, "s3:PutObject", KEYS) == PUTS[name] | conditional
    assert allowed(account, environment, name, "s3:DeleteObject", KEYS) == DELETES.get(name, set())
    assert allowed(account, environment, name, "s3:GetObject", DATA) == READS_DATA[name]


def test_no_role_but_publish_and_no_administrator_can_move_the_pointer(account, environment):
    pointer = in_lake(environment, "current.json")
    for action in ("s3:PutObject", "s3:DeleteObject", "s3:DeleteObjectVersion"):
        may = {role for role in account.roles() if account.may(role, action, pointer)}
        assert may == ({f"catalunya-{environment}-publish"} if action == "s3:PutObject" else set())
        assert not account.administrator_may(action, pointer)


def test_nobody_can_delete_what_landed_not_even_an_administrator(account, environment):
    for key in (PAGE, MANIFEST, ACCEPTED):
        for action in ("s3:DeleteObject", "s3:DeleteObjectVersion"):
            arn = in_lake(environment, key)
            assert not [role for role in account.roles() if account.may(role, action, arn)]
            assert not account.administrator_may(action, arn)
    assert account.administrator_may("s3:DeleteObject", in_lake(environment, RELEASE))


def test_nothing_is_allowed_without_tls(account, environment):
    arn = in_lake(environment, MANIFEST)
    role = f"catalunya-{environment}-ingest"
    assert account.may(role, "s3:GetObject", arn)
    assert not account.may(role, "s3:GetObject", arn, **{"aws:SecureTransport": "false"})
    assert not account.may(role, "s3:GetObject", arn, **{"s3:TlsVersion": "1.1"})


def test_a_function_is_made_after_the_rights_that_lambda_checks(account):
    """Lambda checks `sqs:SendMessage` when the event configuration is made, and the log when the function runs."""
    policies = {
        name: [one["RoleName"] for one in account.of_type("AWS::IAM::Role").values()]
        for name in account.of_type("AWS::IAM::Policy")
    }
    for kind in ("AWS::Lambda::Function", "AWS::Lambda::EventInvokeConfig"):
        made = [one for one in account.resources.values() if one["Type"] == kind]
        assert len(made) == 2
        for one in made:
            waited = set(one["DependsOn"])
            assert any(name in policies for name in waited), waited
            text = json.dumps(one)
            stage = "Ingest" if "-ingest" in text or "Ingest" in text else "Stage"
            assert any(name in policies and stage in name for name in waited), (stage, waited)


def test_a_first_deploy_that_fails_leaves_no_bucket_behind(templates):
    """CloudFormation deletes what it made, but keeps the lake when the stack is updated or deleted later."""
    for name, kept in (("production", "RetainExceptOnCreate"), ("development", "Delete")):
        lake = next(
            one
            for one in templates[name].resources.values()
            if one["Type"] == "AWS::S3::Bucket" and "VersioningConfiguration" in one["Properties"]
        )
        assert lake["DeletionPolicy"] == kept
        assert lake["UpdateReplacePolicy"] == ("Retain" if name == "production" else "Delete")


def test_the_roles_that_send_alerts_may_publish_to_the_topic_and_no_other_role(account, environment):
    [name] = account.of_type("AWS::SNS::Topic")
    topic = account.resolve({"Ref": name})
    assert topic.endswith(f"catalunya-{environment}-alerts")
    may = {role for role in account.roles() if account.may(role, "sns:Publish", topic)}
    assert may == {f"catalunya-{environment}-{name}" for name in ("publish", "monitor", "orchestrator")}


def test_build_changes_candidates_and_publish_changes_the_marts_in_glue(account, environment):
    database = f"catalunya_{environment}"
    glue = f"arn:aws:glue:{REGION}:{ACCOUNT}"

    def may(name: str, action: str, resource: str) -> bool:
        return account.may(f"catalunya-{environment}-{name}", action, f"{glue}:{resource}")

    candidate = f"table/{database}_marts_candidate_20260105t060000z_1a2b3c4d/population"
    for action in ("glue:CreateTable", "glue:DeleteTable"):
        assert may("build", action, candidate)
        assert not may("build", action, f"table/{database}_marts/population")
        assert not may("build", action, f"table/{database}_staging/population")
        assert may("publish", action, f"table/{database}_marts_releases/population_20260105t060000z_1a2b3c4d")
        assert not may("monitor", action, f"table/{database}_marts/population")
    for action in ("glue:CreateTable", "glue:UpdateTable"):
        assert may("publish", action, f"table/{database}_marts/a_mart_that_is_new")
    assert not may("publish", "glue:DeleteTable", f"table/{database}_marts/population")
    for action in ("glue:GetTableVersions", "glue:DeleteTableVersion"):
        assert may("build", action, candidate)
        assert not may("build", action, f"table/{database}_marts/population")
    assert not may("build", "glue:GetTable", "table/somebody_elses/population")
    assert not may("publish", "glue:CreateTable", f"table/{database}_staging/population")
    group = f"arn:aws:athena:{REGION}:{ACCOUNT}:workgroup/"
    for name in PUTS:
        role = f"catalunya-{environment}-{name}"
        may_query = account.may(role, "athena:StartQueryExecution", f"{group}catalunya-{environment}-build")
        assert may_query == (name in {"build", "publish"})
        assert not account.may(role, "athena:StartQueryExecution", f"{group}primary")


LISTS = {"athena:ListWorkGroups", "athena:ListDataCatalogs"}
"""Actions that AWS cannot limit to resources."""


def test_no_statement_allows_every_action_or_every_resource(account):
    for role in account.roles():
        for right in account.rights(role):
            assert "*" not in right.action, (role, right)
            every = right.resource == "*" or right.resource.split(":", 5)[2] == "*"
            assert not every or right.action in LISTS, (role, right)


def test_a_reader_queries_and_downloads_what_is_published_and_nothing_else(account, environment):
    role = f"catalunya-{environment}-reader"
    lake = f"arn:aws:s3:::catalunya-{environment}-lake-{ACCOUNT}"
    group = f"arn:aws:athena:{REGION}:{ACCOUNT}:workgroup/catalunya-{environment}-"
    glue = f"arn:aws:glue:{REGION}:{ACCOUNT}:table/catalunya_{environment}_"
    for key in ("current.json", RELEASE, COPY):
        assert account.may(role, "s3:GetObject", f"{lake}/{key}")
    for prefix, may in {
        "releases/": True,
        f"releases/{SNAPSHOT}/": True,
        "landing/": False,
        "": False,
    }.items():
        assert account.may(role, "s3:ListBucket", lake, **{"s3:prefix": prefix}) is may
    assert account.may(role, "athena:StartQueryExecution", f"{group}read")
    assert not account.may(role, "athena:StartQueryExecution", f"{group}build")
    assert account.may(role, "glue:GetTable", f"{glue}marts/population")
    assert not account.may(role, "glue:GetTable", f"{glue}staging/population")
    assert not account.may(role, "glue:GetTable", f"{glue}marts_candidate_1/population")
    changing = re.compile(r"(Create|Update|Delete|Put|Abort|Batch(?!Get)|Start|Stop)")
    changed = {right for right in account.rights(role) if changing.search(right.action)}
    assert {right.resource.rpartition("/")[0].rpartition(":")[2] for right in changed} == {
        f"catalunya-{environment}-results-{ACCOUNT}/read", "workgroup",
    }  # fmt: skip


def test_the_lake_is_private_encrypted_versioned_and_each_prefix_has_its_own_lifecycle(account, environment):
    buckets = {b["BucketName"].split("-")[2]: b for b in account.of_type("AWS::S3::Bucket").values()}
    assert set(buckets) == {"lake", "results", "logs"}
    for bucket in buckets.values():
        assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
        assert bucket["BucketEncryption"]
    lake = buckets["lake"]
    assert lake["VersioningConfiguration"] == {"Status": "Enabled"}
    rules = {rule["Prefix"]: rule for rule in lake["LifecycleConfiguration"]["Rules"] if "Prefix" in rule}
    assert {prefix.split("/")[0] for prefix in rules} == {
        "landing", "staging", "quarantine", "candidates", "releases", "ledger", "runs", "alerts", "docs", "locks",
        "published", "current.json",
    }  # fmt: skip
    expiring = {prefix for prefix, rule in rules.items() if "ExpirationInDays" in rule}
    assert expiring == {"candidates/", "runs/", "locks/", "alerts/"}
    # Infrequent access: one read of landed bytes, to stage them again, costs what the class saves in a month.
    assert not [prefix for prefix, rule in rules.items() if "Transitions" in rule]
    assert "ExpirationInDays" in buckets["results"]["LifecycleConfiguration"]["Rules"][0]


def test_a_table_per_dataset_has_its_columns_and_finds_its_partitions_by_rule(account, environment):
    tables = {t["TableInput"]["Name"]: t for t in account.of_type("AWS::Glue::Table").values()}
    definitions = loader.load(ROOT / "datasets")
    assert set(tables) == set(definitions)
    kinds = {"string": "string", "integer": "int", "number": "double", "date": "date"}
    for name, definition in definitions.items():
        table = tables[name]["TableInput"]
        columns = {c["Name"]: c["Type"] for c in table["StorageDescriptor"]["Columns"]}
        own = {c.name: kinds[c.type] for c in definition.columns}
        assert columns == {**own, "raw": "string", "snapshot_id": "string"}
        assert table["Parameters"]["storage.location.template"] == (
            f"s3://catalunya-{environment}-lake-{ACCOUNT}/staging/{name}/snapshot_date=${{snapshot_date}}/"
        )
        assert [key["Name"] for key in table["PartitionKeys"]] == ["snapshot_date"]


def test_queries_have_a_limit_and_the_workgroup_of_readers_enforces_its_location(account, environment):
    groups = {
        g["Name"]: g["WorkGroupConfiguration"] for g in account.of_type("AWS::Athena::WorkGroup").values()
    }
    limit = {"development": 1_000_000_000, "production": 10_000_000_000}[environment]
    assert {g["BytesScannedCutoffPerQuery"] for g in groups.values()} == {limit}
    assert groups[f"catalunya-{environment}-read"]["EnforceWorkGroupConfiguration"] is True
    for group in groups.values():
        assert group["EngineVersion"]["SelectedEngineVersion"] == "Athena engine version 3"
        assert group["ResultConfiguration"]["EncryptionConfiguration"]["EncryptionOption"] == "SSE_S3"


def test_the_functions_have_queues_for_failures_and_alarms_and_aws_does_not_retry_them(account, environment):
    functions = {f["FunctionName"]: f for f in account.of_type("AWS::Lambda::Function").values()}
    assert set(functions) == {f"catalunya-{environment}-{stage}" for stage in ("ingest", "stage")}
    for function in functions.values():
        assert function["Architectures"] == ["arm64"]
        assert function["Environment"]["Variables"] == {
            "ENVIRONMENT": environment, "CATALUNYA_LAKE": f"s3://catalunya-{environment}-lake-{ACCOUNT}",
        }  # fmt: skip
    for config in account.of_type("AWS::Lambda::EventInvokeConfig").values():
        assert config["MaximumRetryAttempts"] == 0
        assert "-failed" in config["DestinationConfig"]["OnFailure"]["Destination"]
    prefix = f"catalunya-{environment}-"
    found = account.of_type("AWS::CloudWatch::Alarm").values()
    alarms = {alarm["AlarmName"].removeprefix(prefix): alarm for alarm in found}
    idle = {"ingest-idle"} if environment == "production" else set()
    if environment == "production":
        assert len(alarms) == inspect.signature(costs.month).parameters["alarms"].default
    assert set(alarms) == idle | {
        f"{s}-{kind}" for s in ("ingest", "stage") for kind in ("failed", "errors", "slow")
    }
    for name in set(alarms) - idle:
        # What such an alarm counts is over after five minutes, so that the next event fires it again; the number of
        # messages in a queue would stay.
        assert (alarms[name]["Period"], alarms[name]["Namespace"]) == (300, "AWS/Lambda")
        assert alarms[name]["TreatMissingData"] == "notBreaching"
    for name in idle:
        alarm = alarms[name]
        assert (alarm["EvaluationPeriods"], alarm["Threshold"]) == (12, 1)
        assert (alarm["ComparisonOperator"], alarm["TreatMissingData"]) == ("LessThanThreshold", "breaching")
        metrics = {m["Id"]: m for m in alarm["Metrics"]}
        assert [m["Expression"] for m in metrics.values() if "Expression" in m] == ["FILL(invoked, 0)"]
        stat = metrics["invoked"]["MetricStat"]
        assert (stat["Period"], stat["Stat"], stat["Metric"]["MetricName"]) == (3600, "Sum", "Invocations")
        assert alarm["OKActions"] == alarm["AlarmActions"]
    budget = next(iter(account.of_type("AWS::Budgets::Budget").values()))
    assert [n["Notification"]["NotificationType"] for n in budget["NotificationsWithSubscribers"]] == [
        "ACTUAL", "FORECASTED",
    ]  # fmt: skip


def test_cfn_lint_finds_nothing(templates, tmp_path):
    for name, account in templates.items():
        (tmp_path / f"{name}.template.json").write_text(json.dumps(account.template))
    command = [
        str(Path(sys.executable).with_name("cfn-lint")),
        "--",
        *map(str, sorted(tmp_path.glob("*.json"))),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_cdk_nag_stops_what_breaks_its_rules(tmp_path):
    with zipfile.ZipFile(tmp_path / "functions.zip", "w") as archive:
        archive.writestr("catalunya/runs/aws_lambda.py", "")
    bare = "from aws_cdk import aws_s3; aws_s3.Bucket(made.node.find_child('catalunya-development'), 'Bare')"
    with pytest.raises(AssertionError, match="AwsSolutions-S10"):
        synthesise(tmp_path / "out", tmp_path / "functions.zip", more=bare)
