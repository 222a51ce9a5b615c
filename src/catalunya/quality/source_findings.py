"""The gates `control`, `freshness` and `stale`: what a source says about itself, and how old its rows are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from catalunya.datasets.model import Dataset
from catalunya.lake.staged import Staged
from catalunya.quality.findings import Finding, Stale, snapshot_finding


def source_findings(
    datasets: dict[str, Dataset], newest: Iterable[Staged], stale: Iterable[Stale], now: datetime
) -> Iterator[Finding]:
    """Warn of totals that differ from the publisher's own, of old snapshots, and of sources that could not be read.

    Args:
        datasets: every definition by id.
        newest: the newest snapshot of each dataset.
        stale: the datasets whose source could not be read.
        now: what the age of a snapshot is counted up to.
    """
    for staged in newest:
        days, age = datasets[staged.dataset_id].cadence_days, now - staged.taken_at
        for control in staged.controls:
            if control.published != control.computed:
                text = f"{control.control} of {control.period} sum to {control.computed}, the publisher's own total is "
                text += str(control.published)
                figures = {"published": control.published, "computed": control.computed}
                yield snapshot_finding("control", staged, text, figures, is_error=False)
        if age > timedelta(days=days):
            text = (
                f"nothing new for {age.days} days (snapshot {staged.snapshot_id}); its cadence is {days} days"
            )
            figures = {"age_days": age.days, "cadence_days": days}
            yield snapshot_finding("freshness", staged, text, figures, is_error=False)
    for s in stale:
        text = f"nothing newer could be used than snapshot {s.snapshot_id}, {s.age_hours:g} hours old"
        yield snapshot_finding("stale", s, text, {"age_hours": s.age_hours}, is_error=False)
