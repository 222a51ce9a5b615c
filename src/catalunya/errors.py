"""The project's own errors. Each message names what happened, where, and what to do."""

from __future__ import annotations

from typing import Any


class CatalunyaError(Exception):
    """Any failure that the pipeline can explain. `exit_code` is what the CLI returns."""

    exit_code = 1


class UsageError(CatalunyaError):
    """A wrong command, setting or dataset definition; nothing was started."""

    exit_code = 2


class LakeBusy(CatalunyaError):
    """Another run holds the lake; nothing was changed."""


class LakeCorrupt(CatalunyaError):
    """Bytes in the lake are not those that were recorded."""


class HistoryUnreadable(LakeCorrupt):
    """A snapshot that a release contains can no longer be staged; nothing is built without it."""


class BuildFailed(CatalunyaError):
    """dbt could not build the candidate; the last release stays. `nodes` are its results, if it came so far."""

    def __init__(self, message: str, nodes: tuple[Any, ...] = ()) -> None:
        super().__init__(message)
        self.nodes = nodes


class Refused(CatalunyaError):
    """A gate said no: schema drift or an audit failure; the last release stays.

    `snapshots` are the refused snapshots and the reason of each; empty when no snapshot is at fault.
    """

    exit_code = 3

    def __init__(self, message: str, snapshots: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.snapshots = snapshots or {}


class NothingElseNew(Refused):
    """All that is new in a run was refused by its earlier steps, which said so."""


class SourceUnreadable(CatalunyaError):
    """A portal did not give what it should, after every retry."""

    exit_code = 4


class SourceDrift(SourceUnreadable):
    """A source lacks what its definition declares before a row could be read."""

    exit_code = 3


class SnapshotUnreadable(CatalunyaError):
    """The landed bytes of one snapshot cannot be decoded or typed; the snapshot is refused, the others go on."""

    exit_code = 3
