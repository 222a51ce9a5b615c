"""`site.json`: which release a site shows, and by what it was made."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from catalunya.datasets.model import Dataset
from catalunya.site.publisher import PROJECT, Publisher

RECORD = "site.json"


class SiteRecord(BaseModel):
    """What a site is made of. A site with the same record need not be built again."""

    model_config = ConfigDict(frozen=True)

    release_id: str
    code: str
    """Digest of the code, the templates, the dataset definitions, and who publishes."""
    url: str
    """Origin at which it is served."""


def record_of(
    release_id: str,
    datasets: dict[str, Dataset],
    url: str,
    publisher: Publisher = PROJECT,
) -> SiteRecord:
    """Return the record of the site that the present code makes of a release."""
    digest = hashlib.sha256(f"{_code_digest()} {publisher}".encode())
    for dataset_id in sorted(datasets):
        digest.update(datasets[dataset_id].model_dump_json().encode())
    return SiteRecord(release_id=release_id, code=digest.hexdigest()[:16], url=url)


def parse(data: bytes | str) -> SiteRecord | None:
    """Return a stored record; None when it is damaged or of another version."""
    try:
        return SiteRecord.model_validate_json(data)
    except ValidationError:
        return None


@cache
def _code_digest() -> str:
    """Return a digest of all files of the package: modules, templates, texts and assets."""
    package = Path(__file__).resolve().parents[1]
    found = hashlib.sha256()
    for path in sorted(package.rglob("*"), key=lambda path: path.relative_to(package).as_posix()):
        if path.is_file() and path.suffix != ".pyc":
            found.update(f"{path.relative_to(package).as_posix()}\n".encode())
            found.update(hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).digest())
    return found.hexdigest()
