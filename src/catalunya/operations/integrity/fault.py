"""What a check of the lake found: where, what is wrong, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from catalunya.errors import printable

Kind = Literal["damage", "leftover", "stray"]
"""`damage`: something that a reader or a run relies on is missing or changed. `leftover`: what a run that goes on or was
killed left unfinished; the next run recovers from it. `stray`: what does not belong to the lake; it is ignored."""

Repair = Literal["", "delete", "aside", "marker", "stage", "index", "release", "copy", "pointer", "scratch"]
"""What `catalunya lake repair` does about it; empty when it can do nothing."""

REPAIR = "`catalunya lake repair --yes`"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that is not as it should be."""

    key: str
    """Within the lake."""
    address: str
    found: str
    hint: str
    kind: Kind = "damage"
    repair: Repair = ""
    dataset_id: str | None = None
    snapshot_id: str | None = None
    source: str = ""
    """The key of an equal file, where `repair` is `copy`."""

    def __str__(self) -> str:
        # One line a fault, whatever the names in the lake hold.
        return printable(f"{self.address} {self.found}").replace("\n", "\\n") + f"; {self.hint}"

    def as_json(self) -> dict[str, Any]:
        """The fault for programs."""
        names = ("kind", "key", "address", "found", "hint", "repair", "dataset_id", "snapshot_id")
        return {name: getattr(self, name) for name in names}
