"""Migrations of a lake's layout, from one version to the next."""

from __future__ import annotations

from collections.abc import Callable

from catalunya.errors import UsageError
from catalunya.lake import layout, pointer
from catalunya.lake.lock import Lock
from catalunya.lake.storage import Storage

Migration = Callable[[Storage], None]


def _say_the_version(_: Storage) -> None:
    """Layout 1 is layout 0 whose pointer says its version, which the pointer's own swap writes."""


MIGRATIONS: dict[int, Migration] = {0: _say_the_version}
"""Version to what makes the next one of it. Each must be repeatable: it is done again after a kill."""


def migrate(storage: Storage, lock: Lock) -> tuple[int, int]:
    """Bring a lake that is locked to today's layout; returns the version before and after.

    The pointer says the new version last: a lake whose migration was killed is migrated again. Raises `UsageError` for a
    lake of a newer layout, and for one without a release, which has no version yet.
    """
    found = pointer.read_any(storage)
    if found is None:
        raise UsageError(f"the lake {storage.url} has no release yet: there is nothing to migrate")
    shown, version = found
    if shown.lake_version > layout.VERSION:
        pointer.read(storage)
    for number in range(shown.lake_version, layout.VERSION):
        MIGRATIONS[number](storage.guarded(lock))
    if shown.lake_version < layout.VERSION:
        pointer.swap(storage.guarded(lock), shown, version)
    return shown.lake_version, layout.VERSION
