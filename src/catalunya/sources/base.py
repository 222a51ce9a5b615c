"""What every protocol returns: landed files, the columns the source describes, and its validators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Progress = Callable[[int, int | None], None]
"""Called with the rows fetched so far and the rows there are in all, if known."""


@dataclass(frozen=True)
class SourceFile:
    """One landed file: its name in the lake, where it lies now, and what was stored."""

    name: str
    path: Path
    url: str
    size: int
    sha256: str
    rows: int | None
    role: str | None = None
    """What its rows are, where the definition says it of each file: the level of a download."""


@dataclass(frozen=True)
class SourceColumn:
    """A column as the source describes it; `type` is in the source's words, None when it gives none."""

    name: str
    type: str | None


@dataclass(frozen=True)
class Fetched:
    """One complete reading of a source."""

    files: tuple[SourceFile, ...]
    columns: tuple[SourceColumn, ...]
    validators: dict[str, Any]
    """JSON-able; handed back as `known` next time, it decides "unchanged"."""
    request: dict[str, Any]
    """JSON-able; the addresses asked, without any token."""
    rows_before: int | None
    rows_after: int | None
    rows: int
    demo: bool
    """True when any answer said that it is demo data (`X-Catalunya-Demo: true`)."""


@dataclass(frozen=True)
class Control:
    """A total that the source publishes, to hold against the sum of its rows."""

    control: str
    period: str
    published: int


def file_name(number: int) -> str:
    """The name of the landed file `number`, counted from 0."""
    return f"page-{number:05d}.json"
