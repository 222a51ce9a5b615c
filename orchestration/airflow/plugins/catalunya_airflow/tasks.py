"""The functions of the tasks: each does one step of a run through the library and logs its progress."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.sdk import get_current_context
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from catalunya.identity import assume_role
from catalunya.publication.demo_notice import NOTICE
from catalunya_airflow import assets, lineage

if TYPE_CHECKING:
    from catalunya.errors import Refused
    from catalunya.runs.record import DatasetRecord
    from catalunya.runs.steps import StepwiseRun
    from catalunya.settings import Settings
    from catalunya.warehouse.dbt import NodeResult

log = logging.getLogger(__name__)


class AlertAlreadySent(AirflowFailException):
    """The run failed, and the task at fault has sent the alert."""


class LogReporter:
    """Writes the progress of a run into the log of the task."""

    def begin(self, stage: str) -> None:
        """Log the start of a stage."""
        log.info("%s begins", stage)

    def step(self, stage: str, what: str, done: int | None = None, total: int | None = None) -> None:
        """Log what happened, without the progress in rows."""
        if done is None:
            log.info("%s", what)

    def end(self, stage: str, status: str, seconds: float) -> None:
        """Log the end of a stage."""
        log.info("%s %s in %.1f s", stage, status, seconds)


def settings_of(context: Mapping[str, Any]) -> Settings:
    """Return the settings of the environment, with the engine of the DAG run's parameters."""
    from catalunya.settings import Settings

    settings = Settings.load()
    engine = context["params"].get("engine")
    return settings.model_copy(update={"engine": engine}) if engine else settings


def run_id_of(context: Mapping[str, Any], settings: Settings) -> str:
    """Return the id of the run in the lake: the same in every task and every try of a DAG run."""
    from catalunya.runs import steps

    run = context["dag_run"]
    return steps.run_id_of(f"{run.dag_id} {run.run_id}", settings.now_override or run.run_after)


def run_of(context: Mapping[str, Any]) -> StepwiseRun:
    """Return this DAG run as a run in steps."""
    from catalunya.runs.steps import StepwiseRun

    settings = settings_of(context)
    return StepwiseRun(settings, run_id_of(context, settings), LogReporter())


@contextmanager
def final_errors() -> Iterator[None]:
    """Fail the task without a retry on errors that a retry would meet again."""
    from catalunya.errors import LakeCorrupt, Refused, UsageError
    from catalunya.lake.pointer import PointerMoved

    try:
        yield
    except (Refused, UsageError, LakeCorrupt, PointerMoved) as error:
        raise AirflowFailException(str(error)) from error


def check_dbt_connection() -> list[str]:
    """Check the set-up of dbt without starting dbt; fails with each fault and its correction."""
    from catalunya.operations.doctor import examine

    context = get_current_context()
    with final_errors():
        settings = settings_of(context)
        findings = examine(settings)
        for finding in findings:
            log.log(logging.INFO if finding.well else logging.ERROR, "%s", finding)
        wrong = [str(finding) for finding in findings if not finding.well]
        if wrong:
            raise AirflowFailException("; ".join(wrong))
        return [str(finding) for finding in findings]


def wanted(context: Mapping[str, Any]) -> list[str]:
    """Return the datasets that this run reads."""
    return list(context["params"].get("datasets") or assets.DATASETS)


def ingest(dataset_id: str) -> dict[str, Any]:
    """Read one source and land what is new."""
    context = get_current_context()
    if dataset_id not in wanted(context):
        raise AirflowSkipException(f"{dataset_id} was not asked for")
    with final_errors():
        result = run_of(context).ingest(dataset_id, force=bool(context["params"].get("force")))
    return ingested(context, dataset_id, result)


def ingested(context: Mapping[str, Any], dataset_id: str, result: DatasetRecord) -> dict[str, Any]:
    """Return the result of a task of `ingest`; emits an asset event for new content."""
    if result.outcome == "new":
        extra = {"snapshot_id": result.snapshot_id, "rows": result.rows_in}
        context["outlet_events"][assets.landed].add(assets.dataset(dataset_id), extra=extra)
    return result.model_dump(include={"outcome", "snapshot_id", "rows_in", "requests", "bytes"})


def stage(dataset_id: str) -> dict[str, Any]:
    """Type the landed snapshots of one dataset; a refused snapshot does not stop the other datasets."""
    from catalunya.errors import Refused

    context = get_current_context()
    with final_errors():
        try:
            result = run_of(context).stage(dataset_id, force=bool(context["params"].get("full_rebuild")))
        except Refused as refusal:
            return refused(context, refusal)
    return staged(result)


def refused(context: Mapping[str, Any], refusal: Refused) -> dict[str, Any]:
    """Return the result of a task of `stage` whose snapshots are refused; sends an alert for each."""
    from catalunya.operations import alerts as notify
    from catalunya_airflow import alerts

    log.error("%s", refusal)
    alerts.deliver(notify.of_refused(refusal.snapshots, context["ti"].log_url))
    return {"outcome": "refused", "snapshots": list(refusal.snapshots), "message": str(refusal)}


def staged(result: DatasetRecord) -> dict[str, Any]:
    """Return the result of a task of `stage`."""
    counts = {"rows_in", "rows_staged", "rows_quarantined", "rows_duplicated", "reasons", "snapshot_id"}
    return result.model_dump(include=counts)


@assume_role("build")
def build() -> dict[str, int]:
    """Build the marts with dbt, in this process."""
    from catalunya.errors import BuildFailed, NothingElseNew

    context = get_current_context()
    stepwise = run_of(context)
    try:
        with final_errors():
            nodes = stepwise.build().nodes
    except AirflowFailException as error:
        if isinstance(error.__cause__, NothingElseNew):
            # The tasks that refused it sent the alerts.
            raise AlertAlreadySent(str(error)) from error
        raise
    except BuildFailed as error:
        lineage.emit(context["ti"], stepwise.run_id, error.nodes, stepwise.settings.project_url)
        _table("models and seeds", error.nodes)
        raise
    lineage.emit(context["ti"], stepwise.run_id, nodes, stepwise.settings.project_url)
    return _table("models and seeds", nodes)


@assume_role("build")
def audit() -> dict[str, int]:
    """Audit the candidate."""
    context = get_current_context()
    with final_errors():
        verdict = run_of(context).audit()
    for sentence in verdict.sentences("warn"):
        log.warning("%s", sentence)
    return _table("tests", verdict.nodes)


@assume_role("publish")
def publish() -> str:
    """Publish the candidate; emits an asset event for each mart."""
    context = get_current_context()
    with final_errors():
        release = run_of(context).publish()
    for name, rows in release.rows.items():
        extra = {"rows": rows, "release_id": release.release_id, "demo": release.demo}
        context["outlet_events"][assets.mart(name)].extra = extra
    if release.demo:
        log.warning(NOTICE)
    log.info("%s", table(["mart", "rows"], release.rows.items()))
    return release.release_id


@assume_role("publish")
def docs() -> str:
    """Write dbt's documentation of the release."""
    context = get_current_context()
    with final_errors():
        address = run_of(context).docs()
    log.info("documentation at %s", address)
    return address


@assume_role("publish")
def site() -> str:
    """Show the public site of the release that readers see; skips where that is shown already, by the present code."""
    from catalunya.datasets import loader
    from catalunya.lake.opening import open_lake
    from catalunya.release import current_release
    from catalunya.site.material import Material
    from catalunya.site.publisher import Publisher
    from catalunya.site.publishing import open_place, place_of, refresh

    settings = settings_of(get_current_context())
    address = place_of(settings)
    if address is None:
        raise AirflowSkipException(
            "the lake is no local folder and CATALUNYA_SITE is not set: there is no site"
        )
    with final_errors():
        storage = open_lake(settings.lake)
        release = current_release(storage)
        if release is None:
            raise AirflowSkipException("there is no release yet")
        datasets = loader.load(settings.home / "datasets")
        publisher = Publisher.of(settings)
        material = Material(storage, datasets, release, settings.site_url, publisher, settings.home)
        built = refresh(open_place(address), material)
    if built is None:
        raise AirflowSkipException(f"the site of {release.release_id} is shown already")
    log.info("%s pages, %.0f MB: %s of %s", f"{built.pages:,}", built.bytes / 1e6, built.folder.name, address)
    return built.folder.name


@assume_role("publish")
def finish() -> dict[str, Any]:
    """Write the record of the run into the ledger and send alerts; fails when the run failed."""
    from catalunya.operations import alerts as notify

    context = get_current_context()
    with final_errors():
        stepwise = run_of(context)
        record = stepwise.finish()
    link = context["ti"].log_url
    notify.deliver(stepwise.storage, stepwise.settings.alert_addresses, notify.of_findings(record, link))
    rows = [
        (name, d.outcome, d.snapshot_id, d.rows_in, d.rows_staged, d.rows_quarantined, d.rows_duplicated)
        for name, d in record.datasets.items()
    ]
    titles = ["dataset", "source", "snapshot", "rows in", "staged", "quarantined", "duplicates"]
    log.info("%s", table(titles, rows))
    for warning in record.warnings:
        log.warning("%s", warning)
    log.info("%s: %s", record.status, record.message)
    if record.status == "released" and not stepwise.documented(record.release_id):
        raise AlertAlreadySent("released, but without its documentation: see generate_dbt_docs")
    if record.exit_code:
        raise AlertAlreadySent(f"{record.status}: {record.message}")
    return record.model_dump(mode="json", include={"run_id", "status", "release_id", "release", "message"})


@assume_role("publish")
def apply_retention() -> list[str]:
    """Delete old releases and the state of abandoned runs; archive old records of the ledger."""
    from catalunya.lake.opening import open_lake
    from catalunya.operations import maintenance

    context = get_current_context()
    settings = settings_of(context)
    storage = open_lake(settings.lake)
    run_id = run_id_of(context, settings)
    gone = maintenance.retain(storage, run_id, settings.keep_releases, settings.now())
    log.info("deleted: %s", "; ".join(gone) or "nothing")
    return gone


@assume_role("monitor")
def verify_snapshots(dataset_id: str) -> int:
    """Compare today's share of a dataset's landed files with their checksums, or read all; fails when one differs."""
    from catalunya.lake.opening import open_lake
    from catalunya.operations import maintenance

    context = get_current_context()
    settings = settings_of(context)
    storage = open_lake(settings.lake)
    day = None if context["params"].get("full") else settings.now().date()
    looked, wrong = maintenance.verify(storage, dataset_id, day=day, on_snapshot=log.info)
    if wrong:
        raise AirflowFailException("; ".join(wrong))
    return looked


@assume_role("monitor")
def check_freshness() -> dict[str, int]:
    """Send alerts for sources that are overdue; returns the days since each source was updated."""
    from catalunya.datasets import loader
    from catalunya.lake.opening import open_lake
    from catalunya.operations import alerts as notify
    from catalunya.operations import maintenance

    context = get_current_context()
    settings = settings_of(context)
    storage = open_lake(settings.lake)
    found = maintenance.freshness(storage, loader.load(settings.home / "datasets"), settings.now())
    titles = ["dataset", "updated", "days ago", "cadence in days"]
    log.info("%s", table(titles, [(f.dataset_id, f.updated_at, f.age_days, f.cadence_days) for f in found]))
    silent = [
        notify.of_silence(f.dataset_id, f.snapshot_id, f.age_days, f.cadence_days, context["ti"].log_url)
        for f in found
        if f.silent
    ]
    notify.deliver(storage, settings.alert_addresses, silent)
    return {f.dataset_id: f.age_days for f in found}


def _table(title: str, nodes: tuple[NodeResult, ...]) -> dict[str, int]:
    """Log dbt's results as a table; returns the number of nodes by status."""
    log.info(
        "%s\n%s", title, table(["node", "status", "seconds"], [(n.name, n.status, n.seconds) for n in nodes])
    )
    return dict(Counter(node.status for node in nodes))


def table(titles: list[str], rows: Any) -> str:
    """Return a table as plain text, each column as wide as its longest value."""
    lines = [titles, *([str(value) for value in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    return "\n".join(
        "  ".join(f"{value:<{w}}" for value, w in zip(line, widths, strict=True)) for line in lines
    )
