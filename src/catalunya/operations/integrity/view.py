"""One look at a lake, which the checks share: its releases, what they contain, who is writing, and what was counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from datetime import datetime
from functools import cached_property
from threading import Lock

from catalunya.errors import CatalunyaError, LakeCorrupt
from catalunya.lake import layout, pointer
from catalunya.lake.lock import Holder, lock_owner
from catalunya.lake.pointer import Pointer
from catalunya.lake.storage import Storage
from catalunya.publication.signature import PublicKey
from catalunya.release import Release, read_release, release_ids
from catalunya.runs.steps import lock_of


class View:
    """A lake as it is now.

    `dataset_ids` are those of the definitions; `keys` are public keys of releases; the run `own` is the one that looks.
    """

    def __init__(
        self,
        storage: Storage,
        dataset_ids: Collection[str],
        now: datetime,
        keys: Collection[PublicKey] = (),
        own: str | None = None,
    ) -> None:
        self.storage = storage
        self.dataset_ids = dataset_ids
        self.now = now
        self.keys = keys
        self.own = own
        self.counts: Counter[str] = Counter()
        self._counting = Lock()

    def count(self, **more: int) -> None:
        """Add to what was checked; threads check beside each other."""
        with self._counting:
            self.counts.update(more)

    @cached_property
    def holder(self) -> Holder | None:
        """The run that writes right now, if another one does."""
        names = ("run", *(lock_of(name) for name in self.dataset_ids))
        holders = (lock_owner(self.storage, name) for name in names)
        return next((holder for holder in holders if holder and holder.holder != self.own), None)

    @cached_property
    def pointer(self) -> Pointer | None:
        """What readers see; None when there is no pointer or it is damaged."""
        try:
            found = pointer.read(self.storage)
        except LakeCorrupt:
            return None
        return found[0] if found else None

    @cached_property
    def release_ids(self) -> list[str]:
        """Every release that was begun, oldest first."""
        return release_ids(self.storage)

    def release(self, release_id: str) -> Release | None:
        """The record of a whole release, read anew: all of them at once would not be small."""
        try:
            return read_release(self.storage, release_id)
        except CatalunyaError:
            return None

    @cached_property
    def released(self) -> dict[str, dict[str, str]]:
        """Dataset to each snapshot that a release contains, with the newest such release."""
        found: dict[str, dict[str, str]] = {}
        for release_id in self.release_ids:
            release = self.release(release_id)
            for dataset_id, ids in release.snapshots.items() if release else ():
                found.setdefault(dataset_id, {}).update(dict.fromkeys(ids, release_id))
        return found

    def datasets(self) -> list[str]:
        """Every dataset of which anything is in the lake."""
        folders = (layout.LANDING, layout.STAGING, layout.QUARANTINE)
        return sorted(
            {*self.released, *(name for folder in folders for name in self.storage.folders(folder))}
        )
