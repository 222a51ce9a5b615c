"""What Athena refuses and Trino would do, as far as it is known; a wrong statement of both kinds Trino refuses itself.

Sources: Athena's pages "Considerations and limitations", "Unsupported DDL", "CREATE TABLE AS" and "Service quotas".
Of functions only those are known here that came to Trino after release 398, with which engine version 3 began, and
that Athena's own list does not name. Athena takes up functions as time goes by: this list errs on the strict side.
"""

from __future__ import annotations

import re

from standin.athena.translate import bare

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
]


class Refused(Exception):
    """Athena would not run this; the message is the reason of the failure."""


class InvalidRequest(Exception):
    """Athena would not even start this."""


def admit(sql: str) -> None:
    """Raise `InvalidRequest` for a query that Athena would not even start."""
    if len(sql.encode()) > MAX_QUERY_BYTES:
        raise InvalidRequest(f"the query is longer than {MAX_QUERY_BYTES} bytes")
    words = without_literals(bare(sql))
    if not words.strip():
        raise InvalidRequest("the query is empty")
    if ";" in words:
        raise InvalidRequest("only one statement at a time is allowed")


def check(sql: str) -> None:
    """Raise `Refused` for a statement that Athena does not carry out."""
    words = without_literals(bare(sql))
    for pattern, reason in _STATEMENTS:
        if re.match(pattern, words, re.IGNORECASE):
            raise Refused(f"NOT_SUPPORTED: {reason}")
    _check_table(words)
    for name in re.findall(r"\b([a-z0-9_]+)\s*\(", words.lower()):
        if name in _LATER_FUNCTIONS:
            raise Refused(f"FUNCTION_NOT_FOUND: line 1:1: Function '{name}' not registered")


def _check_table(words: str) -> None:
    """A table of Athena's own is Iceberg's; every other one is external, or made from a query."""
    plain = re.match(r"create\s+table\s+(?:if\s+not\s+exists\s+)?[^\s(]+\s*\(", words, re.IGNORECASE)
    if plain and not re.search(r"\btblproperties\b", words, re.IGNORECASE):
        raise Refused(
            "NOT_SUPPORTED: a table that is not external needs TBLPROPERTIES ('table_type'='ICEBERG')"
        )


def without_literals(sql: str) -> str:
    """The statement with the contents of strings, quoted names and comments blotted out."""
    blotted = re.sub(r"--[^\n]*|/\*.*?\*/", " ", re.sub(r"'(?:[^']|'')*'", "''", sql), flags=re.DOTALL)
    return re.sub(r'"[^"]*"|`[^`]*`', "x", blotted)
