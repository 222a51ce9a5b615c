"""The commands about whether what is stored is whole: of a lake and of one release.

What a command needs is imported when it runs: the help and the other commands do not wait for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from catalunya.cli.console import print_line, reporter
from catalunya.cli.output import Json, err, print_answer, print_json

if TYPE_CHECKING:
    from catalunya.cli.context import CommandContext
    from catalunya.operations.integrity.check import Report
    from catalunya.publication.signature import PublicKey
    from catalunya.settings import Settings

app = typer.Typer()
lake_app = typer.Typer(no_args_is_help=True, help="Check, repair, copy and migrate a lake.")
key_app = typer.Typer(no_args_is_help=True, help="Keys that sign releases.")


@lake_app.command("check")
def lake_check(as_json: Json = False) -> None:
    """Compare every snapshot, staged file, release, record and pointer with each other; changes nothing."""
    from catalunya.cli.context import CommandContext

    report = _check(CommandContext())
    if as_json:
        print_json(report.as_json())
    _print_report(report)
    if not report.is_sound:
        raise typer.Exit(1)


@lake_app.command("repair")
def lake_repair(
    yes: Annotated[
        bool, typer.Option("--yes", help="Do it; without it only say what would be done.")
    ] = False,
    to: Annotated[
        str | None, typer.Option("--to", help="Release to show, when the pointer is damaged or an old copy.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make again what can be made from what is whole; what may be the only copy is moved to damaged/, never deleted."""
    from catalunya.cli.context import CommandContext
    from catalunya.operations.integrity.repair import Repairer, plan
    from catalunya.operations.integrity.view import View
    from catalunya.runs.steps import whole_lake

    context = CommandContext()
    steps = []
    if yes:
        with whole_lake(context.storage, context.run_id, context.datasets) as lock:
            before = _check(context)
            view = View(context.storage, context.datasets, context.now, _keys(context.settings))
            repairer = Repairer(view, context.datasets, lock, run_id=context.run_id, to=to)
            for step in repairer.repair(before.faults):
                steps.append(step)
                print_line(err, f"{'not repaired' if step.failure else 'repaired'} {step}")
            if any(step.fault.repair == "pointer" and not step.failure for step in steps):
                _publish_views(context)
            report = _check(context) if steps else before
    else:
        report = _check(context)
        steps = plan(report.faults)
    if as_json:
        repairs = [
            {"key": s.fault.key, "plan": s.plan, "done": yes and not s.failure, "failure": s.failure}
            for s in steps
        ]
        print_json({**report.as_json(), "repairs": repairs})
    _print_report(report)
    if not yes:
        lines = [f"would repair {step}" for step in steps]
        print_line(
            err, "\n".join([*lines, "nothing was changed; --yes does it"] if lines else ["nothing to repair"])
        )
    if not report.is_sound:
        raise typer.Exit(1)


@lake_app.command("migrate")
def lake_migrate(as_json: Json = False) -> None:
    """Bring the layout of the lake to the one of this version of the program."""
    from catalunya.cli.context import CommandContext
    from catalunya.operations.migration import migrate
    from catalunya.runs.steps import whole_lake

    context = CommandContext()
    with whole_lake(context.storage, context.run_id, context.datasets) as lock:
        before, after = migrate(context.storage, lock)
    found = {"status": "unchanged" if before == after else "migrated", "before": before, "after": after}
    text = (
        f"{context.storage.url} has layout {after} already"
        if before == after
        else f"{context.storage.url}: layout {before} → {after}"
    )
    print_answer(as_json, found, text)


@app.command("verify")
def verify_command(
    release: Annotated[
        str | None,
        typer.Argument(
            help="A release, or a folder with a downloaded one; the release that readers see by default."
        ),
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(
            "--key", help="Public key that must have signed it: its text or a file; may be repeated."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check the signature, checksums, files and row counts of one release."""
    from catalunya.operations.integrity.verification import verify_release
    from catalunya.settings import Settings

    settings = Settings.load()
    found = verify_release(settings, release, key or [])
    if as_json:
        print_json(found.as_json())
    for fault in found.faults:
        err.print("[bold red]damage[/] ", end="")
        print_line(err, str(fault))
    print_line(err, str(found))
    if found.faults:
        raise typer.Exit(1)


@key_app.command("new")
def key_new(
    file: Annotated[
        Path, typer.Argument(help="File for the secret key; the public key is beside it, as .pub.")
    ],
    as_json: Json = False,
) -> None:
    """Make a key that signs releases: a secret file of mode 600, and a public one."""
    from catalunya.operations.integrity.verification import new_key

    public, path = new_key(file)
    text = (
        f"secret key {file}: keep it, it cannot be made again; CATALUNYA_SIGNING_KEY_FILE names it\n"
        f"public key {path}: publish it; `minisign -Vm SHA256SUMS -P {public}` checks a release"
    )
    print_answer(
        as_json, {"status": "made", "secret": str(file), "public": str(path), "key": str(public)}, text
    )


def _keys(settings: Settings) -> list[PublicKey]:
    from catalunya.publication.signature import known_keys

    return known_keys(settings.public_keys, settings.signing_key)


@lake_app.command("copy")
def lake_copy(
    source: Annotated[str, typer.Argument(metavar="FROM", help="A lake: a folder or s3://bucket/prefix.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="An empty place, or a copy of the same lake.")],
    as_json: Json = False,
) -> None:
    """Copy a lake, for a backup, a restore or a move; a second call copies what is new or was interrupted."""
    from catalunya.operations.integrity.copying import copy_lake
    from catalunya.settings import Settings

    with reporter(err) as progress:
        progress.begin("copy")
        copied = copy_lake(
            source,
            target,
            Settings.load(),
            on_file=lambda key: progress.step("copy", key),
        )
    text = "\n".join([*(f"not copied: {problem}" for problem in copied.problems), str(copied)])
    print_answer(as_json, copied.as_json(), text)
    if copied.problems:
        raise typer.Exit(1)


def _check(context: CommandContext) -> Report:
    from catalunya.operations.integrity.check import check

    with reporter(err) as progress:
        progress.begin("check")
        return check(
            context.storage,
            context.datasets,
            context.now,
            keys=_keys(context.settings),
            own=context.run_id,
            on_part=lambda part: progress.step("check", part),
        )


def _publish_views(context: CommandContext) -> None:
    """Let readers of the engine see the release of the pointer, too."""
    from catalunya import publish
    from catalunya.warehouse.engines import open_engine

    publish.publish_views(context.storage, open_engine(context.storage, context.settings))


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
    names = {"damage": "damaged", "leftover": "left over", "stray": "stray"}
    counts = {name: sum(fault.kind == kind for fault in report.faults) for kind, name in names.items()}
    if report.holder:
        print_line(err, f"run {report.holder.holder} was writing; what it has not completed is not named")
    found = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    print_line(err, f"{'sound' if report.is_sound else 'damaged'}: {found or 'everything fits together'}")
