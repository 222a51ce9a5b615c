"""What Athena refuses and Trino would do, as far as it is known. Trino itself refuses what is wrong for both.

Sources: Athena's pages "Considerations and limitations", "Unsupported DDL", "CREATE TABLE AS" and "Service quotas".
Of functions only those are listed that came to Trino after release 398, with which engine version 3 began, and that
Athena's own list does not name. Athena adds functions over time: this list is rather too strict than too lax.
"""

from __future__ import annotations

import re

MAX_QUERY_BYTES = 262_144
MAX_PARTITIONS = 100
"""Partitions that one statement may write; Trino counts them, under the session properties of `ONE_WRITER`."""
ONE_WRITER = {
    "task_scale_writers_enabled": "false",
    "scale_writers": "false",
    "task_min_writer_count": "1",
    "task_max_writer_count": "1",
}

_LATER_FUNCTIONS = {
    "any_value", "array_first", "array_histogram", "array_last", "bitwise_xor_agg", "cosine_distance", "dot_product",
    "euclidean_distance", "exclude_columns", "json_table", "st_geomfromkml", "t_cdf", "t_pdf", "timezone",
}  # fmt: skip
_LITERAL = re.compile(r"""'(?:[^']|'')*'|"[^"]*"|`[^`]*`|--[^\n]*|/\*.*?\*/""", re.DOTALL)
_STATEMENTS = [
    (r"create\s+or\s+replace\s+table\b", "CREATE OR REPLACE TABLE is not supported"),
    (r"create\s+table\s+[^(]*\blike\b", "CREATE TABLE LIKE is not supported"),
    (r"create\s+(or\s+replace\s+)?function\b", "CREATE FUNCTION is not supported"),
    (r"create\s+materialized\s+view\b", "materialized views are not supported"),
    (r"with\s+function\b", "functions within a query are not supported"),
    (r"with\s+session\b", "session properties are not supported"),
    (r"call\b", "stored procedures are not supported"),
    (r"describe\s+(input|output)\b", "DESCRIBE INPUT and DESCRIBE OUTPUT are not supported"),
    (r"(grant|revoke|deny)\b", "GRANT, REVOKE and DENY are not supported"),
    (r"(set|reset)\s", "SET and RESET are not supported"),
    (r"(start\s+transaction|commit|rollback)\b", "transactions are not supported"),
    (r"truncate\b", "TRUNCATE is not supported"),
    (r"(analyze|comment\s+on|refresh)\b", "this statement is not supported"),
    (r"show\s+(functions|session|stats|roles|grants|catalogs)\b", "this SHOW statement is not supported"),
    (
        r"create\s+table\s+(if\s+not\s+exists\s+)?[^\s(]+\s*\((?!.*\btblproperties\b)",
        "a table that is not external needs TBLPROPERTIES ('table_type'='ICEBERG')",
    ),
]


class StatementFailed(Exception):
    """Athena ends this statement as failed; the message is the reason."""


class InvalidRequest(Exception):
    """Athena does not start this statement; the message is the reason."""


def check_request(sql: str) -> None:
    """Raise `InvalidRequest` for a statement that Athena does not start."""
    if len(sql.encode()) > MAX_QUERY_BYTES:
        raise InvalidRequest(f"the query is longer than {MAX_QUERY_BYTES} bytes")
    code = _without_literals(sql).strip()
    if code in {"", ";"}:
        raise InvalidRequest("the query is empty")
    if ";" in code[:-1]:
        raise InvalidRequest("only one statement at a time is allowed")


def check_statement(sql: str) -> None:
    """Raise `StatementFailed` for a statement that Athena does not support."""
    code = _without_literals(sql).strip().lower()
    for pattern, reason in _STATEMENTS:
        if re.match(pattern, code, re.DOTALL):
            raise StatementFailed(f"NOT_SUPPORTED: {reason}")
    for name in re.findall(r"\b([a-z0-9_]+)\s*\(", code):
        if name in _LATER_FUNCTIONS:
            raise StatementFailed(f"FUNCTION_NOT_FOUND: line 1:1: Function '{name}' not registered")


def _without_literals(sql: str) -> str:
    """Return the statement without comments, with strings emptied and quoted names replaced by `x`."""
    return _LITERAL.sub(lambda found: {"'": "''", '"': "x", "`": "x"}.get(found[0][0], " "), sql)
