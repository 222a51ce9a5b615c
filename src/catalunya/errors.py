"""The project's own errors. Each message says what happened, where, and what to do."""

from __future__ import annotations

from typing import Any

MORE_MEMORY = "give this machine more memory, or raise CATALUNYA_DUCKDB_MEMORY when it is set"
"""What to do when DuckDB has too little memory."""


class CatalunyaError(Exception):
    """Any failure that the pipeline can explain. `exit_code` is what the CLI returns."""

    exit_code = 1


class UsageError(CatalunyaError):
    """A wrong command, setting or dataset definition; nothing was started."""

    exit_code = 2


class LakeBusy(CatalunyaError):
    """Another run has the lock of the lake; nothing was changed."""


class LakeCorrupt(CatalunyaError):
    """Bytes in the lake differ from their checksum or their record."""


class HistoryUnreadable(LakeCorrupt):
    """A snapshot that a release contains can no longer be staged; nothing is built without it."""


class BuildFailed(CatalunyaError):
    """dbt could not build the candidate; the last release stays. `nodes` are its results, empty when it has none."""

    def __init__(self, message: str, nodes: tuple[Any, ...] = ()) -> None:
        super().__init__(message)
        self.nodes = nodes


class Refused(CatalunyaError):
    """A gate refused data: schema drift or an audit failure; the last release stays.

    `snapshots` are the refused snapshots and the reason of each; empty when no snapshot is at fault.
    """

    exit_code = 3

    def __init__(self, message: str, snapshots: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.snapshots = snapshots or {}


class NothingElseNew(Refused):
    """Earlier steps of the run refused, and reported, everything new in it."""


class SourceUnreadable(CatalunyaError):
    """A portal did not return valid data, after every retry."""

    exit_code = 4


class SourceDrift(SourceUnreadable):
    """A source lacks columns that its definition declares; no row was read."""

    exit_code = 3


class SnapshotUnreadable(CatalunyaError):
    """The landed bytes of one snapshot cannot be decoded or typed; it is refused, the other snapshots are not."""

    exit_code = 3


def printable(text: str) -> str:
    """Return `text` with every character that cannot be seen, but line ends and tabs, as an escape.

    Names in a lake and what a source says may hold anything: controls of a terminal, or a change of direction.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)
