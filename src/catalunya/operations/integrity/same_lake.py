"""Whether two places hold the same lake, and which of them is newer: a copy never mixes two lakes."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

from catalunya.errors import CatalunyaError, LakeCorrupt, UsageError
from catalunya.lake import index, layout, pointer, snapshot
from catalunya.lake.index import MANIFEST
from catalunya.lake.pointer import Pointer
from catalunya.lake.storage import Storage
from catalunya.operations.integrity.records import AREAS
from catalunya.release import read_release, release_ids


def is_newer(source: Storage, target: Storage) -> bool:
    """Return whether the target is newer than the source; raises `UsageError` when they are not the same lake."""
    _require_known(target.url, [*target.folders(), *target.files()])
    kinds = {True: "demo data", False: "data of real portals"}
    have = {lake.url: _holds_demo(lake) for lake in (source, target)}
    if len(set(have.values()) - {None}) > 1:
        said = " and ".join(f"{url} holds {kinds[demo]}" for url, demo in have.items() if demo is not None)
        raise UsageError(f"{said}; the two never mix, and nothing was copied: give another target")
    ours, theirs = _snapshots(source), _snapshots(target)
    known = {*theirs, *_known(target)}
    extra, unknown = theirs - ours, ours - known
    if theirs and (not ours & known or (extra and unknown)):
        raise UsageError(
            f"{target.url} is another lake: it has {_some(extra)}, which {source.url} lacks, and lacks "
            f"{_some(unknown)}; nothing was copied: give an empty folder, or a copy of the same lake"
        )
    before, after = shown_by(source), shown_by(target)
    return bool(extra) or (
        before is not None and after is not None and after[0].swapped_at > before[0].swapped_at
    )


def require_lake_or_nothing(folder: Path) -> None:
    """Raise `UsageError` for a folder with other files, before it is opened as a lake: that makes a folder in it."""
    found = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    _require_known(str(folder), [name for name in found if not name.startswith(".")])


def _require_known(where: str, names: Collection[str]) -> None:
    own = {*AREAS, layout.CURRENT}
    # A file system has a folder of its own at its top.
    strange = sorted({*names} - own - {"lost+found"})
    if strange and own.isdisjoint(names):
        raise UsageError(
            f"{where} is no lake: it holds {', '.join(strange[:5])}; nothing was copied: give an empty folder"
        )


def require_lake(storage: Storage) -> None:
    """Raise `UsageError` when there is no snapshot and no release to copy."""
    if not storage.folders(layout.LANDING) and not storage.folders(layout.RELEASES):
        raise UsageError(
            f"{storage.url} is no lake: it has neither snapshots nor releases; nothing was copied"
        )


def shown_by(storage: Storage) -> tuple[Pointer, bytes] | None:
    """The pointer, of any layout, and its bytes; None when there is none or it is damaged."""
    with suppress(LakeCorrupt):
        found = pointer.read_any(storage)
        data = storage.read_versioned(pointer.KEY)
        if found and data:
            return found[0], data[0]
    return None


def _snapshots(storage: Storage) -> set[tuple[str, str]]:
    """Dataset and id of every complete snapshot in landing."""
    return {
        (dataset_id, name)
        for dataset_id in storage.folders(layout.LANDING)
        for name in storage.folders(f"{layout.LANDING}/{dataset_id}")
        if layout.is_id(name) and storage.exists(layout.landing(dataset_id, name, MANIFEST))
    }


def _holds_demo(storage: Storage) -> bool | None:
    """Whether a lake holds demo data; None when it holds none. Changes nothing, unlike `snapshot.latest`."""
    for dataset_id in storage.folders(layout.LANDING):
        for name in reversed(storage.folders(f"{layout.LANDING}/{dataset_id}")):
            with suppress(LakeCorrupt):
                manifest = snapshot.read(storage, dataset_id, name) if layout.is_id(name) else None
                if manifest is not None:
                    return manifest.demo
    return None


def _known(storage: Storage) -> set[tuple[str, str]]:
    """Snapshots that an index or a release of a lake knows, although they may be lost."""
    found: set[tuple[str, str]] = set()
    for dataset_id in storage.folders(layout.STAGING):
        with suppress(LakeCorrupt):
            stored, _ = index.stored(storage, dataset_id)
            found |= {(dataset_id, name) for name in (stored.complete if stored else ())}
    for release_id in release_ids(storage):
        with suppress(CatalunyaError):
            release = read_release(storage, release_id)
            found |= {(name, one) for name, ids in release.snapshots.items() for one in ids}
    return found


def _some(snapshots: Collection[tuple[str, str]]) -> str:
    named = [f"snapshot {name} of {dataset_id}" for dataset_id, name in sorted(snapshots)[:1]]
    more = len(snapshots) - 1
    return ", ".join(named) + (f" and {more} more" if more > 0 else "") or "nothing"


def require_apart(source: str, target: str) -> None:
    """Raise `UsageError` when two addresses are the same lake, or one is in the other: each would hold copies of copies."""
    one, other = _place(source), _place(target)
    if one == other:
        raise UsageError(f"{source} and {target} are the same lake")
    if one.startswith(other) or other.startswith(one):
        inner, outer = (source, target) if one.startswith(other) else (target, source)
        raise UsageError(f"{inner} is inside of {outer}; name a place outside of it")


def _place(url: str) -> str:
    """The address of a lake, links followed, so that it begins with the address of each folder or prefix that it is in."""
    scheme, _, rest = url.rpartition("://")
    if scheme == "s3":
        return "/".join(["s3:/", *filter(None, rest.split("/")), ""])
    folder = os.path.realpath(Path(unquote(rest) if scheme else url).expanduser())
    return f"{folder}/".replace("//", "/")
