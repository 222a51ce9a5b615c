"""What a person sees of a run: bars on a terminal, plain lines elsewhere, and tables at the end."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from catalunya import log
from catalunya.errors import printable
from catalunya.publication.demo_notice import NOTICE
from catalunya.settings import LOOPBACK_SITE

if TYPE_CHECKING:
    from catalunya.operations.trace import Trace, TracedFile
    from catalunya.runs.record import RunRecord
    from catalunya.runs.reporter import Reporter

_log = log.get_logger(__name__)
_SHOWN_ROWS = 20
_COLOURS = {"done": "green", "released": "green", "unchanged": "cyan", "skipped": "dim"}


def print_line(console: Console, text: str) -> None:
    """Print `text` as it is, in one piece however long it is."""
    console.print(printable(text), highlight=False, markup=False, soft_wrap=True)


class LogReporter:
    """Logs one event for each stage that begins or ends, and for what a stage did."""

    def begin(self, stage: str) -> None:
        """Log that a stage begins."""
        _log.info("stage begins", stage=stage)

    def step(self, stage: str, what: str, done: int | None = None, total: int | None = None) -> None:
        """Log an event; rows in progress are left out."""
        if done is None:
            _log.info(what, stage=stage)

    def end(self, stage: str, status: str, seconds: float) -> None:
        """Log how a stage ended."""
        _log.info("stage ended", stage=stage, status=status, seconds=round(seconds, 3))


class PlainReporter:
    """Prints one line for each event, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def begin(self, stage: str) -> None:
        """Print that a stage begins."""
        self._console.print(f"{stage} ...", highlight=False)

    def step(self, stage: str, what: str, done: int | None = None, total: int | None = None) -> None:
        """Print an event; rows in progress are left out, they are too many for a log."""
        if done is None:
            print_line(self._console, f"  {what}")

    def end(self, stage: str, status: str, seconds: float) -> None:
        """Print how a stage ended."""
        self._console.print(f"{stage} {status} ({seconds:.1f} s)", highlight=False)


def reporter(console: Console) -> AbstractContextManager[Reporter]:
    """Return bars when `console` is a terminal, plain lines when it is not, events when logs are JSON."""
    if log.is_json():
        return nullcontext(LogReporter())
    if not console.is_terminal:
        return nullcontext(PlainReporter(console))
    from catalunya.cli.progress import BarReporter

    return BarReporter(console)


def print_run(console: Console, record: RunRecord, *, demo: bool) -> None:
    """Print the summary of a run: its datasets, stages and warnings, how it ended, and where the release is."""
    if log.is_json():
        _log_run(record, demo=demo)
        return
    console.print()
    if demo:
        print_line(console, NOTICE)
    title = f"run {record.run_id} ({record.environment})"
    table = _table(title, "dataset", "source", "snapshot", no_wrap=True)
    for name in ("rows in", "staged", "quarantined", "duplicates", "requests", "MB"):
        table.add_column(name, justify="right")
    for dataset_id, d in record.datasets.items():
        rows = (d.rows_in, d.rows_staged, d.rows_quarantined, d.rows_duplicated)
        counts = [f"{count:,}" for count in rows]
        size = f"{d.bytes / 1e6:.2f}"
        table.add_row(dataset_id, d.outcome, d.snapshot_id or "none", *counts, str(d.requests), size)
    console.print(table)
    stages = " · ".join(
        f"[{_COLOURS.get(s.status, 'red')}]{s.name} {s.status}[/] {s.seconds:.1f} s" for s in record.stages
    )
    console.print(stages, highlight=False)
    for warning in record.warnings:
        console.print("[yellow]warning[/yellow] ", end="")
        print_line(console, warning)
    alone = record.message == f"{record.stages[-1].name} done" if record.stages else False
    outcome = "done" if alone else record.status
    colour = _COLOURS.get(outcome, "red")
    console.print(f"[bold {colour}]{outcome}[/] in {record.seconds:.1f} s: ", end="", highlight=False)
    print_line(console, record.message)
    if record.release:
        print_line(console, f"release {record.release}")
    if record.release and not record.exit_code:
        shown = "`make site`, or `catalunya site build` and `catalunya site serve`"
        print_line(console, f"its site, at {LOOPBACK_SITE}/: {shown}")


def _log_run(record: RunRecord, *, demo: bool) -> None:
    """Log what `print_run` prints: an event for each dataset and warning, and one for the run."""
    with log.bound(run=record.run_id):
        for dataset_id, d in record.datasets.items():
            counts = {"rows_in": d.rows_in, "staged": d.rows_staged, "quarantined": d.rows_quarantined}
            _log.info("dataset", dataset=dataset_id, outcome=d.outcome, snapshot=d.snapshot_id, **counts)
        for warning in record.warnings:
            _log.warning(warning)
        _log.info(
            "run ended", status=record.status, message=record.message, seconds=record.seconds, release=record.release,
            exit_code=record.exit_code, demo=demo,
        )  # fmt: skip


def print_status(console: Console, status: dict[str, Any]) -> None:
    """Print the answer of `operations.status.describe`: a table of datasets, then faults and refusals."""
    names = ("dataset", "accepted", "pending", "newest in use", "age", "refused")
    table = _table(f"lake {status['lake']}", *names)
    for dataset_id, d in status["datasets"].items():
        age = "" if d["age_hours"] is None else f"{d['age_hours']:.1f} h"
        pending, refused = str(len(d["pending"])), ", ".join(d["refused"]) or "none"
        table.add_row(dataset_id, str(d["accepted"]), pending, d["snapshot_id"] or "none", age, refused)
    console.print(table)
    lines = [f"release {status['release_id'] or 'none yet'}"]
    if status["faults"]:
        lines += [*status["faults"], f"newest whole release: {status['newest_whole_release'] or 'none'}"]
    if status["demo"]:
        lines.append(NOTICE)
    if status["release"]:
        lines.append(status["release"])
    for dataset_id, d in status["datasets"].items():
        lines += [f"{dataset_id} {name}: {refusal['reason']}" for name, refusal in d["refused"].items()]
    if status["last_run"]:
        lines.append(f"last run {status['last_run']['run_id']}: {status['last_run']['status']}")
    if status["holder"]:
        lines.append(f"the lake is locked by run {status['holder']['holder']}")
    print_line(console, "\n".join(lines))


def _table(title: str, *columns: str, no_wrap: bool = False) -> Table:
    table = Table(title=title, title_justify="left")
    for name in columns:
        table.add_column(name, no_wrap=no_wrap)
    return table


def print_trace(console: Console, trace: Trace) -> None:
    """Print rows of a mart, then the snapshots that they come from, with files, addresses and checksums."""
    demo = " (DEMO DATA)" if trace.demo else ""
    lines = [f"{trace.mart} of release {trace.release_id}{demo}: {trace.rows_found:,} rows"]
    if trace.demo:
        lines.append(NOTICE)
    for row in trace.rows[:_SHOWN_ROWS]:
        lines.append("  " + ", ".join(f"{name}={value}" for name, value in row.items() if value is not None))
    if trace.rows_found > _SHOWN_ROWS:
        lines.append(f"  and {trace.rows_found - _SHOWN_ROWS:,} more")
    lines += [_file("released", file) for file in trace.files]
    for snapshot in trace.snapshots:
        lines.append(
            f"{snapshot.dataset_id} {snapshot.snapshot_id}, taken {snapshot.taken_at:%Y-%m-%d %H:%M} UTC: {snapshot.gives}"
        )
        lines += [_file("landed", file) for file in snapshot.landing]
        if snapshot.staging:
            lines.append(_file("staged", snapshot.staging))
    built = ", ".join(f"{count} of {name}" for name, count in trace.built_from.items())
    revision = f", revision {trace.code_revision}" if trace.code_revision else ""
    lines.append(f"built from all accepted snapshots ({built}) by code {trace.code_sha256[:16]}{revision}")
    lines += [f"fault: {fault}" for fault in trace.faults]
    if trace.verified and not trace.faults:
        lines.append(
            "verified: every landed, staged and released file named here has the SHA-256 that was recorded"
        )
    print_line(console, "\n".join(lines))


def _file(kind: str, file: TracedFile) -> str:
    size = f", {file.size:,} bytes" if file.size is not None else ""
    rows = f", {file.rows:,} rows" if file.rows is not None else ""
    source = f"\n           from {file.url}" if file.url else ""
    return f"  {kind:<8} {file.address}{size}{rows}\n           SHA-256 {file.sha256}{source}"
