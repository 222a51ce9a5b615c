"""The site of a release as a folder of static files, shown as a whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb

from catalunya.datasets.model import Dataset
from catalunya.errors import UsageError
from catalunya.lake import disk, layout
from catalunya.lake.storage import MissingKey, Storage
from catalunya.lake.temporary import temporary_folder
from catalunya.release import RELEASE_DATABASE, Release, release_before
from catalunya.runs import dbt_docs
from catalunya.settings import LOOPBACK_SITE
from catalunya.site.api import api
from catalunya.site.borders import read_borders
from catalunya.site.catalogue import catalogue
from catalunya.site.csvw import csvw
from catalunya.site.data_pages import data_pages
from catalunya.site.downloads import DATA, write_downloads
from catalunya.site.facts import read_facts
from catalunya.site.language import CODES, language
from catalunya.site.maps import map_files
from catalunya.site.method_pages import method_pages
from catalunya.site.open_graph import draw_picture, picture_name
from catalunya.site.overview import overview_pages
from catalunya.site.pages import Content, Pages, search_index
from catalunya.site.publisher import Publisher
from catalunya.site.sitemap import Sitemap
from catalunya.site.territory_pages import territory_pages

CURRENT = "current"
"""Link to the folder that is shown; it is replaced at once."""
DBT_DOCS = "lineage/dbt-docs.html"
"""dbt's own page: to be downloaded, since the scripts are inside of it, and the policy of the site runs none such."""
_ASSETS = Path(__file__).parent / "assets"


@dataclass(frozen=True)
class Built:
    """A site that is shown."""

    folder: Path
    pages: int
    bytes: int


def build_site(
    storage: Storage,
    datasets: dict[str, Dataset],
    release: Release,
    target: Path,
    url: str = LOOPBACK_SITE,
    publisher: Publisher = Publisher(),  # noqa: B008 (frozen)
) -> Built:
    """Build the site of a release in `target`, to be served at the origin `url`, and show it there as `current`.

    The folder is complete before the link names it; others are deleted afterwards. A kill at any moment leaves the old site
    whole. Raises `UsageError` when `target` holds something else.
    """
    _require_own(target)
    target.mkdir(parents=True, exist_ok=True)
    new = target / f".{release.release_id}.{os.getpid()}"
    shutil.rmtree(new, ignore_errors=True)
    try:
        pages = _write(storage, datasets, release, new, target / CURRENT, url, publisher)
        size = sum(path.stat().st_size for path in new.rglob("*") if path.is_file())
        folder = target / f"{release.release_id}-{_digest(new)}"
        if folder.exists():
            shutil.rmtree(new)
        else:
            new.rename(folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    _swap(target, folder)
    return Built(folder, pages, size)


def _require_own(target: Path) -> None:
    """Raise `UsageError` when the folder has entries that no site of ours has."""
    if target.is_dir():
        foreign = [
            path.name for path in target.iterdir()
            if path.name != CURRENT and not path.name.startswith(".") and not layout.is_id(path.name[:25])
        ]  # fmt: skip
        if foreign:
            raise UsageError(
                f"--to {target} holds {', '.join(sorted(foreign)[:3])}; name an empty or new folder"
            )


def _write(
    storage: Storage,
    datasets: dict[str, Dataset],
    release: Release,
    folder: Path,
    previous: Path,
    url: str,
    publisher: Publisher,
) -> int:
    with temporary_folder(storage, "site") as work:
        downloads = write_downloads(storage, datasets, release, folder, work, previous)
        database = folder / DATA / RELEASE_DATABASE
        with duckdb.connect(database, read_only=True) as con:
            con.execute("set search_path = 'catalunya.marts'")
            facts = read_facts(con)
        borders = storage.fetch(layout.staged("boundaries", release.snapshots["boundaries"][-1]), work)
        content = Content(
            release=release,
            datasets=datasets,
            facts=facts,
            borders=read_borders(borders),
            before=release_before(storage, release),
            downloads=downloads,
            assets=_copy_assets(folder),
            dbt_docs=_copy_dbt_docs(storage, release, folder),
            url=url,
            publisher=publisher,
        )
        for code in CODES:
            picture = folder / picture_name(code)
            picture.parent.mkdir(exist_ok=True)
            picture.write_bytes(draw_picture(content, language(code)))
        pages = 0
        for name, text in _files(content, database):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
            pages += name.endswith("/index.html")
    return pages


def _files(content: Content, database: Path) -> Iterator[tuple[str, str]]:
    """Return every file that is made from the content of the release: its name within the site, and its text."""
    sitemap = Sitemap(content.url)
    for name, text in _parts(content, database):
        if name.endswith(".html"):
            sitemap.add(name, text)
        yield name, text
    yield from sitemap.files()


def _parts(content: Content, database: Path) -> Iterator[tuple[str, str]]:
    yield "index.html", _redirect()
    yield from catalogue(content)
    yield from csvw(content)
    yield from data_pages(content, database)
    yield from api(content, database)
    for code in CODES:
        pages = Pages(content, language(code))
        yield from overview_pages(pages)
        yield from territory_pages(pages)
        yield from method_pages(pages)
        yield from pages.all()
        yield search_index(content.facts, code)
    yield from map_files(content.facts, content.borders.municipality)


def _redirect() -> str:
    """The page at the root: it leads to the first language, and names all."""
    links = " ".join(
        f'<a href="/{code}/" lang="{code}" hreflang="{code}">{language(code).text("name")}</a>'
        for code in CODES
    )
    return (
        f'<!doctype html><html lang="{CODES[0]}"><head><meta charset="utf-8">'
        f"<title>{language(CODES[0]).text('site')}</title>"
        f'<meta http-equiv="refresh" content="0; url=/{CODES[0]}/"></head><body><p>{links}</p></body></html>\n'
    )


def _copy_dbt_docs(storage: Storage, release: Release, folder: Path) -> str | None:
    """Copy dbt's own documentation of the release, where the lake has it; returns its address within the site."""
    try:
        page = storage.read(layout.docs(release.release_id, dbt_docs.INDEX))
    except MissingKey:
        return None
    (folder / DBT_DOCS).parent.mkdir()
    (folder / DBT_DOCS).write_bytes(page)
    return f"/{DBT_DOCS}"


def _copy_assets(folder: Path) -> dict[str, str]:
    found = {}
    (folder / "assets").mkdir(parents=True)
    for path in sorted(_ASSETS.iterdir()):
        name = f"{path.stem}.{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}{path.suffix}"
        shutil.copyfile(path, folder / "assets" / name)
        found[path.name] = name
    return found


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()} {disk.sha256(path)}\n".encode())
    return digest.hexdigest()[:12]


def _swap(target: Path, folder: Path) -> None:
    """Let the link name the folder, in one step, and delete the other sites."""
    link = target / f".{CURRENT}.{os.getpid()}"
    with contextlib.suppress(FileNotFoundError):
        link.unlink()
    link.symlink_to(folder.name)
    link.replace(target / CURRENT)
    # What a build that was killed left, and the site of before.
    for path in target.iterdir():
        if path.is_symlink():
            if path.name != CURRENT:
                path.unlink()
        elif path.is_dir() and path != folder:
            shutil.rmtree(path, ignore_errors=True)
