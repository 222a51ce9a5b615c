"""What every server of the site sends with a file: `site serve`, the container, CloudFront (`infrastructure/site.py`)."""

from __future__ import annotations

import mimetypes
from pathlib import PurePosixPath

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-opener-policy": "same-origin",
    # Pages of others may read the API and the files: all of it is public, and nobody is logged in.
    "access-control-allow-origin": "*",
}
ASSETS = "assets"
"""Folder of the files whose names change with their content."""
RELEASES = "releases"
"""Folder of the kept releases, each in a folder of its id."""
_TYPES = {
    ".bib": "application/x-bibtex",
    ".csv": "text/csv",
    ".duckdb": "application/octet-stream",
    ".jsonld": "application/ld+json",
    ".md": "text/markdown",
    ".parquet": "application/vnd.apache.parquet",
    ".rdf": "application/rdf+xml",
    ".ttl": "text/turtle",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".xml": "application/xml",
    ".yml": "application/yaml",
}
"""Of the names that Python does not know, or knows only where the machine's own list has them."""


def cache_control(name: str) -> str:
    """Return how long a browser may keep a file: assets and the files of a release for good, others until they change."""
    path = PurePosixPath(name.lstrip("/"))
    is_of_release = path.parts[:1] == (RELEASES,) and len(path.parts) > 2 and path.suffix != ".html"
    never_changes = path.parts[:1] == (ASSETS,) or is_of_release
    return "public, max-age=31536000, immutable" if never_changes else "no-cache"


def content_type(name: str) -> str:
    """Return the media type of a file of the site."""
    suffix = PurePosixPath(name).suffix.lower()
    found = _TYPES.get(suffix) or mimetypes.types_map.get(suffix) or "application/octet-stream"
    return f"{found}; charset=utf-8" if found.startswith("text/") else found
