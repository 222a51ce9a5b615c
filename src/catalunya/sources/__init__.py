"""The protocols by which sources are read, each in the module of its name: Socrata, Idescat Tables v2, downloads.

`fetch` reads any declared source into a spool folder. Imports `datasets`, `settings` and `errors`; knows nothing of
stages or of the lake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from catalunya.errors import SnapshotUnreadable, SourceDrift
from catalunya.sources.base import (
    Control,
    Fetched,
    Landed,
    LandedPage,
    Progress,
    SourceColumn,
    SourceFile,
    SourceProtocol,
)
from catalunya.sources.http import Http, InvalidResponse

if TYPE_CHECKING:
    from catalunya.datasets.sources import Source

__all__ = ["Control", "Fetched", "Http", "Landed", "Progress", "SourceColumn", "SourceFile", "SourceProtocol"]

_Item = TypeVar("_Item")


def protocol(name: str) -> SourceProtocol:
    """Return the protocol `name`: `PROTOCOL` of the module of that name, which is imported when it is first needed."""
    found: SourceProtocol = import_module(f"{__name__}.{name}").PROTOCOL
    return found


def fetch(
    source: Source,
    *,
    base_url: str,
    http: Http,
    spool: Path,
    known: dict[str, Any] | None = None,
    key: tuple[str, ...] = (),
    wanted: tuple[str, ...] = (),
    progress: Progress | None = None,
    dataset: str = "",
) -> Fetched | None:
    """Read `source` from the portal at `base_url` into `spool`; None when nothing changed since `known`.

    Args:
        source: Where the dataset is read from.
        base_url: Address of the portal. A user and password in it go into the requests and into nothing that is kept.
        http: The client to ask with.
        spool: Folder for the answers.
        known: Validators of the last reading.
        key: The source's names of the key columns.
        wanted: The source's names of every declared column.
        progress: Called with the rows read so far.
        dataset: The name that errors give.

    Raises:
        SourceUnreadable: No complete and consistent reading could be had.
        SourceDrift: Declared parts of the source are gone.
    """
    return protocol(source.protocol).fetch(
        source,
        base_url=http.sign_in(base_url),
        http=http,
        spool=spool,
        known=known,
        key=key,
        wanted=wanted,
        progress=progress,
        dataset=dataset,
    )


def rows(
    source: Source, files: Sequence[Landed], paths: Sequence[Path], request: Mapping[str, Any]
) -> Iterator[dict[str, Any]] | None:
    """Return the rows in the landed `files` of one snapshot, which lie at `paths`, under the source's names.

    None when each file is a JSON array of rows and can be read as it is. `request` is that of the manifest. Raises
    `SnapshotUnreadable`, with the file, what was found and what to do, for whatever cannot be decoded.
    """
    read = protocol(source.protocol).rows
    return None if read is None else _read_each(read, source, files, paths, request)


def controls(source: Source, files: Sequence[Landed], paths: Sequence[Path]) -> list[Control]:
    """Return the totals published in the landed `files` of one snapshot; raises `SnapshotUnreadable`."""
    read = protocol(source.protocol).controls
    return [] if read is None else list(_read_each(read, source, files, paths, {}))


def updated(name: str, validators: Mapping[str, Any], *, demo: bool) -> datetime | None:
    """When the publisher last changed the data, as a source of the protocol `name` says it; None when it does not.

    None for demo data as well: the dates of a demo portal are made up.
    """
    if demo:
        return None
    try:
        return protocol(name).updated(validators)
    except (AttributeError, ImportError, KeyError, TypeError, ValueError, OverflowError):
        return None


def _read_each(
    read: Callable[[Any, LandedPage], Iterable[_Item]],
    source: Source,
    files: Sequence[Landed],
    paths: Sequence[Path],
    request: Mapping[str, Any],
) -> Iterator[_Item]:
    for number, (file, path) in enumerate(zip(files, paths, strict=True)):
        yield from _readable(file, partial(read, source, LandedPage(file, number, path, request)))


def _readable(file: Landed, read: Callable[[], Iterable[_Item]]) -> Iterator[_Item]:
    try:
        yield from read()
    except (InvalidResponse, SourceDrift) as error:
        found = str(error).removeprefix(f"{file.name}: ").rstrip(".")
        raise SnapshotUnreadable(
            f"{file.name}: {found}; the bytes stay in landing, the next good snapshot takes its place"
        ) from error
