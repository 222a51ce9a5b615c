"""The commands about whether what is stored is whole: of a lake and of one release.

What a command needs is imported when it runs: the help and the other commands do not wait for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from catalunya.cli.console import print_line, reporter
from catalunya.cli.output import Json, err, print_json

if TYPE_CHECKING:
    from catalunya.operations.integrity.check import Report

app = typer.Typer()
lake_app = typer.Typer(no_args_is_help=True, help="Check, repair and copy a lake.")


@lake_app.command("check")
def lake_check(as_json: Json = False) -> None:
    """Compare every snapshot, staged file, release, record and pointer with each other; changes nothing."""
    from catalunya.cli.context import CommandContext
    from catalunya.identity import assume_role
    from catalunya.operations.integrity.check import check

    with assume_role("monitor"), reporter(err) as progress:
        context = CommandContext()
        progress.begin("check")
        report = check(
            context.storage,
            context.datasets,
            context.now,
            keys=context.settings.public_keys,
            on_part=lambda part: progress.step("check", part),
        )
    if as_json:
        print_json(report.as_json())
    _print_report(report)
    if not report.is_sound:
        raise typer.Exit(1)


def _print_report(report: Report) -> None:
    """Print what was checked, then a line for each fault: where, what is wrong, what to do."""
    checked = ", ".join(
        f"{count / 1e6:,.1f} MB" if name == "bytes" else f"{count:,} {name.replace('_', ' ')}"
        for name, count in report.counts.items()
        if count
    )
    print_line(err, f"lake {report.lake}: {checked or 'nothing in it yet'}")
    colours = {"damage": "bold red", "leftover": "yellow", "stray": "cyan"}
    for kind, colour in colours.items():
        for fault in report.faults:
            if fault.kind == kind:
                err.print(f"[{colour}]{kind}[/] ", end="")
                print_line(err, str(fault))
    counts = {kind: sum(fault.kind == kind for fault in report.faults) for kind in colours}
    if report.holder:
        print_line(err, f"run {report.holder.holder} was writing; what it has not completed is not named")
    found = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    print_line(err, f"{'sound' if report.is_sound else 'damaged'}: {found or 'everything fits together'}")
