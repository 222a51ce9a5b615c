"""dbt in process: the one place that knows how dbt is called and what it answers."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import structlog

from catalunya.errors import BuildFailed

log = structlog.get_logger(__name__)

Status = Literal["success", "pass", "warn", "fail", "error", "skipped"]


@dataclass(frozen=True)
class NodeResult:
    """What became of one model, seed or test."""

    node_id: str
    name: str
    kind: str
    status: str
    seconds: float
    message: str
    failures: int
    sources: tuple[str, ...]
    """Datasets that the node depends on, however far upstream."""
    warn_only: bool


@dataclass(frozen=True)
class Column:
    """A column of a mart as its YAML describes it."""

    name: str
    type: str
    description: str


@dataclass(frozen=True)
class Mart:
    """A published table: its description (which states the grain), key and columns."""

    name: str
    description: str
    columns: tuple[Column, ...]


@dataclass(frozen=True)
class Outcome:
    """The results of one dbt command, in the order they came, and the marts of the project."""

    results: tuple[NodeResult, ...]
    marts: tuple[Mart, ...]
    version: str


def invoke(
    command: list[str],
    *,
    project: Path,
    candidate: Path,
    work: Path,
    on_node: Callable[[str], None] | None = None,
) -> Outcome:
    """Run a dbt command on the candidate database and return the result of every node.

    `work` takes dbt's target and log folders. A node that failed is in the outcome; `BuildFailed` is raised
    only when dbt itself could not run (project, profile or connection).
    """
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager
    from dbt.cli.main import dbtRunner

    def on_event(event: Any) -> None:
        if on_node is not None and event.info.name in {"LogModelResult", "LogSeedResult", "LogTestResult"}:
            on_node(event.data.node_info.node_name)

    arguments = [
        *command,
        "--project-dir", str(project),
        "--profiles-dir", str(project),
        "--target", "duckdb",
        "--target-path", str(work / "target"),
        "--log-path", str(work / "logs"),
        "--log-level", "none",
        "--quiet",
        "--no-use-colors",
    ]  # fmt: skip
    try:
        with _environment(CATALUNYA_CANDIDATE=str(candidate)), contextlib.redirect_stdout(io.StringIO()):
            answer = dbtRunner(callbacks=[on_event]).invoke(arguments)
    finally:
        DuckDBConnectionManager.close_all_connections()
    if answer.exception is not None or not hasattr(answer.result, "results"):
        raise BuildFailed(
            f"dbt {command[0]} could not run on {project}: {answer.exception}; see {work / 'logs' / 'dbt.log'}"
        )
    return _outcome(answer.result, project, work)


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _outcome(result: Any, project: Path, work: Path) -> Outcome:
    import msgspec

    manifest = msgspec.json.decode((work / "target" / "manifest.json").read_bytes())
    parents: dict[str, list[str]] = manifest["parent_map"]
    results = tuple(
        NodeResult(
            node_id=r.node.unique_id,
            name=r.node.name,
            kind=str(r.node.resource_type),
            status=str(r.status),
            seconds=round(float(r.execution_time), 3),
            message=str(r.message or ""),
            failures=int(r.failures or 0),
            sources=_sources(r.node.unique_id, parents),
            warn_only=str(getattr(r.node.config, "severity", "")).lower() == "warn",
        )
        for r in result.results
    )
    return Outcome(results, marts(manifest), manifest["metadata"]["dbt_version"])


def marts(manifest: dict[str, Any]) -> tuple[Mart, ...]:
    """The published tables of a dbt manifest, by name."""
    found = [
        Mart(
            name=node["name"],
            description=node["description"].strip(),
            columns=tuple(
                Column(c["name"], c.get("data_type") or "", c["description"].strip())
                for c in node["columns"].values()
            ),
        )
        for node in manifest["nodes"].values()
        if node["resource_type"] == "model" and node["schema"] == "marts"
    ]
    return tuple(sorted(found, key=lambda mart: mart.name))


def _sources(node_id: str, parents: dict[str, list[str]]) -> tuple[str, ...]:
    seen: set[str] = set()
    waiting = [node_id]
    while waiting:
        current = waiting.pop()
        for parent in parents.get(current, []):
            if parent not in seen:
                seen.add(parent)
                waiting.append(parent)
    return tuple(sorted(name.rsplit(".", 1)[-1] for name in seen if name.startswith("source.")))
