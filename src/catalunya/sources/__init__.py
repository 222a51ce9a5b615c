"""The protocols of the portals, each in the module of its name: Socrata, Idescat Tables v2, downloads.

`fetch` reads any declared source into a folder. The package knows nothing of stages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from catalunya.errors import SnapshotUnreadable, SourceDrift
from catalunya.lake.snapshot import LandedFile
from catalunya.sources.base import Fetched, FetchRequest, LandedPage, Progress, PublishedTotal, SourceProtocol
from catalunya.sources.http import Http
from catalunya.sources.responses import InvalidResponse
from catalunya.sources.stop import Stop

if TYPE_CHECKING:
    from catalunya.datasets.sources import Source

__all__ = ["FetchRequest", "Fetched", "Http", "Progress", "PublishedTotal", "SourceProtocol", "Stop"]

_Item = TypeVar("_Item")


def protocol(name: str) -> SourceProtocol:
    """Return the protocol `name`: `PROTOCOL` of the module of that name, which is imported when it is first needed."""
    found: SourceProtocol = import_module(f"{__name__}.{name}").PROTOCOL
    return found


def fetch(request: FetchRequest[Any]) -> Fetched | None:
    """Read a source into the folder of `request`; None when its validators say that nothing changed.

    Raises:
        SourceUnreadable: No complete and consistent reading could be had.
        SourceDrift: Declared parts of the source are gone.
    """
    request.spool.mkdir(parents=True, exist_ok=True)
    public = replace(request, base_url=request.http.sign_in(request.base_url))
    return protocol(request.source.protocol).fetch(public)


def rows(
    source: Source, files: Sequence[LandedFile], paths: Sequence[Path], request: Mapping[str, Any]
) -> Iterator[dict[str, Any]] | None:
    """Return the rows in the landed `files` of one snapshot, which lie at `paths`, under the source's names.

    None when each file is a JSON array of rows and can be read as it is. `request` is that of the manifest. Raises
    `SnapshotUnreadable`, with the file, what was found and what to do, for whatever cannot be decoded.
    """
    read = protocol(source.protocol).rows
    return None if read is None else _read_each(read, source, files, paths, request)


def controls(source: Source, files: Sequence[LandedFile], paths: Sequence[Path]) -> list[PublishedTotal]:
    """Return the totals published in the landed `files` of one snapshot; raise `SnapshotUnreadable`."""
    read = protocol(source.protocol).controls
    return [] if read is None else list(_read_each(read, source, files, paths, {}))


def updated(name: str, validators: Mapping[str, Any], *, demo: bool) -> datetime | None:
    """Return when the publisher last changed the data, by the validators of a source of the protocol `name`.

    None when the source does not say it, and for demo data, whose dates are made up.
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
    files: Sequence[LandedFile],
    paths: Sequence[Path],
    request: Mapping[str, Any],
) -> Iterator[_Item]:
    for number, (file, path) in enumerate(zip(files, paths, strict=True)):
        try:
            yield from read(source, LandedPage(file, number, path, request))
        except (InvalidResponse, SourceDrift) as error:
            found = str(error).removeprefix(f"{file.name}: ").rstrip(".")
            raise SnapshotUnreadable(
                f"{file.name}: {found}; the bytes stay in landing, the next good snapshot takes its place"
            ) from error
