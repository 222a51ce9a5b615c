"""Ids of snapshots, releases and runs."""

from __future__ import annotations

import pytest

from catalunya.errors import UsageError
from catalunya.lake import layout


@pytest.mark.parametrize("name", ["20260105T000000Z-1a2b3c4d", "00010101T000000Z-00000000"])
def test_ids_are_known(name: str) -> None:
    assert layout.is_id(name)


@pytest.mark.parametrize(
    "name", ["20260105T000000Z-1a2b3c4d.bad", "backup", "20261305T000000Z-1a2b3c4d", "20260105T000000Z-1a2b3c4d\n", "",
             "٢0260105T000000Z-1a2b3c4d"],
)  # fmt: skip
def test_other_names_are_no_ids_and_an_explained_error(name: str) -> None:
    assert not layout.is_id(name)
    with pytest.raises(UsageError, match="is no id"):
        layout.moment_of(name)
