"""Audit: the gates between a candidate and its release. An error refuses the candidate; a warning is published."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb
from pydantic import BaseModel, ConfigDict, ValidationError

from catalunya import sql
from catalunya.build import Candidate, reopen
from catalunya.datasets.model import Dataset
from catalunya.errors import Refused, UsageError
from catalunya.lake import index, layout, snapshot
from catalunya.lake.snapshot import DEFINITION_GATES, Refusal
from catalunya.lake.storage import MissingKey, Storage
from catalunya.lake.temporary import temporary_folder
from catalunya.quality import figures
from catalunya.quality.culprits import culprits
from catalunya.quality.findings import Finding, Stale
from catalunya.quality.mart_figures import compare_marts, declared_figures, mart_figures
from catalunya.quality.source_findings import source_findings
from catalunya.settings import Settings
from catalunya.staging.row_sql import definition_digest
from catalunya.warehouse import dbt
from catalunya.warehouse.dbt_findings import require_run, test_findings
from catalunya.warehouse.engines import Engine

__all__ = ["RECORD", "Audit", "Baseline", "Finding", "Stale", "audit", "culprits", "refuse"]

RECORD = "audit.json"


class Audit(BaseModel):
    """The record of an audit; `publish` reads it and goes on only when `passed`."""

    model_config = ConfigDict(frozen=True)

    candidate_id: str
    audited_at: datetime
    passed: bool
    tests: int
    nodes: tuple[dbt.NodeResult, ...] = ()
    """The result of every dbt test."""
    findings: tuple[Finding, ...]
    figures: dict[str, float] = {}
    """Figures of the marts, which the next release is compared with."""

    def sentences(self, severity: str) -> list[str]:
        """The messages of one severity."""
        return [finding.message for finding in self.findings if finding.severity == severity]


@dataclass(frozen=True)
class Baseline:
    """What the last release was made of."""

    accepted: dict[str, tuple[str, ...]]
    """Dataset to every snapshot in it, oldest first."""
    code: str
    """Digest of the code that built it (`build.code_digest`)."""
    release_id: str
    marts: tuple[str, ...]
    figures: dict[str, float] | None
    """Figures of its marts; None when the release did not record them."""


def pending(candidate: Candidate, baseline: Baseline | None) -> dict[str, tuple[str, ...]]:
    """Dataset to the snapshots of a candidate that the last release does not have, oldest first: those to judge."""
    accepted = baseline.accepted if baseline else {}
    return {
        name: new
        for name, ids in candidate.inputs.snapshots.items()
        if (new := tuple(s for s in ids if s not in accepted.get(name, ())))
    }


def audit(
    storage: Storage,
    datasets: dict[str, Dataset],
    settings: Settings,
    engine: Engine,
    candidate: Candidate,
    baseline: Baseline | None,
    *,
    now: datetime,
    stale: tuple[Stale, ...] = (),
    on_node: Callable[[str], None] | None = None,
) -> Audit:
    """Judge a candidate, record the verdict beside it, and return it; `refuse` acts on one that failed.

    First each pending snapshot, oldest first, against the one before it that passed; then, if all passed, the marts.
    Raises `BuildFailed` when a dbt test cannot run for want of memory, disk or network.
    """
    lifts, newest = _lifts(storage, candidate), candidate.inputs.newest()
    newest_staged = [s for s in candidate.staged if newest.get(s.dataset_id) == s.snapshot_id]
    findings = [
        *_snapshot_findings(storage, datasets, settings, candidate, baseline, lifts),
        *source_findings(datasets, newest_staged, stale, now),
    ]
    results: tuple[dbt.NodeResult, ...] = ()
    marts: dict[str, float] = {}
    if not any(finding.is_error for finding in findings):
        marts = figures_of_candidate(settings, engine, candidate)
        new = [name for ids in pending(candidate, baseline).values() for name in ids]
        findings += _mart_findings(storage, settings, marts, baseline, lifts, new)
        with reopen(engine, candidate) as workspace:
            results = workspace.test(settings.home / "dbt" / "mart", candidate.inputs.code, on_node)
        require_run(results)
        findings += test_findings(results, lifts)
    verdict = Audit(
        candidate_id=candidate.candidate_id,
        audited_at=now,
        passed=not any(finding.is_error for finding in findings),
        tests=len(results),
        nodes=results,
        findings=tuple(findings),
        figures=marts,
    )
    storage.put(layout.candidate(candidate.candidate_id, RECORD), verdict.model_dump_json(indent=1).encode())
    return verdict


def read_verdict(storage: Storage, candidate: Candidate) -> Audit:
    """The verdict on a candidate; raises `UsageError` when it was not audited."""
    key = layout.candidate(candidate.candidate_id, RECORD)
    try:
        return Audit.model_validate_json(storage.read(key))
    except (MissingKey, ValidationError):
        raise UsageError(
            f"candidate {candidate.candidate_id} was not audited; run `catalunya audit` first"
        ) from None


def _lifts(storage: Storage, candidate: Candidate) -> dict[str, frozenset[str]]:
    """Snapshot to the gates and dbt tests that a person lifted for it, of the snapshots in a candidate."""
    return {
        snapshot_id: lifted
        for dataset_id, ids in candidate.inputs.snapshots.items()
        for known in [index.load(storage, dataset_id)]
        for snapshot_id in ids
        if (lifted := known.lifts(snapshot_id))
    }


def _snapshot_findings(
    storage: Storage,
    datasets: dict[str, Dataset],
    settings: Settings,
    candidate: Candidate,
    baseline: Baseline | None,
    lifts: dict[str, frozenset[str]],
) -> list[Finding]:
    """Judge every pending snapshot, oldest first, each against the last one before it that passed."""
    findings: list[Finding] = []
    records = {(s.dataset_id, s.snapshot_id): s for s in candidate.staged}
    with temporary_folder(storage, "judged") as work:

        def file_of(dataset_id: str, snapshot_id: str) -> Path:
            return storage.fetch(layout.staged(dataset_id, snapshot_id), work)

        for dataset_id, ids in pending(candidate, baseline).items():
            known = index.load(storage, dataset_id)
            passed = [s for s in candidate.inputs.snapshots[dataset_id] if s not in ids]
            for snapshot_id in ids:
                before = [name for name in passed if name < snapshot_id]
                last = before[-1] if before else None
                found = figures.judge_snapshot(
                    datasets[dataset_id],
                    records[dataset_id, snapshot_id],
                    file_of(dataset_id, snapshot_id),
                    reference=figures.Reference(records[dataset_id, last], file_of(dataset_id, last))
                    if last
                    else None,
                    history=_history(known, before),
                    lifted=lifts.get(snapshot_id, frozenset()),
                    seeds=settings.home / "dbt" / "mart" / "seeds",
                )
                if not any(finding.is_error for finding in found):
                    passed = sorted([*passed, snapshot_id])
                findings += found
    return findings


def _history(known: index.Index, snapshot_ids: list[str]) -> tuple[figures.EarlierSnapshot, ...]:
    """What the index says of snapshots that passed."""
    return tuple(
        figures.EarlierSnapshot(
            snapshot_id=snapshot_id,
            taken_at=layout.moment_of(snapshot_id),
            rows=staged.rows_staged,
            figures=staged.figures,
            by_hand=bool(known.lifts(snapshot_id)),
        )
        for snapshot_id in snapshot_ids
        if (staged := known.staged(snapshot_id))
    )


def figures_of_candidate(settings: Settings, engine: Engine, candidate: Candidate) -> dict[str, float]:
    """The figures that the models declare, of a candidate's marts."""
    marts = {mart.name: mart for mart in candidate.marts}
    declared = [f for f in declared_figures(settings.home / "dbt" / "mart") if f.mart in marts]
    with reopen(engine, candidate) as workspace, duckdb.connect() as con:
        return mart_figures(lambda name: workspace.relation(con, marts[name]), con, declared)


def _figures_of_release(
    storage: Storage, settings: Settings, release_id: str, marts: Collection[str]
) -> dict[str, float]:
    """The same of a release that did not record them."""
    declared = [f for f in declared_figures(settings.home / "dbt" / "mart") if f.mart in marts]
    with temporary_folder(storage, "compared") as work, duckdb.connect() as con:

        def relation(mart: str) -> str:
            return sql.read_parquet(
                [storage.fetch(layout.release(release_id, f"parquet/{mart}.parquet"), work)]
            )

        return mart_figures(relation, con, declared)


def _mart_findings(
    storage: Storage,
    settings: Settings,
    now: dict[str, float],
    baseline: Baseline | None,
    lifts: dict[str, frozenset[str]],
    ids: Collection[str],
) -> list[Finding]:
    if baseline is None:
        return []
    before = baseline.figures
    if before is None:
        before = _figures_of_release(storage, settings, baseline.release_id, baseline.marts)
    lifted = frozenset(gate for name in ids for gate in lifts.get(name, ()))
    return compare_marts(now, before, declared_figures(settings.home / "dbt" / "mart"), lifted)


def blame(verdict: Audit, snapshots: Mapping[str, str]) -> Audit:
    """Return the verdict, with its errors about the marts as errors of these snapshots (id to dataset)."""
    if not snapshots:
        return verdict
    findings: list[Finding] = []
    for finding in verdict.findings:
        if not finding.is_error or finding.snapshot_id:
            findings.append(finding)
            continue
        findings += [
            finding.model_copy(update={"dataset_id": dataset_id, "snapshot_id": snapshot_id})
            for snapshot_id, dataset_id in snapshots.items()
        ]
    return verdict.model_copy(update={"findings": tuple(findings)})


def refuse(
    storage: Storage,
    datasets: dict[str, Dataset],
    candidate: Candidate,
    verdict: Audit,
    *,
    run_id: str,
    now: datetime,
) -> None:
    """Refuse the snapshots that made an audit fail, so that later builds leave them out; raises `Refused`."""
    errors = [finding for finding in verdict.findings if finding.is_error]
    blamed: dict[tuple[str, str], list[Finding]] = {}
    for finding in errors:
        if finding.dataset_id and finding.snapshot_id:
            blamed.setdefault((finding.dataset_id, finding.snapshot_id), []).append(finding)
    causes: dict[str, str] = {}
    for (dataset_id, snapshot_id), found in blamed.items():
        gate, causes[snapshot_id] = found[0].gate, "; ".join(finding.message for finding in found)
        refusal = Refusal(
            gate=gate,
            reason=causes[snapshot_id],
            figures={**found[0].figures, "lifts": [f.figures.get("test", f.gate) for f in found]},
            refused_at=now,
            run_id=run_id,
            judged_with=definition_digest(datasets[dataset_id])
            if gate in DEFINITION_GATES
            else candidate.inputs.code,
        )
        snapshot.refuse(storage, dataset_id, snapshot_id, refusal)
    hint = "".join(f" If the change is real: `catalunya accept {name} --why …`." for name in sorted(causes))
    if any(not f.snapshot_id for f in errors):
        hint += " No single snapshot is to blame: correct the model or its test, then run again."
        if candidate.release_before is None:
            newest = ", ".join(candidate.inputs.newest().values())
            hint += (
                f" If a source is wrong, its next answer is judged too; the newest snapshots are {newest}."
            )
    raise Refused(
        "the audit refused the candidate: "
        + "; ".join(dict.fromkeys(f.message for f in errors))
        + (". The last release stays." if candidate.release_before else ". There is no release yet.")
        + hint,
        causes,
    )
