"""Temporary folders of one piece of work."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from catalunya.lake.storage import Storage


@contextmanager
def temporary_folder(storage: Storage, name: str) -> Iterator[Path]:
    """Make an empty folder `name` in this process's scratch folder, and remove it on leaving."""
    folder = storage.scratch() / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
