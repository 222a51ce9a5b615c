"""Checks of what is neither a snapshot nor a release: pointer, ledger, candidates, steps of runs, documentation, strays."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from catalunya import build
from catalunya.errors import CatalunyaError, LakeCorrupt
from catalunya.lake import layout, pointer
from catalunya.lake.local import LocalStorage
from catalunya.lake.storage import MissingKey
from catalunya.operations.integrity.fault import REPAIR, Fault
from catalunya.operations.integrity.files import BACKUP, sha256_of, unreadable
from catalunya.operations.integrity.view import View
from catalunya.release import SUMS, read_sums
from catalunya.runs.record import ABANDONED, RunRecord, ledger_record

AREAS = (
    layout.LANDING, layout.STAGING, layout.QUARANTINE, layout.CANDIDATES, layout.RELEASES, layout.LEDGER,
    layout.RUNS, layout.ALERTS, layout.DOCS, layout.PUBLISHED, layout.DAMAGED, layout.LOCKS,
)  # fmt: skip
"""Every folder at the top of a lake."""
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}")
_ALERT = re.compile(r"[0-9a-f]{32}\.json")
_MONTH = re.compile(r"archive/\d{4}-\d{2}\.jsonl")
_POINT = f"`catalunya repair` points readers to the newest whole release, as {REPAIR} does"


def check_pointer(view: View) -> Iterator[Fault]:
    """Give the faults of `current.json`: its content, the releases that it names, its age, the views of the engines."""
    storage = view.storage
    fault = partial(Fault, key=pointer.KEY, address=storage.uri(pointer.KEY), repair="pointer", hint=_POINT)
    whole = [name for name in view.release_ids if view.release(name)]
    try:
        found = pointer.read(storage)
    except LakeCorrupt:
        yield fault(found="is no pointer: it is empty, cut or changed")
        return
    if found is None:
        if whole and view.holder is None:
            yield fault(found=f"is missing, and there are {len(whole)} whole releases")
        return
    shown = found[0]
    if shown.release_id not in whole:
        yield fault(found=f"names release {shown.release_id}, which is not there whole")
    if shown.previous is not None and shown.previous not in whole:
        yield fault(
            found=f"names {shown.previous} as the release before, which is not there whole",
            hint=f"{BACKUP}; readers see {shown.release_id}, and `catalunya rollback --to RELEASE` names another one",
            repair="",
        )
    newer = _released_after(view, shown)
    if newer is not None and newer.release_id in whole:
        yield fault(
            found=f"is older than release {newer.release_id}, which run {newer.run_id} showed to readers: an old copy of it "
            "was put back",
            hint=f"`catalunya lake repair --yes --to {newer.release_id}`, or `catalunya rollback --to {newer.release_id}`",
        )
    for name in storage.files(layout.PUBLISHED):
        key = f"{layout.PUBLISHED}/{name}"
        try:
            views = json.loads(storage.read(key))["release_id"]
        except (ValueError, KeyError, TypeError, RecursionError):
            yield Fault(
                key=key,
                address=storage.uri(key),
                found="is no record of the views of an engine",
                hint=f"{REPAIR} moves it aside; the next run makes the views anew",
                repair="aside",
            )
            continue
        if views != shown.release_id:
            yield Fault(
                key=key,
                address=storage.uri(key),
                found=f"says that the views of the engine show {views}, {pointer.KEY} names {shown.release_id}",
                hint="the next `catalunya run` corrects the views",
                kind="leftover",
            )


def _released_after(view: View, shown: pointer.Pointer) -> RunRecord | None:
    """Return the newest run that released something else after the pointer was written."""
    names = sorted((n for n in view.storage.files(layout.LEDGER) if n.endswith(".json")), reverse=True)
    for name in names:
        if not layout.is_id(name.removesuffix(".json")):
            continue
        if layout.moment_of(name.removesuffix(".json")) <= shown.swapped_at:
            return None
        try:
            run = RunRecord.model_validate_json(view.storage.read(f"{layout.LEDGER}/{name}"))
        except (MissingKey, ValidationError):
            continue
        if run.status == "released" and run.started_at > shown.swapped_at:
            return run if run.release_id != shown.release_id else None
    return None


def check_ledger(view: View) -> Iterator[Fault]:
    """Give the objects of the ledger that are no records of runs."""
    storage = view.storage
    for entry in storage.list(layout.LEDGER):
        name = entry.key.removeprefix(f"{layout.LEDGER}/")
        fault = partial(Fault, key=entry.key, address=storage.uri(entry.key))
        run_id = name.removesuffix(".json")
        is_record = name.endswith(".json") and layout.is_id(run_id)
        if not is_record and not _MONTH.fullmatch(name):
            yield fault(found="has no name of a record", hint="move it out of the lake", kind="stray")
            continue
        view.count(ledger_records=is_record)
        try:
            data = storage.read(entry.key)
        except MissingKey:
            continue
        except CatalunyaError as error:
            yield unreadable(storage, entry.key, error)
            continue
        if is_record:
            record = ledger_record(data)
            if record is None or record["run_id"] != run_id:
                yield fault(
                    found="is no record of that run: it is empty, cut or changed",
                    hint=f"{BACKUP}, or {REPAIR} moves it aside; runs ignore it",
                    repair="aside",
                )
            continue
        for number, line in enumerate(data.splitlines(), 1):
            view.count(ledger_records=1)
            if ledger_record(line) is None:
                yield fault(
                    found=f"has no record of a run in line {number}",
                    hint=f"{BACKUP}, or move it out of the lake",
                )
                break


def check_runs(view: View) -> Iterator[Fault]:
    """Give what runs left: candidates, the results of their steps, documentation and copies of releases that are gone."""
    yield from _candidates(view)
    yield from _steps(view)
    storage = view.storage
    for name in storage.files(layout.ALERTS):
        if not _ALERT.fullmatch(name):
            yield _stray(view, f"{layout.ALERTS}/{name}", "has no name of the lake")
    known = set(view.release_ids)
    for folder in (layout.DOCS, f"{layout.PUBLISHED}/files"):
        for name in storage.folders(folder):
            if name not in known:
                key = f"{folder}/{name}"
                yield _leftover(view, key, f"is of release {name}, which is gone", f"{REPAIR} deletes it")
    yield from _published(view)


def _leftover(view: View, key: str, found: str, hint: str) -> Fault:
    address = view.storage.uri(key)
    return Fault(key=key, address=address, found=found, hint=hint, kind="leftover", repair="delete")


def _candidates(view: View) -> Iterator[Fault]:
    storage = view.storage
    going_on = set(storage.folders(layout.RUNS))
    for name in storage.folders(layout.CANDIDATES):
        view.count(candidates=1)
        key = layout.candidate(name, build.RECORD)
        if not storage.exists(key):
            if name not in going_on:
                yield _leftover(
                    view,
                    f"{layout.CANDIDATES}/{name}",
                    f"is a candidate without {build.RECORD}: a run that was killed left it",
                    f"the next run deletes it, as {REPAIR} does",
                )
        elif build.read_candidate(storage, name) is None and storage.exists(key):
            yield Fault(
                key=key,
                address=storage.uri(key),
                found="is no record of a candidate: it is empty, cut or changed",
                hint=f"{REPAIR} moves it aside; `catalunya build` makes the candidate again",
                repair="aside",
            )


def _steps(view: View) -> Iterator[Fault]:
    storage = view.storage
    for run_id in storage.folders(layout.RUNS):
        key = f"{layout.RUNS}/{run_id}"
        if layout.is_id(run_id) and view.now - layout.moment_of(run_id) > ABANDONED:
            found = f"is the state of a run that began more than {ABANDONED.days} days ago"
            yield _leftover(view, key, found, f"maintenance deletes it, as {REPAIR} does")
            continue
        for entry in storage.list(key):
            try:
                RunRecord.model_validate_json(storage.read(entry.key))
            except MissingKey:
                continue
            except ValidationError:
                yield Fault(
                    key=entry.key,
                    address=storage.uri(entry.key),
                    found="is no result of a step: it is empty, cut or changed",
                    hint=f"clear the task that wrote it, or {REPAIR} moves it aside",
                    repair="aside",
                )


def _published(view: View) -> Iterator[Fault]:
    """Compare the copies of released files that the views of an engine read."""
    storage = view.storage
    for release_id in storage.folders(f"{layout.PUBLISHED}/files"):
        try:
            sums = read_sums(storage.read(layout.release(release_id, SUMS)))
        except (CatalunyaError, ValueError):
            continue
        for entry in storage.list(f"{layout.PUBLISHED}/files/{release_id}"):
            name = f"parquet/{Path(entry.key).name}"
            try:
                if name in sums and sha256_of(storage, entry.key) != sums[name]:
                    yield Fault(
                        key=entry.key,
                        address=storage.uri(entry.key),
                        found=f"is not the file {name} of its release",
                        hint=f"{REPAIR} copies it again",
                        repair="copy",
                        source=layout.release(release_id, name),
                    )
            except MissingKey:
                continue
            except CatalunyaError as error:
                yield unreadable(storage, entry.key, error)


def check_strays(view: View) -> Iterator[Fault]:
    """Give what no part of the lake has written, and the temporary files of processes that are gone."""
    storage = view.storage
    for name in storage.folders():
        if name not in {*AREAS, layout.SITE}:
            yield _stray(view, name, "is no folder of the lake")
    for name in storage.files():
        if name != layout.CURRENT:
            yield _stray(view, name, "is no file of the lake")
    yield from _among_datasets(view)
    for area in (layout.RELEASES, layout.CANDIDATES, layout.RUNS, layout.DOCS):
        others = [n for n in storage.folders(area) if not layout.is_id(n)]
        for name in [*others, *storage.files(area)]:
            yield _stray(view, f"{area}/{name}", "has no id as its name")
    if isinstance(storage, LocalStorage):
        yield from _hidden(storage)
    for key, reason in sorted(storage.ignored.items()):
        yield Fault(
            key=key,
            address=f"{storage.url}/{key}",
            found=f"is ignored: {reason}",
            hint="move it out of the lake",
            kind="stray",
        )


def _among_datasets(view: View) -> Iterator[Fault]:
    storage = view.storage
    for area in (layout.LANDING, layout.STAGING, layout.QUARANTINE):
        for name in storage.files(area):
            yield _stray(view, f"{area}/{name}", "is a file where only folders of datasets are")
        for name in storage.folders(area):
            if view.dataset_ids and name not in view.dataset_ids:
                yield _stray(view, f"{area}/{name}", "is of a dataset that has no definition")
    for dataset_id in storage.folders(layout.LANDING):
        folder = f"{layout.LANDING}/{dataset_id}"
        others = [n for n in storage.folders(folder) if not layout.is_id(n)]
        for name in [*others, *storage.files(folder)]:
            yield _stray(view, f"{folder}/{name}", "is no snapshot: it has no id of one")


def _hidden(storage: LocalStorage) -> Iterator[Fault]:
    """Name files that begin with a dot, which no listing shows."""
    for folder, inner, names in os.walk(storage.root):
        if Path(folder) == storage.root:
            inner[:] = [name for name in inner if name != storage.HIDDEN]
        for name in sorted(name for name in [*inner, *names] if name.startswith(".")):
            path = Path(folder, name)
            key = path.relative_to(storage.root).as_posix()
            temporary = _TEMPORARY.fullmatch(name) is not None
            yield Fault(
                key=key,
                address=str(path),
                found="is a temporary file: a run that was killed left it"
                if temporary
                else "is hidden, and no file of the lake",
                hint=f"{REPAIR} deletes it" if temporary else "move it out of the lake",
                kind="leftover" if temporary else "stray",
                repair="scratch" if temporary else "",
            )
    for path in storage.abandoned_scratch():
        yield Fault(
            key=path.relative_to(storage.root).as_posix(),
            address=str(path),
            found="has the temporary files of a process that is gone",
            hint=f"the next run deletes it, as {REPAIR} does",
            kind="leftover",
            repair="scratch",
        )


def _stray(view: View, key: str, found: str) -> Fault:
    return Fault(
        key=key,
        address=f"{view.storage.url}/{key}",
        found=f"{found}; it is ignored",
        hint="move it out of the lake",
        kind="stray",
    )
