"""What a protocol offers (`SourceProtocol`), what it is asked for (`FetchRequest`) and what it returns (`Fetched`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

from catalunya.errors import SourceUnreadable
from catalunya.lake.snapshot import LandedColumn, LandedFile
from catalunya.sources.http import Http

TRIES = 4
_PAUSE_S = 1.0
Progress = Callable[[int, int | None], None]
"""Called with the rows fetched so far and the rows there are in all, if known."""
_Source = TypeVar("_Source")


@dataclass(frozen=True)
class FetchRequest(Generic[_Source]):
    """One reading of a source."""

    source: _Source
    base_url: str
    """Address of the portal. A user and password in it go into the requests and into nothing that is kept."""
    http: Http
    spool: Path
    """Folder for the files; each lies there under its name in the lake."""
    dataset: str
    """Id of the dataset, which every error names."""
    previous_validators: dict[str, Any] | None = None
    """Validators of the last reading; None: the source is read in any case."""
    key: tuple[str, ...] = ()
    """The source's names of the key columns."""
    wanted: tuple[str, ...] = ()
    """The source's names of every declared column."""
    progress: Progress = lambda rows, total: None


@dataclass(frozen=True)
class Fetched:
    """One complete reading of a source."""

    files: tuple[LandedFile, ...]
    columns: tuple[LandedColumn, ...]
    validators: dict[str, Any]
    """JSON-able; they come back as `previous_validators`, and decide whether the source is unchanged."""
    request: dict[str, Any]
    """JSON-able; the addresses of the requests, without any token."""
    demo: bool
    """True when any answer said that it is demo data (`X-Catalunya-Demo: true`)."""
    rows_before: int | None = None
    rows_after: int | None = None

    @property
    def rows(self) -> int:
        """Rows in all files."""
        return sum(file.rows or 0 for file in self.files)


class SourceChanged(Exception):
    """The source changed while it was read, or its parts do not fit together."""


def read_until_consistent(
    request: FetchRequest[Any], url: str, read: Callable[[], Fetched | None]
) -> Fetched | None:
    """Repeat `read` until it does not raise `SourceChanged`; raise `SourceUnreadable` after `TRIES` attempts."""
    found = ""
    for attempt in range(TRIES):
        if attempt:
            request.http.pause(_PAUSE_S * attempt)
        try:
            return read()
        except SourceChanged as error:
            found = str(error)
    raise SourceUnreadable(
        f"{request.dataset}: GET {url}: {found}; the whole was read {TRIES} times. "
        "Run again when the portal has finished its update; if it stays so, ask the portal."
    )


@dataclass(frozen=True)
class PublishedTotal:
    """A total that the source publishes, to be compared with the sum of its rows."""

    control: str
    period: str
    published: int


def file_name(number: int) -> str:
    """Return the name of the landed file `number`, counted from 0."""
    return f"page-{number:05d}.json"


@dataclass(frozen=True)
class LandedPage:
    """A landed file to be read: its record, where it lies, and the request that the manifest records."""

    file: LandedFile
    number: int
    """Its position among the files of the snapshot, from 0."""
    path: Path
    request: Mapping[str, Any]


@dataclass(frozen=True)
class SourceProtocol:
    """How sources of one protocol are read; `source` is always that of the definition."""

    base_url: str
    """The field of `Settings` with the portal's base URL."""
    fetch: Callable[[FetchRequest[Any]], Fetched | None]
    """Reads a source; None when the validators say that it is unchanged."""
    updated: Callable[[Mapping[str, Any]], datetime | None]
    """From the validators of a reading: when the publisher last changed the data; None when it does not say."""
    rows: Callable[[Any, LandedPage], Iterable[dict[str, Any]]] | None = None
    """The rows of a landed file, under the source's names. None: the file is a JSON array of the rows."""
    controls: Callable[[Any, LandedPage], Iterable[PublishedTotal]] | None = None
    """The totals published in a landed file. None: there are none."""
