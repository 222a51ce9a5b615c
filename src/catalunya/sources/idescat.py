"""A table of Idescat's Tables v2: metadata, data in parts below the limit, and its rows.

Idescat ignores a filter that it does not know in silence, so that the categories of every answer are
compared with those asked for.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import product
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import msgspec

from catalunya.errors import SourceDrift, SourceUnreadable
from catalunya.sources import jsonstat
from catalunya.sources.base import (
    Control,
    Fetched,
    Progress,
    SourceColumn,
    SourceFile,
    SourceProtocol,
    file_name,
)
from catalunya.sources.http import Answer, Http, InvalidResponse, decode

if TYPE_CHECKING:
    from catalunya.datasets.sources import IdescatSource

MOST_CELLS = 20_000
"""Idescat answers 416 above it."""

LONGEST_URL = 6_000
_ADDRESS = 1_000
"""Characters of a URL kept free for the address and the filters that are not cut."""
MOST_READ = 10_000_000
"""Cells beyond it are taken for a mistake of the table: 500 requests."""
TRIES = 4
_PAUSE_S = 1.0

Box = dict[str, tuple[str, ...]]
"""Per dimension the categories of one data request."""


class _SourceChanged(Exception):
    """The table was updated while it was read."""


@dataclass(frozen=True)
class _Plan:
    """What is asked of the table: the categories of every dimension, and which are complete."""

    updated: str | None
    digest: str
    wanted: Box
    whole: frozenset[str]
    demo: bool


def fetch(
    source: IdescatSource,
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
    """The table of `source` as Idescat's JSON-stat answers; None when `known` still holds.

    `wanted` are the source names of the definition's columns: of the measure only the categories named there
    are asked for, all without one. Rows are combinations of the row dimensions without their totals.
    Raises `SourceUnreadable`, and `SourceDrift` when a dimension or every wanted category is missing.
    """
    table = _Table(http, f"{base_url}/taules/v2/{source.table}", source, dataset or source.table)
    spool.mkdir(parents=True, exist_ok=True)
    fault = ""
    for attempt in range(TRIES):
        if attempt:
            http.pause(_PAUSE_S * attempt)
        plan = table.plan(wanted)
        validators = {"updated": plan.updated, "digest": plan.digest}
        if known is not None and plan.updated is not None and known == validators:
            return None
        try:
            files, answers = table.read(plan, spool, progress)
        except _SourceChanged as moved:
            fault = str(moved)
            continue
        present = [f"{source.measure}.{category}" for category in plan.wanted[source.measure]]
        first = _load(files[0].path)
        return Fetched(
            files=tuple(files),
            columns=tuple(SourceColumn(name, None) for name in (*_row_columns(first, source), *present)),
            validators=validators,
            request={"metadata": table.metadata_url, "urls": [file.url for file in files]},
            rows_before=None,
            rows_after=None,
            rows=sum(file.rows or 0 for file in files),
            demo=plan.demo or any(answer.demo for answer in answers),
        )
    raise SourceUnreadable(
        f"{table.dataset}: GET {table.data_url}: {fault}; the whole was read {TRIES} times. Run again later."
    )


def rows(paths: Sequence[Path], source: IdescatSource) -> Iterator[dict[str, Any]]:
    """The rows in landed files, under the source's names, in the order of the files and categories.

    A row holds the code of each row dimension, `<dimension>.label` where labels differ from codes, and
    `<measure>.<category>`; `status` too when a value is null. Totals are left out (see `controls`).
    """
    for path in paths:
        table = _load(path)
        labelled = _labelled(table, source)
        for codes, cells in _cells(table, source):
            if any(codes[name] == total for name, total in source.total.items()):
                continue
            row: dict[str, Any] = {}
            for name in source.rows:
                row[name] = codes[name]
                if name in labelled:
                    row[f"{name}.label"] = labelled[name][codes[name]]
            statuses: dict[str, None] = {}
            for category, position in cells.items():
                row[f"{source.measure}.{category}"] = value = table.value(position)
                if value is None:
                    statuses[table.status(position) or "missing"] = None
            if statuses:
                row["status"] = " ".join(statuses)
            yield row


def controls(paths: Sequence[Path], source: IdescatSource) -> list[Control]:
    """The published totals in landed files: one per measured category and period.

    A total that is no whole number (`".."`), or of a period that is none (`2025p`), is no control.
    """
    found = []
    for path in paths:
        table = _load(path)
        for codes, cells in _cells(table, source):
            if not source.total or any(codes[name] != total for name, total in source.total.items()):
                continue
            period = " ".join(codes[name] for name in source.rows if name not in source.total)
            if _WHOLE.fullmatch(period) is None:
                continue
            for category, position in cells.items():
                value = _whole(table.value(position))
                if value is not None:
                    found.append(Control(f"{source.measure}.{category}", period, value))
    return found


_WHOLE = re.compile(r"[0-9]{1,9}")


def _whole(value: Any) -> int | None:
    """`value` as a whole number that a count can be; None when it is none."""
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return int(text) if not isinstance(value, bool) and re.fullmatch(r"[0-9]{1,15}", text) else None


def boxes(plan: Box, source: IdescatSource, room: int, longest: int) -> list[Box]:
    """`plan` cut along the row dimensions into parts of at most `room` cells and `longest` characters."""
    inner = prod(len(codes) for name, codes in plan.items() if name not in source.rows)

    def cut(names: Sequence[str]) -> list[Box]:
        if not names:
            return [{}]
        name, *others = names
        rest = inner * prod(len(plan[other]) for other in others)
        size = max(1, room // rest)
        fitting = max(1, longest // (1 + max(len(code) for code in plan[name])))
        groups = [plan[name]] if len(plan[name]) <= size else _groups(plan[name], min(size, fitting))
        if rest > room:
            return [{name: group, **part} for group in groups for part in cut(others)]
        return [{name: group, **{other: plan[other] for other in others}} for group in groups]

    fixed = {name: codes for name, codes in plan.items() if name not in source.rows}
    return [{**part, **fixed} for part in cut(list(source.rows))]


def _groups(codes: tuple[str, ...], size: int) -> list[tuple[str, ...]]:
    return [codes[start : start + size] for start in range(0, len(codes), size)]


class _Table:
    """The two questions that are asked of one table."""

    def __init__(self, http: Http, url: str, source: IdescatSource, dataset: str) -> None:
        self.dataset = dataset
        self.data_url = f"{url}/data"
        self.metadata_url = str(httpx.URL(url, params=source.fixed)) if source.fixed else url
        self._source = source
        self._http = http

    def plan(self, wanted: tuple[str, ...]) -> _Plan:
        """What to ask for, from one metadata request."""
        answer = self._http.json(
            self.metadata_url,
            dataset=self.dataset,
            expect=dict,
            check=jsonstat.parse,
        )
        table = jsonstat.parse(answer.data)
        source = self._source
        expected = {*source.rows, source.measure, *source.fixed}
        lacking = sorted(name for name in expected if table.dimension(name) is None)
        if lacking:
            raise self._drift(f"the dimension {', '.join(lacking)} is missing", table)
        box: Box = {}
        for dimension in table.dimensions:
            box[dimension.id] = self._choose(dimension, wanted, table)
        whole = frozenset(one.id for one in table.dimensions if len(box[one.id]) == len(one.categories))
        shape = [[one.id, *one.categories] for one in table.dimensions]
        digest = hashlib.sha256(msgspec.json.encode([table.updated, shape])).hexdigest()
        return _Plan(table.updated, digest, box, whole, answer.demo)

    def _choose(
        self, dimension: jsonstat.Dimension, wanted: tuple[str, ...], table: jsonstat.Table
    ) -> tuple[str, ...]:
        """The categories of `dimension` to ask for."""
        source, name, there = self._source, dimension.id, tuple(dimension.categories)
        if name in source.rows:
            if not there:
                raise self._drift(f"the dimension {name} has no category", table)
            return there
        if name in source.fixed:
            if source.fixed[name] not in there:
                raise self._drift(f"the category {name}={source.fixed[name]} is missing", table)
            return (source.fixed[name],)
        if name == source.measure:
            prefix = f"{name}."
            named = {column.removeprefix(prefix) for column in wanted if column.startswith(prefix)}
            chosen = tuple(code for code in there if code in named or not named)
            if not chosen:
                raise self._drift(f"none of {name}={','.join(sorted(named))} is there", table)
            return chosen
        if len(there) != 1:
            raise self._drift(f"there is a dimension {name} that the definition does not name", table)
        return there

    def read(
        self, plan: _Plan, spool: Path, progress: Progress | None
    ) -> tuple[list[SourceFile], list[Answer]]:
        """Every part of `plan`, stored."""
        cells = prod(len(codes) for codes in plan.wanted.values())
        if cells > MOST_READ:
            raise SourceUnreadable(
                f"{self.dataset}: {self.metadata_url}: found categories for {cells:,} cells, more than the "
                f"{MOST_READ:,} that are read. Compare the table with the source in its definition."
            )
        parts = boxes(plan.wanted, self._source, MOST_CELLS, LONGEST_URL - _ADDRESS)
        total = prod(
            len([code for code in plan.wanted[name] if code != self._source.total.get(name)])
            for name in self._source.rows
        )
        files: list[SourceFile] = []
        answers: list[Answer] = []
        folder = spool / "parts"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for number, part in enumerate(parts):
            path = folder / file_name(number)
            answer = self._http.store(
                self.data_url,
                path,
                dataset=self.dataset,
                params=self._filters(part, plan),
                check=lambda stored, part=part: _check(stored, part),  # type: ignore[misc]
            )
            if _load(path).updated != plan.updated:
                raise _SourceChanged("the table was updated while it was read")
            count = sum(1 for _ in rows([path], self._source))
            files.append(SourceFile(path.name, path, answer.url, answer.size, answer.sha256, count))
            answers.append(answer)
            if progress is not None:
                progress(sum(file.rows or 0 for file in files), total)
        landed = []
        for file in files:
            target = spool / file.name
            file.path.replace(target)
            landed.append(replace(file, path=target))
        shutil.rmtree(folder, ignore_errors=True)
        return landed, answers

    def _filters(self, part: Box, plan: _Plan) -> dict[str, str]:
        """The filters of one request: all that is fixed or cut, and the first row dimension in any case."""
        source = self._source
        always = {*source.fixed, source.measure, source.rows[0]}
        named = [*source.fixed, source.measure, *source.rows]
        return {
            name: ",".join(part[name])
            for name in named
            if name in always or name not in plan.whole or len(part[name]) < len(plan.wanted[name])
        }

    def _drift(self, found: str, table: jsonstat.Table) -> SourceDrift:
        there = "; ".join(
            f"{one.id} ({', '.join(list(one.categories)[:8])}{', …' if len(one.categories) > 8 else ''})"
            for one in table.dimensions
        )
        return SourceDrift(
            f"{self.dataset}: {self.metadata_url}: {found}. The table has {there}. "
            "Compare it with the source in the dataset definition and correct the definition."
        )


def _check(path: Path, part: Box) -> None:
    """`InvalidResponse` when the answer does not hold exactly the categories asked for."""
    table = _load(path)
    found = {dimension.id: dimension.categories for dimension in table.dimensions}
    if found.keys() != part.keys():
        raise InvalidResponse(f"found the dimensions {', '.join(found)}, asked for {', '.join(part)}")
    for name, codes in part.items():
        if set(found[name]) != set(codes):
            raise InvalidResponse(
                f"found {len(found[name])} categories of {name} ({', '.join(list(found[name])[:5])}, …), asked "
                f"for {len(codes)} ({', '.join(codes[:5])}, …): the filter was not obeyed"
            )
    if table.values is None:
        raise InvalidResponse("found a table without values")


def _load(path: Path) -> jsonstat.Table:
    return jsonstat.parse(decode(path.read_bytes()))


def _cells(table: jsonstat.Table, source: IdescatSource) -> Iterator[tuple[dict[str, str], dict[str, int]]]:
    """Each combination of the row dimensions, with the position of every measured category."""
    order = [_dimension(table, name) for name in source.rows]
    measure = _dimension(table, source.measure)
    rest: Mapping[str, int] = {
        one.id: list(one.categories).index(source.fixed[one.id]) if one.id in source.fixed else 0
        for one in table.dimensions
        if one.id not in source.rows and one.id != source.measure
    }
    for combination in product(*(enumerate(dimension.categories) for dimension in order)):
        codes = {one.id: code for one, (_, code) in zip(order, combination, strict=True)}
        index = {one.id: number for one, (number, _) in zip(order, combination, strict=True)}
        yield (
            codes,
            {
                category: table.position({**rest, **index, measure.id: number})
                for number, category in enumerate(measure.categories)
            },
        )


def _dimension(table: jsonstat.Table, name: str) -> jsonstat.Dimension:
    dimension = table.dimension(name)
    if dimension is None:
        raise SourceDrift(
            f"the dimension {name} is missing in a landed table; compare it with the definition."
        )
    return dimension


def _labelled(table: jsonstat.Table, source: IdescatSource) -> dict[str, dict[str, str]]:
    """Categories of the row dimensions whose labels say more than their codes."""
    found = {name: _dimension(table, name).categories for name in source.rows}
    return {
        name: labels
        for name, labels in found.items()
        if any(label != code for code, label in labels.items() if code != source.total.get(name))
    }


def _row_columns(table: jsonstat.Table, source: IdescatSource) -> list[str]:
    labelled = _labelled(table, source)
    return [
        column for name in source.rows for column in (name, *((f"{name}.label",) if name in labelled else ()))
    ]


PROTOCOL = SourceProtocol(
    base_url="idescat_url",
    fetch=fetch,
    updated=lambda validators: datetime.fromisoformat(validators["updated"]).replace(tzinfo=UTC),
    rows=lambda source, page: rows([page.path], source),
    controls=lambda source, page: controls([page.path], source),
)
