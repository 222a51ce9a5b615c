"""What a lake shows, and how its datasets stand."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from catalunya import catalogue, publish, record
from catalunya.datasets import Dataset
from catalunya.lake import layout, pointer, snapshot
from catalunya.lake.lock import who_holds
from catalunya.lake.storage import Storage


def describe(storage: Storage, known: dict[str, Dataset], now: datetime) -> dict[str, Any]:
    """The current release, the snapshots, what is refused and why, the last run, and who holds the lake."""
    shown = pointer.read(storage)
    release = publish.current(storage)
    holder = who_holds(storage, "run")
    last = record.newest(storage, now)
    return {
        "lake": storage.url,
        "release_id": release.release_id if release else None,
        "release": storage.uri(layout.release(release.release_id)) if release else None,
        "released_at": release.released_at.isoformat() if release else None,
        "demo": release.demo if release else None,
        "previous": shown[0].previous if shown else None,
        "releases": storage.folders(layout.RELEASES),
        "stale": [s.model_dump() for s in release.stale] if release else [],
        "datasets": {name: _dataset_status(storage, name, now) for name in known},
        "holder": holder.model_dump(mode="json") if holder else None,
        "last_run": last.model_dump(mode="json", include={"run_id", "status", "message", "started_at"})
        if last
        else None,
    }


def _dataset_status(storage: Storage, dataset_id: str, now: datetime) -> dict[str, Any]:
    accepted = snapshot.accepted(storage, dataset_id)
    newest = accepted[-1] if accepted else None
    hours = (now - layout.moment_of(newest)).total_seconds() / 3600 if newest else None
    return {
        "snapshots": len(accepted),
        "snapshot_id": newest,
        "age_hours": round(hours, 2) if hours is not None else None,
        "refused": {
            name: refusal.model_dump(mode="json")
            for name, refusal in snapshot.refused(storage, dataset_id).items()
        },
    }


def print_status(console: Console, answer: dict[str, Any]) -> None:
    """The same for people: a table of datasets, then what needs a word."""
    table = Table(title=f"lake {answer['lake']}", title_justify="left")
    for name in ("dataset", "snapshots", "newest accepted", "age", "refused"):
        table.add_column(name)
    for dataset_id, d in answer["datasets"].items():
        age = "" if d["age_hours"] is None else f"{d['age_hours']:.1f} h"
        table.add_row(
            dataset_id,
            str(d["snapshots"]),
            d["snapshot_id"] or "none",
            age,
            ", ".join(d["refused"]) or "none",
        )
    console.print(table)
    lines = [f"release {answer['release_id'] or 'none yet'}"]
    if answer["demo"]:
        lines.append(catalogue.DEMO_NOTICE)
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
