"""The command `catalunya`. People's words go to standard error, `--json` to standard output."""

from __future__ import annotations

import json
import logging
import re
import signal
import sys
import traceback
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, TextIO

import structlog
import typer
from rich.console import Console
from typer._click.exceptions import ClickException

from catalunya import __version__, publish, signals
from catalunya.build import Candidate, newest_candidate
from catalunya.cli.console import print_run, print_trace, reporter
from catalunya.datasets import generate, loader
from catalunya.demo.environment import portals
from catalunya.errors import CatalunyaError, LakeBusy, LakeCorrupt, Refused, SourceUnreadable, UsageError
from catalunya.ingest import holds_demo
from catalunya.lake import layout, snapshot
from catalunya.lake.lock import lake_lock
from catalunya.lake.opening import open_lake
from catalunya.lake.storage import Storage
from catalunya.operations import alerts
from catalunya.operations.doctor import examine
from catalunya.operations.status import describe, print_status
from catalunya.operations.trace import Selection, trace
from catalunya.release import repair_pointer, roll_back
from catalunya.runs.pipeline import Run
from catalunya.runs.record import RunRecord, last_seen, new_run_id
from catalunya.runs.steps import whole_lake
from catalunya.settings import PORTAL_VARIABLES, Settings, spare_loopback
from catalunya.signals import Stopped
from catalunya.warehouse.engines import open_engine

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
datasets_app = typer.Typer(no_args_is_help=True, help="The dataset definitions.")
demo_app = typer.Typer(no_args_is_help=True, help="The offline demo portal.")
app.add_typer(datasets_app, name="datasets")
app.add_typer(demo_app, name="demo")

_printed: list[bool] = []
"""Not empty once it is told how the command went: with --json, its one JSON object is on standard output."""

_answers: list[TextIO] = []
"""Standard output, where `--json` keeps it for the one object."""
err = Console(stderr=True, emoji=False, width=None if sys.stderr.isatty() else 132)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Force = Annotated[
    bool, typer.Option("--force", help="Read everything again, and publish although nothing is new.")
]
Rebuild = Annotated[
    bool, typer.Option("--rebuild", help="Stage every kept snapshot again, from the bytes in landing.")
]
Only = Annotated[
    list[str] | None, typer.Option("--dataset", "-d", help="Read only this dataset; may be repeated.")
]


def main() -> None:
    """Entry point of the command: it ends in its exit code, with one clear message, and with --json in one object."""
    _log_to_stderr()
    spare_loopback()
    signals.listen()
    words = sys.argv[1:]
    if "--json" in words:
        # Whatever a library prints goes elsewhere: standard output has the one JSON object and nothing else.
        _answers.append(sys.stdout)
        sys.stdout = sys.stderr
    sys.exit(_command(words))


def _command(words: list[str]) -> int:
    """Carry out a command; its exit code, whatever happens."""
    _printed.clear()
    code: object
    try:
        _refuse_empty(words)
        code = typer.main.get_command(app).main(words, standalone_mode=False)
        if code == Stopped(signal.SIGINT).exit_code and not _printed:
            # What Typer makes of every KeyboardInterrupt, ours too.
            signals.check()
    except CatalunyaError as error:
        return _failed(words, str(error), error.exit_code)
    except ClickException as error:
        error.show()
        return _failed(words, error.format_message(), error.exit_code, said=True)
    except (typer.Abort, KeyboardInterrupt) as error:
        stopped = error if isinstance(error, Stopped) else Stopped(signal.SIGINT)
        return _failed(words, str(stopped), stopped.exit_code)
    except SystemExit as done:
        code = done.code
        if code not in (0, None):
            number = code if isinstance(code, int) else 1
            return _failed(words, f"a library ended the command: {code}", number)
    except Exception as error:  # noqa: BLE001
        traceback.print_exception(error)
        return _failed(words, f"{type(error).__name__}: {error}", 1)
    return code if isinstance(code, int) else 0


def _failed(words: list[str], message: str, code: int, *, said: bool = False) -> int:
    """One message for a person unless it was `said`, one JSON object for a program; returns the code."""
    if "--json" in words and not _printed:
        _print_json({"status": "failed", "message": message, "exit_code": code})
    if not said:
        err.print("[bold red]error[/] ", end="")
        err.print(message, highlight=False, markup=False, soft_wrap=True)
    return code


def _refuse_empty(words: list[str]) -> None:
    """An empty word is a variable that nobody set: no option or argument of any command means something by it."""
    for number, word in enumerate(_visible(word) for word in words):
        option = re.fullmatch(r"(--?[A-Za-z][\w-]*)=", word)
        if word and not option:
            continue
        before = words[number - 1] if number else ""
        name = option[1] if option else before if before.startswith("-") else f"argument {number + 1}"
        raise UsageError(
            f"{name} is empty; give a value, or leave it out (an unset variable of the shell gives an empty one)"
        )


def _visible(word: str) -> str:
    """`word` without spaces, controls and other characters that nobody sees."""
    return "".join(character for character in word if unicodedata.category(character)[0] not in "CZ")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"catalunya {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Open data on care for older people in Catalonia: from the portals to a published release.

    People's words go to standard error, `--json` to standard output.
    """


@app.command()
def run(as_json: Json = False, force: Force = False, rebuild: Rebuild = False, dataset: Only = None) -> None:
    """Run every stage once: ingest, stage, build, audit, publish."""
    with _run(as_json) as current:
        current.all_stages(force=force, rebuild=rebuild, only=tuple(dataset or ()))


@app.command()
def ingest(as_json: Json = False, force: Force = False, dataset: Only = None) -> None:
    """Read the portals and land what is new."""
    with _run(as_json) as current:
        current.one_stage("ingest", lambda: _ingest(current, force=force, only=tuple(dataset or ())))


@app.command()
def stage(as_json: Json = False, rebuild: Rebuild = False) -> None:
    """Type what landed; quarantine the rows that break their declaration."""
    with _run(as_json) as current:
        current.one_stage("stage", lambda: _stage(current, again=rebuild))


@app.command()
def build(as_json: Json = False) -> None:
    """Build a candidate of the whole warehouse from all staged snapshots."""
    with _run(as_json) as current:
        current.one_stage("build", current.build)


@app.command()
def audit(as_json: Json = False) -> None:
    """Judge the newest candidate."""
    with _run(as_json) as current:
        current.one_stage("audit", lambda: current.audit(_candidate(current.storage)))


@app.command(name="publish")
def publish_command(as_json: Json = False) -> None:
    """Publish the newest candidate that passed its audit."""
    with _run(as_json) as current:
        current.one_stage("publish", lambda: current.publish(_candidate(current.storage)))


@app.command()
def status(as_json: Json = False) -> None:
    """Show the current release, the snapshots, what is refused, and who holds the lake."""
    settings = Settings.load()
    storage = open_lake(settings.lake)
    known = loader.load(settings.home / "datasets")
    answer = describe(storage, known, settings.now())
    if as_json:
        _print_json(answer)
    else:
        print_status(err, answer)


@app.command(name="trace")
def trace_command(
    mart: Annotated[str, typer.Argument(help="A table of the release, such as coverage_comarca.")],
    municipality: Annotated[str | None, typer.Option(help="Rows of this municipality_id.")] = None,
    comarca: Annotated[str | None, typer.Option(help="Rows of this comarca_id.")] = None,
    year: Annotated[int | None, typer.Option(help="Rows of this year.")] = None,
    service_group: Annotated[str | None, typer.Option(help="Rows of this service_group.")] = None,
    ownership: Annotated[str | None, typer.Option(help="Rows of this ownership.")] = None,
    service: Annotated[str | None, typer.Option(help="Rows of this service_id.")] = None,
    release: Annotated[str | None, typer.Option(help="Release; the one that readers see by default.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Hash every file again and compare.")] = False,
    as_json: Json = False,
) -> None:
    """Follow rows of a mart back to the snapshots, files, addresses and checksums behind them."""
    selection = Selection(municipality, comarca, year, service_group, ownership, service)
    storage = open_lake(Settings.load().lake)
    found = trace(storage, mart, selection, release_id=release, verify=verify)
    if as_json:
        _print_json(found.model_dump(mode="json"))
    else:
        print_trace(err, found)
    if found.faults:
        raise typer.Exit(LakeCorrupt.exit_code)


@app.command()
def doctor(
    deep: Annotated[bool, typer.Option("--deep", help="Start dbt and parse the project, too.")] = False,
    as_json: Json = False,
) -> None:
    """Find what is wrong with the set-up that dbt needs, and say how to correct it."""
    findings = examine(Settings.load(), deep=deep)
    if as_json:
        _print_json({"findings": [asdict(finding) for finding in findings]})
    for finding in findings:
        err.print("[green]well[/]  " if finding.well else "[bold red]wrong[/] ", end="")
        err.print(str(finding), highlight=False, markup=False, soft_wrap=True)
    if not all(finding.well for finding in findings):
        raise typer.Exit(UsageError.exit_code)


@app.command()
def parity(
    engines: Annotated[
        str, typer.Option(help="Engines to compare with the first of them, comma-separated.")
    ] = "duckdb,trino,athena",
    as_json: Json = False,
) -> None:
    """Build every mart from the staged snapshots on each engine and compare them row for row."""
    from catalunya.operations import parity as comparison

    settings = Settings.load()
    names = comparison.parse_engines(engines)
    storage = open_lake(settings.lake)
    known = loader.load(settings.home / "datasets")
    now = settings.now()
    with lake_lock(storage, new_run_id(now)), reporter(err) as told:
        told.begin("parity")
        found = comparison.parity(
            storage, known, settings, names, now=now, on_step=lambda line: told.step("parity", line)
        )
    words = [str(difference) for difference in found.differences]
    words += [f"{table}: {count} differences" for table, count in found.different.items()]
    rows = sum(found.built[0].rows.values())
    if not words:
        words = [f"{', '.join(names)} agree on {rows} rows of {len(found.built[0].rows)} marts"]
    status = "different" if found.different else "equal"
    _answer(as_json, {"status": status, **found.model_dump(mode="json")}, "\n".join(words))
    if found.different:
        raise typer.Exit(1)


@app.command()
def rollback(
    to: Annotated[
        str | None, typer.Option("--to", help="Release to go back to; the one before by default.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Swap the pointer back to an older release."""
    settings = Settings.load()
    storage = open_lake(settings.lake)
    now = settings.now()
    run_id = new_run_id(now)
    with lake_lock(storage, run_id) as lock:
        after, refused = roll_back(storage, lock, run_id=run_id, now=now, to=to)
        publish.show(storage, open_engine(storage, settings))
    address = storage.uri(layout.release(after.release_id))
    lines = [f"readers see {after.release_id} again: {address}"]
    lines += [
        f"{dataset_id}: {snapshot_id} came with the release that was left, and is refused until it is accepted: "
        f"`catalunya accept {snapshot_id} --why …`"
        for snapshot_id, dataset_id in refused.items()
    ]
    answer = {"status": "rolled back", "release_id": after.release_id, "release": address, "refused": refused}
    _answer(as_json, answer, "\n".join(lines))


@app.command()
def repair(
    to: Annotated[
        str | None, typer.Option("--to", help="Release to show; the newest whole one by default.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Point readers to the newest whole release when current.json is missing or damaged."""
    settings = Settings.load()
    storage = open_lake(settings.lake)
    now = settings.now()
    run_id = new_run_id(now)
    with lake_lock(storage, run_id) as lock:
        after = repair_pointer(storage, lock, run_id=run_id, now=now, to=to)
        publish.show(storage, open_engine(storage, settings))
    address = storage.uri(layout.release(after.release_id))
    _answer(
        as_json,
        {"status": "repaired", "release_id": after.release_id, "release": address},
        f"readers see {after.release_id}: {address}",
    )


@app.command()
def refuse(
    snapshot_id: str,
    why: Annotated[str, typer.Option("--why", help="Why the snapshot is wrong; kept beside the snapshot.")],
    as_json: Json = False,
) -> None:
    """Take a snapshot out of use, also one that is published: the next run releases without it."""
    if not why.strip():
        raise UsageError("--why is empty; say in a sentence why the snapshot is wrong")
    settings = Settings.load()
    storage = open_lake(settings.lake)
    known = loader.load(settings.home / "datasets")
    now = settings.now()
    run_id = new_run_id(now)
    with lake_lock(storage, run_id):
        dataset_id = snapshot.refuse_by_hand(storage, known, snapshot_id, why, now, run_id)
    _answer(
        as_json,
        {"status": "refused", "dataset_id": dataset_id, "snapshot_id": snapshot_id, "why": why},
        f"{dataset_id}: {snapshot_id} is refused; the next run releases without it",
    )


@app.command()
def accept(
    snapshot_id: str,
    why: Annotated[str, typer.Option("--why", help="Why the change is real; kept beside the snapshot.")],
    as_json: Json = False,
) -> None:
    """Lift the refusal of a snapshot whose change is real."""
    if not why.strip():
        raise UsageError("--why is empty; say in a sentence why the change is real")
    settings = Settings.load()
    storage = open_lake(settings.lake)
    known = loader.load(settings.home / "datasets")
    now = settings.now()
    with lake_lock(storage, new_run_id(now)):
        dataset_id = snapshot.accept(storage, known, snapshot_id, why, now)
    _answer(
        as_json,
        {"status": "accepted", "dataset_id": dataset_id, "snapshot_id": snapshot_id, "why": why},
        f"{dataset_id}: {snapshot_id} is accepted; the next run uses it",
    )


@datasets_app.command("check")
def datasets_check(as_json: Json = False) -> None:
    """Find every mistake in the definitions, with file, line and remedy."""
    folder = Settings.load().home / "datasets"
    good, mistakes = loader.check(folder)
    if as_json:
        found = [{"file": str(m.file), "line": m.line, "message": m.message} for m in mistakes]
        _print_json({"datasets": [d.id for d in good], "mistakes": found})
    for mistake in mistakes:
        err.print(str(mistake), highlight=False, markup=False, soft_wrap=True)
    if mistakes:
        err.print(f"{len(mistakes)} mistakes in {folder}", highlight=False)
        raise typer.Exit(UsageError.exit_code)
    err.print(f"{len(good)} definitions are right: {', '.join(d.id for d in good)}", highlight=False)


@datasets_app.command("generate")
def datasets_generate(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; fail when a file is stale.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write the files that are made from the definitions: dbt sources, dictionary, attribution."""
    home = Settings.load().home
    wanted = generate.generated_files(home, loader.load(home / "datasets"))
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text("utf-8") != text]
    names = [path.relative_to(home).as_posix() for path in stale]
    if not check:
        for path in stale:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path], "utf-8")
    _answer(as_json, {"stale": names}, f"{'stale' if check else 'written'}: {', '.join(names) or 'nothing'}")
    if check and stale:
        raise typer.Exit(1)


@demo_app.command("serve")
def demo_serve(
    port: Annotated[int, typer.Option(help="Port on loopback.")] = 8081,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    day: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="State of the demo register on this day.")
    ] = None,
    files: Annotated[
        Path | None, typer.Option("--from", help="Serve the real files of this folder instead.")
    ] = None,
    rows: Annotated[int | None, typer.Option(help="Make a register of so many rows, for benchmarks.")] = None,
    fault: Annotated[
        list[str] | None, typer.Option(help="Inject a fault, NAME[=VALUE]; may be repeated.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Serve the demo portal: Socrata, Idescat and ICGC on one loopback port."""
    from catalunya.demo import server

    base = f"http://{host}:{port}"
    names = PORTAL_VARIABLES
    _answer(
        as_json,
        {"url": base},
        f"demo portal at {base}; point the pipeline at it with\n  "
        + " ".join(f"{name}={base}" for name in names),
    )
    server.serve(
        host=host,
        port=port,
        day=day.date() if day else _demo_day(),
        files=files,
        faults=fault or [],
        rows=rows,
    )


def _demo_day() -> date | None:
    moment = Settings.load().now_override
    return moment.date() if moment else None


@contextmanager
def _run(as_json: bool) -> Iterator[Run]:
    """A run that holds the lake. However it ends: one record in the ledger, one alert where it went wrong, one JSON object.

    A lake that is held by another run, and what is wrong before the lake is held, leave no record: nothing was started.
    """
    settings = Settings.load()
    storage: Storage | None = None
    now = settings.now()
    record = RunRecord(
        run_id=new_run_id(now),
        environment=settings.environment,
        engine=settings.resolved_engine,
        lake=settings.lake,
        started_at=now,
    )
    try:
        known = loader.load(settings.home / "datasets")
        storage = open_lake(settings.lake)
        record.lake = storage.url
        with whole_lake(storage, record.run_id, known) as lock:
            try:
                with portals(settings) as chosen, reporter(err) as told:
                    current = Run(chosen, storage, known, lock, told, record.run_id)
                    record = current.record
                    yield current
                if record.exit_code:
                    signals.check()
            except GeneratorExit:
                raise
            except BaseException as error:  # noqa: BLE001
                signals.defer()
                _break_off(storage, record, error)
    except LakeBusy:
        raise
    except (Exception, KeyboardInterrupt) as error:
        signals.defer()
        _end_by(record, error)
        _alert(storage, settings, record)
        raise
    signals.defer()
    print_run(err, record, demo=settings.environment == "demo" or holds_demo(storage) is True)
    _alert(storage, settings, record)
    _printed.append(True)
    if as_json:
        _print_json(record.model_dump(mode="json", exclude={"seen"}))
    raise typer.Exit(record.exit_code)


def _break_off(storage: Storage, record: RunRecord, error: BaseException) -> None:
    """Put into the ledger how a run ended that could not do so itself."""
    if not isinstance(error, CatalunyaError | KeyboardInterrupt):
        traceback.print_exception(error)
    _end_by(record, error)
    try:
        record.seen = record.seen or last_seen(storage, record.started_at)
        storage.put(layout.ledger(record.run_id), record.model_dump_json(indent=1).encode())
    except CatalunyaError as fault:
        record.warn(f"this run is not in the ledger: {fault}")


def _end_by(record: RunRecord, error: BaseException) -> None:
    """Put an error of any kind into the record of a run; what it had released stays released."""
    if isinstance(error, CatalunyaError):
        message, code = str(error), error.exit_code
    elif isinstance(error, KeyboardInterrupt):
        code = error.exit_code if isinstance(error, Stopped) else Stopped(signal.SIGINT).exit_code
        message = f"{error or 'stopped'} before it was done; the next run begins afresh"
    else:
        message, code = f"{type(error).__name__}: {error}; the traceback is on standard error", 1
    released = record.status == "released"
    record.message = f"{record.message}; then: {message}" if released else message
    record.exit_code = code
    if not released:
        record.status = "refused" if isinstance(error, Refused) else "failed"


def _alert(storage: Storage | None, settings: Settings, record: RunRecord) -> None:
    """Tell of a run; a fault in telling changes nothing of how it ended."""
    try:
        well = alerts.deliver(storage, settings.notify_urls, alerts.of_run(record))
    except Exception:  # noqa: BLE001
        traceback.print_exc()
        well = False
    if not well:
        err.print("CATALUNYA_NOTIFY_URLS: an alert was not delivered; check the addresses")


def _ingest(current: Run, *, force: bool, only: tuple[str, ...]) -> None:
    current.ingest(force=force, only=only)
    outcomes = {record.outcome for record in current.record.datasets.values()}
    if outcomes & {"unreadable", "drifted"} and "new" not in outcomes:
        current.record.exit_code = SourceUnreadable.exit_code


def _stage(current: Run, *, again: bool) -> None:
    current.restore_staged()
    current.stage(again=again)
    current.raise_refusals()


def _candidate(storage: Storage) -> Candidate:
    found = newest_candidate(storage)
    if found is None:
        raise UsageError("there is no candidate; run `catalunya build` first")
    return found


def _answer(as_json: bool, content: dict[str, Any], words: str) -> None:
    if as_json:
        _print_json(content)
    err.print(words, highlight=False, markup=False, soft_wrap=True)


def _print_json(content: dict[str, Any]) -> None:
    _printed.append(True)
    typer.echo(json.dumps(content, ensure_ascii=False), file=_answers[-1] if _answers else None)


def _log_to_stderr() -> None:
    """Structured lines on standard error from warnings up; bars and tables say the rest."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


if __name__ == "__main__":
    main()
