"""GeoJSON files fetched whole, each with one conditional request."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from catalunya.errors import SnapshotUnreadable, SourceDrift
from catalunya.sources.base import (
    Fetched,
    LandedPage,
    Progress,
    SourceColumn,
    SourceFile,
    SourceProtocol,
    file_name,
)
from catalunya.sources.http import UNDECODABLE, Answer, Http, InvalidResponse, decode, not_json

if TYPE_CHECKING:
    from catalunya.datasets.sources import DownloadSource


OWN = ("level", "geometry")
"""Columns that the definition brings; a property of the source with such a name is left out."""

_WORLD = re.compile(r"(.*\W)?(CRS:?84|EPSG(:[\d.]*:|[:/]|/0/)4326)", re.IGNORECASE)
"""Names of longitude and latitude in degrees on WGS 84."""


class _Feature(msgspec.Struct, gc=False):
    type: str = "Feature"
    properties: dict[str, msgspec.Raw] | None = None
    geometry: msgspec.Raw = msgspec.Raw(b"null")


class _Collection(msgspec.Struct):
    type: str
    features: list[_Feature]
    crs: msgspec.Raw = msgspec.Raw(b"null")


def fetch(
    source: DownloadSource,
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
    """The files of `source`, whole; None when the server says of every one that it is unchanged.

    Rows are features. Columns are `level`, `geometry` and every property of any feature. A server that
    gives neither ETag nor Last-Modified is read every time. Raises `SourceUnreadable`, and `SourceDrift`
    when coordinates are not longitude and latitude in degrees.
    """
    dataset = dataset or source.files[0].path
    spool.mkdir(parents=True, exist_ok=True)
    validators: dict[str, dict[str, str]] = (known or {}).get("files", {})
    if validators.keys() != {file.path for file in source.files}:
        validators = {}
    paths = [spool / file_name(number) for number in range(len(source.files))]
    found: list[_Found] = []

    def get(number: int, conditions: dict[str, str]) -> Answer:
        return http.store(
            base_url + source.files[number].path,
            paths[number],
            dataset=dataset,
            headers=conditions,
            check=lambda path: check(path, dataset),
        )

    answers = [
        get(number, _conditions(validators.get(file.path, {}), file.level))
        for number, file in enumerate(source.files)
    ]
    if all(answer.unchanged for answer in answers):
        return None
    demo = any(answer.demo for answer in answers)
    answers = [get(n, {}) if answer.unchanged else answer for n, answer in enumerate(answers)]
    for path in paths:
        found.append(_read(path))
        if progress is not None:
            progress(sum(one.features for one in found), None)
    names = [*OWN, *dict.fromkeys(name for one in found for name in one.properties)]
    return Fetched(
        files=tuple(
            SourceFile(path.name, path, answer.url, answer.size, answer.sha256, one.features, file.level)
            for path, answer, one, file in zip(paths, answers, found, source.files, strict=True)
        ),
        columns=tuple(SourceColumn(name, None) for name in dict.fromkeys(names)),
        validators={
            "files": {
                file.path: {**_validators(answer), "level": file.level}
                for file, answer in zip(source.files, answers, strict=True)
            }
        },
        request={"urls": [base_url + file.path for file in source.files]},
        rows_before=None,
        rows_after=None,
        rows=sum(one.features for one in found),
        demo=demo or any(answer.demo for answer in answers),
    )


def rows(paths: Sequence[Path], levels: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The features in landed files, each with the level of its file; the geometry comes last."""
    for path, level in zip(paths, levels, strict=True):
        for feature in check(path, path.name).features:
            properties = (feature.properties or {}).items()
            own = {name: value for name, value in properties if name not in OWN}
            yield {"level": level, **own, "geometry": feature.geometry}


def check(path: Path, where: str) -> _Collection:
    """The collection in the file at `path`; `InvalidResponse` when it is none, `SourceDrift` when it is in another CRS."""
    collection: _Collection = _decode(path)
    if collection.type != "FeatureCollection":
        raise InvalidResponse(f"found GeoJSON of type {collection.type[:80]!r}, expected a FeatureCollection")
    if not collection.features:
        raise InvalidResponse("found a FeatureCollection without features")
    named = decode(collection.crs)
    inner = named.get("properties") if isinstance(named, dict) else None
    name = inner.get("name", named) if isinstance(inner, dict) else named
    if name is not None and not (isinstance(name, str) and _WORLD.fullmatch(name)):
        raise _other_crs(where, f"coordinates in {str(name)[:80]}")
    try:
        for feature in collection.features:
            geometry = decode(feature.geometry)
            if geometry is not None:
                _check_geometry(geometry, where)
    except RecursionError:
        raise InvalidResponse("found a geometry that is nested too deeply") from None
    return collection


def _check_geometry(geometry: Any, where: str) -> None:
    if not isinstance(geometry, dict):
        raise InvalidResponse(f"found {str(geometry)[:80]!r} where a geometry is due")
    members = geometry.get("geometries") or []
    if not isinstance(members, list):
        raise InvalidResponse("found a collection of geometries that is no list")
    for member in members:
        _check_geometry(member, where)
    _check_positions(geometry.get("coordinates") or [], where)


def _check_positions(part: Any, where: str) -> None:
    """Walk down to the positions, `[longitude, latitude]`, and look at each."""
    if not isinstance(part, list):
        raise InvalidResponse(f"found {str(part)[:80]!r} where coordinates are due")
    if part and isinstance(part[0], list):
        for one in part:
            _check_positions(one, where)
        return
    if not part:
        return
    if len(part) < 2 or not all(isinstance(one, int | float) for one in part):
        raise InvalidResponse(f"found {str(part)[:80]} where longitude and latitude are due")
    if not (-180 <= part[0] <= 180 and -90 <= part[1] <= 90):
        raise _other_crs(where, f"the position {str(part)[:80]}")


def _other_crs(where: str, found: str) -> SourceDrift:
    return SourceDrift(
        f"{where}: found {found}, expected longitude and latitude in degrees (EPSG:4326). Name the file in "
        "EPSG:4326 in the definition, or ask the publisher."
    )


class _Found(msgspec.Struct, frozen=True):
    features: int
    properties: tuple[str, ...]


def _read(path: Path) -> _Found:
    collection = _decode(path)
    names = dict.fromkeys(name for feature in collection.features for name in feature.properties or ())
    return _Found(len(collection.features), tuple(names))


def _decode(path: Path) -> _Collection:
    body = path.read_bytes()
    try:
        return msgspec.json.decode(body, type=_Collection)
    except msgspec.ValidationError as error:
        raise InvalidResponse(f"found JSON that is no GeoJSON FeatureCollection ({error})") from None
    except UNDECODABLE as error:
        raise InvalidResponse(not_json(body[:200], error)) from None


def _conditions(known: dict[str, str], level: str) -> dict[str, str]:
    """Headers of a conditional request; none when the file was read as another level."""
    if known.get("level", level) != level:
        return {}
    headers = {"If-None-Match": known.get("etag"), "If-Modified-Since": known.get("last_modified")}
    return {name: value for name, value in headers.items() if value and _fits_a_header(value)}


def _validators(answer: Answer) -> dict[str, str]:
    found = {"etag": answer.headers.get("etag"), "last_modified": answer.headers.get("last-modified")}
    return {name: value for name, value in found.items() if value and _fits_a_header(value)}


def _fits_a_header(value: str) -> bool:
    return value.isascii() and value.isprintable()


def _level(source: DownloadSource, page: LandedPage) -> str:
    """What the features of a landed file are: as recorded, or by its address in a snapshot that records none."""
    if page.file.role is not None:
        return page.file.role
    urls = page.request.get("urls")
    addresses = [
        page.file.url,
        urls[page.number] if isinstance(urls, list) and page.number < len(urls) else "",
    ]
    for address in addresses:
        for known in source.files:
            if urlsplit(str(address)).path.endswith(known.path):
                return known.level
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
    rows=lambda source, page: rows([page.path], [_level(source, page)]),
)
