"""Audit: the gates between a candidate and its release. An error stops here; a warning is published."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from catalunya import sql
from catalunya.build import Candidate, reopen
from catalunya.datasets.model import Dataset
from catalunya.errors import Refused, UsageError
from catalunya.lake import index, layout, snapshot
from catalunya.lake.snapshot import DEFINITION_GATES, Refusal
from catalunya.lake.staged import Staged
from catalunya.lake.storage import MissingKey, Storage
from catalunya.quality import figures
from catalunya.quality.findings import Finding, Stale
from catalunya.quality.mart_figures import compare_marts, declared_figures, mart_figures
from catalunya.settings import Settings
from catalunya.staging.row_sql import definition_digest
from catalunya.warehouse import dbt
from catalunya.warehouse.engines import Engine

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
        *_snapshot_findings(storage, datasets, settings, candidate, baseline, lifts),
        *_control_findings(newest),
        *_freshness_findings(storage, datasets, newest, now),
        *_stale_findings(stale),
    ]
    results: tuple[dbt.NodeResult, ...] = ()
    marts: dict[str, float] = {}
    if all(finding.severity == "warn" for finding in findings):
        marts = figures_of_candidate(settings, engine, candidate)
        new = [name for ids in pending(candidate, baseline).values() for name in ids]
        findings += _mart_findings(storage, settings, marts, baseline, lifts, new)
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


def _newest(candidate: Candidate) -> dict[str, Staged]:
    newest = candidate.inputs.newest()
    return {s.dataset_id: s for s in candidate.staged if newest.get(s.dataset_id) == s.snapshot_id}


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
    work = storage.scratch() / "judged"
    try:
        for dataset_id, ids in pending(candidate, baseline).items():
            known = index.load(storage, dataset_id)
            passed = [s for s in candidate.inputs.snapshots[dataset_id] if s not in ids]
            for snapshot_id in ids:
                before = [name for name in passed if name < snapshot_id]
                found = figures.judge_snapshot(
                    datasets[dataset_id],
                    _record(candidate, dataset_id, snapshot_id),
                    storage.fetch(layout.staged(dataset_id, snapshot_id), work),
                    reference=_reference(storage, candidate, dataset_id, before[-1], work)
                    if before
                    else None,
                    memory=_memory(known, before),
                    lifted=lifts.get(snapshot_id, frozenset()),
                    seeds=settings.home / "dbt" / "mart" / "seeds",
                )
                if all(finding.severity == "warn" for finding in found):
                    passed = sorted([*passed, snapshot_id])
                findings += found
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return findings


def _record(candidate: Candidate, dataset_id: str, snapshot_id: str) -> Staged:
    return next(s for s in candidate.staged if (s.dataset_id, s.snapshot_id) == (dataset_id, snapshot_id))


def _reference(
    storage: Storage, candidate: Candidate, dataset_id: str, snapshot_id: str, work: Path
) -> figures.Reference:
    path = storage.fetch(layout.staged(dataset_id, snapshot_id), work)
    return figures.Reference(snapshot_id, _record(candidate, dataset_id, snapshot_id), path)


def _memory(known: index.Index, snapshot_ids: list[str]) -> figures.Memory:
    """What the index remembers of snapshots that passed."""
    return figures.Memory(
        tuple(
            figures.Remembered(
                snapshot_id=snapshot_id,
                taken_at=layout.moment_of(snapshot_id),
                rows=staged.rows_staged,
                figures=staged.figures,
                by_hand=bool(known.lifts(snapshot_id)),
            )
            for snapshot_id in snapshot_ids
            if (staged := known.staged(snapshot_id))
        )
    )


def figures_of_candidate(settings: Settings, engine: Engine, candidate: Candidate) -> dict[str, float]:
    """The figures that the models declare, of a candidate's marts."""
    marts = {mart.name: mart for mart in candidate.marts}
    declared = [f for f in declared_figures(settings.home / "dbt" / "mart") if f.mart in marts]
    with reopen(engine, candidate) as workspace, duckdb.connect() as con:
        return mart_figures(lambda name: workspace.relation(con, marts[name]), con, declared)


def figures_of_release(
    storage: Storage, settings: Settings, release_id: str, marts: Collection[str]
) -> dict[str, float]:
    """The same of a release that did not record them."""
    declared = [f for f in declared_figures(settings.home / "dbt" / "mart") if f.mart in marts]
    work = storage.scratch() / "compared"

    def relation(mart: str) -> str:
        path = storage.fetch(layout.release(release_id, f"parquet/{mart}.parquet"), work)
        return sql.read_parquet([path])

    try:
        with duckdb.connect() as con:
            return mart_figures(relation, con, declared)
    finally:
        shutil.rmtree(work, ignore_errors=True)


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
        before = figures_of_release(storage, settings, baseline.release_id, baseline.marts)
    lifted = frozenset(gate for name in ids for gate in lifts.get(name, ()))
    return compare_marts(now, before, declared_figures(settings.home / "dbt" / "mart"), lifted)


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
    lifted = {name_of_test(name) for names in lifts.values() for name in names}
    return [
        Finding(
            gate="dbt",
            severity="warn" if result.status == "warn" or name_of_test(result.node_id) in lifted else "error",
            message=_sentence(result),
            figures={"failures": result.failures, "test": result.node_id},
        )
        for result in outcome.results
        if result.status not in {"pass", "success"}
    ]


_RENAMED_TESTS = {
    "filled_": "not_null_",
    "unique_combination_": "unique_combination_of_columns_",
    "within_range_": "accepted_range_",
}
_RENAMED_MODELS = {"int_service_wordings": "int_service_distinct_states"}


def name_of_test(node_id: str) -> str:
    """Return the name of a dbt test by its id, also by an id that an `accepted.json` has from before a renaming.

    An id ends with a hash of the test's definition, which is not part of the name; a gate is its own name.
    """
    name = ".".join(node_id.split(".")[:3])
    for old, new in _RENAMED_TESTS.items():
        name = re.sub(rf"^(test\.\w+\.){old}(?!of_columns_)", rf"\g<1>{new}", name)
    for old, new in _RENAMED_MODELS.items():
        name = name.replace(f"_{old}_", f"_{new}_")
    return name


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
            if gate in DEFINITION_GATES
            else candidate.inputs.code,
        )
        snapshot.refuse(storage, dataset_id, snapshot_id, refusal)
    causes = {snapshot_id: "; ".join(f.message for f in found) for (_, snapshot_id), found in blamed.items()}
    remedy = "".join(f" If the change is real: `catalunya accept {name} --why …`." for name in sorted(causes))
    if any(not f.snapshot_id for f in errors):
        remedy += " No single snapshot is to blame: correct the model or its test, then run again."
        if candidate.release_before is None:
            newest = ", ".join(candidate.inputs.newest().values())
            remedy += (
                f" If a source is wrong, its next answer is judged too; the newest snapshots are {newest}."
            )
    raise Refused(
        "the audit refused the candidate: "
        + "; ".join(dict.fromkeys(f.message for f in errors))
        + (". The last release stays." if candidate.release_before else ". There is no release yet.")
        + remedy,
        causes,
    )
