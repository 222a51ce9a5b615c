"""Audit: the gates between a candidate and its release. An error stops here; a warning is published."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import duckdb
import structlog
from pydantic import BaseModel, ConfigDict

from catalunya import dbt, figures
from catalunya.build import Candidate, reopen
from catalunya.datasets import Dataset
from catalunya.engines import Engine
from catalunya.errors import Refused
from catalunya.findings import Finding, Stale
from catalunya.lake import layout, snapshot
from catalunya.lake.snapshot import Refusal
from catalunya.lake.storage import Storage
from catalunya.mart_figures import compare_marts, declared_figures, mart_figures
from catalunya.settings import Settings
from catalunya.stage import Staged, staged_record

log = structlog.get_logger(__name__)

__all__ = ["RECORD", "Audit", "Baseline", "Finding", "Stale", "audit", "refuse"]

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

    def sentences(self, severity: str) -> list[str]:
        """The messages of one severity."""
        return [finding.message for finding in self.findings if finding.severity == severity]


@dataclass(frozen=True)
class Baseline:
    """What the last release was made of: dataset to its newest snapshot and rows staged of it, and the code."""

    snapshots: dict[str, str]
    rows: dict[str, int]
    code: str
    """Digest of the dbt project and the cards that built it."""


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
    """Judge a candidate, record the verdict beside it, and return it; `refuse` acts on one that failed."""
    newest = _newest(candidate)
    findings = [
        *_snapshot_findings(storage, datasets, settings, newest, baseline),
        *_control_findings(newest),
        *_freshness_findings(storage, datasets, newest, now),
        *_stale_findings(stale),
        *_mart_findings(storage, settings, engine, candidate, baseline),
    ]
    outcome = _test(settings, engine, candidate, on_node)
    findings += _test_findings(storage, outcome, candidate, baseline)
    verdict = Audit(
        candidate_id=candidate.candidate_id,
        audited_at=now,
        passed=all(finding.severity == "warn" for finding in findings),
        tests=len(outcome.results),
        nodes=outcome.results,
        findings=tuple(findings),
    )
    storage.put(layout.candidate(candidate.candidate_id, RECORD), verdict.model_dump_json(indent=1).encode())
    return verdict


def _newest(candidate: Candidate) -> dict[str, Staged]:
    newest = candidate.inputs.newest()
    return {s.dataset_id: s for s in candidate.staged if newest.get(s.dataset_id) == s.snapshot_id}


def _snapshot_findings(
    storage: Storage,
    datasets: dict[str, Dataset],
    settings: Settings,
    newest: dict[str, Staged],
    baseline: Baseline | None,
) -> list[Finding]:
    """Judge the newest snapshots that the last release does not have, each against the one that it has."""
    findings = []
    work = storage.scratch() / "judged"
    for dataset_id, staged in newest.items():
        released = baseline.snapshots.get(dataset_id) if baseline else None
        if released == staged.snapshot_id:
            continue
        before = staged_record(storage, dataset_id, released) if released else None
        reference = None
        if released and before:
            path = storage.fetch(layout.staged(dataset_id, released), work)
            reference = figures.Reference(released, before, path)
        findings += figures.judge_snapshot(
            datasets[dataset_id],
            staged,
            storage.fetch(layout.staged(dataset_id, staged.snapshot_id), work),
            reference=reference,
            memory=figures.Memory(),
            lifted=frozenset(_lifted(storage, dataset_id, staged.snapshot_id)),
            seeds=settings.home / "dbt" / "mart" / "seeds",
        )
    return findings


def _mart_findings(
    storage: Storage,
    settings: Settings,
    engine: Engine,
    candidate: Candidate,
    baseline: Baseline | None,
) -> list[Finding]:
    """Compare the figures of the marts with those of the last release."""
    if baseline is None or candidate.release_before is None:
        return []
    declared = declared_figures(settings.home / "dbt" / "mart")
    work = storage.scratch() / "compared"

    def released(mart: str) -> str:
        path = storage.fetch(layout.release(str(candidate.release_before), f"parquet/{mart}.parquet"), work)
        return f"read_parquet({figures.literal_path(path)}, hive_partitioning = false)"

    marts = {mart.name: mart for mart in candidate.marts}
    with reopen(engine, candidate) as workspace, duckdb.connect() as con:
        now = mart_figures(lambda name: workspace.relation(con, marts[name]), con, declared)
    with duckdb.connect() as con:
        before = mart_figures(released, con, declared)
    newest = candidate.inputs.newest()
    fresh = {name: newest[name] for name in newest if baseline.snapshots.get(name) != newest[name]}
    lifted = frozenset(gate for name, added in fresh.items() for gate in _lifted(storage, name, added))
    return compare_marts(now, before, declared, lifted)


def _control_findings(newest: dict[str, Staged]) -> list[Finding]:
    return [
        Finding(
            gate="control",
            severity="warn",
            message=(
                f"{dataset_id}: {control.control} of {control.period} sum to {control.computed}, "
                f"the publisher's own total is {control.published}"
            ),
            dataset_id=dataset_id,
            snapshot_id=staged.snapshot_id,
            figures={"published": control.published, "computed": control.computed},
        )
        for dataset_id, staged in newest.items()
        for control in staged.controls
        if control.published != control.computed
    ]


def _freshness_findings(
    storage: Storage, datasets: dict[str, Dataset], newest: dict[str, Staged], now: datetime
) -> list[Finding]:
    findings = []
    for dataset_id, staged in newest.items():
        days = datasets[dataset_id].cadence_days
        age = now - staged.taken_at
        if age > timedelta(days=days):
            findings.append(
                Finding(
                    gate="freshness",
                    severity="warn",
                    message=(
                        f"{dataset_id}: nothing new for {age.days} days (snapshot {staged.snapshot_id}); "
                        f"its cadence is {days} days"
                    ),
                    dataset_id=dataset_id,
                    snapshot_id=staged.snapshot_id,
                    figures={"age_days": age.days, "cadence_days": days},
                )
            )
    return findings


def _stale_findings(stale: tuple[Stale, ...]) -> list[Finding]:
    """The last good snapshot of a source that cannot be read may be released; the release says so."""
    return [
        Finding(
            gate="stale",
            severity="warn",
            message=(
                f"{s.dataset_id}: nothing newer could be used than snapshot {s.snapshot_id}, "
                f"{s.age_hours:g} hours old"
            ),
            dataset_id=s.dataset_id,
            snapshot_id=s.snapshot_id,
            figures={"age_hours": s.age_hours},
        )
        for s in stale
    ]


def _test(
    settings: Settings, engine: Engine, candidate: Candidate, on_node: Callable[[str], None] | None
) -> dbt.Outcome:
    with reopen(engine, candidate) as workspace:
        return dbt.invoke(
            ["test", "--exclude-resource-type", "unit_test"],
            project=settings.home / "dbt" / "mart",
            digest=candidate.inputs.code,
            target=workspace.target,
            sample=workspace.sample,
            on_node=on_node,
        )


def _test_findings(
    storage: Storage, outcome: dbt.Outcome, candidate: Candidate, baseline: Baseline | None
) -> list[Finding]:
    """One finding per test that did not pass, and the snapshot that caused it, where only one can have.

    With other code than the last release's the code may be at fault, and no snapshot is blamed.
    """
    newest = candidate.inputs.newest()
    before = baseline.snapshots if baseline and baseline.code == candidate.inputs.code else {}
    fresh = {name: newest[name] for name in newest if name in before and before[name] != newest[name]}
    findings = []
    for result in outcome.results:
        if result.status in {"pass", "success"}:
            continue
        suspects = [name for name in result.sources if name in fresh]
        cause = suspects[0] if len(suspects) == 1 else None
        lifted = {test for name in suspects for test in _lifted(storage, name, fresh[name])}
        warns = result.status == "warn" or result.node_id in lifted
        findings.append(
            Finding(
                gate="dbt",
                severity="warn" if warns else "error",
                message=_sentence(result),
                dataset_id=cause,
                snapshot_id=fresh[cause] if cause else None,
                figures={"failures": result.failures, "test": result.node_id},
            )
        )
    return findings


def _lifted(storage: Storage, dataset_id: str, snapshot_id: str) -> set[str]:
    """The gates and dbt tests whose refusal of a snapshot somebody lifted: they only warn of it from then on."""
    acceptance = snapshot.acceptance(storage, dataset_id, snapshot_id)
    if acceptance is None:
        return set()
    return {acceptance.refusal.gate, *acceptance.refusal.figures.get("lifts", [])}


def _sentence(result: dbt.NodeResult) -> str:
    if result.failures == 0:
        return f"dbt test {result.name} could not run: {result.message.strip()}"
    examples = "; ".join(result.examples)
    more = f"; and {result.failures - dbt.EXAMPLES} more" if result.failures > dbt.EXAMPLES else ""
    return f"dbt test {result.name}: {result.failures} rows break it ({examples}{more})"


def refuse(storage: Storage, verdict: Audit, *, run_id: str, now: datetime) -> None:
    """Mark the snapshots that made an audit fail, so that the next run passes them over; raises `Refused`."""
    errors = [finding for finding in verdict.findings if finding.severity == "error"]
    blamed: dict[tuple[str, str], list[Finding]] = {}
    for finding in errors:
        if finding.dataset_id and finding.snapshot_id:
            blamed.setdefault((finding.dataset_id, finding.snapshot_id), []).append(finding)
    for (dataset_id, snapshot_id), found in blamed.items():
        refusal = Refusal(
            gate=found[0].gate,
            reason="; ".join(finding.message for finding in found),
            figures={**found[0].figures, "lifts": [f.figures.get("test", f.gate) for f in found]},
            refused_at=now,
            run_id=run_id,
        )
        snapshot.refuse(storage, dataset_id, snapshot_id, refusal)
    causes = sorted({f.snapshot_id for f in errors if f.snapshot_id})
    remedy = "".join(f" If the change is real: `catalunya accept {name} --why …`." for name in causes)
    if any(f.gate == "dbt" and not f.snapshot_id for f in errors):
        remedy += " No single snapshot is to blame: mend the model or its test, then run again."
    raise Refused(
        "the audit refused the candidate: "
        + "; ".join(f.message for f in errors)
        + ". The last release stays."
        + remedy
    )
