"""The three protocols by which the sources are read: Socrata, Idescat Tables v2 and plain downloads.

`fetch` reads any declared source into a spool folder and returns `Fetched`, or None when nothing has
changed since `known`. Knows nothing of stages or of the lake.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalunya.sources import download, idescat, socrata
from catalunya.sources.http import Http
from catalunya.sources.protocol import Control, Fetched, Progress, SourceColumn, SourceFile

if TYPE_CHECKING:
    from catalunya.datasets import DownloadSource, IdescatSource, SocrataSource

__all__ = [
    "Control",
    "Fetched",
    "Http",
    "Progress",
    "SourceColumn",
    "SourceFile",
    "download",
    "fetch",
    "idescat",
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
    card, `dataset` the name that errors give. Raises `SourceUnreadable` and `SourceDrift`.
    """
    common = {"base_url": base_url, "http": http, "spool": spool, "known": known, "progress": progress}
    if source.protocol == "socrata":
        return socrata.fetch(source, key=key, dataset=dataset, **common)  # type: ignore[arg-type]
    if source.protocol == "idescat":
        return idescat.fetch(source, wanted=wanted, dataset=dataset, **common)  # type: ignore[arg-type]
    return download.fetch(source, dataset=dataset, **common)  # type: ignore[arg-type]
