"""dbt's seeds and models on DuckDB: dbt builds them once for each state of the project, DuckDB runs dbt's statements again.

`dbt build` of 50 nodes takes twice as long as its statements, and the import of dbt another second. The statements depend
on the project alone, since every candidate on DuckDB has the same name: after the first build they are kept as dbt writes
them to `target/run/`, with the order of the nodes. Contracts, materializations and the order are dbt's work. A project of
which more would have to be kept (`dbt_repeatable`) is built by dbt every time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import UTC, datetime
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from catalunya import signals
from catalunya.warehouse import dbt
from catalunya.warehouse.dbt_parse import Project, cache_file, keep, read_kept
from catalunya.warehouse.dbt_repeatable import is_repeatable
from catalunya.warehouse.dbt_runner import DUCKDB


class Node(msgspec.Struct, frozen=True):
    """A seed or model, and the SQL that makes its table or view."""

    result: dbt.NodeResult
    """Its name and what it depends on; the message is dbt's."""
    statement: str
    file: str
    """Its file in the project."""
    parents: tuple[str, ...]
    """Ids of the seeds and models that must be there before."""


class Models(msgspec.Struct, frozen=True):
    """The seeds and models of a state of the project."""

    schemas: tuple[str, ...]
    nodes: tuple[Node, ...]
    marts: tuple[dbt.Mart, ...]


def kept_models(project: Path, digest: str) -> Models | None:
    """Return the statements of an earlier build of this state of the project; None without one."""
    kept = read_kept(_file(project, digest))
    with contextlib.suppress(msgspec.DecodeError):
        models = msgspec.json.decode(kept, type=Models) if kept is not None else None
        return models if models is not None and models.nodes else None
    return None


def build_by_dbt(
    project: Path,
    digest: str,
    target: dbt.Target,
    sample: dbt.Sample,
    on_node: Callable[[str], None] | None = None,
) -> dbt.Outcome:
    """Build every seed and model with dbt; keep the statements when all succeed and `is_repeatable` allows it."""
    made: list[Models] = []

    def on_result(result: Any, parsed: Project) -> None:
        is_built = all(str(ended.status) == "success" for ended in result.results)
        if is_built and is_repeatable(project, digest, parsed.manifest, parsed.described):
            made.append(_models(result, parsed.described))

    outcome = dbt.invoke(
        dbt.BUILD,
        project=project,
        digest=digest,
        target=target,
        sample=sample,
        on_node=on_node,
        on_result=on_result,
    )
    with contextlib.suppress(OSError):
        for models in made:
            keep(_file(project, digest), msgspec.json.encode(models))
    return outcome


def run_models(
    con: duckdb.DuckDBPyConnection,
    models: Models,
    threads: int,
    on_node: Callable[[str], None] | None = None,
) -> dbt.Outcome:
    """Run the statements on a candidate, each when those that it reads have ended; returns the result of every node.

    A node that cannot be built has the status `error`, as with dbt, and what reads it is `skipped`.

    Args:
        con: a connection to the candidate; its cursors have the settings of dbt's profile.
        models: the seeds and models.
        threads: nodes that are built at once.
        on_node: is called with a line about every node that ends.
    """
    for schema in models.schemas:
        con.execute(f'create schema if not exists "{schema}"')
    nodes = {node.result.node_id: node for node in models.nodes}
    order = TopologicalSorter({name: node.parents for name, node in nodes.items()})
    order.prepare()
    found: dict[str, dbt.NodeResult] = {}
    running: dict[Future[dbt.NodeResult], duckdb.DuckDBPyConnection] = {}
    with ThreadPoolExecutor(threads) as pool, _interrupted(running):
        while order.is_active():
            for name in order.get_ready():
                node = nodes[name]
                if any(found[parent].status in {"error", "skipped"} for parent in node.parents):
                    found[name] = replace(node.result, status="skipped", message="")
                    order.done(name)
                else:
                    cursor = con.cursor()
                    running[pool.submit(_run, cursor, node)] = cursor
            for ended in wait(running, signals.CHECK_S, FIRST_COMPLETED).done:
                del running[ended]
                result = ended.result()
                found[result.node_id] = result
                order.done(result.node_id)
                if on_node is not None:
                    on_node(f"{result.kind} {result.name}: {result.status} in {result.seconds:.2f} s")
            signals.check()
    return dbt.Outcome(tuple(found.values()), models.marts)


@contextlib.contextmanager
def _interrupted(running: dict[Future[dbt.NodeResult], duckdb.DuckDBPyConnection]) -> Iterator[None]:
    """Interrupt the statements that still run when the command is stopped."""
    try:
        yield
    except BaseException:
        for future, cursor in running.items():
            future.cancel()
            while not future.done():
                # A statement that has not begun yet does not notice it.
                cursor.interrupt()
                with contextlib.suppress(TimeoutError):
                    future.exception(0.05)
        raise


def _run(cursor: duckdb.DuckDBPyConnection, node: Node) -> dbt.NodeResult:
    began = datetime.now(UTC)
    status, message = node.result.status, node.result.message
    with cursor:
        try:
            cursor.execute("set TimeZone = 'UTC'")
            cursor.execute(node.statement)
        except duckdb.Error as error:
            status = "error"
            message = f"Runtime Error in {node.result.kind} {node.result.name} ({node.file})\n  {error}"
            if isinstance(error, duckdb.IOException) and "No files found" not in message:
                message += "; check the disk and its free space, then run again"
    ended = datetime.now(UTC)
    return replace(
        node.result,
        status=status,
        message=message,
        seconds=round((ended - began).total_seconds(), 3),
        began_at=began,
        ended_at=ended,
    )


def _models(result: Any, described: dict[str, Any]) -> Models:
    """The statements of a build by dbt, from the files that it wrote."""
    ended = {one.node.unique_id: one for one in result.results}
    nodes = tuple(
        Node(
            result=replace(
                dbt.result_of(one.node, described), status=str(one.status), message=str(one.message)
            ),
            statement=Path(one.node.build_path).read_text("utf-8"),
            file=one.node.original_file_path,
            parents=tuple(name for name in described["parent_map"][one.node.unique_id] if name in ended),
        )
        for one in ended.values()
    )
    return Models(tuple(sorted({one.node.schema for one in ended.values()})), nodes, dbt.marts(described))


def _file(project: Path, digest: str) -> Path:
    return cache_file(project, digest, DUCKDB.name, DUCKDB.parsed_with).with_suffix(".models")
