"""The version of a lake's layout: said by the pointer, refused when it is newer, migrated when it is older."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from catalunya.errors import UsageError
from catalunya.lake import layout, pointer
from catalunya.lake.lock import lake_lock
from catalunya.lake.opening import open_lake
from catalunya.operations import migration
from tests.pipeline.command import Command, ReleasedLake, files_of


def with_version(lake: Path, version: int | None) -> Path:
    """Give the lake another version; None: it does not say one, as before layout 1."""
    path = lake / "current.json"
    content: dict[str, Any] = json.loads(path.read_text())
    content.pop("lake_version")
    path.write_text(json.dumps(content if version is None else {**content, "lake_version": version}))
    return lake


@pytest.fixture
def lake(small_release: ReleasedLake, tmp_path: Path) -> Path:
    shutil.copytree(small_release.lake, tmp_path / "lake")
    return tmp_path / "lake"


def version_of(lake: Path) -> Any:
    return json.loads((lake / "current.json").read_text()).get("lake_version")


def test_a_run_writes_the_version_of_its_layout(small_release: ReleasedLake) -> None:
    assert version_of(small_release.lake) == layout.VERSION


@pytest.mark.parametrize(
    "command",
    [("status",), ("run",), ("ingest",), ("lake", "check"), ("lake", "migrate"), ("rollback",)],
    ids=" ".join,
)
def test_a_newer_layout_is_refused_and_nothing_is_changed(
    lake: Path, small_project: Path, small_demo: Any, command: tuple[str, ...]
) -> None:
    before = files_of(with_version(lake, layout.VERSION + 1))
    answer = Command(str(lake), small_demo.url, home=small_project)(*command)
    assert answer.code == 2, answer.stderr
    assert f"has layout {layout.VERSION + 1}, and this program knows layouts up to" in answer.json["message"]
    assert {name for name in files_of(lake) if not name.startswith("ledger/")} == set(before) - {
        name for name in before if name.startswith("ledger/")
    }
    assert small_demo.log == []


def test_a_lake_without_a_version_is_read_and_migrated(
    lake: Path, small_project: Path, fork_server: object
) -> None:
    command = Command(str(with_version(lake, None)), None, home=small_project)
    assert command("status").code == 0
    answer = command("lake", "migrate")
    assert (answer.code, answer.json["status"], answer.json["before"], answer.json["after"]) == (
        0,
        "migrated",
        0,
        1,
    )
    assert version_of(lake) == 1
    assert command("lake", "migrate").json["status"] == "unchanged"
    assert command("lake", "check").code == 0


def test_a_layout_that_needs_a_migration_is_refused_until_it_is_done_also_after_a_kill(
    lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_lake(str(lake))
    done: list[int] = []

    def second(_: object) -> None:
        done.append(2)
        if len(done) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(layout, "VERSION", 2)
    monkeypatch.setattr(layout, "OLDEST_VERSION", 2)
    monkeypatch.setitem(migration.MIGRATIONS, 1, second)
    with pytest.raises(UsageError, match="catalunya lake migrate"):
        pointer.read(storage)
    with lake_lock(storage, "r") as lock:
        with pytest.raises(KeyboardInterrupt):
            migration.migrate(storage, lock)
        assert version_of(lake) == 1
        assert migration.migrate(storage, lock) == (1, 2)
    assert version_of(lake) == 2
    assert pointer.read(storage) is not None


def test_there_is_a_migration_from_every_version() -> None:
    assert sorted(migration.MIGRATIONS) == list(range(layout.VERSION))
