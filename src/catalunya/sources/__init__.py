"""The three protocols by which the sources are read: Socrata, Idescat Tables v2 and plain downloads.

`fetch` reads any declared source into a spool folder and returns `Fetched`, or None when nothing has
changed since `known`. Knows nothing of stages or of the lake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import urlsplit

from catalunya.errors import SnapshotUnreadable, SourceDrift
from catalunya.sources import download, idescat, socrata
from catalunya.sources.base import Control, Fetched, Progress, SourceColumn, SourceFile
from catalunya.sources.http import Http, Unfit

if TYPE_CHECKING:
    from catalunya.datasets.model import DownloadSource, IdescatSource, SocrataSource

__all__ = [
    "Control",
    "Fetched",
    "Http",
    "Progress",
    "SourceColumn",
    "SourceFile",
    "controls",
    "download",
    "fetch",
    "idescat",
    "rows",
    "socrata",
]


def fetch(
    source: SocrataSource | IdescatSource | DownloadSource,
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
    """Read `source` from the portal at `base_url` into `spool`; None when `known` still holds.

    `key` are the source's names of the key columns, `wanted` the source's names of every column of the
    card, `dataset` the name that errors give. User and password in `base_url` go into the requests and into
    nothing that is kept. Raises `SourceUnreadable` and `SourceDrift`.
    """
    base_url = http.sign_in(base_url)
    common = {"base_url": base_url, "http": http, "spool": spool, "known": known, "progress": progress}
    if source.protocol == "socrata":
        return socrata.fetch(source, key=key, dataset=dataset, **common)  # type: ignore[arg-type]
    if source.protocol == "idescat":
        return idescat.fetch(source, wanted=wanted, dataset=dataset, **common)  # type: ignore[arg-type]
    return download.fetch(source, dataset=dataset, **common)  # type: ignore[arg-type]


_Item = TypeVar("_Item")


class Landed(Protocol):
    """What a manifest says of a landed file."""

    @property
    def name(self) -> str: ...
    @property
    def url(self) -> str: ...
    @property
    def role(self) -> str | None: ...


def rows(
    source: IdescatSource | DownloadSource,
    files: Sequence[Landed],
    paths: Sequence[Path],
    request: Mapping[str, Any],
) -> Iterator[dict[str, Any]]:
    """The rows in the landed `files` of one snapshot, which lie at `paths`, under the source's names.

    `request` is that of the manifest. Raises `SnapshotUnreadable`, which names the file, what was found and
    what to do, for whatever cannot be decoded.
    """
    if source.protocol == "download":
        levels = [_level(source, file, number, request) for number, file in enumerate(files)]
        for file, path, level in zip(files, paths, levels, strict=True):
            yield from _readable(file, partial(download.rows, [path], [level]))
        return
    for file, path in zip(files, paths, strict=True):
        yield from _readable(file, partial(idescat.rows, [path], source))


def controls(source: IdescatSource, files: Sequence[Landed], paths: Sequence[Path]) -> list[Control]:
    """The totals published in the landed `files` of one snapshot; raises `SnapshotUnreadable`."""
    return [
        control
        for file, path in zip(files, paths, strict=True)
        for control in _readable(file, partial(idescat.controls, [path], source))
    ]


def _readable(file: Landed, read: Callable[[], Iterable[_Item]]) -> Iterator[_Item]:
    try:
        yield from read()
    except (Unfit, SourceDrift) as error:
        found = str(error).removeprefix(f"{file.name}: ").rstrip(".")
        raise SnapshotUnreadable(
            f"{file.name}: {found}; the bytes stay in landing, the next good snapshot takes its place"
        ) from error


def _level(source: DownloadSource, file: Landed, number: int, request: Mapping[str, Any]) -> str:
    """What the features of a landed file are: as recorded, or by its address in a snapshot that records none."""
    if file.role is not None:
        return file.role
    asked = request.get("urls")
    addresses = [file.url, asked[number] if isinstance(asked, list) and number < len(asked) else ""]
    for address in addresses:
        for known in source.files:
            if urlsplit(str(address)).path.endswith(known.path):
                return known.level
    raise SnapshotUnreadable(
        f"{file.name}: nothing says which level its features have, and no file of the definition "
        f"({', '.join(one.path for one in source.files)}) has its address {file.url}; name that address under "
        "`files` in the definition again, or read the source anew with `catalunya ingest --force`"
    )
