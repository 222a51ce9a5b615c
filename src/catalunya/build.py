"""Build: dbt makes the whole warehouse from all staged snapshots, in a candidate that nobody reads yet."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from catalunya.datasets.model import Dataset
from catalunya.errors import MORE_MEMORY, BuildFailed, UsageError
from catalunya.lake import layout, pointer, snapshot
from catalunya.lake.staged import Staged
from catalunya.lake.storage import MissingKey, Storage
from catalunya.log import get_logger
from catalunya.settings import Settings
from catalunya.warehouse import dbt
from catalunya.warehouse.code import code_digest
from catalunya.warehouse.engines.base import ENGINE_NOTE, Engine, Workspace

log = get_logger(__name__)

RECORD = "candidate.json"


class Inputs(BaseModel):
    """What a candidate is made of: snapshots that are accepted or to be judged, and the code that transforms them."""

    model_config = ConfigDict(frozen=True)

    snapshots: dict[str, tuple[str, ...]]
    """Dataset to its snapshots, oldest first."""
    code: str
    """SHA-256 over all that makes the content of a release, 64 hex digits (`code_digest`)."""

    @property
    def fingerprint(self) -> str:
        """64 hex digits; equal inputs give an equal release."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def newest(self) -> dict[str, str]:
        """Return the newest accepted snapshot of each dataset that has one."""
        return {dataset_id: ids[-1] for dataset_id, ids in self.snapshots.items() if ids}


class Candidate(BaseModel):
    """The record of a built candidate; written last, so that its existence means the candidate is whole."""

    model_config = ConfigDict(frozen=True)

    candidate_id: str
    built_at: datetime
    engine: str = "duckdb"
    inputs: Inputs
    staged: tuple[Staged, ...]
    marts: tuple[dbt.Mart, ...]
    nodes: tuple[dbt.NodeResult, ...] = ()
    """The result of every seed and model."""
    release_before: str | None = None
    """The release that readers saw when it was built: it follows that one or none."""
    left_out: tuple[str, ...] = ()
    """Snapshots that an audit left out to find which one is at fault: such a candidate is never published."""


def inputs(
    storage: Storage,
    datasets: dict[str, Dataset],
    home: Path,
    *,
    leave_out: Collection[str] = (),
) -> Inputs:
    """Return what a build would read now: every snapshot that is not refused, without those of `leave_out`."""
    return Inputs(
        snapshots={
            name: tuple(s for s in snapshot.usable(storage, name) if s not in leave_out)
            for name in sorted(datasets)
        },
        code=code_digest(home),
    )


def build(
    storage: Storage,
    datasets: dict[str, Dataset],
    settings: Settings,
    engine: Engine,
    *,
    candidate_id: str,
    now: datetime,
    leave_out: Collection[str] = (),
    on_node: Callable[[str], None] | None = None,
) -> Candidate:
    """Build a candidate from every snapshot that is not refused, without those of `leave_out`; keep it in the lake.

    One of the same id is replaced, with the verdict on it.

    Raises `BuildFailed` with the models that failed; nothing that others read is touched.
    """
    wanted = inputs(storage, datasets, settings.home, leave_out=leave_out)
    shown = pointer.read(storage)
    if candidate_id in storage.folders(layout.CANDIDATES):
        discard(storage, engine, candidate_id)
    with engine.build(candidate_id, datasets, wanted.snapshots) as (workspace, staged):
        _require_one_kind(staged)
        outcome = build_models(workspace, settings.home, wanted.code, on_node)
        record = Candidate(
            candidate_id=candidate_id,
            built_at=now,
            engine=engine.name,
            inputs=wanted,
            staged=tuple(staged),
            marts=outcome.marts,
            nodes=outcome.results,
            release_before=shown[0].release_id if shown else None,
            left_out=tuple(sorted(leave_out)),
        )
        workspace.persist()
        storage.put(layout.candidate(candidate_id, RECORD), record.model_dump_json(indent=1).encode())
    return record


def reopen(engine: Engine, candidate: Candidate) -> AbstractContextManager[Workspace]:
    """Return a candidate on the engine that built it; `UsageError` on another one."""
    if candidate.engine != engine.name:
        raise UsageError(
            f"CATALUNYA_ENGINE: candidate {candidate.candidate_id} was built by {candidate.engine}, not "
            f"{engine.name}; set the variable, or build again"
        )
    return engine.reopen(candidate.candidate_id)


def newest_candidate(storage: Storage) -> Candidate | None:
    """Return the newest whole candidate that an audit did not build to find a fault; None when there is none."""
    found = (read_candidate(storage, name) for name in reversed(storage.folders(layout.CANDIDATES)))
    return next((candidate for candidate in found if candidate and not candidate.left_out), None)


def read_candidate(storage: Storage, candidate_id: str) -> Candidate | None:
    """Return the record of a whole candidate; None when it was never completed or is damaged."""
    key = layout.candidate(candidate_id, RECORD)
    try:
        return Candidate.model_validate_json(storage.read(key))
    except MissingKey:
        return None
    except ValidationError as error:
        log.warning("damaged candidate ignored", key=storage.uri(key), faults=error.error_count())
        return None


def discard_candidates(storage: Storage, engine: Engine) -> None:
    """Delete candidates that killed or refused runs left; call it only while the lake is locked.

    Those of a run in steps that has not ended are kept.
    """
    going_on = set(storage.folders(layout.RUNS))
    for candidate_id in storage.folders(layout.CANDIDATES):
        if candidate_id not in going_on:
            discard(storage, engine, candidate_id)


def discard(storage: Storage, engine: Engine, candidate_id: str) -> None:
    """Delete one candidate, on its engine and in the lake; one of another distributed engine is left to that."""
    note = layout.candidate(candidate_id, ENGINE_NOTE)
    try:
        of = json.loads(storage.read(note))["engine"] if storage.exists(note) else engine.name
    except (ValueError, KeyError, TypeError, RecursionError):
        of = f"an unknown engine, since {storage.uri(note)} is damaged"
    if of != engine.name:
        log.warning(
            "candidate left", candidate=candidate_id, reason=f"it is one of {of}, the engine is {engine.name}"
        )
        return
    engine.discard(candidate_id)
    storage.delete_folder(f"{layout.CANDIDATES}/{candidate_id}")


def _require_one_kind(staged: list[Staged]) -> None:
    """Raise `UsageError` when there are demo data and real data, as when two processes landed them at once."""
    kinds = {kind: sorted({s.dataset_id for s in staged if s.demo is kind}) for kind in (True, False)}
    if kinds[True] and kinds[False]:
        raise UsageError(
            f"CATALUNYA_LAKE: the lake mixes demo data ({', '.join(kinds[True])}) with data of real portals "
            f"({', '.join(kinds[False])}); use a lake for each"
        )


def build_models(
    workspace: Workspace, home: Path, code: str, on_node: Callable[[str], None] | None
) -> dbt.Outcome:
    """Build every seed and model.

    Raises `BuildFailed` with the nodes that failed, and when the project is no longer that of the digest `code`.
    """
    outcome = workspace.build(home / "dbt" / "mart", code, on_node)
    failed = [r for r in outcome.results if r.status in {"error", "fail"}]
    if failed:
        lines = "\n".join(f"  {r.kind} {r.name}: {r.message.strip()}" for r in failed)
        skipped = sum(r.status == "skipped" for r in outcome.results)
        hint = f"\n{MORE_MEMORY}" if "Out of Memory Error" in lines else ""
        raise BuildFailed(
            f"dbt could not build {len(failed)} of {len(outcome.results)} nodes ({skipped} skipped):\n{lines}{hint}",
            outcome.results,
        )
    if code_digest(home) != code:
        raise BuildFailed(
            f"the dbt project, its profile or a definition in {home} changed while it was built; run again"
        )
    return outcome
