"""Which snapshots an audit blames: found by building and judging without some of them."""

from __future__ import annotations

import pytest

from catalunya.audit import culprits

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
