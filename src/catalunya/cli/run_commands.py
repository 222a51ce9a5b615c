"""The commands that run stages: `run`, `ingest`, `stage`, `build`, `audit`, `publish`.

What a command needs is imported when it runs: the help and the other commands do not wait for it.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from catalunya import log, signals
from catalunya.cli.console import print_line, print_run, reporter
from catalunya.cli.output import Json, err, print_json, set_answered
from catalunya.errors import LakeBusy, SourceUnreadable, UsageError

if TYPE_CHECKING:
    from catalunya.build import Candidate
    from catalunya.lake.storage import Storage
    from catalunya.runs.pipeline import Run
    from catalunya.runs.record import RunRecord
    from catalunya.settings import Settings

app = typer.Typer()

Force = Annotated[
    bool, typer.Option("--force", help="Read every source again, and publish although nothing is new.")
]
Rebuild = Annotated[
    bool, typer.Option("--rebuild", help="Stage every kept snapshot again, from the bytes in landing.")
]
Only = Annotated[
    list[str] | None, typer.Option("--dataset", "-d", help="Read only this dataset; may be repeated.")
]


@app.command()
def run(as_json: Json = False, force: Force = False, rebuild: Rebuild = False, dataset: Only = None) -> None:
    """Run every stage once: ingest, stage, build, audit, publish."""
    only = tuple(dataset or ())
    _execute(as_json, lambda run: run.all_stages(force=force, rebuild=rebuild, only=only))


@app.command()
def ingest(as_json: Json = False, force: Force = False, dataset: Only = None) -> None:
    """Read the portals and land what is new."""

    def work(run: Run) -> None:
        run.ingest(force=force, only=tuple(dataset or ()))
        outcomes = {record.outcome for record in run.record.datasets.values()}
        if outcomes & {"unreadable", "drifted"} and "new" not in outcomes:
            run.record.exit_code = SourceUnreadable.exit_code

    _execute(as_json, work, "ingest")


@app.command()
def stage(as_json: Json = False, rebuild: Rebuild = False) -> None:
    """Type the rows of what landed; quarantine those that do not fit the definition of their dataset."""

    def work(run: Run) -> None:
        run.restore_staged()
        run.stage(force=rebuild)
        run.raise_refusals()

    _execute(as_json, work, "stage")


@app.command()
def build(as_json: Json = False) -> None:
    """Build a candidate of the whole warehouse from all staged snapshots."""
    _execute(as_json, lambda run: run.build(), "build")


@app.command()
def audit(as_json: Json = False) -> None:
    """Judge the newest candidate."""
    _execute(as_json, lambda run: run.audit(_candidate(run.storage)), "audit")


@app.command()
def publish(as_json: Json = False) -> None:
    """Publish the newest candidate that passed its audit."""
    _execute(as_json, lambda run: run.publish(_candidate(run.storage)), "publish")


def _candidate(storage: Storage) -> Candidate:
    from catalunya.build import newest_candidate

    found = newest_candidate(storage)
    if found is None:
        raise UsageError("there is no candidate; run `catalunya build` first")
    return found


def _execute(as_json: bool, work: Callable[[Run], object], stage: str | None = None) -> None:
    """Lock the lake and do `work`, with one record in the ledger, one alert where it failed, and one JSON object.

    Nothing is recorded when another run has locked the lake, or of an error before it is locked: nothing was started.
    """
    from catalunya.datasets import loader
    from catalunya.ingest import holds_demo
    from catalunya.lake.opening import open_lake
    from catalunya.runs.pipeline import Run
    from catalunya.runs.record import RunRecord
    from catalunya.runs.steps import whole_lake
    from catalunya.settings import Settings

    settings = Settings.load()
    record = RunRecord.start(settings)
    storage: Storage | None = None
    try:
        datasets = loader.load(settings.home / "datasets")
        storage = open_lake(settings.lake)
        record.lake = storage.url
        with (
            log.bound(run=record.run_id),
            whole_lake(storage, record.run_id, datasets) as lock,
            reporter(err) as progress,
        ):
            run = Run(settings, storage, datasets, lock, progress, record)
            run.execute(lambda: work(run), stage)
    except LakeBusy:
        raise
    except (Exception, KeyboardInterrupt) as error:
        signals.defer()
        record.end(signals.stopped() or error)
        _alert(storage, settings, record)
        raise
    print_run(err, record, demo=settings.environment == "demo" or holds_demo(storage) is True)
    _alert(storage, settings, record)
    set_answered(True)
    if as_json:
        print_json(record.model_dump(mode="json", exclude={"seen"}))
    raise typer.Exit(record.exit_code)


def _alert(storage: Storage | None, settings: Settings, record: RunRecord) -> None:
    """Send the alerts of a run; one that cannot be sent does not change how the run ended."""
    from catalunya.operations import alerts

    try:
        delivered = alerts.deliver(storage, settings.alert_addresses, alerts.of_run(record))
    except Exception:  # noqa: BLE001
        traceback.print_exc()
        delivered = False
    if not delivered:
        print_line(err, "CATALUNYA_NOTIFY_URLS: an alert was not delivered; check the addresses")
