"""Secrets that a test plants, and the search for them in whatever a run leaves: text, archives, tables, databases."""

from __future__ import annotations

import base64
import gzip
import sqlite3
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import duckdb


def forms(secret: str) -> set[bytes]:
    """A secret as it may be written: plain, in an address, in a header."""
    plain = secret.encode()
    return {plain, quote(secret, safe="").encode(), base64.b64encode(plain).rstrip(b"=")}


def contents(path: Path) -> Iterator[bytes]:
    """Yield what a file holds: its bytes, and what is packed in them."""
    raw = path.read_bytes()
    yield raw
    if raw.startswith(b"\x1f\x8b"):
        yield gzip.decompress(raw)
    elif raw.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(path) as packed:
            yield from (packed.read(name) for name in packed.namelist())
    elif raw.startswith(b"SQLite format 3\0"):
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as con:
            # A dump: in the file itself a long value is in pieces.
            yield "\n".join(con.iterdump()).encode()
    elif raw.startswith(b"PAR1"):
        with duckdb.connect() as con:
            yield from _rows(con, f"from read_parquet('{path}', hive_partitioning = false)")
    elif raw[8:12] == b"DUCK":
        with duckdb.connect(str(path), read_only=True) as con:
            tables = "select table_schema, table_name from information_schema.tables"
            for schema, table in con.execute(tables).fetchall():
                yield from _rows(con, f'from "{schema}"."{table}"')


def _rows(con: duckdb.DuckDBPyConnection, source: str) -> Iterator[bytes]:
    for row in con.execute(f"select cast(columns(*) as varchar) {source}").fetchall():
        yield "\n".join(value or "" for value in row).encode()


def found(secrets: dict[str, str], *folders: Path) -> list[tuple[str, str]]:
    """Return each secret that is in a file, and the file; the name of the file counts too."""
    wanted = {name: forms(secret) for name, secret in secrets.items()}
    places = []
    for path in sorted(path for folder in folders for path in folder.rglob("*") if path.is_file()):
        held = b"\0".join([str(path).encode(), *contents(path)])
        places += [
            (name, str(path)) for name, written in wanted.items() if any(form in held for form in written)
        ]
    return places
