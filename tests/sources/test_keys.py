from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalunya.sources import keys
from catalunya.sources.http import InvalidResponse
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
            check.add(np.array(one, dtype=np.int64))
        every = [value for one in pages for value in one]
        assert check.doubled() == len(every) - len(set(every))


def test_hashes_leave_memory_for_files_and_files_leave_with_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "_WAITING", 10)
    with KeyCheck(tmp_path / "k", 1_000_000) as check:
        check.add(np.arange(100))
        assert sum(file.stat().st_size for file in (tmp_path / "k").iterdir()) == 800
        check.add(np.array([5]))
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


class Stream:
    """A page handed over in pieces that end anywhere, and the same page read whole."""

    def __init__(self, folder: Path, key: tuple[str, ...] = ("k",)) -> None:
        self._folder = folder
        self._key = key

    def _look(self, body: bytes, sizes: list[int] | None) -> tuple[int, int] | str:
        path = self._folder / "page.json"
        path.write_bytes(body)
        with KeyCheck(self._folder / "keys", 10) as check:
            reader = PageReader(self._key, check)
            try:
                if sizes is None:
                    return reader.read(path), check.doubled()
                scan = reader.scan()
                rest = memoryview(bytearray(body))
                for size in (*sizes, len(body)):
                    piece, rest = rest[:size], rest[size:]
                    scan.feed(piece)
                return scan.finish(path), check.doubled()
            except InvalidResponse as error:
                return str(error)

    def pieces(self, body: bytes, sizes: list[int]) -> tuple[int, int] | str:
        return self._look(body, sizes)

    def whole(self, body: bytes) -> tuple[int, int] | str:
        return self._look(body, None)


ROWS = st.lists(
    st.dictionaries(
        st.sampled_from(["k", "other"]),
        st.none() | st.integers(0, 3) | st.sampled_from(["a", "b", "\n,{", "}]", 'à"\\']) | st.just([{}, {}]),
    ),
    max_size=12,
)


@given(rows=ROWS, sizes=st.lists(st.integers(1, 40), max_size=20), broken=st.none() | st.integers(0, 300))
@settings(max_examples=300)
def test_a_page_read_while_it_arrives_is_the_page_read_whole(
    tmp_path_factory: pytest.TempPathFactory, rows: list[object], sizes: list[int], broken: int | None
) -> None:
    stream = Stream(tmp_path_factory.mktemp("pages"))
    body = ("[" + "\n,".join(json.dumps(row, ensure_ascii=False) for row in rows) + "]\n").encode()[:broken]
    if body:
        assert stream.pieces(body, sizes) == stream.whole(body)


@pytest.mark.parametrize(
    "body",
    [
        b'[{"k":"a"},{"k":"a"}]',
        b'[\n,{"k":"a"}]',
        b'[{"k":"a"}\n,{"k":"b"}',
        b'[{"k":"a"}\n,{"k":"b"}]]',
        b'[{"k":"a"}\n,\n,{"k":"b"}]',
        b'{"k":"a"}\n,{"k":"b"}]',
        b'[{"k":[{"x":1}\n,{"x":2}]}\n,{"k":"b"}]',
        b'[{"k":1}\n,{"k":1}\n,{"k":"1"}]',
        b'\n [{"k":"a"}\n,{"k":"b"}]',
        b'{"error":true,"message":"no"}',
        b"[]",
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_page_of_another_shape_is_judged_as_a_whole(tmp_path: Path, body: bytes, size: int) -> None:
    stream = Stream(tmp_path)
    assert stream.pieces(body, [size] * (len(body) // size)) == stream.whole(body)


def test_rows_are_read_before_the_page_has_arrived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = PageReader((), None)
    monkeypatch.setattr(PageReader, "read", lambda *_: pytest.fail("the page was read again as a whole"))
    scan = reader.scan()
    scan.feed(b'[{"k":"a"}\n,{"k":"b"}\n,{"k":')
    scan.feed(b'"c"}]\n')
    assert scan.finish(tmp_path / "never") == 3


def test_what_never_comes_to_a_border_is_not_held_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "_LONGEST_ROW", 100)
    path = page(tmp_path, "1", [{"k": "a" * 200}])
    scan = PageReader((), None).scan()
    scan.feed(path.read_bytes())
    assert len(scan._left) == 0
    assert scan.finish(path) == 1
