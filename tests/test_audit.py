"""Which snapshots an audit blames: found by building and judging without some of them."""

from __future__ import annotations

import pytest

from catalunya.audit import culprits
from catalunya.errors import BuildFailed
from catalunya.warehouse import dbt
from catalunya.warehouse.code import code_digest
from catalunya.warehouse.dbt_findings import name_of_test, require_run
from catalunya.warehouse.dbt_findings import test_findings as findings_of_tests
from tests.project import ROOT

SUSPECTS = {"a1": "a", "a2": "a", "b1": "b", "c1": "c"}


class Trials:
    """A candidate passes when none of the bad snapshots is in it; remembers what was tried."""

    def __init__(self, *bad: str, code_is_wrong: bool = False) -> None:
        self.bad = set(bad)
        self.code_is_wrong = code_is_wrong
        self.tried: list[frozenset[str]] = []

    def __call__(self, left_out: frozenset[str]) -> bool:
        self.tried.append(left_out)
        return not self.code_is_wrong and not self.bad & (set(SUSPECTS) - left_out)


@pytest.mark.parametrize(
    "bad", [("b1",), ("a1",), ("a2",), ("a1", "a2"), ("a1", "c1"), ("a1", "a2", "b1", "c1")]
)
def test_exactly_the_bad_snapshots_are_found_also_several_of_one_dataset(bad):
    assert culprits(SUSPECTS, Trials(*bad), same_code=True) == {name: SUSPECTS[name] for name in bad}


def test_when_the_marts_are_wrong_without_any_of_them_no_snapshot_is_blamed():
    assert culprits(SUSPECTS, Trials(code_is_wrong=True), same_code=False) == {}


def test_a_single_suspect_needs_a_trial_only_when_the_code_changed():
    one = {"b1": "b"}
    same, changed = Trials("b1"), Trials("b1")
    assert culprits(one, same, same_code=True) == one
    assert same.tried == []
    assert culprits(one, changed, same_code=False) == one
    assert changed.tried


def test_without_suspects_nothing_is_tried():
    trials = Trials()
    assert culprits({}, trials, same_code=False) == {}
    assert trials.tried == []


@pytest.mark.parametrize(
    ("accepted", "test", "rule"),
    [
        (
            "test.mart.filled_dim_comarca_name__division_on.4d5d092562",
            "test.mart.valid_columns_dim_comarca",
            "division_on is null",
        ),
        (
            "test.mart.within_range_dim_municipality_latitude__90___90.8de2beffe9",
            "test.mart.valid_columns_dim_municipality",
            "latitude is out of range",
        ),
        (
            "test.mart.accepted_values_service_history_basis__observed__inscription.0fd1ab7dbf",
            "test.mart.valid_columns_service_history",
            "basis is not accepted",
        ),
        (
            "test.mart.not_negative_coverage_municipality_3c5a4b0b1f6d3c5a4b0b1f6d3c5a4b0b.8de2beffe9",
            "test.mart.valid_columns_coverage_municipality",
            "places is negative",
        ),
        (
            "test.mart.valid_columns_population.8de2beffe9 people is negative",
            "test.mart.valid_columns_population",
            "people is negative",
        ),
        (
            "test.mart.unique_combination_int_service_wordings_service_id__first_number.04ef6afcd0",
            "test.mart.unique_combination_of_columns_int_service_distinct_states_service_id__first_number",
            "",
        ),
    ],
)
def test_an_accepted_test_is_still_accepted_after_it_was_renamed_or_became_a_rule(accepted, test, rule):
    manifest = dbt.parse(ROOT / "dbt" / "mart", code_digest(ROOT)).described
    [node_id] = [name for name in manifest["nodes"] if name.startswith(f"{test}.")]
    failed = dbt.NodeResult(f"{node_id} {rule}".strip(), "", "test", "fail", 0.0, "", 1, (), ())
    assert [f.severity for f in findings_of_tests([failed], {"s1": frozenset({"dbt", accepted})})] == ["warn"]
    assert [f.severity for f in findings_of_tests([failed], {"s1": frozenset({"dbt"})})] == ["error"]


@pytest.mark.parametrize(
    "accepted",
    [
        "test.mart.valid_columns_dim_comarca.4d5d092562 name is null",
        "test.mart.not_null_dim_comarca_name.4d5d092562",
        "test.mart.accepted_values_dim_comarca_division_on__1.4d5d092562",
        "test.mart.not_null_dim_municipality_division_on.4d5d092562",
    ],
)
def test_another_rule_of_the_same_columns_or_model_is_not_accepted_with_it(accepted):
    failed = dbt.NodeResult(
        "test.mart.valid_columns_dim_comarca.4d5d092562 division_on is null",
        "",
        "test",
        "fail",
        0.0,
        "",
        1,
        (),
        (),
    )
    assert [f.severity for f in findings_of_tests([failed], {"s1": frozenset({accepted})})] == ["error"]


def test_a_test_of_another_name_is_not_accepted_with_it():
    names = {
        "test.mart.filled_dim_comarca_name.4d5d092562",
        "test.mart.not_null_dim_comarca_name__division_on.4d5d092562",
        "test.mart.every_service_has_a_municipality",
        "dbt",
    }
    assert len({name_of_test(name) for name in names}) == len(names)


def not_run(message: str) -> dbt.NodeResult:
    return dbt.NodeResult("test.mart.sums", "sums", "test", "error", 1.0, message, 0, (), ())


@pytest.mark.parametrize(
    "message",
    [
        "Runtime Error in test sums\n  Out of Memory Error: failed to allocate data of size 2.0 GiB",
        "Runtime Error in test sums\n  IO Error: Could not write file: No space left on device",
        'TrinoQueryError(type=INSUFFICIENT_RESOURCES, name=EXCEEDED_LOCAL_MEMORY_LIMIT, message="Query exceeded")',
        'TrinoQueryError(type=INTERNAL_ERROR, name=NO_NODES_AVAILABLE, message="No nodes available to run query")',
        "failed to execute: HTTPConnectionPool(host='trino', port=8080): Max retries exceeded with url: /v1/statement",
        "NO_NODES_AVAILABLE: No nodes available to run query",
        "Query exhausted resources at this scale factor",
        "An error occurred (ThrottlingException) when calling the StartQueryExecution operation: Rate exceeded",
    ],
)
def test_a_test_that_its_engine_could_not_run_is_no_verdict_on_the_data(message):
    with pytest.raises(BuildFailed, match="1 of 1 tests could not run, and no snapshot was refused for it"):
        require_run([not_run(message)])


@pytest.mark.parametrize(
    "message",
    [
        "Runtime Error in test sums\n  Conversion Error: Could not convert string 'x' to INT32",
        'Runtime Error in test sums\n  Binder Error: Referenced column "nothing" not found',
        'TrinoUserError(type=USER_ERROR, name=DIVISION_BY_ZERO, message="Division by zero")',
    ],
)
def test_a_test_that_fails_on_the_data_or_by_its_own_sql_is_judged_by_the_audit(message):
    require_run([not_run(message)])
    [finding] = findings_of_tests([not_run(message)], {})
    assert finding.is_error and "could not run" in finding.message
