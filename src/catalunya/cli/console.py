"""What a person sees of a run: bars on a terminal, plain lines elsewhere, and a table at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from catalunya.operations.trace import Trace, TracedFile
from catalunya.publication.demo_notice import NOTICE
from catalunya.runs.pipeline import Reporter
from catalunya.runs.record import RunRecord

_SHOWN_ROWS = 20
_COLOURS = {"done": "green", "released": "green", "unchanged": "cyan", "skipped": "dim"}


class PlainReporter:
    """One line an event, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def begin(self, stage: str) -> None:
        """Say that a stage begins."""
        self._console.print(f"{stage} ...", highlight=False)

    def step(self, stage: str, what: str, done: int | None = None, total: int | None = None) -> None:
        """Say what happened; rows in progress are left out, they would be a flood."""
        if done is None:
            self._console.print(f"  {what}", highlight=False, markup=False, soft_wrap=True)

    def end(self, stage: str, status: str, seconds: float) -> None:
        """Say how a stage ended."""
        self._console.print(f"{stage} {status} ({seconds:.1f} s)", highlight=False)


class BarReporter:
    """A live line a stage, with a bar where the number of rows is known."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓[/green]"),
            TextColumn("{task.fields[stage]:<8}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            # Without markup, which would turn `:id` in an address into a picture and `[x]` into nothing.
            TextColumn("{task.description}", style="dim", markup=False),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> BarReporter:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, stage: str) -> None:
        """Open the stage's line."""
        self._tasks[stage] = self._progress.add_task("", stage=stage, total=None)

    def step(self, stage: str, what: str, done: int | None = None, total: int | None = None) -> None:
        """Move the stage's bar or change its words."""
        task = self._tasks.get(stage)
        if task is None:
            return
        if done is None:
            self._progress.update(task, description=what)
        else:
            self._progress.update(task, description=f"{what} {done:,} rows", completed=done, total=total)

    def end(self, stage: str, status: str, seconds: float) -> None:
        """Close the stage's line."""
        task = self._tasks.get(stage)
        if task is None:
            task = self._progress.add_task("", stage=stage, total=1)
        self._progress.update(task, description=status, total=1, completed=1)


@contextmanager
def reporter(console: Console, *, quiet: bool = False) -> Iterator[Reporter]:
    """Bars when `console` is a terminal, plain lines when it is not."""
    if console.is_terminal and not quiet:
        with BarReporter(console) as bars:
            yield bars
    else:
        yield PlainReporter(console)


def print_run(console: Console, record: RunRecord, *, demo: bool) -> None:
    """The summary of a run: a table of datasets, one of stages, warnings, and where the release lies."""
    console.print()
    if demo:
        console.print(NOTICE, highlight=False, markup=False, soft_wrap=True)
    console.print(_datasets(record))
    stages = " · ".join(
        f"[{_COLOURS.get(s.status, 'red')}]{s.name} {s.status}[/] {s.seconds:.1f} s" for s in record.stages
    )
    console.print(stages, highlight=False)
    for warning in record.warnings:
        console.print("[yellow]warning[/yellow] ", end="")
        console.print(warning, highlight=False, markup=False, soft_wrap=True)
    alone = record.message == f"{record.stages[-1].name} done" if record.stages else False
    outcome = "done" if alone else record.status
    colour = _COLOURS.get(outcome, "red")
    console.print(f"[bold {colour}]{outcome}[/] in {record.seconds:.1f} s: ", end="", highlight=False)
    console.print(record.message, highlight=False, markup=False, soft_wrap=True)
    if record.release:
        console.print(f"release {record.release}", highlight=False, markup=False, soft_wrap=True)


def _datasets(record: RunRecord) -> Table:
    table = Table(title=f"run {record.run_id} ({record.environment})", title_justify="left")
    for name in ("dataset", "source", "snapshot"):
        table.add_column(name, no_wrap=True)
    for name in ("rows in", "staged", "quarantined", "duplicates", "requests", "MB"):
        table.add_column(name, justify="right")
    for dataset_id, d in record.datasets.items():
        table.add_row(
            dataset_id,
            d.outcome,
            d.snapshot_id or "none",
            f"{d.rows_in:,}",
            f"{d.rows_staged:,}",
            f"{d.rows_quarantined:,}",
            f"{d.rows_duplicated:,}",
            str(d.requests),
            f"{d.bytes / 1e6:.2f}",
        )
    return table


def print_trace(console: Console, trace: Trace) -> None:
    """Rows of a mart, then the snapshots behind them, each with its files, addresses and checksums."""

    def say(words: str) -> None:
        console.print(words, highlight=False, markup=False, soft_wrap=True)

    demo = " (DEMO DATA)" if trace.demo else ""
    say(f"{trace.mart} of release {trace.release_id}{demo}: {trace.rows_found:,} rows")
    if trace.demo:
        say(NOTICE)
    for row in trace.rows[:_SHOWN_ROWS]:
        say("  " + ", ".join(f"{name}={value}" for name, value in row.items() if value is not None))
    if trace.rows_found > _SHOWN_ROWS:
        say(f"  and {trace.rows_found - _SHOWN_ROWS:,} more")
    for file in trace.files:
        say(_file("released", file))
    for snapshot in trace.snapshots:
        say(
            f"{snapshot.dataset_id} {snapshot.snapshot_id}, taken {snapshot.taken_at:%Y-%m-%d %H:%M} UTC: {snapshot.gives}"
        )
        for file in snapshot.landing:
            say(_file("landed", file))
        if snapshot.staging:
            say(_file("staged", snapshot.staging))
    built = ", ".join(f"{count} of {name}" for name, count in trace.built_from.items())
    code = f"code {trace.code_sha256[:16]}" + (
        f", revision {trace.code_revision}" if trace.code_revision else ""
    )
    say(f"built from all accepted snapshots ({built}) by {code}")
    for fault in trace.faults:
        say(f"fault: {fault}")
    if trace.verified and not trace.faults:
        say("verified: every landed, staged and released file named here has the SHA-256 that was recorded")


def _file(kind: str, file: TracedFile) -> str:
    size = f", {file.size:,} bytes" if file.size is not None else ""
    rows = f", {file.rows:,} rows" if file.rows is not None else ""
    source = f"\n           from {file.url}" if file.url else ""
    return f"  {kind:<8} {file.address}{size}{rows}\n           SHA-256 {file.sha256}{source}"
