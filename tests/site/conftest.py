"""One built site of the demo release, for all tests of the site."""

from __future__ import annotations

import os
import pickle
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TypeVar

import duckdb
import pytest

from catalunya.datasets import loader
from catalunya.demo import server
from catalunya.demo.data import register
from catalunya.demo.data.datasets import demo_datasets
from catalunya.lake.opening import open_lake
from catalunya.operations.query import find_release
from catalunya.release import Release
from catalunya.site.borders import Borders, Outlines
from catalunya.site.build import Built, build_site
from catalunya.site.downloads import Downloads
from catalunya.site.facts import read_facts
from catalunya.site.language import CODES
from catalunya.site.pages import Content
from tests.pipeline.command import DAY, Command, ForkServer, ReleasedLake, file_lock
from tests.project import ROOT
from tests.site.changed import ChangedSite, changed_services
from tests.site.serving import serving

DATASETS = loader.load(ROOT / "datasets")
Made = TypeVar("Made")


def build(lake: Path, target: Path) -> Built:
    """Build the site of a lake's current release."""
    storage = open_lake(str(lake))
    return build_site(storage, DATASETS, find_release(storage, None), target)


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Made]) -> Made:
    """What `make` makes in a folder, by the first process of pytest that needs it, for all of them."""
    with file_lock(factory, name) as base:
        stored = base / f"{name}.pickle"
        if not stored.exists():
            shutil.rmtree(base / name, ignore_errors=True)
            (base / name).mkdir()
            stored.write_bytes(pickle.dumps(make(base / name)))
        made: Made = pickle.loads(stored.read_bytes())
        return made


@pytest.fixture(scope="session")
def target(
    first_release: ReleasedLake, tmp_path_factory: pytest.TempPathFactory, fork_server: ForkServer
) -> Path:
    """A folder with the site of a demo release. To be read only."""

    def make(folder: Path) -> Path:
        answer = Command(str(first_release.lake), None)("site", "build", "--to", str(folder / "site"))
        assert answer.code == 0, answer.stderr
        assert answer.json["pages_written"] == answer.json["pages"] > len(CODES) * (947 + 43 + 2_000)
        assert answer.json["release_id"] == first_release.release_id
        return folder / "site"

    return made_once(tmp_path_factory, "site_of_first", make)


@pytest.fixture(scope="session")
def changed(
    first_release: ReleasedLake,
    target: Path,
    tmp_path_factory: pytest.TempPathFactory,
    fork_server: ForkServer,
) -> ChangedSite:
    """The site after a week in which ten services changed, one closed and two opened; what changed is hostile."""

    def make(folder: Path) -> ChangedSite:
        lake = folder / "lake"
        shutil.copytree(first_release.lake, lake)
        services, happened = changed_services(register.services_at(DAY))
        with pytest.MonkeyPatch.context() as patch, server.running(day=date(2026, 1, 12)) as portal:
            patch.setattr(register, "services_at", lambda _: services)
            command = Command(str(lake), portal.url, now="2026-01-12T06:00:00Z")
            released = command.run()
        # No other portal of that day has these services.
        demo_datasets.cache_clear()
        assert released.code == 0, released.stderr
        # As hard links: a build that wrote through one would change the site of the other tests.
        shutil.copytree(target, folder / "site", symlinks=True, copy_function=os.link)
        built = command("site", "build", "--to", str(folder / "site"))
        assert built.code == 0, built.stderr
        database = Path(released.json["release"], "catalunya.duckdb")
        return ChangedSite(built.json, built.stderr, folder / "site" / "current", database, happened)

    return made_once(tmp_path_factory, "changed", make)


@pytest.fixture(scope="session")
def site(target: Path) -> Path:
    """The folder that is shown."""
    return target / "current"


@pytest.fixture(scope="session")
def marts(first_release: ReleasedLake) -> Iterator[duckdb.DuckDBPyConnection]:
    """The marts of the release that the site shows."""
    with duckdb.connect(first_release.folder / "catalunya.duckdb", read_only=True) as con:
        con.execute("set search_path = 'catalunya.marts'")
        yield con


@pytest.fixture(scope="session")
def url(target: Path) -> Iterator[str]:
    with serving(target) as address:
        yield address


@pytest.fixture(scope="session")
def changed_url(changed: ChangedSite) -> Iterator[str]:
    with serving(changed.site.parent) as address:
        yield address


def kinds(site: Path, code: str) -> list[str]:
    """The address of each kind of page in a language; of those that have many, the smallest and the largest."""
    found = [f"/{code}/"]
    for folder in sorted(path for path in (site / code).iterdir() if path.is_dir()):
        found += [f"/{code}/{folder.name}/"] if (folder / "index.html").is_file() else []
        # Pages of comarques, municipalities and services have codes of another shape.
        many: dict[str, list[tuple[int, str]]] = {}
        for path in folder.glob("*/index.html"):
            shape = re.sub(r"[0-9]", "0", path.parent.name.partition("-")[0])
            many.setdefault(shape, []).append((path.stat().st_size, path.parent.name))
        for pages in many.values():
            found += [f"/{code}/{folder.name}/{name}/" for name in sorted({min(pages)[1], max(pages)[1]})]
    return found


@pytest.fixture(scope="session")
def content(first_release: ReleasedLake) -> Content:
    """The content of the first release with one comarca and three municipalities."""
    release = Release.model_validate_json((first_release.folder / "release.json").read_bytes())
    with duckdb.connect(first_release.folder / "catalunya.duckdb", read_only=True) as con:
        con.execute("set search_path = 'catalunya.marts'")
        facts = read_facts(con)
    codes = ("080193", "081017", "082457")
    few = replace(
        facts,
        comarques={"13": facts.comarques["13"]},
        municipalities={code: facts.municipalities[code] for code in codes},
    )
    square = "M0 0l10 0 0 10z"
    outlines = Outlines(
        100,
        100,
        dict.fromkeys(("13", *codes), square),
        {codes[0]: codes[1:]},
        dict.fromkeys(("13", *codes), (0, 0, 10, 10)),
    )
    assets = {name: name for name in ("icon.svg", "site.css", "search.js", "map.js")}
    return Content(release, DATASETS, few, Borders(outlines, outlines), Downloads(), assets)
