"""GeoJSON files that are read whole, each by one conditional request."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from catalunya.errors import SnapshotUnreadable, SourceDrift
from catalunya.lake.snapshot import LandedColumn, LandedFile
from catalunya.sources.base import Fetched, FetchRequest, LandedPage, SourceProtocol, file_name
from catalunya.sources.http import Answer
from catalunya.sources.responses import InvalidResponse, decode

if TYPE_CHECKING:
    from catalunya.datasets.sources import DownloadFile, DownloadSource

OWN = ("level", "geometry")
"""Columns that the definition adds; a property of the source with such a name is left out."""

_LONGITUDE_LATITUDE = re.compile(r"(.*\W)?(CRS:?84|EPSG(:[\d.]*:|[:/]|/0/)4326)", re.IGNORECASE)
"""Names of longitude and latitude in degrees on WGS 84."""


class _Feature(msgspec.Struct, gc=False):
    type: str = "Feature"
    properties: dict[str, msgspec.Raw] | None = None
    geometry: msgspec.Raw = msgspec.Raw(b"null")


class _Collection(msgspec.Struct):
    type: str
    features: list[_Feature]
    crs: msgspec.Raw = msgspec.Raw(b"null")


@dataclass(frozen=True)
class _Summary:
    features: int
    properties: dict[str, None]


def fetch(request: FetchRequest[DownloadSource]) -> Fetched | None:
    """Read the files of a source; None when the server says of every one that it is unchanged.

    Rows are features. Columns are `level`, `geometry` and every property of any feature. A server that
    gives neither ETag nor Last-Modified is read every time. Raises `SourceUnreadable`, and `SourceDrift`
    when coordinates are not longitude and latitude in degrees.
    """
    files = request.source.files
    validators: dict[str, dict[str, str]] = (request.previous_validators or {}).get("files", {})
    if validators.keys() != {file.path for file in files}:
        validators = {}

    def get(number: int, file: DownloadFile, conditions: dict[str, str]) -> Answer:
        return request.http.store(
            request.base_url + file.path,
            request.spool / file_name(number),
            dataset=request.dataset,
            headers=conditions,
            parse=lambda path: _summary(read_collection(path, request.dataset)),
        )

    answers = [
        get(number, file, _conditions(validators.get(file.path, {}), file.level))
        for number, file in enumerate(files)
    ]
    if all(answer.unchanged for answer in answers):
        return None
    demo = any(answer.demo for answer in answers)
    landed: list[LandedFile] = []
    kept: dict[str, dict[str, str]] = {}
    names = dict.fromkeys(OWN)
    for number, (file, first) in enumerate(zip(files, answers, strict=True)):
        answer = get(number, file, {}) if first.unchanged else first
        summary: _Summary = answer.data
        landed.append(answer.landed_file(file_name(number), summary.features, file.level))
        found = {"etag": answer.headers.get("etag"), "last_modified": answer.headers.get("last-modified")}
        kept[file.path] = {**_printable(found), "level": file.level}
        names |= summary.properties
        demo = demo or answer.demo
        request.progress(sum(one.rows or 0 for one in landed), None)
    return Fetched(
        files=tuple(landed),
        columns=tuple(LandedColumn(name=name) for name in names),
        validators={"files": kept},
        request={"urls": [request.base_url + file.path for file in files]},
        demo=demo,
    )


def rows(path: Path, level: str) -> Iterator[dict[str, Any]]:
    """Yield the features in a landed file, each with `level`; the geometry comes last."""
    for feature in read_collection(path, path.name).features:
        properties = (feature.properties or {}).items()
        own = {name: value for name, value in properties if name not in OWN}
        yield {"level": level, **own, "geometry": feature.geometry}


def read_collection(path: Path, where: str) -> _Collection:
    """Return the collection in a file; raise `InvalidResponse` for anything else, `SourceDrift` for another CRS."""
    collection: _Collection = decode(path.read_bytes(), _Collection, "a GeoJSON FeatureCollection")
    if collection.type != "FeatureCollection":
        raise InvalidResponse(f"found GeoJSON of type {collection.type[:80]!r}, expected a FeatureCollection")
    if not collection.features:
        raise InvalidResponse("found a FeatureCollection without features")
    crs = decode(collection.crs)
    inner = crs.get("properties") if isinstance(crs, dict) else None
    name = inner.get("name", crs) if isinstance(inner, dict) else crs
    if name is not None and not (isinstance(name, str) and _LONGITUDE_LATITUDE.fullmatch(name)):
        raise _other_crs(where, f"coordinates in {str(name)[:80]}")
    try:
        for feature in collection.features:
            geometry = decode(feature.geometry)
            if isinstance(geometry, dict):
                _check_positions(geometry.get("coordinates"), where)
    except RecursionError:
        raise InvalidResponse("found a geometry that is nested too deeply") from None
    return collection


def _summary(collection: _Collection) -> _Summary:
    names = dict.fromkeys(name for feature in collection.features for name in feature.properties or ())
    return _Summary(len(collection.features), names)


def _check_positions(part: Any, where: str) -> None:
    """Check every position, `[longitude, latitude]`, in nested lists of them; what is none, staging quarantines."""
    if not isinstance(part, list):
        return
    if len(part) < 2 or not all(type(one) in {int, float} for one in part[:2]):
        for one in part:
            _check_positions(one, where)
    elif not (-180 <= part[0] <= 180 and -90 <= part[1] <= 90):
        raise _other_crs(where, f"the position {str(part)[:80]}")


def _other_crs(where: str, found: str) -> SourceDrift:
    return SourceDrift(
        f"{where}: found {found}, expected longitude and latitude in degrees (EPSG:4326). Name the file in "
        "EPSG:4326 in the definition, or ask the publisher."
    )


def _conditions(previous: dict[str, str], level: str) -> dict[str, str]:
    """Return the headers of a conditional request; none when the file was read as another level."""
    if previous.get("level", level) != level:
        return {}
    return _printable(
        {"If-None-Match": previous.get("etag"), "If-Modified-Since": previous.get("last_modified")}
    )


def _printable(headers: Mapping[str, str | None]) -> dict[str, str]:
    """Return the headers that a request can carry."""
    return {
        name: value for name, value in headers.items() if value and value.isascii() and value.isprintable()
    }


def _level(source: DownloadSource, page: LandedPage) -> str:
    """Return the level of a landed file: as recorded, or by its address in a snapshot that records none."""
    if page.file.role is not None:
        return page.file.role
    urls = page.request.get("urls")
    requested = urls[page.number] if isinstance(urls, list) and page.number < len(urls) else ""
    for address in (page.file.url, requested):
        for file in source.files:
            if urlsplit(str(address)).path.endswith(file.path):
                return file.level
    raise SnapshotUnreadable(
        f"{page.file.name}: nothing says which level its features have, and no file of the definition "
        f"({', '.join(one.path for one in source.files)}) has its address {page.file.url}; name that address under "
        "`files` in the definition again, or read the source anew with `catalunya ingest --force`"
    )


def _updated(validators: Mapping[str, Any]) -> datetime | None:
    files: Mapping[str, Mapping[str, str]] = validators["files"]
    return max(parsedate_to_datetime(file["last_modified"]) for file in files.values())


PROTOCOL = SourceProtocol(
    base_url="icgc_url",
    fetch=fetch,
    updated=_updated,
    rows=lambda source, page: rows(page.path, _level(source, page)),
)
