"""A Socrata dataset, paged in the order of `:id` and proved whole.

A reading counts only when the portal counts as many rows after the pages as before, the pages hold
exactly those, its metadata did not move meanwhile, and no row came or went between pages.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalunya.errors import SourceUnreadable
from catalunya.sources.base import Fetched, Progress, SourceColumn, SourceFile, SourceProtocol, file_name
from catalunya.sources.http import Answer, Http, InvalidResponse, Rejected

if TYPE_CHECKING:
    from catalunya.datasets.sources import SocrataSource
    from catalunya.sources.keys import PageReader

PAGE_ROWS = 50_000
"""The most that a page of the version 2.0 endpoints holds."""

MOST_ROWS = 1_000_000_000
"""A larger count is taken for a mistake of the portal."""
_LAST_SECOND = 253_402_300_800
"""Of the year 9999."""
TRIES = 4
IN_FLIGHT = 2
_PAUSE_S = 1.0


class _SourceChanged(Exception):
    """The dataset changed, or its pages do not fit together: the whole of it is read again."""


@dataclass(frozen=True)
class _Metadata:
    updated_at: int | str | None
    columns: tuple[SourceColumn, ...]
    demo: bool

    def validators(self) -> dict[str, Any]:
        return {
            "rows_updated_at": self.updated_at,
            "fields": [[column.name, column.type] for column in self.columns],
        }


@dataclass(frozen=True)
class _Page:
    offset: int
    asked: int
    rows: int
    path: Path
    answer: Answer
    fields: dict[str, None]
    """Names that rows of the first page have; of the others none are looked for."""


@dataclass
class _Reading:
    """Every page of one attempt, by offset."""

    pages: list[_Page] = field(default_factory=list)
    seen: dict[str, None] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return sum(page.rows for page in self.pages)


def fetch(
    source: SocrataSource,
    *,
    base_url: str,
    http: Http,
    spool: Path,
    known: dict[str, Any] | None = None,
    key: tuple[str, ...] = (),
    wanted: tuple[str, ...] = (),
    progress: Progress | None = None,
    dataset: str = "",
) -> Fetched | None:
    """Every row of `source` as the portal's own JSON pages; None when `known` still holds.

    `key` are the portal's names of the key columns. Rows that the portal doubles the same way each time
    are kept. Raises `SourceUnreadable` when no consistent reading could be had.
    """
    portal = _Portal(http, base_url, source.resource, dataset or source.resource)
    spool.mkdir(parents=True, exist_ok=True)
    before = portal.metadata()
    if known is not None and before.updated_at is not None and before.validators() == known:
        return None
    fault = ""
    for attempt in range(TRIES):
        if attempt:
            http.pause(_PAUSE_S * attempt)
            before = portal.metadata()
        try:
            return _read_once(portal, before, spool, key, progress)
        except _SourceChanged as moved:
            fault = str(moved)
    raise SourceUnreadable(
        f"{portal.dataset}: GET {portal.rows_url}: {fault}; the whole was read {TRIES} times. "
        "Run again when the portal has finished its update; if it stays so, ask the portal."
    )


def _read_once(
    portal: _Portal, before: _Metadata, spool: Path, key: tuple[str, ...], progress: Progress | None
) -> Fetched:
    """One consistent reading, or `_SourceChanged`."""
    # NumPy takes 0.15 s to import, and most runs read no page.
    from catalunya.sources.keys import KeyCheck, PageReader, fingerprint

    def again(longest_page: int) -> tuple[int, int]:
        """The fingerprint of a second reading, with other page borders.

        Rows that the source doubles come again whatever the borders; those that a border doubles do not.
        """
        limit = max(1, longest_page * 3 // 5)
        second = _read_pages(portal, counted, spool / "second", PageReader((), None), None, limit)
        try:
            return fingerprint(page.path for page in second.pages)
        finally:
            shutil.rmtree(spool / "second", ignore_errors=True)

    counted = portal.count()
    present = {column.name for column in before.columns}
    usable = key if key and set(key) <= present else ()
    with KeyCheck(spool / "keys", counted) as check:
        reader = PageReader(usable, check)
        reading = _read_pages(portal, counted, spool / "first", reader, progress, PAGE_ROWS)
        counted_after = portal.count()
        after = portal.metadata()
        if after.validators() != before.validators():
            raise _SourceChanged("the dataset was updated while it was read")
        if not reading.rows == counted == counted_after:
            raise _SourceChanged(
                f"the pages hold {reading.rows} rows, but the portal counted {counted} before and "
                f"{counted_after} after them"
            )
        longest = max(page.rows for page in reading.pages)
        if check.doubled() and fingerprint(page.path for page in reading.pages) != again(longest):
            raise _SourceChanged(
                f"{check.doubled()} keys came twice among {reading.rows} rows, and not the same when the "
                "pages were read again: rows come and go between pages"
            )
    return _landed(portal, before, reading, spool, counted, counted_after)


def _landed(
    portal: _Portal, metadata: _Metadata, reading: _Reading, spool: Path, counted: int, counted_after: int
) -> Fetched:
    files = []
    for number, page in enumerate(reading.pages):
        target = spool / file_name(number)
        page.path.replace(target)
        answer = page.answer
        files.append(SourceFile(target.name, target, answer.url, answer.size, answer.sha256, page.rows))
    shutil.rmtree(spool / "first", ignore_errors=True)
    described = {column.name for column in metadata.columns}
    strays = (SourceColumn(name, None) for name in reading.seen if name not in described)
    return Fetched(
        files=tuple(files),
        columns=(*metadata.columns, *strays),
        validators=metadata.validators(),
        request={
            "metadata": portal.metadata_url,
            "rows": portal.rows_url,
            "order": ":id",
            "pages": [[page.offset, page.asked] for page in reading.pages],
        },
        rows_before=counted,
        rows_after=counted_after,
        rows=reading.rows,
        demo=metadata.demo or any(page.answer.demo for page in reading.pages),
    )


def _read_pages(
    portal: _Portal, counted: int, folder: Path, reader: PageReader, progress: Progress | None, limit: int
) -> _Reading:
    """Pages that together should hold `counted` rows, two at a time.

    A page that is shorter than asked, as from a portal that gives fewer rows at most, leaves a gap, which
    is asked for on its own.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    reading = _Reading()

    def keep(page: _Page) -> None:
        due = min(page.asked, max(0, counted - page.offset))
        if page.rows > due:
            raise _SourceChanged(
                f"the page at offset {page.offset} holds {page.rows} rows where {due} are due "
                f"($limit={page.asked}, {counted} rows counted)"
            )
        if page.rows == 0 and due:
            raise _SourceChanged(
                f"the page at offset {page.offset} is empty, but {counted} rows were counted"
            )
        reading.pages.append(page)
        if progress is not None:
            progress(reading.rows, counted)

    def ask(offset: int, asked: int) -> _Page:
        page = portal.page(offset, asked, folder, reader)
        if offset == 0:
            reading.seen = page.fields
        return page

    todo = [(offset, limit) for offset in range(0, max(counted, 1), limit)][::-1]
    with ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="page") as pool:
        running: set[Future[_Page]] = set()
        try:
            while todo or running:
                while todo and len(running) < IN_FLIGHT:
                    offset, asked = todo.pop()
                    running.add(pool.submit(ask, offset, asked))
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    page = future.result()
                    if page.rows == counted > page.asked:
                        # A portal that pays no heed to $limit has sent everything at once.
                        reading.pages = [page]
                        return reading
                    keep(page)
                    gap = min(page.asked, counted - page.offset) - page.rows
                    if gap > 0:
                        todo.append((page.offset + page.rows, gap))
        finally:
            for future in running:
                future.cancel()
    reading.pages.sort(key=lambda page: page.offset)
    return reading


class _Portal:
    """The four questions that are asked of one dataset."""

    def __init__(self, http: Http, base_url: str, resource: str, dataset: str) -> None:
        self.dataset = dataset
        self.metadata_url = f"{base_url}/api/views/{resource}.json"
        self.rows_url = f"{base_url}/resource/{resource}.json"
        self._http = http
        self._headers = {"X-App-Token": http.app_token} if http.app_token else {}

    def metadata(self) -> _Metadata:
        try:
            answer = self._http.json(
                self.metadata_url,
                dataset=self.dataset,
                expect=dict,
                check=_check_metadata,
                headers=self._headers,
            )
        except Rejected as rejected:
            if rejected.status not in {404, 410}:
                raise
            raise Rejected(
                f"{rejected} The portal no longer has this dataset under the id of the definition.",
                rejected.status,
            ) from rejected
        columns = tuple(
            SourceColumn(column["fieldName"], column.get("dataTypeName"))
            for column in answer.data["columns"]
            # A name with a colon is the portal's own (`:id`, `:@computed_region_…`), not the publisher's.
            if not column["fieldName"].startswith(":")
        )
        return _Metadata(answer.data.get("rowsUpdatedAt"), columns, answer.demo)

    def count(self) -> int:
        answer = self._http.json(
            self.rows_url,
            dataset=self.dataset,
            expect=object,
            params={"$select": "count(*)"},
            headers=self._headers,
            check=_counted,
        )
        return _counted(answer.data)

    def page(self, offset: int, limit: int, folder: Path, reader: PageReader) -> _Page:
        path = folder / f"{offset:012d}.json"
        scan = reader.scan()
        rows = 0
        fields: dict[str, None] = {}

        def begin() -> Callable[[memoryview | bytes], None]:
            nonlocal scan
            scan = reader.scan()
            return scan.feed

        def check(stored: Path) -> None:
            nonlocal rows, fields
            rows = scan.finish(stored)
            if offset == 0:
                fields = reader.field_names(stored)

        answer = self._http.store(
            self.rows_url,
            path,
            dataset=self.dataset,
            params={"$limit": str(limit), "$offset": str(offset), "$order": ":id"},
            headers=self._headers,
            begin=begin,
            check=check,
        )
        return _Page(offset, limit, rows, path, answer, fields)


def _check_metadata(data: dict[str, Any]) -> None:
    columns = data.get("columns")
    if not isinstance(columns, list) or not all(
        isinstance(column, dict)
        and isinstance(column.get("fieldName"), str)
        and isinstance(column.get("dataTypeName"), str | None)
        for column in columns
    ):
        raise InvalidResponse(
            "found metadata without a list `columns` that gives each a `fieldName` and a type as text"
        )
    names = [column["fieldName"] for column in columns]
    if len(set(names)) != len(names):
        raise InvalidResponse("found metadata that names a column twice")
    updated = data.get("rowsUpdatedAt")
    moment = isinstance(updated, int) and not isinstance(updated, bool) and 0 <= updated < _LAST_SECOND
    if not (moment or isinstance(updated, str | None)):
        raise InvalidResponse(
            f"found {str(updated)[:80]!r} as `rowsUpdatedAt`, where seconds since 1970 are due"
        )


def _counted(data: Any) -> int:
    """The number in `[{"count": "27"}]`, `[{"count_1": "27"}]` or `27`; `InvalidResponse` when there is none."""
    value = data
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, dict) and len(value) == 1:
        value = next(iter(value.values()))
    try:
        if isinstance(value, str | int) and not isinstance(value, bool) and 0 <= int(value) <= MOST_ROWS:
            return int(value)
    except ValueError:
        pass
    raise InvalidResponse(
        f'found {str(data)[:80]!r} where the number of rows is due, such as [{{"count":"27"}}]'
    )


def _updated(validators: Mapping[str, Any]) -> datetime | None:
    moment = validators["rows_updated_at"]
    return datetime.fromtimestamp(moment, UTC) if isinstance(moment, int) else None


PROTOCOL = SourceProtocol(
    base_url="socrata_url",
    fetch=fetch,
    updated=_updated,
)
