"""GeoJSON files fetched whole, each with one conditional request."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from catalunya.sources.http import Answer, Http, Unfit, not_json
from catalunya.sources.protocol import Fetched, Progress, SourceColumn, SourceFile, file_name

if TYPE_CHECKING:
    from catalunya.datasets import DownloadSource


class _Feature(msgspec.Struct, gc=False):
    type: str
    properties: dict[str, msgspec.Raw] | None = None


class _Collection(msgspec.Struct):
    type: str
    features: list[_Feature]


_decoder = msgspec.json.Decoder(_Collection)


def fetch(
    source: DownloadSource,
    *,
    base_url: str,
    http: Http,
    spool: Path,
    known: dict[str, Any] | None = None,
    progress: Progress | None = None,
    dataset: str = "",
) -> Fetched | None:
    """The files of `source`, whole; None when the server says of every one that it is unchanged.

    Rows are features. Columns are `level`, `geometry` and every property of any feature. A server that
    gives neither ETag nor Last-Modified is read every time. Raises `SourceUnreadable`.
    """
    dataset = dataset or source.files[0].path
    spool.mkdir(parents=True, exist_ok=True)
    validators: dict[str, dict[str, str]] = (known or {}).get("files", {})
    paths = [spool / file_name(number) for number in range(len(source.files))]
    found: list[_Found] = []

    def get(number: int, conditions: dict[str, str]) -> Answer:
        return http.store(
            base_url + source.files[number].path,
            paths[number],
            dataset=dataset,
            headers=conditions,
            check=_check,
        )

    answers = [
        get(number, _conditions(validators.get(file.path, {}))) for number, file in enumerate(source.files)
    ]
    if all(answer.unchanged for answer in answers):
        return None
    demo = any(answer.demo for answer in answers)
    answers = [get(n, {}) if answer.unchanged else answer for n, answer in enumerate(answers)]
    for path in paths:
        found.append(_read(path))
        if progress is not None:
            progress(sum(one.features for one in found), None)
    names = ["level", "geometry", *dict.fromkeys(name for one in found for name in one.properties)]
    return Fetched(
        files=tuple(
            SourceFile(path.name, path, answer.url, answer.size, answer.sha256, one.features)
            for path, answer, one in zip(paths, answers, found, strict=True)
        ),
        columns=tuple(SourceColumn(name, None) for name in dict.fromkeys(names)),
        validators={
            "files": {
                file.path: _validators(answer) for file, answer in zip(source.files, answers, strict=True)
            }
        },
        request={"urls": [base_url + file.path for file in source.files]},
        rows_before=None,
        rows_after=None,
        rows=sum(one.features for one in found),
        demo=demo or any(answer.demo for answer in answers),
    )


class _Found(msgspec.Struct, frozen=True):
    features: int
    properties: tuple[str, ...]


def _read(path: Path) -> _Found:
    collection = _decode(path)
    names = dict.fromkeys(name for feature in collection.features for name in feature.properties or ())
    return _Found(len(collection.features), tuple(names))


def _check(path: Path) -> None:
    collection = _decode(path)
    if collection.type != "FeatureCollection":
        raise Unfit(f"found GeoJSON of type {collection.type!r}, expected a FeatureCollection")
    if not collection.features:
        raise Unfit("found a FeatureCollection without features")


def _decode(path: Path) -> _Collection:
    body = path.read_bytes()
    try:
        return _decoder.decode(body)
    except msgspec.ValidationError as error:
        raise Unfit(f"found JSON that is no GeoJSON FeatureCollection ({error})") from None
    except msgspec.DecodeError as error:
        raise Unfit(not_json(body, error)) from None


def _conditions(known: dict[str, str]) -> dict[str, str]:
    headers = {"If-None-Match": known.get("etag"), "If-Modified-Since": known.get("last_modified")}
    return {name: value for name, value in headers.items() if value}


def _validators(answer: Answer) -> dict[str, str]:
    found = {"etag": answer.headers.get("etag"), "last_modified": answer.headers.get("last-modified")}
    return {name: value for name, value in found.items() if value}
