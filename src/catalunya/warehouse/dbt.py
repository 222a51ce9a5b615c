"""dbt's commands on a candidate, and their results as plain data."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from catalunya.warehouse.dbt_parse import Project, parse
from catalunya.warehouse.dbt_runner import (
    CANDIDATE,
    DUCKDB,
    Target,
    call,
    connected,
    profiles_folder,
)

__all__ = [
    "BUILD", "CANDIDATE", "DUCKDB", "Mart", "MartColumn", "NodeResult", "Outcome", "Sample", "Target", "document",
    "explained", "invoke", "keys", "marts", "pairs", "parse", "profiles_folder", "result_of",
]  # fmt: skip

BUILD = ["build", "--resource-type", "seed", "--resource-type", "model"]
"""The command that builds every seed and model."""
TEST = ["test", "--exclude-resource-type", "unit_test"]
"""The command that runs every test on a candidate."""
EXAMPLES = 3
VALID_COLUMNS = "valid_columns"
"""The generic test of several rules, whose rows say in the column `rule` which of them they break."""


@dataclass(frozen=True)
class NodeResult:
    """Result of one dbt node: a model, seed or test."""

    node_id: str
    name: str
    kind: str
    status: str
    seconds: float
    message: str
    failures: int
    sources: tuple[str, ...]
    """Datasets that the node depends on, however far upstream."""
    examples: tuple[str, ...]
    """The first rows that break a test, as `column=value` pairs."""
    relation: str = ""
    """`schema.table` of a model or seed."""
    parents: tuple[str, ...] = ()
    """`schema.table` of what it reads directly."""
    began_at: datetime | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True)
class MartColumn:
    """A column of a mart as its YAML describes it."""

    name: str
    type: str
    description: str


@dataclass(frozen=True)
class Mart:
    """A published table: its description (which states the grain) and columns."""

    name: str
    description: str
    columns: tuple[MartColumn, ...]


@dataclass(frozen=True)
class Outcome:
    """The results of one dbt command in the order of their end, and the marts of the project."""

    results: tuple[NodeResult, ...]
    marts: tuple[Mart, ...]


Sample = Callable[[str, int], tuple[str, ...]]
"""Returns the first so many rows of a query, in order, as `column=value` pairs."""


def invoke(
    command: list[str],
    *,
    project: Path,
    digest: str,
    target: Target,
    sample: Sample,
    on_node: Callable[[str], None] | None = None,
    on_result: Callable[[Any, Project], None] | None = None,
) -> Outcome:
    """Run a dbt command on a candidate and return the result of every node, of those that failed too.

    Args:
        command: the command and its options.
        project: the folder of the dbt project.
        digest: names the state of the project; a process parses each state once.
        target: where dbt builds.
        sample: returns example rows of a test that failed.
        on_node: is called with a line about every node that ends.
        on_result: is called with dbt's own result and the parsed project, while the files that dbt wrote are there.

    Raises:
        BuildFailed: dbt itself could not run.
    """

    def on_event(event: Any) -> None:
        if on_node is not None and event.info.name in {"LogModelResult", "LogSeedResult", "LogTestResult"}:
            node = event.data.node_info
            seconds = event.data.execution_time
            on_node(f"{node.resource_type} {node.node_name}: {event.data.status} in {seconds:.2f} s")

    parsed = parse(project, digest, target)
    with tempfile.TemporaryDirectory(prefix="catalunya-dbt-") as work, connected(target):
        # The results are in memory; dbt would write the whole project to a file with every command.
        command = [*command, "--no-write-json"]
        result = call(command, project, Path(work), target.name, manifest=parsed.manifest, callback=on_event)
        if on_result is not None:
            on_result(result, parsed)
    return _outcome(result, parsed.described, sample)


def document(*, project: Path, digest: str, target: Target, folder: Path) -> None:
    """Write the documentation of a candidate into `folder`: `static_index.html`, `manifest.json` and `catalog.json`."""
    parsed = parse(project, digest, target)
    with connected(target):
        command = ["docs", "generate", "--static"]
        call(command, project, folder.parent, target.name, manifest=parsed.manifest)


def _outcome(result: Any, described: dict[str, Any], sample: Sample) -> Outcome:
    found: list[NodeResult] = []
    for ended in result.results:
        whole = replace(
            result_of(ended.node, described),
            status=str(ended.status),
            seconds=round(float(ended.execution_time), 3),
            message=str(ended.message or ""),
            failures=int(ended.failures or 0),
            began_at=ended.timing[0].started_at if ended.timing else None,
            ended_at=ended.timing[-1].completed_at if ended.timing else None,
        )
        found += explained(whole, getattr(ended.node, "compiled_code", None), sample)
    return Outcome(tuple(found), marts(described))


def result_of(node: Any, described: dict[str, Any]) -> NodeResult:
    """Return the result of a node that has not run yet."""
    parents = described["parent_map"]
    return NodeResult(
        node_id=node.unique_id,
        name=node.name,
        kind=str(node.resource_type),
        status="",
        seconds=0.0,
        message="",
        failures=0,
        sources=_sources(node.unique_id, parents),
        examples=(),
        relation=_relation(described, node.unique_id),
        parents=tuple(_relation(described, parent) for parent in sorted(parents[node.unique_id])),
    )


def explained(result: NodeResult, query: str | None, sample: Sample) -> Iterable[NodeResult]:
    """Return the result of a test with example rows, one for each rule where rows break the rules of `valid_columns`."""
    if result.status not in {"warn", "fail"} or not query:
        return [result]
    if result.name.startswith(f"{VALID_COLUMNS}_"):
        return _broken_rules(result, query, sample)
    return [replace(result, examples=sample(query, EXAMPLES))]


def _broken_rules(test: NodeResult, query: str, sample: Sample) -> Iterator[NodeResult]:
    """A result per rule of `valid_columns` that some row breaks: each is named, judged and accepted for itself."""
    for row in sample(
        f"select rule, count(*) as failures from ({query}) as broken group by rule", test.failures
    ):
        rule, _, failures = row.removeprefix("rule=").rpartition(", failures=")
        broken = f"select * from ({query}) as broken where rule = '{rule}'"
        yield replace(
            test,
            node_id=f"{test.node_id} {rule}",
            name=f"{test.name} ({rule})",
            failures=int(failures),
            examples=sample(broken, EXAMPLES),
        )


def _relation(described: dict[str, Any], node_id: str) -> str:
    """`schema.table` as the project names it; an engine may name the schema differently."""
    found = described["nodes"].get(node_id) or described["sources"].get(node_id) or {}
    if not found.get("relation_name"):
        return ""
    return f"{found.get('source_name') or found['config'].get('schema') or found['schema']}.{found['name']}"


def pairs(names: list[str], rows: Iterable[Iterable[Any]]) -> tuple[str, ...]:
    """Return rows as `column=value` pairs, without the nulls."""
    return tuple(
        ", ".join(f"{name}={value}" for name, value in zip(names, row, strict=True) if value is not None)
        for row in rows
    )


def marts(manifest: dict[str, Any]) -> tuple[Mart, ...]:
    """Return the published tables of a dbt manifest, by name."""
    found = [
        Mart(
            name=node["name"],
            description=node["description"].strip(),
            columns=tuple(
                MartColumn(c["name"], c.get("data_type") or "", c["description"].strip())
                for c in node["columns"].values()
            ),
        )
        for node in manifest["nodes"].values()
        if node["resource_type"] == "model" and node["config"].get("schema") == "marts"
    ]
    return tuple(sorted(found, key=lambda mart: mart.name))


def keys(manifest: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """Model or seed to the columns that its test `unique_combination_of_columns` declares for its key."""
    found: dict[str, tuple[str, ...]] = {}
    for node in manifest["nodes"].values():
        test = node.get("test_metadata") or {}
        if test.get("name") == "unique_combination_of_columns" and node.get("attached_node"):
            found[node["attached_node"].rsplit(".", 1)[-1]] = tuple(test["kwargs"]["combination_of_columns"])
    return found


def _sources(node_id: str, parents: dict[str, list[str]]) -> tuple[str, ...]:
    """The names of the sources upstream of a node."""
    found: set[str] = set()
    to_visit = [node_id]
    while to_visit:
        new = set(parents.get(to_visit.pop(), [])) - found
        found |= new
        to_visit += new
    return tuple(sorted(name.rsplit(".", 1)[-1] for name in found if name.startswith("source.")))
