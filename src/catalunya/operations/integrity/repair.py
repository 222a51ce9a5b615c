"""Repair of a lake: what can be made again from what is whole, and nothing else.

What may be the only copy of something is moved to `damaged/`, never deleted; only what a killed run left, and what is made
from landed bytes that are whole, is deleted. Each step is atomic and leaves a lake that a check and a run understand, so a
kill at any moment does no harm, and the same command goes on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import duckdb

from catalunya.datasets.model import Dataset
from catalunya.errors import CatalunyaError, UsageError
from catalunya.lake import disk, index, layout, pointer
from catalunya.lake.local import LocalStorage
from catalunya.lake.lock import Lock
from catalunya.lake.snapshot import Acceptance, Refusal
from catalunya.lake.storage import Storage
from catalunya.lake.temporary import temporary_folder
from catalunya.operations.integrity.fault import Fault, Repair
from catalunya.operations.integrity.files import fetched, sha256_of
from catalunya.operations.integrity.releases import SIGNATURE
from catalunya.operations.integrity.view import View
from catalunya.publication.signature import verify
from catalunya.publish import export_mart
from catalunya.release import (
    RECORD,
    RELEASE_DATABASE,
    SUMS,
    marts_digest,
    read_release,
    read_sums,
    repair_pointer,
)
from catalunya.stage import stage

ORDER: tuple[Repair, ...] = (
    "scratch",
    "delete",
    "aside",
    "marker",
    "copy",
    "release",
    "index",
    "stage",
    "pointer",
)
"""What is repaired first is what later repairs rely on."""
PLANS: dict[Repair, str] = {
    "scratch": "delete these temporary files",
    "delete": "delete it",
    "aside": f"move it to {layout.DAMAGED}/",
    "marker": "make it again from the index, without the words that only it had",
    "copy": "copy it again from its release",
    "release": "make it again from what is whole in the release, if the checksums fit",
    "index": "make it again from landing",
    "stage": "stage it again from the landed bytes",
    "pointer": "point readers to the newest whole release, or to that of --to",
}


class _Impossible(Exception):
    """A repair cannot be done; the message says why."""


@dataclass(frozen=True)
class Step:
    """One repair: what is planned for a fault, and why it was not done, where it could not be."""

    fault: Fault
    plan: str
    failure: str = ""

    def __str__(self) -> str:
        return f"{self.fault.address}: {self.plan}" + (f": not done, {self.failure}" if self.failure else "")


def plan(faults: tuple[Fault, ...]) -> list[Step]:
    """Return what can be done about faults, in the order in which it is done."""
    steps = [Step(fault, PLANS[fault.repair]) for fault in faults if fault.repair]
    return sorted(steps, key=lambda step: ORDER.index(step.fault.repair))


class Repairer:
    """Repairs one lake, which the caller has locked."""

    def __init__(
        self,
        view: View,
        datasets: dict[str, Dataset],
        lock: Lock,
        *,
        run_id: str,
        to: str | None = None,
    ) -> None:
        self.storage: Storage = view.storage.guarded(lock)
        self.now: datetime = view.now
        self._view = view
        self._datasets = datasets
        self._lock = lock
        self._run_id = run_id
        self._to = to

    def repair(self, faults: tuple[Fault, ...]) -> Iterator[Step]:
        """Do what is planned, and give each step after it was tried."""
        work: dict[Repair, Callable[[Fault], None]] = {
            "scratch": self._delete_temporary,
            "delete": self._delete,
            "aside": lambda fault: self._move_aside(fault.key),
            "marker": self._restore_marker,
            "copy": lambda fault: self.storage.copy(fault.source, fault.key),
            "release": self._rebuild_release_file,
            "index": lambda fault: self._rebuild_index(fault.dataset_id or ""),
            "pointer": self._repair_pointer,
        }
        damaged_landing = {
            (f.dataset_id, f.snapshot_id)
            for f in faults
            if f.key.startswith(f"{layout.LANDING}/") and not f.repair
        }
        for step in plan(faults):
            fault, failure = step.fault, ""
            try:
                if fault.repair != "stage":
                    work[fault.repair](fault)
                elif (fault.dataset_id, fault.snapshot_id) in damaged_landing:
                    raise _Impossible("its landed bytes are damaged, too")
                else:
                    self._stage(fault.dataset_id or "", fault.snapshot_id or "")
            except (CatalunyaError, _Impossible, duckdb.Error) as error:
                failure = str(error)
            yield replace(step, failure=failure)

    def _delete_temporary(self, fault: Fault) -> None:
        self.storage.clean_scratch()
        assert isinstance(self.storage, LocalStorage)
        path = self.storage.root / fault.key
        with disk.explained(path):
            disk.remove(path)

    def _delete(self, fault: Fault) -> None:
        self.storage.delete_folder(fault.key)

    def _move_aside(self, key: str) -> None:
        """Copy an object, or every object of a folder, to `damaged/`, then delete it where it was."""
        keys = [key] if self.storage.exists(key) else [entry.key for entry in self.storage.list(key)]
        for one in keys:
            self._keep(one)
            self.storage.delete(one)

    def _keep(self, key: str) -> None:
        """Copy an object to `damaged/`."""
        self.storage.copy(key, layout.damaged(sha256_of(self.storage, key, read=True), key))

    def _restore_marker(self, fault: Fault) -> None:
        """Write `refused.json` or `accepted.json` again from what the index has of it."""
        known = index.load(self.storage, fault.dataset_id or "")
        entry = known.snapshots.get(fault.snapshot_id or "", index.SnapshotEntry())
        self._keep(fault.key)
        if fault.key.endswith(index.REFUSED) and entry.refusal is not None:
            self.storage.put(fault.key, json.dumps(entry.refusal).encode())
        elif fault.key.endswith(index.ACCEPTED) and entry.lifts:
            refusal = Refusal(
                gate=entry.lifts[0],
                reason="lost",
                figures={"lifts": list(entry.lifts[1:])},
                refused_at=self.now,
                run_id=self._run_id,
            )
            lost = Acceptance(why="the reason was lost with the file", accepted_at=self.now, refusal=refusal)
            self.storage.put(fault.key, lost.model_dump_json(indent=1).encode())
        else:
            self.storage.delete(fault.key)

    def _rebuild_index(self, dataset_id: str) -> None:
        index.rebuild(self.storage, dataset_id)
        if dataset_id in self._datasets:
            # The staged files that are there are found again by what they say of themselves.
            self._stage_due(dataset_id, [])

    def _stage(self, dataset_id: str, snapshot_id: str) -> None:
        """Delete a damaged staged file, which is made of landed bytes that are whole, and stage them again."""
        if dataset_id not in self._datasets:
            raise _Impossible(f"{dataset_id} has no definition")
        index.set_entry(self.storage, dataset_id, snapshot_id, staged=None)
        for key in (layout.staged(dataset_id, snapshot_id), layout.quarantined(dataset_id, snapshot_id)):
            self.storage.delete(key)
        self._stage_due(dataset_id, [snapshot_id])

    def _stage_due(self, dataset_id: str, damaged: list[str]) -> None:
        stage(
            self.storage,
            self._datasets[dataset_id],
            run_id=self._run_id,
            now=self.now,
            damaged=damaged,
            accepted=self._view.released.get(dataset_id, {}),
        )

    def _rebuild_release_file(self, fault: Fault) -> None:
        _, release_id, name = fault.key.split("/", 2)
        if name == SUMS:
            self._rebuild_sums(release_id)
        else:
            self._export_again(release_id, name)

    def _export_again(self, release_id: str, name: str) -> None:
        """Write a mart's file from the database of its release; it is kept only when it has the known checksum."""
        release = read_release(self.storage, release_id)
        sums = read_sums(self.storage.read(layout.release(release_id, SUMS)))
        database = layout.release(release_id, RELEASE_DATABASE)
        if sha256_of(self.storage, database) != sums.get(RELEASE_DATABASE):
            raise _Impossible(f"{RELEASE_DATABASE} of the release is damaged, too")
        mart = Path(name).stem
        with (
            temporary_folder(self.storage, f"repair-{release_id}") as work,
            fetched(self.storage, database) as path,
        ):
            target = work / Path(name).name
            with duckdb.connect(path, read_only=True) as con:
                found = con.execute(
                    "select comment from duckdb_tables() where schema_name = 'marts' and table_name = ?",
                    [mart],
                ).fetchone()
                if found is None:
                    raise _Impossible(f"{RELEASE_DATABASE} of the release has no table {mart}")
                export_mart(con, f"marts.{mart}", target, comment=found[0] or "", demo=release.demo)
            if disk.sha256(target) != sums[name]:
                made_by = release.versions.get("duckdb", "another version")
                raise _Impossible(f"DuckDB {duckdb.__version__} writes other bytes than {made_by} did")
            self.storage.put_file(layout.release(release_id, name), target)

    def _rebuild_sums(self, release_id: str) -> None:
        """Write `SHA256SUMS` from the files, when the marts are those of the release's id and the signature fits."""
        read_release(self.storage, release_id)
        folder = layout.release(release_id)
        names = sorted(entry.key.removeprefix(f"{folder}/") for entry in self.storage.list(folder))
        sums = {
            name: sha256_of(self.storage, f"{folder}/{name}")
            for name in names
            if name not in {SUMS, SIGNATURE}
        }
        if marts_digest(sums)[:8] != release_id[-8:] or RECORD not in sums:
            raise _Impossible("the marts are not those that the id of the release was made of")
        text = "".join(f"{sha256}  {name}\n" for name, sha256 in sums.items()).encode()
        if SIGNATURE in names:
            if not self._view.keys:
                raise _Impossible(
                    "the release is signed: set CATALUNYA_PUBLIC_KEYS, so that the result can be checked"
                )
            verify(
                text, self.storage.read(f"{folder}/{SIGNATURE}").decode("utf-8", "replace"), self._view.keys
            )
        key = f"{folder}/{SUMS}"
        if self.storage.exists(key):
            self._keep(key)
        self.storage.put(key, text)

    def _repair_pointer(self, fault: Fault) -> None:
        found = self.storage.read_versioned(pointer.KEY)
        try:
            after = repair_pointer(self.storage, self._lock, run_id=self._run_id, now=self.now, to=self._to)
        except UsageError:
            shown = pointer.read(self.storage)
            if shown is None or self._to is None:
                raise
            # It is whole, but an old copy: a person names the release that readers saw.
            release = read_release(self.storage, self._to)
            after = shown[0].model_copy(
                update={
                    "release_id": release.release_id,
                    "previous": shown[0].release_id,
                    "swapped_at": self.now,
                    "run_id": self._run_id,
                }
            )
            self._lock.check()
            pointer.swap(self.storage, after, shown[1])
        if found is not None:
            digest = hashlib.sha256(found[0]).hexdigest()
            self.storage.put(layout.damaged(digest, pointer.KEY), found[0])
