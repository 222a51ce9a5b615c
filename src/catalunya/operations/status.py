"""The state of a lake: its current release, the snapshots of each dataset, and what is damaged."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from catalunya.datasets.model import Dataset
from catalunya.errors import LakeCorrupt
from catalunya.lake import index, layout, pointer, snapshot
from catalunya.lake.lock import lock_owner
from catalunya.lake.storage import Storage
from catalunya.release import (
    newest_good_release,
    newest_whole_release,
    read_release,
    release_ids,
    unknown_entries,
)
from catalunya.runs import record


def describe(storage: Storage, known: dict[str, Dataset], now: datetime) -> dict[str, Any]:
    """Return the current release, the snapshots, refusals and their reasons, the last run, and who has locked the lake.

    `faults` names what is damaged or does not belong to the lake, and what to do; no error is raised for it.
    """
    faults: list[str] = []
    try:
        found = pointer.read(storage)
        shown = found[0] if found else None
        release = read_release(storage, shown.release_id) if shown else None
    except LakeCorrupt as error:
        shown, release = None, None
        faults.append(str(error))
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
    released = follows.snapshots if (follows := release or newest_whole_release(storage)) else {}
    states = {name: _dataset_status(storage, name, set(released.get(name, ())), now) for name in known}
    faults += [f"{storage.url}/{key} was ignored: {why}" for key, why in storage.ignored.items()]
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


def _dataset_status(storage: Storage, dataset_id: str, released: set[str], now: datetime) -> dict[str, Any]:
    snapshots = index.load(storage, dataset_id)
    usable = snapshots.usable
    newest = usable[-1] if usable else None
    hours = round((now - layout.moment_of(newest)).total_seconds() / 3600, 2) if newest else None
    return {
        "snapshots": len(usable),
        "snapshot_id": newest,
        "age_hours": hours,
        "accepted": len(set(usable) & released),
        "pending": [name for name in usable if name not in released],
        "refused": {
            name: refusal.model_dump(mode="json") for name, refusal in snapshot.refusals(snapshots).items()
        },
        "later_than_now": snapshots.later_than(now),
    }
