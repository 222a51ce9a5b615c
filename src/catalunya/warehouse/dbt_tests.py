"""dbt's tests of a candidate on DuckDB: dbt compiles them once for each state of the project, DuckDB runs them.

`dbt test` takes ten times as long as its queries, most of it in steps whose result is the same in every run. Trino and
Athena have their own names for every candidate: dbt runs the tests there.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import duckdb
import msgspec

from catalunya import signals
from catalunya.warehouse import dbt
from catalunya.warehouse.dbt_parse import cache_file, keep, read_kept
from catalunya.warehouse.dbt_repeatable import is_repeatable
from catalunya.warehouse.dbt_runner import CANDIDATE, DUCKDB, call, connected


class CompiledTest(msgspec.Struct, frozen=True):
    """A test of the project and its SQL."""

    test: dbt.NodeResult
    """Its name and what it depends on; no result yet."""
    query: str
    """Returns the rows that break it."""
    verdict: str
    """Returns how many these are, and whether that is a warning or an error, as the test's configuration says."""
    is_error: bool
    """False for a test that only warns."""


def run_tests(
    con: duckdb.DuckDBPyConnection,
    tests: Iterable[CompiledTest],
    sample: dbt.Sample,
    on_node: Callable[[str], None] | None = None,
) -> tuple[dbt.NodeResult, ...]:
    """Run tests on a candidate that `con` has opened; a test that cannot run has the status `error`.

    Args:
        con: a connection to the candidate, with the settings of dbt's profile.
        tests: the tests.
        sample: returns example rows of a test that failed.
        on_node: is called with a line about every test that ends.
    """
    found: list[dbt.NodeResult] = []
    for test in tests:
        signals.check()
        result = _run(con, test)
        if on_node is not None:
            on_node(f"test {result.name}: {result.status} in {result.seconds:.2f} s")
        found += dbt.explained(result, test.query, sample)
    return tuple(found)


def _run(con: duckdb.DuckDBPyConnection, test: CompiledTest) -> dbt.NodeResult:
    began = datetime.now(UTC)
    failures, message = 0, ""
    try:
        [(count, should_warn, should_error)] = con.execute(test.verdict).fetchall()
    except duckdb.Error as error:
        status, message = "error", f"Runtime Error in test {test.test.name}\n  {error}"
    else:
        status = "fail" if should_error and test.is_error else "warn" if should_warn else "pass"
        failures = 0 if status == "pass" else int(count)
    ended = datetime.now(UTC)
    return replace(
        test.test,
        status=status,
        seconds=round((ended - began).total_seconds(), 3),
        message=message,
        failures=failures,
        began_at=began,
        ended_at=ended,
    )


@lru_cache(maxsize=3)
def compiled_tests(project: Path, digest: str) -> tuple[CompiledTest, ...] | None:
    """Return the tests of a state of the project, in the order of their ids; they are kept beside the parse.

    None when `is_repeatable` does not allow it: such tests have to be run by dbt. Raises `BuildFailed` when dbt cannot
    compile them.
    """
    file = cache_file(project, digest, DUCKDB.name, DUCKDB.parsed_with).with_suffix(".tests")
    kept = read_kept(file)
    with contextlib.suppress(msgspec.DecodeError):
        if kept is not None:
            return msgspec.json.decode(kept, type=tuple[CompiledTest, ...])
    tests = _compile(project, digest)
    if tests is not None:
        with contextlib.suppress(OSError):
            keep(file, msgspec.json.encode(tests))
    return tests


def _compile(project: Path, digest: str) -> tuple[CompiledTest, ...] | None:
    parsed = dbt.parse(project, digest)
    with tempfile.TemporaryDirectory(prefix="catalunya-dbt-") as work:
        # An empty candidate: the SQL depends on its name alone.
        target = replace(DUCKDB, variables=(("CATALUNYA_CANDIDATE", str(Path(work, CANDIDATE))),))
        with connected(target):
            command = ["compile", "--select", "resource_type:test", "--no-write-json"]
            done = call(command, project, Path(work), target.name, manifest=parsed.manifest)
            if not is_repeatable(project, digest, parsed.manifest, parsed.described):
                return None
    tests = (
        CompiledTest(
            test=dbt.result_of(result.node, parsed.described),
            query=result.node.compiled_code,
            verdict=_verdict(result.node.compiled_code, result.node.config),
            is_error=str(result.node.config.severity).lower() == "error",
        )
        for result in done.results
    )
    return tuple(sorted(tests, key=lambda test: test.test.node_id))


def _verdict(query: str, config: object) -> str:
    """What dbt asks of a test's rows; by default their number, and whether it is not 0."""
    count, warn_if, error_if = (getattr(config, name) for name in ("fail_calc", "warn_if", "error_if"))
    limit = getattr(config, "limit", None)
    rows = f"{query}\nlimit {limit}" if limit else query
    return f"select {count}, {count} {warn_if}, {count} {error_if} from (\n{rows}\n) as broken"
