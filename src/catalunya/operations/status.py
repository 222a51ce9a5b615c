"""What a lake shows, and how its datasets stand."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from catalunya.datasets.model import Dataset
from catalunya.errors import LakeCorrupt
from catalunya.lake import index, layout, pointer, snapshot
from catalunya.lake.lock import lock_owner
from catalunya.lake.storage import Storage
from catalunya.publication import demo_notice
from catalunya.release import (
    newest_good_release,
    newest_whole_release,
    read_release,
    release_ids,
    unknown_entries,
)
from catalunya.runs import record


def describe(storage: Storage, known: dict[str, Dataset], now: datetime) -> dict[str, Any]:
    """The current release, the state of the snapshots, what is refused and why, the last run, and who holds the lake.

    `faults` names what is damaged or does not belong to the lake, with what to do; nothing of it raises.
    """
    faults: list[str] = []
    try:
        found = pointer.read(storage)
        shown = found[0] if found else None
        release = read_release(storage, shown.release_id) if shown else None
    except LakeCorrupt as error:
        shown, release = None, None
        faults.append(str(error))
    whole = newest_whole_release(storage)
    good = newest_good_release(storage, now)
    if shown is None and good is not None and not faults:
        faults.append(
            f"{storage.uri(pointer.KEY)} is missing; `catalunya repair` points readers to the newest whole release"
        )
    faults += [
        f"{storage.uri(layout.release(name))} is no release; it is left alone"
        for name in unknown_entries(storage)
    ]
    holder = lock_owner(storage, "run")
    last = record.newest(storage, now)
    follows = release or whole
    states = {
        name: _dataset_status(storage, name, follows.snapshots.get(name, ()) if follows else (), now)
        for name in known
    }
    faults += [f"{storage.url}/{key} was passed over: {why}" for key, why in storage.ignored.items()]
    return {
        "lake": storage.url,
        "release_id": release.release_id if release else None,
        "release": storage.uri(layout.release(release.release_id)) if release else None,
        "released_at": release.released_at.isoformat() if release else None,
        "demo": release.demo if release else None,
        "previous": shown.previous if shown else None,
        "releases": release_ids(storage),
        "newest_whole_release": good.release_id if good else None,
        "stale": [s.model_dump() for s in release.stale] if release else [],
        "datasets": states,
        "faults": faults,
        "holder": holder.model_dump(mode="json") if holder else None,
        "last_run": last.model_dump(mode="json", include={"run_id", "status", "message", "started_at"})
        if last
        else None,
    }


def _dataset_status(
    storage: Storage, dataset_id: str, released: tuple[str, ...], now: datetime
) -> dict[str, Any]:
    snapshots = index.load(storage, dataset_id)
    usable, known = snapshots.usable, set(released)
    newest = usable[-1] if usable else None
    hours = (now - layout.moment_of(newest)).total_seconds() / 3600 if newest else None
    return {
        "snapshots": len(usable),
        "snapshot_id": newest,
        "age_hours": round(hours, 2) if hours is not None else None,
        "accepted": sum(name in known for name in usable),
        "pending": [name for name in usable if name not in known],
        "refused": {
            name: refusal.model_dump(mode="json") for name, refusal in snapshot.refusals(snapshots).items()
        },
        "later_than_now": snapshots.later_than(now),
    }


def print_status(console: Console, answer: dict[str, Any]) -> None:
    """The same for people: a table of datasets, then what needs a word."""
    table = Table(title=f"lake {answer['lake']}", title_justify="left")
    for name in ("dataset", "accepted", "pending", "newest in use", "age", "refused"):
        table.add_column(name)
    for dataset_id, d in answer["datasets"].items():
        age = "" if d["age_hours"] is None else f"{d['age_hours']:.1f} h"
        table.add_row(
            dataset_id,
            str(d["accepted"]),
            str(len(d["pending"])),
            d["snapshot_id"] or "none",
            age,
            ", ".join(d["refused"]) or "none",
        )
    console.print(table)
    lines = [f"release {answer['release_id'] or 'none yet'}"]
    if answer["faults"]:
        lines += [*answer["faults"], f"newest whole release: {answer['newest_whole_release'] or 'none'}"]
    if answer["demo"]:
        lines.append(demo_notice.NOTICE)
    if answer["release"]:
        lines.append(answer["release"])
    for dataset_id, d in answer["datasets"].items():
        lines += [f"{dataset_id} {name}: {refusal['reason']}" for name, refusal in d["refused"].items()]
    if answer["last_run"]:
        lines.append(f"last run {answer['last_run']['run_id']}: {answer['last_run']['status']}")
    if answer["holder"]:
        lines.append(f"the lake is held by run {answer['holder']['holder']}")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
