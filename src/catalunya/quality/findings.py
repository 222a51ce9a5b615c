"""What the gates of the audit report: findings about snapshots and marts, and sources that could not be read."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from catalunya.lake.staged import Staged

Gate = Literal["dbt", "rows", "expected", "figures", "marts", "control", "freshness", "stale"]


class Stale(BaseModel):
    """A dataset whose source could not be read: the snapshot used instead, and its age."""

    model_config = ConfigDict(frozen=True)

    dataset_id: str
    snapshot_id: str
    age_hours: float


class Finding(BaseModel):
    """What a gate found."""

    model_config = ConfigDict(frozen=True)

    gate: Gate
    severity: Literal["error", "warn"]
    message: str
    dataset_id: str | None = None
    snapshot_id: str | None = None
    """The snapshot that caused it, where one did."""
    figures: dict[str, Any] = {}
    """The figure (`figure`), and its value `before` and `after` with what is `tolerated`, as far as they apply."""

    @property
    def is_error(self) -> bool:
        """True when it refuses what was judged."""
        return self.severity == "error"

    def lifted(self) -> Finding:
        """The same as a warning, since somebody accepted it by hand; unchanged when it is a warning already."""
        if not self.is_error:
            return self
        return self.model_copy(update={"severity": "warn", "message": f"{self.message}, accepted by hand"})


def snapshot_finding(
    gate: Gate, snapshot: Staged | Stale, text: str, figures: dict[str, Any], *, is_error: bool = True
) -> Finding:
    """Return a finding about one snapshot; its message names the dataset, then `text` says what was found."""
    return Finding(
        gate=gate,
        severity="error" if is_error else "warn",
        message=f"{snapshot.dataset_id}: {text}",
        dataset_id=snapshot.dataset_id,
        snapshot_id=snapshot.snapshot_id,
        figures=figures,
    )
