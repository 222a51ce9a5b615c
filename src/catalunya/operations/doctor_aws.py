"""Try on AWS what each role of the stack has to do, and name the right that is missing.

Nothing in the lake changes: writes have a condition that cannot hold, which S3 looks at after the right, and what is deleted
is below the id of a run that was never made.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from catalunya.errors import CatalunyaError, UsageError
from catalunya.identity import Role, assume_role, caller
from catalunya.lake import layout
from catalunya.lake.opening import open_lake
from catalunya.lake.s3 import S3Storage
from catalunya.lake.storage import Conflict, MissingKey, Version
from catalunya.operations.doctor import CheckResult
from catalunya.settings import Settings, aws_region
from catalunya.warehouse.engines.athena import AthenaEngine

PROBE = "20000101T000000Z-00000000"
"""A run of the year 2000: no real one has this id."""
_DENIED = re.compile(r"not authorized to perform: ([\w:]+)(?: on resource: \"?([^\s\"]+))?")
_IS_DENIED = re.compile(r"access ?denied|not authorized|forbidden", re.IGNORECASE)
_POLICY = (
    "A policy denies it that is not the stack's own: ask the administrator of the account (service control policy, "
    "permissions boundary, policy of the bucket)"
)
_STACK = "The stack grants it: deploy the stack of this version again"


@dataclass(frozen=True)
class Step:
    """Something that a role has to do."""

    right: str
    resource: str
    attempt: Callable[[], object]


def examine_aws(settings: Settings) -> list[CheckResult]:
    """Assume each role, and try its steps with it; a step that fails does not stop the others."""
    findings = [_settings(settings)]
    if not findings[0].well:
        return findings
    try:
        findings.append(CheckResult("base identity", caller(settings)))
    except CatalunyaError as error:
        return [*findings, CheckResult("base identity", str(error), "Sign in to AWS", well=False)]
    roles: dict[Role, Callable[[Settings], Iterator[Step]]] = {
        "orchestrator": _orchestrator, "build": _build, "publish": _publish, "monitor": _monitor,
    }  # fmt: skip
    for role, steps in roles.items():
        findings += _try(settings, role, steps)
    return findings


def _settings(settings: Settings) -> CheckResult:
    """Check the variables without which nothing can be tried."""
    missing = [
        name
        for name, value in {
            "AWS_REGION": aws_region(),
            "CATALUNYA_ROLES": settings.roles,
            "CATALUNYA_LAMBDA_PREFIX": settings.lambda_prefix,
        }.items()
        if not value
    ]
    if missing:
        hint = "Set what the stack's outputs and docs/aws.md say"
        return CheckResult("settings of AWS", f"not set: {', '.join(missing)}", hint, well=False)
    return CheckResult("settings of AWS", f"region {aws_region()}, roles {settings.roles}…")


def _try(
    settings: Settings, role: Role, steps: Callable[[Settings], Iterator[Step]]
) -> Iterator[CheckResult]:
    what = f"role {settings.roles}{role}"
    wrong = False
    tried: list[str] = []
    try:
        with assume_role(role, settings):
            for step in steps(settings):
                tried.append(step.right)
                found = _failure(step)
                if found is not None:
                    wrong = True
                    yield CheckResult(what, *found, well=False)
    except CatalunyaError as error:
        # Who may not assume a role is told why in the message.
        text = str(error)
        yield CheckResult(what, text, "" if text.startswith("CATALUNYA_ROLES") else _hint(text), well=False)
        return
    if not wrong:
        yield CheckResult(what, ", ".join(dict.fromkeys(tried)))


def _failure(step: Step) -> tuple[str, str] | None:
    """Try a step; returns what failed and what to do, or None when the role may do it."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        step.attempt()
    except (Conflict, MissingKey):
        # The condition did not hold, or nothing was there: the right was checked before.
        return None
    except (CatalunyaError, BotoCoreError, ClientError) as error:
        text = _text(error)
        if not _IS_DENIED.search(text):
            return (
                f"{step.right} on {step.resource} failed: {text}",
                "Look the error up; it is no missing right",
            )
        named = _DENIED.search(text)
        right, resource = (named[1], named[2] or step.resource) if named else (step.right, step.resource)
        return f"{right} on {resource} is denied", _hint(text)
    return None


def _text(error: Exception) -> str:
    code = getattr(error, "response", {}).get("Error", {}).get("Code", "")
    return f"{code} {error}".strip()


def _hint(text: str) -> str:
    return _POLICY if "explicit deny" in text else _STACK


class _Lake:
    """The steps of one role in the lake."""

    def __init__(self, settings: Settings) -> None:
        storage = open_lake(settings.lake)
        if not isinstance(storage, S3Storage):
            raise UsageError(f"CATALUNYA_LAKE: {settings.lake!r} is no bucket; the stack's lake is one")
        self._storage = storage
        self._bucket = f"arn:aws:s3:::{storage.bucket}"

    def step(self, right: str, key: str, attempt: Callable[[str], object]) -> Step:
        return Step(right, f"{self._bucket}/{key}", lambda: attempt(key))

    def read(self, key: str) -> Step:
        return self.step("s3:GetObject", key, self._storage.read)

    def write(self, key: str) -> Step:
        """Write on a condition that cannot hold: nothing is written."""
        never = Version('"00000000000000000000000000000000"')
        return self.step("s3:PutObject", key, lambda key: self._storage.replace(key, b"{}", never))

    def delete(self, key: str) -> Step:
        return self.step("s3:DeleteObject", key, self._storage.delete)


def _orchestrator(settings: Settings) -> Iterator[Step]:
    lake = _Lake(settings)
    result = layout.part(PROBE, "ingest.doctor")
    yield lake.read(result)
    yield lake.delete(result)
    yield lake.write(f"{layout.ALERTS}/doctor.json")
    for stage in ("ingest", "stage"):
        name = f"{settings.lambda_prefix}-{stage}"
        yield Step("lambda:InvokeFunction", f"function {name}", partial(_dry_run, name))


def _dry_run(name: str) -> None:
    """Ask Lambda whether this role may invoke a function, which does not run."""
    _client("lambda").invoke(FunctionName=name, InvocationType="DryRun")


def _build(settings: Settings) -> Iterator[Step]:
    lake = _Lake(settings)
    yield lake.read(f"{layout.STAGING}/doctor/_index.json")
    for action in (lake.write, lake.read, lake.delete):
        yield action(layout.candidate(PROBE, "doctor.json"))
    yield lake.write(layout.part(PROBE, "build"))
    if settings.resolved_engine == "athena":
        engine = AthenaEngine(open_lake(settings.lake), settings)
        yield Step("athena:GetWorkGroup", f"workgroup {settings.athena_workgroup}", engine.check)
        yield from _queries(settings)
        yield from _candidate_schema(settings)


def _publish(settings: Settings) -> Iterator[Step]:
    lake = _Lake(settings)
    yield lake.write(layout.CURRENT)
    for key in (layout.release(PROBE, "doctor.json"), layout.docs(PROBE, "doctor.json")):
        yield lake.write(key)
        yield lake.delete(key)
    for action in (lake.read, lake.write, lake.delete):
        yield action(f"{layout.PUBLISHED}/doctor.json")
    yield lake.write(layout.ledger(PROBE))
    if settings.resolved_engine == "athena":
        yield from _queries(settings)
        schema = settings.sql_schema
        yield _glue("GetTables", f"database {schema}", lambda glue: glue.get_tables(DatabaseName=schema))
        yield _glue(
            "DeleteTable",
            f"table {schema}_releases.doctor",
            lambda glue: glue.delete_table(DatabaseName=f"{schema}_releases", Name="doctor"),
        )


def _monitor(settings: Settings) -> Iterator[Step]:
    lake = _Lake(settings)
    yield lake.read(layout.landing("doctor", PROBE, "manifest.json"))
    yield lake.write(f"{layout.ALERTS}/doctor.json")
    yield lake.delete(f"{layout.ALERTS}/doctor.json")


def _queries(settings: Settings) -> Iterator[Step]:
    """Run a query that reads nothing, which costs nothing; its result is written to the bucket of results."""
    engine = AthenaEngine(open_lake(settings.lake), settings)
    group = f"workgroup {settings.athena_workgroup}"
    yield Step("athena:StartQueryExecution", group, lambda: engine.query("select 1", "default"))


def _candidate_schema(settings: Settings) -> Iterator[Step]:
    """Make and delete the schema of a candidate, with a table."""
    schema = f"{settings.sql_schema}_candidate_{PROBE.lower().replace('-', '_')}"
    database, table = f"database {schema}", f"table {schema}.doctor"
    described = {"Name": "doctor", "StorageDescriptor": {"Columns": [{"Name": "x", "Type": "string"}]}}

    def make(glue: Any) -> None:
        with contextlib.suppress(glue.exceptions.AlreadyExistsException):
            glue.create_database(DatabaseInput={"Name": schema})

    yield _glue("CreateDatabase", database, make)
    yield _glue("CreateTable", table, lambda g: g.create_table(DatabaseName=schema, TableInput=described))
    yield _glue("GetTable", table, lambda glue: glue.get_table(DatabaseName=schema, Name="doctor"))
    yield _glue("DeleteTable", table, lambda glue: glue.delete_table(DatabaseName=schema, Name="doctor"))
    yield _glue("DeleteDatabase", database, lambda glue: glue.delete_database(Name=schema))


def _glue(operation: str, resource: str, call: Callable[[Any], object]) -> Step:
    def attempt() -> None:
        glue = _client("glue")
        # It was looked up, so the right was there.
        with contextlib.suppress(glue.exceptions.EntityNotFoundException):
            call(glue)

    return Step(f"glue:{operation}", resource, attempt)


def _client(service: str) -> Any:
    import boto3

    session: Any = boto3.Session(region_name=aws_region())
    return session.client(service)
