"""Compare everything in a lake with everything else: the registry of the checks, and what they found."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from catalunya.errors import CatalunyaError
from catalunya.lake import layout
from catalunya.lake.lock import Holder
from catalunya.lake.pointer import UnknownLayout
from catalunya.lake.storage import Storage
from catalunya.operations.integrity import records, releases, snapshots
from catalunya.operations.integrity.fault import Fault
from catalunya.operations.integrity.files import unreadable
from catalunya.operations.integrity.view import View
from catalunya.publication.signature import PublicKey


@dataclass(frozen=True)
class Check:
    """One kind of check. It is done once for each of its parts: a dataset, a release, or the whole lake."""

    name: str
    parts: Callable[[View], Iterable[str]]
    faults: Callable[[View, str], Iterable[Fault]]


def _once(check: Callable[[View], Iterable[Fault]]) -> Callable[[View, str], Iterable[Fault]]:
    return lambda view, _: check(view)


CHECKS = (
    Check("snapshots", View.datasets, snapshots.check_dataset),
    Check("releases", lambda view: view.release_ids, releases.check_release),
    Check("pointer", lambda _: [""], _once(records.check_pointer)),
    Check("ledger", lambda _: [""], _once(records.check_ledger)),
    Check("runs", lambda _: [""], _once(records.check_runs)),
    Check("strays", lambda _: [""], _once(records.check_strays)),
)


@dataclass(frozen=True)
class Report:
    """What a check of a lake found."""

    lake: str
    counts: dict[str, int]
    faults: tuple[Fault, ...]
    holder: Holder | None
    """The run that was writing meanwhile."""

    @property
    def is_sound(self) -> bool:
        """True when nothing is damaged; what runs left and strays are named, and do no harm."""
        return not any(fault.kind == "damage" for fault in self.faults)

    def as_json(self) -> dict[str, Any]:
        """The report for programs."""
        return {
            "status": "sound" if self.is_sound else "damaged",
            "lake": self.lake,
            "checked": self.counts,
            "faults": [fault.as_json() for fault in self.faults],
            "holder": self.holder.model_dump(mode="json") if self.holder else None,
        }


def check(
    storage: Storage,
    dataset_ids: Collection[str],
    now: datetime,
    *,
    keys: Collection[PublicKey] = (),
    own: str | None = None,
    on_part: Callable[[str], None] = lambda part: None,
) -> Report:
    """Check a lake; it takes no lock and changes nothing. `own` is the run that holds the lock, where this one does.

    A run may be writing meanwhile: a fault counts only when a second look finds it again, and what is not complete only when
    no run writes. Memory is that of the listing of one dataset. Raises `UnknownLayout` for a lake of a newer program.
    """
    view = View(storage, dataset_ids, now, keys, own)
    found: list[Fault] = []
    for kind in CHECKS:
        try:
            parts = list(kind.parts(view))
        except UnknownLayout:
            raise
        except CatalunyaError as error:
            found.append(unreadable(storage, "", error))
            continue
        for part in parts:
            on_part(f"{kind.name} {part}".strip())
            if first := list(_faults(view, kind, part)):
                again = View(storage, dataset_ids, now, keys, own)
                still = {(fault.key, fault.kind) for fault in _faults(again, kind, part)}
                found += (f for f in first if (f.key, f.kind) in still and not _is_being_written(again, f))
    return Report(storage.url, dict(view.counts), tuple(found), view.holder)


def _is_being_written(view: View, fault: Fault) -> bool:
    """True for what is not complete while a run writes: it deletes what others left when it begins."""
    return fault.kind == "leftover" and view.holder is not None


def _faults(view: View, kind: Check, part: str) -> Iterator[Fault]:
    try:
        yield from kind.faults(view, part)
    except UnknownLayout:
        raise
    except CatalunyaError as error:
        key = {"snapshots": f"{layout.LANDING}/{part}", "releases": layout.release(part)}.get(kind.name, "")
        yield unreadable(view.storage, key, error)
