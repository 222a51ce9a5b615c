"""Audit: the gates between a candidate and its release. An error stops here; a warning is published."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from pydantic import BaseModel, ConfigDict

from catalunya import dbt
from catalunya.build import Candidate, reopen
from catalunya.datasets import Dataset
from catalunya.engines import Engine
from catalunya.errors import Refused
from catalunya.findings import Finding, Stale
from catalunya.lake import layout, snapshot
from catalunya.lake.snapshot import Refusal
from catalunya.lake.storage import Storage
from catalunya.settings import Settings
from catalunya.stage import Staged

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
        *_row_findings(storage, datasets, newest, baseline),
        *_control_findings(newest),
        *_freshness_findings(storage, datasets, newest, now),
        *_stale_findings(stale),
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


def _row_findings(
    storage: Storage, datasets: dict[str, Dataset], newest: dict[str, Staged], baseline: Baseline | None
) -> list[Finding]:
    findings = []
    for dataset_id, staged in newest.items():
        dataset = datasets[dataset_id]
        rows, expected = staged.rows_staged, dataset.expected_rows
        if not expected.minimum <= rows <= expected.maximum:
            findings.append(
                Finding(
                    gate="expected",
                    severity="warn",
                    message=f"{dataset_id}: {rows} rows, expected are {expected.minimum} to {expected.maximum}",
                    dataset_id=dataset_id,
                    snapshot_id=staged.snapshot_id,
                    figures={"rows": rows, **expected.model_dump()},
                )
            )
        before = baseline.rows.get(dataset_id) if baseline else None
        same = baseline is not None and baseline.snapshots.get(dataset_id) == staged.snapshot_id
        if before is None or same or _is_tolerated(dataset, before, rows):
            continue
        by_hand = "rows" in _lifted(storage, dataset_id, staged.snapshot_id)
        change = f"{100 * (rows - before) / before:+.1f} %" if before else "from none"
        findings.append(
            Finding(
                gate="rows",
                severity="warn" if by_hand else "error",
                message=(
                    f"{dataset_id}: snapshot {staged.snapshot_id} has {rows} rows, the last release {before} "
                    f"({change}); tolerated are -{dataset.tolerance.decrease_ratio:.0%} to "
                    f"+{dataset.tolerance.increase_ratio:.0%}" + (", accepted by hand" if by_hand else "")
                ),
                dataset_id=dataset_id,
                snapshot_id=staged.snapshot_id,
                figures={"rows": rows, "rows_before": before, "tolerated": dataset.tolerance.model_dump()},
            )
        )
    return findings


def _is_tolerated(dataset: Dataset, before: int, rows: int) -> bool:
    if rows == 0 and before > 0:
        return False
    limits = dataset.tolerance
    if abs(rows - before) <= limits.rows:
        return True
    return before * (1 - limits.decrease_ratio) <= rows <= before * (1 + limits.increase_ratio)


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
