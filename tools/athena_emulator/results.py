"""Answers as Athena gives them: rows of text, columns with Hive's names of types, CSV in S3."""

from __future__ import annotations

import base64
import csv
import io
import math
import re
from typing import Any

_PRECISION = {
    "boolean": (0, 0), "tinyint": (3, 0), "smallint": (5, 0), "integer": (10, 0), "bigint": (19, 0),
    "float": (17, 0), "double": (17, 0), "varchar": (2147483647, 0), "char": (2147483647, 0), "date": (0, 0),
    "timestamp": (3, 0), "varbinary": (1073741824, 0),
}  # fmt: skip
_KINDS = {"real": "float", "int": "integer"}


def column_info(columns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`ColumnInfo` of Trino's columns."""
    return [_column(column["name"], column["type"]) for column in columns]


def _column(name: str, kind: str) -> dict[str, Any]:
    base = kind.split("(", maxsplit=1)[0].lower()
    base = "timestamp with time zone" if kind.endswith("with time zone") else _KINDS.get(base, base)
    precision, scale = _PRECISION.get(base, (0, 0))
    if numbers := re.fullmatch(r"(?:decimal|varchar|char)\((\d+)(?:, ?(\d+))?\)", kind):
        precision, scale = int(numbers[1]), int(numbers[2] or 0)
    return {
        "CatalogName": "hive", "SchemaName": "", "TableName": "", "Name": name, "Label": name, "Type": base,
        "Precision": precision, "Scale": scale, "Nullable": "UNKNOWN", "CaseSensitive": base in {"varchar", "char"},
    }  # fmt: skip


def texts(columns: list[dict[str, Any]], rows: list[list[Any]]) -> list[list[str | None]]:
    """Rows with every value as Athena writes it; None stays."""
    kinds = [column["type"] for column in columns]
    return [[text(value, kind) for value, kind in zip(row, kinds, strict=True)] for row in rows]


def text(value: Any, kind: str = "") -> str | None:
    """One value as Athena writes it."""
    if value is None or isinstance(value, bool):
        return {None: None, True: "true", False: "false"}[value]
    if kind in {"double", "real"}:
        return _java_double(float(value))
    if kind == "varbinary":
        return base64.b64decode(value).hex(" ")
    return _nested(value) if isinstance(value, list | dict) else str(value)


def _nested(value: list[Any] | dict[str, Any]) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_inner(part) for part in value) + "]"
    return "{" + ", ".join(f"{name}={_inner(part)}" for name, part in value.items()) + "}"


def _inner(value: Any) -> str:
    written = text(value, "double" if isinstance(value, float) else "")
    return "null" if written is None else written


def _java_double(value: float) -> str:
    """A double as Java writes it: plain between 0.001 and ten million, else with an exponent of ten."""
    if math.isnan(value) or math.isinf(value):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        plain = format(value, "f") if "e" in repr(value) else repr(value)
        return plain if "." in plain else f"{plain}.0"
    digits, exponent = f"{value!r}e0".split("e")[:2] if "e" in repr(value) else _scientific(value)
    return f"{digits if '.' in digits else digits + '.0'}E{int(exponent)}"


def _scientific(value: float) -> tuple[str, str]:
    """The shortest digits of a double in scientific form, such as `1.2345678E7`."""
    whole, _, fraction = repr(abs(value)).partition(".")
    fraction = "" if fraction == "0" else fraction
    if whole != "0":
        digits, exponent = (whole + fraction), len(whole) - 1
    else:
        digits = fraction.lstrip("0")
        exponent = -(len(fraction) - len(digits) + 1)
    digits = digits.rstrip("0") or "0"
    sign = "-" if value < 0 else ""
    return f"{sign}{digits[0]}.{digits[1:] or '0'}", str(exponent)


def csv_file(columns: list[dict[str, Any]], rows: list[list[str | None]]) -> bytes:
    """The result as the file that Athena leaves: every value quoted, null as nothing at all."""
    out = io.StringIO()
    out.write(_line([column["name"] for column in columns]))
    for row in rows:
        out.write(_line(row))
    return out.getvalue().encode()


def _line(values: list[str | None]) -> str:
    line = io.StringIO()
    writer = csv.writer(line, quoting=csv.QUOTE_ALL, lineterminator="")
    parts = []
    for value in values:
        if value is None:
            parts.append("")
            continue
        line.seek(0)
        line.truncate()
        writer.writerow([value])
        parts.append(line.getvalue())
    return ",".join(parts) + "\n"


def text_file(rows: list[list[str | None]]) -> bytes:
    """The result of a statement that describes something: lines of values joined by tabs."""
    return "".join("\t".join(value or "" for value in row) + "\n" for row in rows).encode()
