"""Errors of the demo portal. Each is a usage error: nothing was served."""

from __future__ import annotations

from catalunya.errors import UsageError


class UnknownFault(UsageError, ValueError):
    """A fault was asked for that the portal does not know."""


class PortTaken(UsageError):
    """The address the portal should listen on belongs to somebody else."""


class FilesIncomplete(UsageError):
    """The folder given to serve lacks a file that a dataset needs, or holds one that cannot be read."""


class ReferenceMissing(UsageError):
    """A table that the demo data are compiled from is not where the repository keeps it."""
