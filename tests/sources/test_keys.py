from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalunya.sources import keys
from catalunya.sources.keys import KeyCheck, PageReader, fingerprint


def page(folder: Path, name: str, rows: list[object]) -> Path:
    path = folder / name
    path.write_text(json.dumps(rows))
    return path


@given(pages=st.lists(st.lists(st.integers(-9, 9), max_size=30), max_size=5), rows=st.integers(0, 10**7))
@settings(max_examples=40)
def test_doubles_are_counted_as_a_set_would(
    tmp_path_factory: pytest.TempPathFactory, pages: list[list[int]], rows: int
) -> None:
    with KeyCheck(tmp_path_factory.mktemp("keys") / "k", rows) as check:
        for one in pages:
            check.add(one)
        every = [value for one in pages for value in one]
        assert check.doubled() == len(every) - len(set(every))


def test_hashes_leave_memory_for_files_and_files_leave_with_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "_WAITING", 10)
    with KeyCheck(tmp_path / "k", 1_000_000) as check:
        check.add(list(range(100)))
        assert sum(file.stat().st_size for file in (tmp_path / "k").iterdir()) == 800
        check.add([5])
        assert check.doubled() == 1
    assert not (tmp_path / "k").exists()


def test_a_fingerprint_is_blind_to_order_and_to_pages_but_to_nothing_else(tmp_path: Path) -> None:
    a, b, c = ({"k": letter} for letter in "abc")
    whole = fingerprint([page(tmp_path, "1", [a, b, b])])
    assert whole == fingerprint([page(tmp_path, "2", [b]), page(tmp_path, "3", [b, a])])
    assert whole != fingerprint([page(tmp_path, "4", [a, a, b])])
    assert whole != fingerprint([page(tmp_path, "5", [a, b, c])])
    assert whole != fingerprint([page(tmp_path, "6", [a, b])])


def test_names_of_a_small_page_are_all_seen(tmp_path: Path) -> None:
    rows: list[object] = [{"a": 1}] * 5000 + [{"b": 1, ":id": 2}] + [{"a": 1}] * 4000
    reader = PageReader((), None)
    assert list(reader.field_names(page(tmp_path, "1", rows))) == ["a", "b"]
