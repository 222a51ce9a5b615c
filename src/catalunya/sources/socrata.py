"""A Socrata dataset, read in pages in the order of `:id`, and proved to be complete.

A reading counts only when the portal counts as many rows after the pages as before, the pages hold
exactly those, its metadata stay the same meanwhile, and no row appears or vanishes between pages.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from catalunya.lake.snapshot import LandedColumn
from catalunya.sources.base import (
    Fetched,
    FetchRequest,
    Progress,
    SourceChanged,
    SourceProtocol,
    file_name,
    read_until_consistent,
)
from catalunya.sources.http import Answer
from catalunya.sources.responses import InvalidResponse, Rejected, decode

if TYPE_CHECKING:
    from catalunya.datasets.sources import SocrataSource
    from catalunya.sources.keys import PageReader

PAGE_ROWS = 50_000
"""The largest page of the version 2.0 endpoints."""
MOST_ROWS = 1_000_000_000
"""A larger count is taken for an error of the portal."""
_LAST_SECOND = 253_402_300_800
"""Of the year 9999."""
PARALLEL_REQUESTS = 2


class _Column(msgspec.Struct, rename="camel"):
    field_name: str
    data_type_name: str | None = None


class _View(msgspec.Struct, rename="camel"):
    """The metadata of a dataset."""

    columns: list[_Column]
    rows_updated_at: Annotated[int, msgspec.Meta(ge=0, lt=_LAST_SECOND)] | str | None = None

    def published(self) -> tuple[LandedColumn, ...]:
        # A name with a colon is the portal's own (`:id`, `:@computed_region_…`), not the publisher's.
        own = (column for column in self.columns if not column.field_name.startswith(":"))
        return tuple(LandedColumn(name=column.field_name, type=column.data_type_name) for column in own)

    def validators(self) -> dict[str, Any]:
        fields = [[column.name, column.type] for column in self.published()]
        return {"rows_updated_at": self.rows_updated_at, "fields": fields}


@dataclass(frozen=True)
class _Page:
    offset: int
    limit: int
    rows: int
    path: Path
    answer: Answer
    fields: dict[str, None]
    """Names of the fields of its rows; empty for all but the first page."""


def fetch(request: FetchRequest[SocrataSource]) -> Fetched | None:
    """Read every row of a dataset as the portal's own JSON pages; None when the previous validators still hold.

    Rows that the portal repeats in the same way each time are kept. Raises `SourceUnreadable` when no consistent
    reading could be had.
    """
    portal = _Portal(request)
    return read_until_consistent(request, portal.rows_url, lambda: _read_once(request, portal))


def _read_once(request: FetchRequest[SocrataSource], portal: _Portal) -> Fetched | None:
    # NumPy takes 0.15 s to import, and most runs read no page.
    from catalunya.sources.keys import KeyCheck, PageReader, fingerprint

    metadata = portal.metadata()
    before: _View = metadata.data
    if before.rows_updated_at is not None and before.validators() == request.previous_validators:
        return None
    spool = request.spool
    counted = portal.count()
    key = request.key if set(request.key) <= {column.name for column in before.published()} else ()
    with KeyCheck(spool / "keys", counted) as check:
        reader = PageReader(key, check)
        pages = _read_pages(portal, counted, spool / "first", reader, PAGE_ROWS, request.progress)
        counted_after = portal.count()
        if portal.metadata().data.validators() != before.validators():
            raise SourceChanged("the dataset was updated while it was read")
        rows = sum(page.rows for page in pages)
        if not rows == counted == counted_after:
            raise SourceChanged(
                f"the pages hold {rows} rows, but the portal counted {counted} before and "
                f"{counted_after} after them"
            )
        duplicates = check.duplicates()
    if duplicates:
        # Other page borders: rows that the source repeats are repeated again, those that a border repeats are not.
        limit = max(1, max(page.rows for page in pages) * 3 // 5)
        second = _read_pages(portal, counted, spool / "second", PageReader((), None), limit)
        if fingerprint(page.path for page in pages) != fingerprint(page.path for page in second):
            raise SourceChanged(
                f"{duplicates} keys came twice among {rows} rows, and not the same when the "
                "pages were read again: rows come and go between pages"
            )
        shutil.rmtree(spool / "second", ignore_errors=True)
    return _fetched(portal, metadata, pages, spool, counted)


def _fetched(portal: _Portal, metadata: Answer, pages: list[_Page], spool: Path, counted: int) -> Fetched:
    view: _View = metadata.data
    columns = view.published()
    files = []
    for number, page in enumerate(pages):
        page.path.replace(spool / file_name(number))
        files.append(page.answer.landed_file(file_name(number), page.rows))
    shutil.rmtree(spool / "first", ignore_errors=True)
    described = {column.name for column in columns}
    undescribed = (LandedColumn(name=name) for name in pages[0].fields if name not in described)
    return Fetched(
        files=tuple(files),
        columns=(*columns, *undescribed),
        validators=view.validators(),
        request={
            "metadata": portal.metadata_url,
            "rows": portal.rows_url,
            "order": ":id",
            "pages": [[page.offset, page.limit] for page in pages],
        },
        demo=metadata.demo or any(page.answer.demo for page in pages),
        rows_before=counted,
        rows_after=counted,
    )


def _read_pages(
    portal: _Portal,
    counted: int,
    folder: Path,
    reader: PageReader,
    limit: int,
    progress: Progress = lambda rows, total: None,
) -> list[_Page]:
    """Read pages that together should hold `counted` rows, two at a time, in the order of their offsets.

    A page that is shorter than requested, as from a portal with a lower limit, leaves a gap, which is requested
    on its own.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)

    def read_range(offset: int) -> list[_Page]:
        pages = []
        left = limit
        while left > 0:
            page = portal.page(offset, left, folder, reader)
            expected = min(left, max(0, counted - offset))
            if page.rows == counted:
                return [page]
            if page.rows > expected:
                raise SourceChanged(
                    f"the page at offset {offset} holds {page.rows} rows, expected {expected} "
                    f"($limit={left}, {counted} rows counted)"
                )
            if page.rows == 0 and expected:
                raise SourceChanged(f"the page at offset {offset} is empty, but {counted} rows were counted")
            pages.append(page)
            offset += page.rows
            left = expected - page.rows
        return pages

    found: list[_Page] = []
    with ThreadPoolExecutor(PARALLEL_REQUESTS, thread_name_prefix="page") as pool:
        try:
            for pages in pool.map(read_range, range(0, max(counted, 1), limit)):
                # One page, or a portal that ignores $limit and has sent everything at once.
                complete = pages[0].rows == counted
                found = pages if complete else found + pages
                progress(sum(page.rows for page in found), counted)
                if complete:
                    break
        finally:
            pool.shutdown(cancel_futures=True)
    return found


class _Portal:
    """The requests for one dataset."""

    def __init__(self, request: FetchRequest[SocrataSource]) -> None:
        resource = request.source.resource
        self.metadata_url = f"{request.base_url}/api/views/{resource}.json"
        self.rows_url = f"{request.base_url}/resource/{resource}.json"
        self._http = request.http
        self._dataset = request.dataset
        self._headers = {"X-App-Token": request.http.app_token} if request.http.app_token else {}

    def metadata(self) -> Answer:
        try:
            return self._http.get(
                self.metadata_url, dataset=self._dataset, parse=_parse_view, headers=self._headers
            )
        except Rejected as rejected:
            if rejected.status not in {404, 410}:
                raise
            raise Rejected(
                f"{rejected} The portal no longer has this dataset under the id of the definition.",
                rejected.status,
            ) from rejected

    def count(self) -> int:
        rows: int = self._http.get(
            self.rows_url,
            dataset=self._dataset,
            params={"$select": "count(*)"},
            headers=self._headers,
            parse=_parse_count,
        ).data
        return rows

    def page(self, offset: int, limit: int, folder: Path, reader: PageReader) -> _Page:
        path = folder / f"{offset:012d}.json"
        page = reader.page()
        answer = self._http.store(
            self.rows_url,
            path,
            dataset=self._dataset,
            params={"$limit": str(limit), "$offset": str(offset), "$order": ":id"},
            headers=self._headers,
            parse=lambda stored: (page.count(stored), {} if offset else reader.field_names(stored)),
            watch=page.feed,
        )
        rows, fields = answer.data
        return _Page(offset, limit, rows, path, answer, fields)


def _parse_view(body: bytes) -> _View:
    view: _View = decode(body, _View, "metadata with `columns` and `rowsUpdatedAt`")
    names = [column.field_name for column in view.columns]
    if len(set(names)) != len(names):
        raise InvalidResponse("found metadata that name a column twice")
    return view


def _parse_count(body: bytes) -> int:
    """Return the number in `[{"count": "27"}]`, `[{"count_1": "27"}]` or `27`; raise `InvalidResponse`."""
    value = data = decode(body)
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
        f'found {str(data)[:80]!r}, expected the number of rows, such as [{{"count":"27"}}]'
    )


def _updated(validators: Mapping[str, Any]) -> datetime | None:
    moment = validators["rows_updated_at"]
    return datetime.fromtimestamp(moment, UTC) if isinstance(moment, int) else None


PROTOCOL = SourceProtocol(
    base_url="socrata_url",
    fetch=fetch,
    updated=_updated,
)
