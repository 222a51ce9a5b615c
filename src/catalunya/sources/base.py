"""What a protocol offers (`SourceProtocol`) and what it returns: landed files, columns and validators."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

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


class Landed(Protocol):
    """What a manifest records of a landed file."""

    @property
    def name(self) -> str:
        """Its name in the lake."""

    @property
    def url(self) -> str:
        """Where it was read from."""

    @property
    def role(self) -> str | None:
        """What its rows are, where the definition says it of each file."""


@dataclass(frozen=True)
class LandedPage:
    """A landed file that is read: its record, where it lies, and the request that the manifest records."""

    file: Landed
    number: int
    """Its position among the files of the snapshot, from 0."""
    path: Path
    request: Mapping[str, Any]


@dataclass(frozen=True)
class SourceProtocol:
    """How sources of one protocol are read; the first argument of each function is the definition's `source`."""

    base_url: str
    """The field of `Settings` with the portal's base URL."""
    fetch: Callable[..., Fetched | None]
    """Reads a source, as `sources.fetch` describes it."""
    updated: Callable[[Mapping[str, Any]], datetime | None]
    """From the validators of a reading: when the publisher last changed the data; None when it does not say."""
    rows: Callable[[Any, LandedPage], Iterable[dict[str, Any]]] | None = None
    """The rows of a landed file, under the source's names. None: the file is a JSON array of the rows."""
    controls: Callable[[Any, LandedPage], Iterable[Control]] | None = None
    """The totals published in a landed file. None: there are none."""
