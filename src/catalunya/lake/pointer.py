"""`current.json`, the pointer to the release that readers see; moved by compare-and-set."""

from __future__ import annotations

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from catalunya.errors import CatalunyaError, LakeCorrupt
from catalunya.lake import layout
from catalunya.lake.storage import Conflict, Storage, Version

KEY = layout.CURRENT


class PointerMoved(CatalunyaError):
    """Somebody else moved the pointer meanwhile; the lake shows their release."""


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


def read(storage: Storage) -> tuple[Pointer, Version] | None:
    """The pointer and the version to pass to `swap`; None before the first release.

    Raises `LakeCorrupt` when it is not a pointer.
    """
    found = storage.read_versioned(KEY)
    if found is None:
        return None
    data, version = found
    try:
        return Pointer.model_validate_json(data), version
    except ValidationError as error:
        raise LakeCorrupt(
            f"{storage.uri(KEY)} is not a pointer to a release ({error.errors()[0]['msg']}); no release was touched: "
            "`catalunya repair` points it to the newest whole release"
        ) from None


def swap(storage: Storage, new: Pointer, expected: Version | None) -> Version:
    """Show another release, if the pointer still is the `expected` one (None: there is none yet).

    Returns the new version; raises `PointerMoved` and changes nothing when somebody else was first.
    """
    try:
        return storage.replace(KEY, new.model_dump_json(indent=2).encode() + b"\n", expected)
    except Conflict:
        raise PointerMoved(
            f"{storage.uri(KEY)} was moved by somebody else while run {new.run_id} wanted to show release "
            f"{new.release_id}; it was left as it is now: look at `catalunya status` and run again"
        ) from None
