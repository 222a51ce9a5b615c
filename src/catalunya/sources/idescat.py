"""A table of Idescat's Tables v2: metadata, then its data in requests below the limit of cells.

Idescat ignores an unknown filter without an error, so that the categories of every answer are
compared with those of the request.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from catalunya.errors import SourceDrift, SourceUnreadable
from catalunya.lake.snapshot import LandedColumn, LandedFile
from catalunya.sources import idescat_rows, jsonstat
from catalunya.sources.base import (
    Fetched,
    FetchRequest,
    SourceChanged,
    SourceProtocol,
    file_name,
    read_until_consistent,
)
from catalunya.sources.http import with_parameters
from catalunya.sources.responses import InvalidResponse

if TYPE_CHECKING:
    from catalunya.datasets.sources import IdescatSource

MOST_CELLS = 20_000
"""Idescat answers 416 above it."""

LONGEST_URL = 6_000
_ADDRESS = 1_000
"""Characters of a URL kept free for the address and the filters that are not cut."""
MOST_READ = 10_000_000
"""More cells are taken for an error of the table: 500 requests."""

_DAY = re.compile(r"\d{4}-?\d{2}-?\d{2}")

Chunk = dict[str, tuple[str, ...]]
"""The categories of one data request, by dimension."""


@dataclass(frozen=True)
class _Plan:
    """The categories of every dimension to request, and the dimensions that are requested as a whole."""

    updated: str | None
    digest: str
    selected: Chunk
    whole: frozenset[str]
    rows: int
    """Rows in all requests, without those of totals."""
    demo: bool


def fetch(request: FetchRequest[IdescatSource]) -> Fetched | None:
    """Read a table as Idescat's JSON-stat answers; None when the previous validators still hold.

    Of the measure only the wanted categories are requested, all when none is wanted. Rows are combinations of the row
    dimensions without their totals. Raises `SourceUnreadable`, and `SourceDrift` when a dimension or every wanted
    category is missing.
    """
    table = _Table(request)
    return read_until_consistent(request, table.data_url, table.read)


def chunks(selected: Chunk, source: IdescatSource, most_cells: int, longest: int) -> list[Chunk]:
    """Cut `selected` along the row dimensions into chunks of at most `most_cells` cells and `longest` characters."""
    inner = prod(len(codes) for name, codes in selected.items() if name not in source.rows)

    def cut(names: Sequence[str]) -> list[Chunk]:
        if not names:
            return [{}]
        name, *others = names
        codes = selected[name]
        rest = inner * prod(len(selected[other]) for other in others)
        groups = [codes]
        size = max(1, most_cells // rest)
        if len(codes) > size:
            size = min(size, max(1, longest // (1 + max(map(len, codes)))))
            groups = [codes[start : start + size] for start in range(0, len(codes), size)]
        if rest > most_cells:
            return [{name: group, **chunk} for group in groups for chunk in cut(others)]
        return [{name: group, **{other: selected[other] for other in others}} for group in groups]

    fixed = {name: codes for name, codes in selected.items() if name not in source.rows}
    return [{**chunk, **fixed} for chunk in cut(list(source.rows))]


class _Table:
    """The requests for one table."""

    def __init__(self, request: FetchRequest[IdescatSource]) -> None:
        self._request = request
        self._source = request.source
        url = f"{request.base_url}/taules/v2/{request.source.table}"
        self.data_url = f"{url}/data"
        self.metadata_url = with_parameters(url, self._source.fixed)

    def read(self) -> Fetched | None:
        """Read the whole table once; raise `SourceChanged` when it is updated meanwhile."""
        source, plan = self._source, self._plan()
        validators = {"updated": plan.updated, "digest": plan.digest}
        if plan.updated is not None and validators == self._request.previous_validators:
            return None
        row_columns: list[str] = []
        files: list[LandedFile] = []
        demo = plan.demo
        for number, chunk in enumerate(chunks(plan.selected, source, MOST_CELLS, LONGEST_URL - _ADDRESS)):
            answer = self._request.http.store(
                self.data_url,
                self._request.spool / file_name(number),
                dataset=self._request.dataset,
                params=self._filters(chunk, plan),
                parse=partial(_parse_chunk, chunk=chunk),
            )
            table: jsonstat.DataTable = answer.data
            if not _same_edition(table.updated, plan.updated):
                raise SourceChanged("the table was updated while it was read")
            row_columns = row_columns or idescat_rows.row_columns(table, source)
            rows = sum(1 for _ in idescat_rows.rows(table, source))
            files.append(answer.landed_file(file_name(number), rows))
            demo = demo or answer.demo
            self._request.progress(sum(file.rows or 0 for file in files), plan.rows)
        measured = [f"{source.measure}.{category}" for category in plan.selected[source.measure]]
        return Fetched(
            files=tuple(files),
            columns=tuple(LandedColumn(name=name) for name in (*row_columns, *measured)),
            validators=validators,
            request={"metadata": self.metadata_url, "urls": [file.url for file in files]},
            demo=demo,
        )

    def _plan(self) -> _Plan:
        """Decide on the categories to request, by one metadata request."""
        answer = self._request.http.get(
            self.metadata_url, dataset=self._request.dataset, parse=jsonstat.parse
        )
        table: jsonstat.DataTable = answer.data
        source = self._source
        expected = {*source.rows, source.measure, *source.fixed}
        missing = sorted(name for name in expected if table.dimension(name) is None)
        if missing:
            raise self._drift(f"the dimension {', '.join(missing)} is missing", table)
        selected = {dimension.id: self._select(dimension, table) for dimension in table.dimensions}
        cells = prod(map(len, selected.values()))
        if cells > MOST_READ:
            raise SourceUnreadable(
                f"{self._request.dataset}: {self.metadata_url}: found categories for {cells:,} cells, more than the "
                f"{MOST_READ:,} that are read. Compare the table with the source in its definition."
            )
        rows = prod(sum(code != source.total.get(name) for code in selected[name]) for name in source.rows)
        whole = frozenset(one.id for one in table.dimensions if len(selected[one.id]) == len(one.categories))
        shape = [[one.id, *one.categories] for one in table.dimensions]
        digest = hashlib.sha256(msgspec.json.encode([table.updated, shape])).hexdigest()
        return _Plan(table.updated, digest, selected, whole, rows, answer.demo)

    def _select(self, dimension: jsonstat.Dimension, table: jsonstat.DataTable) -> tuple[str, ...]:
        """Return the categories of `dimension` to request."""
        source, name, found = self._source, dimension.id, tuple(dimension.categories)
        if name in source.rows:
            if not found:
                raise self._drift(f"the dimension {name} has no category", table)
            return found
        if name in source.fixed:
            if source.fixed[name] not in found:
                raise self._drift(f"the category {name}={source.fixed[name]} is missing", table)
            return (source.fixed[name],)
        if name == source.measure:
            prefix = f"{name}."
            wanted = {one.removeprefix(prefix) for one in self._request.wanted if one.startswith(prefix)}
            selected = tuple(code for code in found if code in wanted or not wanted)
            if not selected:
                raise self._drift(f"none of {name}={','.join(sorted(wanted))} is there", table)
            return selected
        if len(found) != 1:
            raise self._drift(f"there is a dimension {name} that the definition does not name", table)
        return found

    def _filters(self, chunk: Chunk, plan: _Plan) -> dict[str, str]:
        """Return the filters of one request: all that is fixed or cut, and the first row dimension in any case."""
        source = self._source
        always = {*source.fixed, source.measure, source.rows[0]}
        return {
            name: ",".join(chunk[name])
            for name in (*source.fixed, source.measure, *source.rows)
            if name in always or name not in plan.whole or len(chunk[name]) < len(plan.selected[name])
        }

    def _drift(self, found: str, table: jsonstat.DataTable) -> SourceDrift:
        dimensions = "; ".join(
            f"{one.id} ({', '.join(list(one.categories)[:8])}{', …' if len(one.categories) > 8 else ''})"
            for one in table.dimensions
        )
        return SourceDrift(
            f"{self._request.dataset}: {self.metadata_url}: {found}. The table has {dimensions}. "
            "Compare it with the source in the dataset definition and correct the definition."
        )


def _same_edition(one: str | None, other: str | None) -> bool:
    """Compare two dates of update as moments, by the day alone where one of them has no time; other text as it is."""
    if one is None or other is None or one == other:
        return one == other
    try:
        moments = [datetime.fromisoformat(text) for text in (one, other)]
    except ValueError:
        return False
    if any(_DAY.fullmatch(text) for text in (one, other)):
        return moments[0].date() == moments[1].date()
    first, second = (moment if moment.tzinfo else moment.replace(tzinfo=UTC) for moment in moments)
    return first == second


def _parse_chunk(path: Path, chunk: Chunk) -> jsonstat.DataTable:
    """Return the table in `path`; raise `InvalidResponse` unless it holds exactly the categories of the request."""
    table = idescat_rows.load(path)
    found = {dimension.id: dimension.categories for dimension in table.dimensions}
    if found.keys() != chunk.keys():
        raise InvalidResponse(f"found the dimensions {', '.join(found)}, expected {', '.join(chunk)}")
    for name, codes in chunk.items():
        if set(found[name]) != set(codes):
            raise InvalidResponse(
                f"found {len(found[name])} categories of {name} ({', '.join(list(found[name])[:5])}, …), asked "
                f"for {len(codes)} ({', '.join(codes[:5])}, …): the filter was not obeyed"
            )
    if table.values is None:
        raise InvalidResponse("found a table without values")
    return table


PROTOCOL = SourceProtocol(
    base_url="idescat_url",
    fetch=fetch,
    updated=lambda validators: datetime.fromisoformat(validators["updated"]).replace(tzinfo=UTC),
    rows=lambda source, page: idescat_rows.rows(idescat_rows.load(page.path), source),
    controls=lambda source, page: idescat_rows.controls(idescat_rows.load(page.path), source),
)
