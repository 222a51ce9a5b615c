"""What the commands open: settings, lake, dataset definitions, lock."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cached_property

from catalunya.datasets import loader
from catalunya.datasets.model import Dataset
from catalunya.lake.lock import Lock, lake_lock
from catalunya.lake.opening import open_lake
from catalunya.runs.record import new_run_id
from catalunya.settings import Settings


class CommandContext:
    """The lake of the settings, opened for one command."""

    def __init__(self) -> None:
        self.settings = Settings.load()
        self.storage = open_lake(self.settings.lake)
        self.now = self.settings.now()
        self.run_id = new_run_id(self.now)

    @cached_property
    def datasets(self) -> dict[str, Dataset]:
        """The dataset definitions by id."""
        return loader.load(self.settings.home / "datasets")

    def lock(self) -> AbstractContextManager[Lock]:
        """Lock the lake; raises `LakeBusy` at once."""
        return lake_lock(self.storage, self.run_id)
