"""Errors of the demo portal. Each is a usage error: the portal did not start."""

from __future__ import annotations

from catalunya.errors import UsageError


class UnknownFault(UsageError, ValueError):
    """The portal has no fault of that name, or the fault does not take that value."""


class FilesIncomplete(UsageError):
    """The folder to serve lacks a file of a dataset, or holds one that cannot be read."""


class ReferenceMissing(UsageError):
    """A reference table of the demo data is not in its place in the repository."""
