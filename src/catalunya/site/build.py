"""The site of a release as a folder of static files, shown as a whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import duckdb

from catalunya.datasets.model import Dataset
from catalunya.errors import LakeBusy, UsageError
from catalunya.lake import disk, layout
from catalunya.lake.storage import MissingKey, Storage
from catalunya.lake.temporary import temporary_folder
from catalunya.log import get_logger
from catalunya.release import RELEASE_DATABASE, Release, release_before
from catalunya.runs import dbt_docs
from catalunya.runs.reporter import NullReporter, Reporter
from catalunya.settings import LOOPBACK_SITE, ROOT
from catalunya.site.api import api
from catalunya.site.borders import Borders, read_borders
from catalunya.site.catalogue import catalogue
from catalunya.site.change_pages import change_pages
from catalunya.site.csvw import csvw
from catalunya.site.data_pages import data_pages
from catalunya.site.downloads import DATA, write_downloads
from catalunya.site.facts import Facts, read_facts
from catalunya.site.folder import SiteFolder
from catalunya.site.language import CODES, language
from catalunya.site.maps import LEVELS, map_files, territories
from catalunya.site.method_pages import method_pages
from catalunya.site.notices import not_found
from catalunya.site.open_graph import draw_picture, picture_name
from catalunya.site.overview import overview_pages
from catalunya.site.pages import Content, Pages
from catalunya.site.publisher import PROJECT, Publisher
from catalunya.site.record import RECORD, record_of
from catalunya.site.search import read_other_names, search_files
from catalunya.site.service_pages import service_pages
from catalunya.site.side_by_side import side_by_side
from catalunya.site.sitemap import Sitemap
from catalunya.site.territory_pages import territory_pages

log = get_logger(__name__)

CURRENT = "current"
"""Link to the folder that is shown; it is replaced at once."""
DBT_DOCS = "lineage/dbt-docs.html"
"""dbt's own page: to be downloaded, since the scripts are inside of it, and the policy of the site runs none such."""
LOCK_TIMEOUT_S = 120.0
"""How long a build waits for another one in the same folder, such as that of a worker that is being replaced."""
_ASSETS = Path(__file__).parent / "assets"


@dataclass(frozen=True)
class Built:
    """A site that is shown."""

    folder: Path
    pages: int
    unchanged: int
    """Pages that the site of before had, too."""
    bytes: int


def build_site(
    storage: Storage,
    datasets: dict[str, Dataset],
    release: Release,
    target: Path,
    url: str = LOOPBACK_SITE,
    publisher: Publisher = PROJECT,
    *,
    home: Path = ROOT,
    reporter: Reporter | None = None,
) -> Built:
    """Build the site of a release in `target`, to be served at the origin `url`, and show it there as `current`.

    The folder is complete before the link names it; others are deleted afterwards, except the one shown before, whose
    files may still be read. A kill at any moment leaves the old site whole. A file that the old site has is not written
    anew: it stays, with its time of change. Raises `UsageError` when `target` is a file, cannot be written or holds
    something else, and `LakeBusy` when another process builds there. `home` is the folder with the seeds of dbt.
    """
    reporter = reporter or NullReporter()
    target = _own_folder(target)
    with _locked(target):
        old = (target / CURRENT).resolve()
        new = target / f".{release.release_id}.{os.getpid()}"
        shutil.rmtree(new, ignore_errors=True)
        try:
            files = SiteFolder(new, old)
            _write(storage, datasets, release, files, url, publisher, home, reporter)
            names = _names(new)
            size = sum((new / name).stat().st_size for name in names)
            folder = target / f"{release.release_id}-{_digest(names, new)}"
            if folder == old:
                shutil.rmtree(new)
            else:
                # One of this name that is not shown may be what a killed build was deleting.
                shutil.rmtree(folder, ignore_errors=True)
                new.rename(folder)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        _swap(target, folder)
    return Built(folder, sum(map(_is_page, names)), sum(map(_is_page, files.unchanged)), size)


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Lock the folder, as long as this process lives; waits for a build that is going on, at last raises `LakeBusy`."""
    descriptor = os.open(target, os.O_RDONLY)
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise LakeBusy(
                        f"another process builds a site in {target}; nothing was changed: wait until it ends"
                    ) from None
                time.sleep(1)
        yield
    finally:
        os.close(descriptor)


def _own_folder(target: Path) -> Path:
    """Make the folder unless it is there and return its real path; raises `UsageError` when no site can be built in it."""
    require_no_file(target)
    try:
        _require_own(target)
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=target):
            pass
    except OSError as error:
        raise UsageError(
            f"--to {target} cannot be written ({error.strerror}); name a folder that this user can write"
        ) from error
    return target.resolve()


def require_no_file(target: Path) -> None:
    """Raise `UsageError` when there is something else than a folder at `target`."""
    if target.exists() and not target.is_dir():
        raise UsageError(f"--to {target} is a file; name a folder")


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
    files: SiteFolder,
    url: str,
    publisher: Publisher,
    home: Path,
    reporter: Reporter,
) -> None:
    with temporary_folder(storage, "site") as work:
        reporter.step("site", "writing the downloads")
        downloads = write_downloads(storage, datasets, release, files.path, work, files.before)
        database = files.path / DATA / RELEASE_DATABASE
        reporter.step("site", "reading the tables")
        with duckdb.connect(database, read_only=True) as con:
            con.execute("set search_path = 'catalunya.marts'")
            facts = read_facts(con)
            names = read_other_names(con, home / "dbt" / "mart" / "seeds")
        borders = read_borders(
            storage.fetch(layout.staged("boundaries", release.snapshots["boundaries"][-1]), work)
        )
        warn_of_missing_outlines(facts, borders)
        content = Content(
            release=release,
            datasets=datasets,
            facts=facts,
            borders=borders,
            before=release_before(storage, release),
            downloads=downloads,
            assets=_copy_assets(files),
            dbt_docs=_copy_dbt_docs(storage, release, files),
            url=url,
            publisher=publisher,
            names=names,
        )
        reporter.step("site", "writing the pages")
        for code in CODES:
            files.put(picture_name(code), draw_picture(content, language(code)))
        _write_texts(content, database, files)


def warn_of_missing_outlines(facts: Facts, borders: Borders) -> None:
    """Log the territories that the maps leave out, each with the reason."""
    for level in LEVELS:
        outlines = getattr(borders, level)
        for code, territory in territories(facts, level).items():
            if code not in outlines.paths:
                reason = outlines.undrawn.get(code, "has no border with a surface in the newest snapshot")
                log.warning(
                    "left out of the maps", level=level, area=f"{code} {territory.name}", reason=reason
                )


def _write_texts(content: Content, database: Path, files: SiteFolder) -> None:
    """Write every file that is made from the content, each language beside the others, and the list of all pages."""

    def write(texts: Iterator[tuple[str, str]]) -> Sitemap:
        sitemap = Sitemap(content.url)
        for name, text in texts:
            files.put(name, text.encode())
            if name.endswith("index.html"):
                sitemap.add(name, text)
        return sitemap

    def write_part(texts: Callable[[], Iterator[tuple[str, str]]]) -> tuple[Sitemap, set[str]]:
        return write(texts()), files.unchanged

    parts = [partial(_shared, content, database), *(partial(_translated, content, code) for code in CODES)]
    sitemap = Sitemap(content.url)
    for part, unchanged in side_by_side(write_part, parts):
        sitemap.take(part)
        files.unchanged |= unchanged
    write(sitemap.files())


def _shared(content: Content, database: Path) -> Iterator[tuple[str, str]]:
    """Return the files that are of no language, or of all: the name within the site, and the text."""
    yield "index.html", _redirect()
    yield "404.html", not_found(content.assets)
    record = record_of(content.release.release_id, content.datasets, content.url, content.publisher)
    yield RECORD, record.model_dump_json() + "\n"
    yield from catalogue(content)
    yield from csvw(content)
    yield from data_pages(content, database)
    yield from api(content, database)
    yield from search_files(content.facts, content.names)
    yield from map_files(content.facts, content.borders.municipality)


def _translated(content: Content, code: str) -> Iterator[tuple[str, str]]:
    """Return the pages of a language: the name within the site, and the text."""
    pages = Pages(content, language(code))
    yield from overview_pages(pages)
    yield from territory_pages(pages)
    yield from service_pages(pages)
    yield from change_pages(pages)
    yield from method_pages(pages)


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


def _copy_dbt_docs(storage: Storage, release: Release, files: SiteFolder) -> str | None:
    """Copy dbt's own documentation of the release, where the lake has it; returns its address within the site."""
    try:
        page = storage.read(layout.docs(release.release_id, dbt_docs.INDEX))
    except MissingKey:
        return None
    files.put(DBT_DOCS, page)
    return f"/{DBT_DOCS}"


def _copy_assets(files: SiteFolder) -> dict[str, str]:
    found = {}
    for path in sorted(_ASSETS.iterdir()):
        name = f"{path.stem}.{disk.sha256(path)[:12]}{path.suffix}"
        files.copy(f"assets/{name}", path)
        found[path.name] = name
    return found


def _names(folder: Path) -> list[str]:
    found = []
    for inside, _, names in os.walk(folder):
        prefix = inside.removeprefix(str(folder)).lstrip("/")
        found += [f"{prefix}/{name}" if prefix else name for name in names]
    return sorted(found)


def _is_page(name: str) -> bool:
    return name.endswith("/index.html")


def _digest(names: list[str], folder: Path) -> str:
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name} {disk.sha256(folder / name)}\n".encode())
    return digest.hexdigest()[:12]


def _swap(target: Path, folder: Path) -> None:
    """Let the link name the folder, in one step, and delete the other sites but the one it named before."""
    before = (target / CURRENT).resolve()
    link = target / f".{CURRENT}.{os.getpid()}"
    with contextlib.suppress(FileNotFoundError):
        link.unlink()
    link.symlink_to(folder.name)
    link.replace(target / CURRENT)
    # What a build that was killed left, and older sites.
    for path in target.iterdir():
        if path.is_symlink():
            if path.name != CURRENT:
                path.unlink()
        elif path.is_dir() and path != folder and path.resolve() != before:
            shutil.rmtree(path, ignore_errors=True)
