"""The audit of a run: judge the candidate and, when its marts are wrong, find the snapshots at fault.

The marts are compared with those of the last release. Where the code changed since, or a snapshot of the release was
refused, the release's data are built again with today's code to compare with. Where the marts of the candidate are
wrong, it is built and judged again without some of the new snapshots until those at fault are known.
"""

from __future__ import annotations

from dataclasses import replace

from catalunya import publish
from catalunya.audit import Audit, audit, blame, culprits, figures_of_candidate, pending, refuse
from catalunya.build import Candidate, discard
from catalunya.runs.state import RunState


def audit_candidate(run: RunState, candidate: Candidate) -> Audit:
    """Judge a candidate; marks the snapshots at fault and raises `Refused` when it fails."""
    verdict = _verdict_on(run, candidate)
    wrong = any(f.gate == "marts" and f.severity == "error" for f in verdict.findings)
    if wrong and _is_otherwise_different(run, candidate):
        run.compare_with = _figures_of_old_data(run, candidate)
        verdict = _verdict_on(run, candidate)
    run.record.findings = list(verdict.findings)
    for sentence in verdict.sentences("warn"):
        run.record.warn(sentence)
    if not verdict.passed:
        verdict = blame(verdict, _culprits(run, candidate, verdict))
        refuse(run.storage, run.datasets, candidate, verdict, run_id=run.record.run_id, now=run.now)
    return verdict


def _verdict_on(run: RunState, candidate: Candidate) -> Audit:
    baseline = publish.baseline(run.last)
    if baseline is not None and run.compare_with is not None:
        baseline = replace(baseline, figures=run.compare_with)
    return audit(
        run.storage,
        run.datasets,
        run.settings,
        run.engine,
        candidate,
        baseline,
        now=run.now,
        stale=run.stale,
        on_node=lambda line: run.reporter.step("audit", line),
    )


def _is_otherwise_different(run: RunState, candidate: Candidate) -> bool:
    """Return whether something else than new snapshots makes the candidate differ from the last release.

    That is other code, or snapshots of the release that were refused since.
    """
    if run.last is None:
        return False
    return run.last.code_sha256 != candidate.inputs.code or any(
        not set(ids) <= set(candidate.inputs.snapshots.get(dataset_id, ()))
        for dataset_id, ids in run.last.snapshots.items()
    )


def _figures_of_old_data(run: RunState, candidate: Candidate) -> dict[str, float]:
    """Return the figures of marts built by today's code from the last release's snapshots that are still in use.

    So a change that the code or a refusal made is not taken for one of the data. The candidate is built again afterwards.
    """
    new = {
        snapshot_id
        for dataset_id, ids in pending(candidate, publish.baseline(run.last)).items()
        # Without any snapshot of a dataset there would be nothing to compare with.
        if not set(candidate.inputs.snapshots[dataset_id]) <= set(ids)
        for snapshot_id in ids
    }
    if not new:
        return figures_of_candidate(run.settings, run.engine, candidate)
    run.reporter.step("audit", "building from the last release's snapshots to compare with")
    found = figures_of_candidate(run.settings, run.engine, run.build_candidate(candidate.candidate_id, new))
    run.build_candidate(candidate.candidate_id)
    return found


def _culprits(run: RunState, candidate: Candidate, verdict: Audit) -> dict[str, str]:
    """Return the pending snapshots that make the marts wrong, each with its dataset; none when that cannot be said."""
    if not any(f.severity == "error" and f.snapshot_id is None for f in verdict.findings):
        return {}
    # There is no release without any snapshot of a dataset: before the first one, the newest of each stays.
    stay = set() if run.last else set(candidate.inputs.newest().values())
    suspects = {
        snapshot_id: dataset_id
        for dataset_id, ids in pending(candidate, publish.baseline(run.last)).items()
        for snapshot_id in ids
        if snapshot_id not in stay
    }
    tried: list[Candidate] = []

    def passes(left_out: frozenset[str]) -> bool:
        run.reporter.step("audit", f"trying without {', '.join(sorted(left_out)) or 'none'}")
        tried.append(run.build_candidate(candidate.candidate_id, left_out))
        return _verdict_on(run, tried[-1]).passed

    same_code = run.last is not None and not _is_otherwise_different(run, candidate)
    found = culprits(suspects, passes, same_code=same_code)
    if tried:
        # The last trial is not to be published: it lacks snapshots that nothing refused.
        discard(run.storage.guarded(run.lock), run.engine, candidate.candidate_id)
    return found
