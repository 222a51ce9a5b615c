"""Whether what dbt made of a project can be kept: the same state of the project has to give the same statements."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from catalunya.log import get_logger
from catalunya.warehouse.code import code_digest

log = get_logger(__name__)

_CHANGING = re.compile(
    r"\b(?:env_var|invocation_id|load_relation|load_result|modules|run_query|run_started_at"
    r"|statement(?=\s*\()|adapter\s*\.\s*(?!dispatch\b|quote\b)\w+|flags\s*\.\s*\w+"
    r"|target\s*\.\s*(?!database\b|name\b|schema\b|type\b)\w+)\b|\|\s*random\b"
)
"""Words of templates whose value is the environment's, the clock's or that of tables."""
_MATERIALIZED = {"seed", "table", "view"}
_SAME_CONNECTION = {"database", "disable_transactions", "path", "schema", "settings"}
"""What may differ in the profile from dbt-duckdb's defaults; of the settings the time zone and the memory limit."""


def is_repeatable(project: Path, digest: str, manifest: Any, described: dict[str, Any]) -> bool:
    """Return whether the statements that dbt has just made of a project depend on this state of it alone.

    They do when the project has not changed since its digest was taken, its templates read neither the environment nor
    the clock nor tables, its seeds and models are made by one SQL statement each, and its profile opens DuckDB as this
    package does. The adapter of that call of dbt is still there.

    Args:
        project: the folder of the dbt project.
        digest: names the state of the project.
        manifest: dbt's parsed project.
        described: the content of its `manifest.json`, as parsed: what dbt runs adds to the manifest.
    """
    for reason in _obstacles(project, digest, manifest, described):
        log.info("dbt's statements are not kept", reason=reason)
        return False
    return True


def is_same_state(project: Path, digest: str, manifest: Any) -> bool:
    """Return whether the parsed project is that of the digest, and has no variables of the environment in it."""
    return not manifest.env_vars and code_digest(project.parents[1]) == digest


def _obstacles(project: Path, digest: str, manifest: Any, described: dict[str, Any]) -> Iterator[str]:
    if not is_same_state(project, digest, manifest):
        yield "the project changed meanwhile, or reads the environment"
    yield from _of_connection()
    for path in sorted(project.glob("**/*.y*ml")):
        if found := _CHANGING.search(path.read_text("utf-8", "replace")):
            yield f"{path.relative_to(project)} reads {found[0]}"
    for node in described["nodes"].values():
        kind = node["resource_type"]
        if kind == "operation":
            yield f"{node['name']} runs at the start or end of every build"
        if kind in {"model", "seed"}:
            yield from _of_relation(node)
        if kind in {"model", "test"}:
            yield from _of_template(node, described["macros"])


def _of_connection() -> Iterator[str]:
    from dbt.adapters.factory import get_adapter_by_type

    credentials = get_adapter_by_type("duckdb").config.credentials
    default = type(credentials)(
        database=credentials.database, schema=credentials.schema, path=credentials.path
    )
    for field in dataclasses.fields(credentials):
        name = field.name
        if name not in _SAME_CONNECTION and getattr(credentials, name) != getattr(default, name):
            yield f"the profile has {name}"
    if {**(credentials.settings or {}), "memory_limit": ""} != {"TimeZone": "UTC", "memory_limit": ""}:
        yield "the profile has other settings"


def _of_relation(node: dict[str, Any]) -> Iterator[str]:
    name, config = node["name"], node["config"]
    if config["materialized"] not in _MATERIALIZED or node.get("language", "sql") != "sql":
        yield f"{name} is neither a table nor a view by one statement"
    if config["pre-hook"] or config["post-hook"]:
        yield f"{name} has hooks"
    if not config.get("fast", True):
        yield f"{name} is a seed that is inserted row by row"


def _of_template(node: dict[str, Any], macros: dict[str, Any]) -> Iterator[str]:
    called = _called(node["depends_on"]["macros"], macros)
    for name, text in ((node["name"], node["raw_code"]), *called):
        if found := _CHANGING.search(text):
            yield f"{name} reads {found[0]}"


def _called(names: Iterable[str], macros: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The macros that a node calls, however deep, with their text."""
    seen: set[str] = set()
    to_visit = list(names)
    while to_visit:
        name = to_visit.pop()
        if name not in seen and name in macros:
            seen.add(name)
            yield macros[name]["name"], macros[name]["macro_sql"]
            to_visit += macros[name]["depends_on"]["macros"]
