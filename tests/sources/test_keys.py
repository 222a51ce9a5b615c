from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalunya.sources.keys import KeyCheck, PageReader, fingerprint
from catalunya.sources.responses import InvalidResponse


def page(folder: Path, name: str, rows: list[object]) -> Path:
    path = folder / name
    path.write_text(json.dumps(rows))
    return path


@given(pages=st.lists(st.lists(st.integers(-9, 9), max_size=30), max_size=5), rows=st.integers(0, 10**7))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_duplicates_are_counted_as_a_set_would(
    tmp_path_factory: pytest.TempPathFactory, pages: list[list[int]], rows: int
) -> None:
    with KeyCheck(tmp_path_factory.mktemp("keys") / "k", rows) as check:
        for one in pages:
            check.add(np.array(one, dtype=np.int64))
        every = [value for one in pages for value in one]
        assert check.duplicates() == len(every) - len(set(every))


def test_hashes_lie_in_files_which_are_removed_with_the_check(tmp_path: Path) -> None:
    with KeyCheck(tmp_path / "k", 1_000_000) as check:
        check.add(np.arange(100))
        assert sum(file.stat().st_size for file in (tmp_path / "k").iterdir()) == 800
        check.add(np.array([5]))
        assert check.duplicates() == 1
    assert not (tmp_path / "k").exists()


def test_a_fingerprint_depends_on_rows_but_not_on_their_order_and_pages(tmp_path: Path) -> None:
    a, b, c = ({"k": letter} for letter in "abc")
    whole = fingerprint([page(tmp_path, "1", [a, b, b])])
    assert whole == fingerprint([page(tmp_path, "2", [b]), page(tmp_path, "3", [b, a])])
    assert whole != fingerprint([page(tmp_path, "4", [a, a, b])])
    assert whole != fingerprint([page(tmp_path, "5", [a, b, c])])
    assert whole != fingerprint([page(tmp_path, "6", [a, b])])


def test_all_field_names_of_a_small_page_are_found(tmp_path: Path) -> None:
    rows: list[object] = [{"a": 1}] * 5000 + [{"b": 1, ":id": 2}] + [{"a": 1}] * 4000
    reader = PageReader((), None)
    assert list(reader.field_names(page(tmp_path, "1", rows))) == ["a", "b"]


def rows_of(path: Path, check: KeyCheck, part: int) -> int:
    """The rows of a page that is received in parts."""
    body, page = path.read_bytes(), PageReader(("k",), check).page()
    for offset in range(0, len(body), part):
        page.feed(offset, body[offset : offset + part])
    return page.count(path)


PARTS = [7, 1000]
"""A few bytes, and the whole page."""


PAGES = st.lists(
    st.dictionaries(
        st.sampled_from(["k", "other"]),
        st.none() | st.integers(0, 3) | st.sampled_from(["a", "b", "\n,{", "}]", 'à"\\']) | st.just([{}, {}]),
    ),
    max_size=12,
)


@given(rows=PAGES, size=st.integers(1, 40), broken=st.none() | st.integers(1, 300))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_page_in_parts_is_read_like_the_whole_page(
    tmp_path_factory: pytest.TempPathFactory, rows: list[object], size: int, broken: int | None
) -> None:
    path = tmp_path_factory.mktemp("pages") / "page.json"
    path.write_bytes(
        ("[" + "\n,".join(json.dumps(row, ensure_ascii=False) for row in rows) + "]\n").encode()[:broken]
    )

    def read(part: int) -> tuple[int, int] | str:
        with KeyCheck(path.parent / "keys", 10) as check:
            try:
                return rows_of(path, check, part), check.duplicates()
            except InvalidResponse as error:
                return str(error)

    assert read(size) == read(10_000)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    ("body", "rows", "duplicates"),
    [
        (b'[{"k":"a"},{"k":"a"}]', 2, 1),
        (b'[{"k":1}\n,{"k":1}\n,{"k":"1"}]', 3, 1),
        (b'\n [{"k":"a"}\n,{"k":"b"}]', 2, 0),
        (b'[{"k":[{"x":1}\n,{"x":2}]}\n,{"k":"b"}]', 2, 0),
        (b'[{"other":"a"}\n,{"k":null}\n,{}]', 3, 0),
        (b"[]", 0, 0),
    ],
)
def test_rows_and_keys_of_a_page_are_counted(
    tmp_path: Path, body: bytes, rows: int, duplicates: int, part: int
) -> None:
    path = tmp_path / "page.json"
    path.write_bytes(body)
    with KeyCheck(tmp_path / "keys", 10) as check:
        assert rows_of(path, check, part) == rows
        assert check.duplicates() == duplicates


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    "body",
    [
        b'[\n,{"k":"a"}]',
        b'[{"k":"a"}\n,{"k":"b"}',
        b'[{"k":"a"}\n,{"k":"b"}]]',
        b'[{"k":"a"}\n,\n,{"k":"b"}]',
        b'{"k":"a"}\n,{"k":"b"}]',
        b'{"error":true,"message":"no"}',
    ],
)
def test_a_page_of_another_form_is_refused(tmp_path: Path, body: bytes, part: int) -> None:
    path = tmp_path / "page.json"
    path.write_bytes(body)
    with KeyCheck(tmp_path / "keys", 10) as check:
        with pytest.raises(InvalidResponse):
            rows_of(path, check, part)
        assert check.duplicates() == 0


def test_a_page_that_is_received_again_is_counted_once(tmp_path: Path) -> None:
    path = tmp_path / "page.json"
    path.write_bytes(b'[{"k":"a"}\n,{"k":"b"}]')
    with KeyCheck(tmp_path / "keys", 10) as check:
        page = PageReader(("k",), check).page()
        page.feed(0, b'[{"k":"a"}\n,{"k":"c"}\n,{"k":')
        page.feed(0, path.read_bytes())
        assert page.count(path) == 2
        assert check.duplicates() == 0
