"""SQL literals, and relations over files: DuckDB takes their names literally and adds no columns."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

_GLOB = re.compile(r"[\[*?]")


def quote(text: str) -> str:
    """Return `text` as an SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def quote_path(path: Path, pattern: str = "") -> str:
    """Return `path` as an SQL string literal, with `[`, `*` and `?` escaped: DuckDB's readers take every path as a glob.

    With `pattern` it stands for the files below `path` that match that glob.
    """
    literal = _GLOB.sub(r"[\g<0>]", str(path))
    return quote(f"{literal}/{pattern}" if pattern else literal)


def quote_paths(paths: Iterable[Path]) -> str:
    """Return `paths` as an SQL list of literals."""
    return f"[{', '.join(quote_path(path) for path in paths)}]"


def read_parquet(paths: Path | Iterable[Path], pattern: str = "", *, union_by_name: bool = False) -> str:
    """Return the rows of Parquet files, or of those below a folder that match `pattern`, as a relation.

    A folder named `name=value` in a path adds no column. With `union_by_name` a column that a file lacks is null.
    """
    files = quote_path(paths, pattern) if isinstance(paths, Path) else quote_paths(paths)
    union = ", union_by_name = true" if union_by_name else ""
    return f"read_parquet({files}, hive_partitioning = false{union})"


def read_json_objects(path: Path, *, shape: str, largest: int) -> str:
    """Return the objects of a JSON file as a relation with the column `json`; `largest` is the most bytes of one."""
    return (
        f"read_json_objects({quote_path(path)}, format = {quote(shape)}, maximum_object_size = {largest}, "
        "hive_partitioning = false)"
    )
