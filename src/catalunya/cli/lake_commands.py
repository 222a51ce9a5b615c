"""The commands about what is in the lake: releases and snapshots.

What a command needs is imported when it runs: the help and the other commands do not wait for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from catalunya.cli.console import print_status
from catalunya.cli.output import Json, err, print_answer, print_json

if TYPE_CHECKING:
    from catalunya.cli.context import CommandContext
    from catalunya.lake.pointer import Pointer

app = typer.Typer()


@app.command()
def status(as_json: Json = False) -> None:
    """Show the current release, the snapshots, what is refused, and which run has locked the lake."""
    from catalunya.cli.context import CommandContext
    from catalunya.identity import assume_role
    from catalunya.operations.status import describe

    with assume_role("monitor"):
        context = CommandContext()
        answer = describe(context.storage, context.datasets, context.now)
    if as_json:
        print_json(answer)
    else:
        print_status(err, answer)


@app.command()
def rollback(
    to: Annotated[
        str | None, typer.Option("--to", help="Release to go back to; the one before by default.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Swap the pointer back to an older release."""
    from catalunya.cli.context import CommandContext
    from catalunya.release import roll_back

    context = CommandContext()
    with context.lock() as lock:
        after, refused = roll_back(context.storage, lock, run_id=context.run_id, now=context.now, to=to)
        release_id, address = _show(context, after)
    lines = [f"readers see {release_id} again: {address}"]
    lines += [
        f"{dataset_id}: {snapshot_id} came with the release that was rolled back, and is refused until it is accepted: "
        f"`catalunya accept {snapshot_id} --why …`"
        for snapshot_id, dataset_id in refused.items()
    ]
    answer = {"status": "rolled back", "release_id": release_id, "release": address, "refused": refused}
    print_answer(as_json, answer, "\n".join(lines))


@app.command()
def repair(
    to: Annotated[
        str | None, typer.Option("--to", help="Release to show; the newest whole one by default.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Point readers to the newest whole release when current.json is missing or damaged."""
    from catalunya.cli.context import CommandContext
    from catalunya.release import repair_pointer

    context = CommandContext()
    with context.lock() as lock:
        after = repair_pointer(context.storage, lock, run_id=context.run_id, now=context.now, to=to)
        release_id, address = _show(context, after)
    answer = {"status": "repaired", "release_id": release_id, "release": address}
    print_answer(as_json, answer, f"readers see {release_id}: {address}")


def _show(context: CommandContext, after: Pointer) -> tuple[str, str]:
    """Let readers of the engine see the release of the pointer, too; returns its id and address."""
    from catalunya import publish
    from catalunya.lake import layout
    from catalunya.warehouse.engines import open_engine

    publish.publish_views(context.storage, open_engine(context.storage, context.settings))
    return after.release_id, context.storage.uri(layout.release(after.release_id))


@app.command()
def refuse(
    snapshot_id: str,
    why: Annotated[str, typer.Option("--why", help="Why the snapshot is wrong; kept beside the snapshot.")],
    as_json: Json = False,
) -> None:
    """Take a snapshot out of use, also one that is published: the next run releases without it."""
    from catalunya.cli.context import CommandContext
    from catalunya.lake import snapshot

    context = CommandContext()
    with context.lock():
        dataset_id = snapshot.refuse_by_hand(
            context.storage, context.datasets, snapshot_id, why, context.now, context.run_id
        )
    answer = {"status": "refused", "dataset_id": dataset_id, "snapshot_id": snapshot_id, "why": why}
    print_answer(as_json, answer, f"{dataset_id}: {snapshot_id} is refused; the next run releases without it")


@app.command()
def accept(
    snapshot_id: str,
    why: Annotated[str, typer.Option("--why", help="Why the change is real; kept beside the snapshot.")],
    as_json: Json = False,
) -> None:
    """Lift the refusal of a snapshot whose change is real."""
    from catalunya.cli.context import CommandContext
    from catalunya.lake import snapshot

    context = CommandContext()
    with context.lock():
        dataset_id = snapshot.accept(context.storage, context.datasets, snapshot_id, why, context.now)
    answer = {"status": "accepted", "dataset_id": dataset_id, "snapshot_id": snapshot_id, "why": why}
    print_answer(as_json, answer, f"{dataset_id}: {snapshot_id} is accepted; the next run uses it")
