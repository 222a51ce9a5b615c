"""Audit: the gates between a candidate and its release. An error stops here; a warning is published."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import structlog
from pydantic import BaseModel, ConfigDict

from catalunya import dbt
from catalunya.build import Candidate, reopen
from catalunya.datasets import Dataset
from catalunya.engines import Engine
from catalunya.errors import Refused, UsageError
from catalunya.lake import index, layout, snapshot
from catalunya.lake.snapshot import Refusal
from catalunya.lake.storage import MissingKey, Storage
from catalunya.settings import Settings
from catalunya.stage import STAGING_GATES, Staged, definition_digest

log = structlog.get_logger(__name__)

RECORD = "audit.json"


class Stale(BaseModel):
    """A dataset whose source could not be read: the snapshot used instead, and its age."""

    model_config = ConfigDict(frozen=True)

    dataset_id: str
    snapshot_id: str
    age_hours: float


class Finding(BaseModel):
    """What one gate found."""

    model_config = ConfigDict(frozen=True)

    gate: Literal["dbt", "rows", "expected_rows", "control", "freshness", "stale"]
    severity: Literal["error", "warn"]
    message: str
    dataset_id: str | None = None
    snapshot_id: str | None = None
    """The snapshot that caused it, where one did."""
    figures: dict[str, Any] = {}


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
    """What the last release was made of."""

    accepted: dict[str, tuple[str, ...]]
    """Dataset to every snapshot in it, oldest first."""
    rows: dict[str, int]
    """Dataset to the rows staged of its newest snapshot."""
    code: str
    """Digest of the code that built it (`build.code_digest`)."""


def pending(candidate: Candidate, baseline: Baseline | None) -> dict[str, tuple[str, ...]]:
    """Dataset to the snapshots of a candidate that the last release does not have, oldest first: those to judge."""
    accepted = {name: set(ids) for name, ids in baseline.accepted.items()} if baseline else {}
    found = {
        name: tuple(s for s in ids if s not in accepted.get(name, set()))
        for name, ids in candidate.inputs.snapshots.items()
    }
    return {name: ids for name, ids in found.items() if ids}


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
    """
    lifts = _lifts(storage, candidate)
    newest = _newest(candidate)
    findings = [
        *_snapshot_findings(storage, datasets, candidate, baseline, lifts),
        *_control_findings(newest),
        *_freshness_findings(storage, datasets, newest, now),
        *_stale_findings(stale),
    ]
    results: tuple[dbt.NodeResult, ...] = ()
    if all(finding.severity == "warn" for finding in findings):
        outcome = _test(settings, engine, candidate, on_node)
        findings += _test_findings(outcome, lifts)
        results = outcome.results
    verdict = Audit(
        candidate_id=candidate.candidate_id,
        audited_at=now,
        passed=all(finding.severity == "warn" for finding in findings),
        tests=len(results),
        nodes=results,
        findings=tuple(findings),
    )
    storage.put(layout.candidate(candidate.candidate_id, RECORD), verdict.model_dump_json(indent=1).encode())
    return verdict


def read_verdict(storage: Storage, candidate: Candidate) -> Audit:
    """The verdict on a candidate; raises `UsageError` when it was not audited."""
    key = layout.candidate(candidate.candidate_id, RECORD)
    try:
        return Audit.model_validate_json(storage.read(key))
    except MissingKey:
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
    candidate: Candidate,
    baseline: Baseline | None,
    lifts: dict[str, frozenset[str]],
) -> list[Finding]:
    staged = {(s.dataset_id, s.snapshot_id): s for s in candidate.staged}
    findings: list[Finding] = []
    for dataset_id, ids in pending(candidate, baseline).items():
        passed = [s for s in candidate.inputs.snapshots[dataset_id] if s not in ids]
        for snapshot_id in ids:
            before = [name for name in passed if name < snapshot_id]
            found = _row_findings(
                datasets[dataset_id],
                staged[dataset_id, snapshot_id],
                staged[dataset_id, before[-1]] if before else None,
                lifts.get(snapshot_id, frozenset()),
            )
            if all(finding.severity == "warn" for finding in found):
                passed = sorted([*passed, snapshot_id])
            findings += found
    return findings


def _newest(candidate: Candidate) -> dict[str, Staged]:
    newest = candidate.inputs.newest()
    return {s.dataset_id: s for s in candidate.staged if newest.get(s.dataset_id) == s.snapshot_id}


def _row_findings(
    dataset: Dataset, staged: Staged, before: Staged | None, lifted: frozenset[str]
) -> list[Finding]:
    findings = []
    rows, expected = staged.rows_staged, dataset.expected_rows
    if not expected.minimum <= rows <= expected.maximum:
        findings.append(
            Finding(
                gate="expected_rows",
                severity="warn",
                message=f"{dataset.id}: {rows} rows, expected are {expected.minimum} to {expected.maximum}",
                dataset_id=dataset.id,
                snapshot_id=staged.snapshot_id,
                figures={"rows": rows, **expected.model_dump()},
            )
        )
    if before is None or _is_tolerated(dataset, before.rows_staged, rows):
        return findings
    by_hand = "rows" in lifted
    change = (
        f"{100 * (rows - before.rows_staged) / before.rows_staged:+.1f} %"
        if before.rows_staged
        else "from none"
    )
    findings.append(
        Finding(
            gate="rows",
            severity="warn" if by_hand else "error",
            message=(
                f"{dataset.id}: snapshot {staged.snapshot_id} has {rows} rows, the last release {before.rows_staged} "
                f"({change}); tolerated are -{dataset.tolerance.decrease_ratio:.0%} to "
                f"+{dataset.tolerance.increase_ratio:.0%}" + (", accepted by hand" if by_hand else "")
            ),
            dataset_id=dataset.id,
            snapshot_id=staged.snapshot_id,
            figures={
                "rows": rows, "rows_before": before.rows_staged, "tolerated": dataset.tolerance.model_dump(),
            },
        )
    )  # fmt: skip
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


def _test_findings(outcome: dbt.Outcome, lifts: dict[str, frozenset[str]]) -> list[Finding]:
    """One finding per test that did not pass; it only warns when somebody lifted that test for a snapshot."""
    lifted = {name for names in lifts.values() for name in names}
    return [
        Finding(
            gate="dbt",
            severity="warn" if result.status == "warn" or result.node_id in lifted else "error",
            message=_sentence(result),
            figures={"failures": result.failures, "test": result.node_id},
        )
        for result in outcome.results
        if result.status not in {"pass", "success"}
    ]


def _sentence(result: dbt.NodeResult) -> str:
    if result.failures == 0:
        return f"dbt test {result.name} could not run: {result.message.strip()}"
    examples = "; ".join(result.examples)
    more = f"; and {result.failures - dbt.EXAMPLES} more" if result.failures > dbt.EXAMPLES else ""
    return f"dbt test {result.name}: {result.failures} rows break it ({examples}{more})"


def blame(verdict: Audit, snapshots: Mapping[str, str]) -> Audit:
    """The verdict, with its errors about the marts as errors of these snapshots (id to dataset)."""
    findings = []
    for finding in verdict.findings:
        if finding.severity == "warn" or finding.snapshot_id or not snapshots:
            findings.append(finding)
            continue
        findings += [
            finding.model_copy(update={"dataset_id": dataset_id, "snapshot_id": snapshot_id})
            for snapshot_id, dataset_id in snapshots.items()
        ]
    return verdict.model_copy(update={"findings": tuple(findings)})


def culprits(
    suspects: Mapping[str, str], passes: Callable[[frozenset[str]], bool], *, same_code: bool
) -> dict[str, str]:
    """The pending snapshots (id to dataset) that make an audit of the marts fail; none when the code does.

    `passes(left_out)` builds and judges a candidate without the snapshots of `left_out`. Datasets are tried one by one,
    then the snapshots of those at fault. With the code of the last release, one suspect alone needs no trial.
    """
    if not suspects or (same_code and len(suspects) == 1):
        return dict(suspects)
    everything = frozenset(suspects)
    if not passes(everything):
        return {}
    by_dataset: dict[str, list[str]] = {}
    for snapshot_id in sorted(suspects):
        by_dataset.setdefault(suspects[snapshot_id], []).append(snapshot_id)
    left_out = everything
    for group in by_dataset.values():
        if passes(left_out - frozenset(group)):
            left_out -= frozenset(group)
            continue
        if len(group) > 1:
            for snapshot_id in group:
                if passes(left_out - {snapshot_id}):
                    left_out -= {snapshot_id}
    return {snapshot_id: suspects[snapshot_id] for snapshot_id in sorted(left_out)}


def refuse(
    storage: Storage,
    datasets: dict[str, Dataset],
    candidate: Candidate,
    verdict: Audit,
    *,
    run_id: str,
    now: datetime,
) -> None:
    """Mark the snapshots that made an audit fail, so that they are passed over; raises `Refused`."""
    errors = [finding for finding in verdict.findings if finding.severity == "error"]
    blamed: dict[tuple[str, str], list[Finding]] = {}
    for finding in errors:
        if finding.dataset_id and finding.snapshot_id:
            blamed.setdefault((finding.dataset_id, finding.snapshot_id), []).append(finding)
    for (dataset_id, snapshot_id), found in blamed.items():
        gate = found[0].gate
        refusal = Refusal(
            gate=gate,
            reason="; ".join(finding.message for finding in found),
            figures={**found[0].figures, "lifts": [f.figures.get("test", f.gate) for f in found]},
            refused_at=now,
            run_id=run_id,
            judged_with=definition_digest(datasets[dataset_id])
            if gate in STAGING_GATES
            else candidate.inputs.code,
        )
        snapshot.refuse(storage, dataset_id, snapshot_id, refusal)
    causes = {snapshot_id: "; ".join(f.message for f in found) for (_, snapshot_id), found in blamed.items()}
    remedy = "".join(f" If the change is real: `catalunya accept {name} --why …`." for name in sorted(causes))
    if any(not f.snapshot_id for f in errors):
        remedy += " No single snapshot is to blame: mend the model or its test, then run again."
    raise Refused(
        "the audit refused the candidate: "
        + "; ".join(dict.fromkeys(f.message for f in errors))
        + ". The last release stays."
        + remedy,
        causes,
    )
