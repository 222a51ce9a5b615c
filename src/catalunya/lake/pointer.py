"""`current.json`, the pointer to the release that readers see; moved by compare-and-set."""

from __future__ import annotations

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from catalunya.errors import CatalunyaError, LakeCorrupt, UsageError
from catalunya.lake import layout
from catalunya.lake.storage import Conflict, Storage, Version

KEY = layout.CURRENT


class PointerMoved(CatalunyaError):
    """Somebody else moved the pointer meanwhile; the lake shows their release."""


class UnknownLayout(UsageError):
    """The lake has a layout that this program does not use; nothing was changed."""


class Pointer(BaseModel):
    """The release that readers see, and which run made it so."""

    model_config = ConfigDict(frozen=True)

    release_id: str
    previous: str | None
    """The release shown before; None for the first."""
    swapped_at: AwareDatetime
    run_id: str
    withdrawn: tuple[str, ...] = ()
    """Inputs (fingerprints, or digests of code) of releases that were rolled back: no run publishes them again."""
    lake_version: int = layout.VERSION
    """Of the layout of the lake."""


class _Stored(Pointer):
    """As it is stored: lakes of before layout 1 do not say it."""

    lake_version: int = 0


def read(storage: Storage) -> tuple[Pointer, Version] | None:
    """The pointer and the version to pass to `swap`; None before the first release.

    Raises `LakeCorrupt` when it is not a pointer, and `UnknownLayout` when this program does not use the layout of the lake.
    """
    found = read_any(storage)
    if found is not None:
        _require_version(storage, found[0].lake_version)
    return found


def _require_version(storage: Storage, version: int) -> None:
    if version > layout.VERSION:
        raise UnknownLayout(
            f"the lake {storage.url} has layout {version}, and this program knows layouts up to {layout.VERSION}; nothing "
            "was changed: install the version of the program that wrote it, or a newer one"
        )
    if version < layout.OLDEST_VERSION:
        raise UnknownLayout(
            f"the lake {storage.url} has layout {version}, and this program uses layouts from {layout.OLDEST_VERSION} on; "
            "nothing was changed: make a copy (`catalunya lake copy`), then `catalunya lake migrate`"
        )


def read_any(storage: Storage) -> tuple[Pointer, Version] | None:
    """As `read`, of a lake of any layout."""
    found = storage.read_versioned(KEY)
    if found is None:
        return None
    data, version = found
    try:
        return Pointer.model_validate(_Stored.model_validate_json(data).model_dump()), version
    except ValidationError as error:
        raise LakeCorrupt(
            f"{storage.uri(KEY)} is not a pointer to a release ({error.errors()[0]['msg']}); no release was touched: "
            "`catalunya repair` points it to the newest whole release"
        ) from None


def swap(storage: Storage, new: Pointer, expected: Version | None) -> Version:
    """Show another release, if the pointer still is the `expected` one (None: there is none yet).

    It says that the lake has today's layout. Returns the new version; raises `PointerMoved` and changes nothing when
    somebody else was first.
    """
    try:
        new = new.model_copy(update={"lake_version": layout.VERSION})
        return storage.replace(KEY, new.model_dump_json(indent=2).encode() + b"\n", expected)
    except Conflict:
        raise PointerMoved(
            f"{storage.uri(KEY)} was moved by somebody else while run {new.run_id} wanted to show release "
            f"{new.release_id}; it was left as it is now: look at `catalunya status` and run again"
        ) from None
