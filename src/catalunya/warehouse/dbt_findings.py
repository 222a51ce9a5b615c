"""The gate `dbt`: findings about the tests of the dbt project that did not pass."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from catalunya.errors import MORE_MEMORY, BuildFailed
from catalunya.quality.findings import Finding
from catalunya.warehouse import dbt

_OF_THE_MACHINE = re.compile(
    r"Out of Memory Error|IO Error|HTTP Error|type=(INSUFFICIENT_RESOURCES|INTERNAL_ERROR|EXTERNAL)|exhausted resources"
    r"|NO_NODES_AVAILABLE|EXCEEDED_|OUT_OF_MEMORY|GENERIC_INTERNAL_ERROR|HIVE_(CANNOT_OPEN_SPLIT|FILESYSTEM_ERROR|METASTORE_ERROR)"
    r"|Connection|Throttl|TooManyRequests|SlowDown|timed out|Timeout"
)
"""What DuckDB, Trino and Athena say of a query that failed for another reason than its SQL and the data."""


def require_run(results: Iterable[dbt.NodeResult]) -> None:
    """Raise `BuildFailed` when a test could not run for want of memory, disk or network: that says nothing of the data."""
    results = tuple(results)
    found = [one for one in results if one.status == "error" and _OF_THE_MACHINE.search(one.message)]
    if found:
        said = "; ".join(_sentence(one) for one in found[:3])
        hint = MORE_MEMORY if "Out of Memory Error" in said else "look at the engine"
        raise BuildFailed(
            f"{len(found)} of {len(results)} tests could not run, and no snapshot was refused for it: {said}; {hint}, "
            "then run again",
            results,
        )


def test_findings(results: Iterable[dbt.NodeResult], lifts: Mapping[str, frozenset[str]]) -> list[Finding]:
    """Return a finding per test that did not pass; a warning when somebody lifted that test for a snapshot."""
    lifted = {name_of_test(name) for names in lifts.values() for name in names}
    return [
        Finding(
            gate="dbt",
            severity="warn" if result.status == "warn" or _is_lifted(result.node_id, lifted) else "error",
            message=_sentence(result),
            figures={"failures": result.failures, "test": result.node_id},
        )
        for result in results
        if result.status not in {"pass", "success"}
    ]


_RENAMED_TESTS = {
    "filled_": "not_null_",
    "unique_combination_": "unique_combination_of_columns_",
    "within_range_": "accepted_range_",
}
_RENAMED_MODELS = {"int_service_wordings": "int_service_distinct_states"}
_TESTS_OF_RULES = {
    "null": "not_null",
    "negative": "not_negative",
    "accepted": "accepted_values",
    "out": "accepted_range",
}
"""The word that tells a rule of `valid_columns` to the test that each was before."""


def name_of_test(test: str) -> str:
    """Return the name of a dbt test, and of its rule, by its id, also by an id that an `accepted.json` has from before.

    An id ends with a hash of the test's definition, which is not part of the name; a gate is its own name.
    """
    node_id, _, rule = test.partition(" ")
    name = ".".join(node_id.split(".")[:3])
    for old, new in _RENAMED_TESTS.items():
        name = re.sub(rf"^(test\.\w+\.){old}(?!of_columns_)", rf"\g<1>{new}", name)
    for old, new in _RENAMED_MODELS.items():
        name = name.replace(f"_{old}_", f"_{new}_")
    return f"{name} {rule}".strip()


def _is_lifted(test: str, lifted: set[str]) -> bool:
    """Return whether a test is among those that were lifted, or what its rule was before rules were one test a model."""
    name = name_of_test(test)
    if name in lifted:
        return True
    ruled = re.fullmatch(rf"(test\.\w+\.){dbt.VALID_COLUMNS}_(\w+) (\w+) is (?:not )?(\w+).*", name)
    if ruled is None:
        return False
    prefix, model, column, word = ruled.groups()
    before = f"{prefix}{_TESTS_OF_RULES[word]}_{model}_"
    columns = (old.removeprefix(before) for old in lifted if old.startswith(before))
    # Of a long name dbt keeps the model and a hash.
    return any(f"_{column}_" in f"_{named}_" or re.fullmatch(r"[0-9a-f]{32}", named) for named in columns)


def _sentence(result: dbt.NodeResult) -> str:
    if result.failures == 0:
        return f"dbt test {result.name} could not run: {result.message.strip()}"
    examples = "; ".join(result.examples)
    more = f"; and {result.failures - dbt.EXAMPLES} more" if result.failures > dbt.EXAMPLES else ""
    return f"dbt test {result.name}: {result.failures} rows break it ({examples}{more})"
