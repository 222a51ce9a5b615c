"""Answers as Athena gives them: rows of text, columns with Hive's names of types, files in S3."""

from __future__ import annotations

import base64
import math
import re
from decimal import Decimal
from typing import Any

_PRECISION = {
    "boolean": (0, 0), "tinyint": (3, 0), "smallint": (5, 0), "integer": (10, 0), "bigint": (19, 0),
    "float": (17, 0), "double": (17, 0), "varchar": (2147483647, 0), "char": (2147483647, 0), "date": (0, 0),
    "timestamp": (3, 0), "varbinary": (1073741824, 0),
}  # fmt: skip
_TYPES = {"real": "float", "int": "integer"}


def column_info(name: str, kind: str) -> dict[str, Any]:
    """Return the `ColumnInfo` of a column that has the type `kind` in Trino."""
    base = kind.split("(", maxsplit=1)[0].lower()
    base = "timestamp with time zone" if kind.endswith("with time zone") else _TYPES.get(base, base)
    precision, scale = _PRECISION.get(base, (0, 0))
    if numbers := re.fullmatch(r"(?:decimal|varchar|char)\((\d+)(?:, ?(\d+))?\)", kind):
        precision, scale = int(numbers[1]), int(numbers[2] or 0)
    return {
        "CatalogName": "hive", "SchemaName": "", "TableName": "", "Name": name, "Label": name, "Type": base,
        "Precision": precision, "Scale": scale, "Nullable": "UNKNOWN", "CaseSensitive": base in {"varchar", "char"},
    }  # fmt: skip


def as_text(value: Any, kind: str = "") -> str | None:
    """Return one value as Athena writes it; None stays."""
    if value is None or isinstance(value, bool):
        return None if value is None else str(value).lower()
    if kind in {"double", "real"}:
        return _java_double(float(value))
    if kind == "varbinary":
        return base64.b64decode(value).hex(" ")
    if isinstance(value, list):
        return "[" + ", ".join(map(_inner, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}={_inner(part)}" for name, part in value.items()) + "}"
    return str(value)


def _inner(value: Any) -> str:
    written = as_text(value, "double" if isinstance(value, float) else "")
    return "null" if written is None else written


def _java_double(value: float) -> str:
    """Return a double as Java writes it: plain between 0.001 and ten million, else with an exponent of ten."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{'-' if value < 0 else ''}Infinity"
    exact = Decimal(repr(value))
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        return f"{exact:f}"
    digits = "".join(map(str, exact.as_tuple().digits))
    fraction = digits[1:].rstrip("0") or "0"
    return f"{'-' if value < 0 else ''}{digits[0]}.{fraction}E{exact.adjusted()}"


def csv_file(columns: list[str], rows: list[list[str | None]]) -> bytes:
    """Return a result as the file that Athena leaves: every value quoted, null as nothing at all."""
    header: list[str | None] = [*columns]
    return "".join(",".join(map(_quoted, row)) + "\n" for row in (header, *rows)).encode()


def _quoted(value: str | None) -> str:
    return "" if value is None else '"' + value.replace('"', '""') + '"'


def text_file(rows: list[list[str | None]]) -> bytes:
    """Return the result of a statement that describes something: lines of values joined by tabs."""
    return "".join("\t".join(value or "" for value in row) + "\n" for row in rows).encode()
