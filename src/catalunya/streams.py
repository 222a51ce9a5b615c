"""Standard streams of the command: whatever they are, a run does its work and its answer is UTF-8."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_STDOUT, _STDERR = 1, 2


class _Optional(io.FileIO):
    """A file that is written as far as it can be."""

    def write(self, data: ReadableBuffer, /) -> int:
        size = memoryview(data).nbytes
        try:
            written = super().write(data)
        except OSError:
            return size
        # None: a terminal that does not wait, and is full.
        return size if written is None else written


def prepare() -> None:
    """Open what the parent closed, and make standard error one that cannot fail.

    A closed descriptor would be that of the next file, and what is printed would be written into it. Standard error is for
    people: when its reader is gone (`catalunya run 2>&1 | head`) or its disk is full, the run goes on without it.
    """
    for descriptor in range(_STDERR + 1):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest number that is free is this one.
            os.open(os.devnull, os.O_RDWR)
    raw = _Optional(_STDERR, "w", closefd=False)
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=sys.stderr.encoding if sys.stderr else "utf-8",
        errors="backslashreplace",
        line_buffering=True,
    )
    if sys.stdout is None:
        sys.stdout = os.fdopen(_STDOUT, "w", encoding="utf-8")
    elif isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.isatty():
        # What another program reads has one encoding in every locale; an escape of a lone surrogate is JSON, too.
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
