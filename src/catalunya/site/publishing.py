"""Where the public site is shown, and whether what is shown there is of the release that readers see."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from catalunya.errors import UsageError
from catalunya.lake import layout
from catalunya.settings import Settings
from catalunya.site.build import CURRENT, Built, require_no_file
from catalunya.site.material import Material
from catalunya.site.record import RECORD, SiteRecord, parse


class Place(Protocol):
    """Where a site is shown."""

    def shown(self) -> SiteRecord | None:
        """Return the record of the site that readers see; None when there is none."""

    def publish(self, material: Material) -> Built:
        """Build a site and show it, as a whole."""


class FolderPlace:
    """A folder, from which a web server serves what the link `current` names."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def shown(self) -> SiteRecord | None:
        """Return the record of the site that the link names; None when there is none."""
        try:
            return parse((self._folder / CURRENT / RECORD).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None

    def publish(self, material: Material) -> Built:
        """Build the site in the folder and move the link to it."""
        return material.build(self._folder)


def place_of(settings: Settings, to: str | None = None) -> str | None:
    """Return the folder or bucket of the site: `to`, CATALUNYA_SITE, else `site` in a local lake; None for none of them."""
    local = str(Path(settings.lake) / layout.SITE) if "://" not in settings.lake else None
    return to or settings.site or local


def open_place(address: str) -> Place:
    """Return the place at a folder or at `s3://bucket`; raises `UsageError`."""
    if address.startswith("s3://"):
        from catalunya.site.bucket import SiteBucket

        return SiteBucket(address)
    return FolderPlace(Path(address))


def local_folder(address: str | None) -> Path:
    """Return the folder that this machine can serve; raises `UsageError` when there is none, or a file is in its place."""
    if address is None:
        raise UsageError("the lake is no local folder: name the folder of the site by --to or CATALUNYA_SITE")
    if "://" in address:
        raise UsageError(
            f"{address} is served by CloudFront: name the folder of a site on this machine with --to"
        )
    require_no_file(Path(address))
    return Path(address)


def refresh(place: Place, material: Material) -> Built | None:
    """Show the site of a release, unless the present code has made what is shown of it; returns None then."""
    return None if place.shown() == material.record else place.publish(material)
