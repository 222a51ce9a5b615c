"""Which snapshots make an audit of the marts fail."""

from __future__ import annotations

from collections.abc import Callable, Mapping


def culprits(
    suspects: Mapping[str, str], passes: Callable[[frozenset[str]], bool], *, same_code: bool
) -> dict[str, str]:
    """Return the pending snapshots that make an audit of the marts fail; none when the code is at fault.

    Datasets are tried one by one, then the snapshots of those at fault.

    Args:
        suspects: the pending snapshots, id to dataset.
        passes: builds and judges a candidate without the given snapshots.
        same_code: True with the code of the last release: a single suspect is then at fault without a trial.
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
