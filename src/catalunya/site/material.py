"""What a site is built from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from catalunya.datasets.model import Dataset
from catalunya.lake.storage import Storage
from catalunya.release import Release, release_ids
from catalunya.runs.reporter import Reporter
from catalunya.settings import ROOT
from catalunya.site.build import Built, build_site
from catalunya.site.publisher import PROJECT, Publisher
from catalunya.site.record import SiteRecord, record_of


@dataclass(frozen=True)
class Material:
    """A release, the dataset definitions, and the address that the pages name."""

    storage: Storage
    datasets: dict[str, Dataset]
    release: Release
    url: str
    """Origin at which it is served."""
    publisher: Publisher = PROJECT
    home: Path = ROOT
    """The folder with the seeds of dbt."""
    reporter: Reporter | None = None

    @property
    def record(self) -> SiteRecord:
        """The record that the site will have."""
        return record_of(self.release.release_id, self.datasets, self.url, self.publisher)

    def kept_releases(self) -> list[str]:
        """Return the releases whose sites are worth keeping."""
        return release_ids(self.storage)

    def build(self, target: Path) -> Built:
        """Build the site in a local folder."""
        return build_site(
            self.storage,
            self.datasets,
            self.release,
            target,
            self.url,
            self.publisher,
            home=self.home,
            reporter=self.reporter,
        )
