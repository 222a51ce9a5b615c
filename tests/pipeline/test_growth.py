"""What is kept costs nothing as long as nothing is new: requests of a run and of status do not grow with snapshots."""

from __future__ import annotations

import shutil

import pytest

from bench.growth import (
    REGISTER,
    Cost,
    configured,
    counted,
    multiply,
    nothing_new,
    stage_again,
    status,
    upload,
)  # fmt: skip
from catalunya.datasets import loader
from catalunya.demo import server
from catalunya.errors import BuildFailed
from catalunya.lake import snapshot
from catalunya.lake.opening import open_lake
from catalunya.warehouse.engines.staged_tables import staged_keys
from tests.pipeline.command import DAY, SMALL

FEW, MANY = 40, 240
"""With three records in the ledger for each: more than the last days have, which are listed."""
FEWEST = 10


def requests(cost: Cost) -> tuple[int, int, int, int]:
    return cost.lists, cost.names, cost.reads, cost.writes


@pytest.fixture(scope="module")
def url():
    with server.running(rows=SMALL, day=DAY) as same:
        yield same.url


@pytest.fixture(scope="module")
def lakes(small_release, url, tmp_path_factory):
    """Lakes with ten, few and many snapshots of the register."""
    found = {}
    for count in (FEWEST, FEW, MANY):
        found[count] = tmp_path_factory.mktemp(f"growth-{count}") / "lake"
        shutil.copytree(small_release.lake, found[count])
        multiply(found[count], count, configured(str(found[count]), url).home)
    return found


def test_a_run_with_nothing_new_and_status_ask_as_much_of_a_lake_with_many_snapshots_as_of_one_with_few(
    lakes, url
):
    found = {
        count: [requests(work(configured(str(lakes[count]), url))) for work in (nothing_new, status)]
        for count in (FEW, MANY)
    }
    assert found[MANY] == found[FEW]


def test_a_run_with_nothing_new_and_status_ask_as_much_on_s3(lakes, url, s3_emulator, s3_bucket):
    found = {}
    for count in (FEW, MANY):
        bucket = f"s3://{s3_bucket}/lake-{count}"
        upload(lakes[count], open_lake(bucket))
        found[count] = [requests(work(configured(bucket, url))) for work in (nothing_new, status)]
    assert found[MANY] == found[FEW]


def test_staging_again_asks_as_much_for_each_snapshot(lakes, url):
    fewest, few = (stage_again(configured(str(lakes[count]), url)) for count in (FEWEST, FEW))
    each = (few.requests - fewest.requests) / (FEW - FEWEST)
    assert each <= 8


def test_a_build_looks_for_all_staged_files_by_one_list(lakes, url):
    settings = configured(str(lakes[MANY]), url)
    storage = open_lake(settings.lake)
    definition = loader.load(settings.home / "datasets")[REGISTER]
    kept = tuple(snapshot.usable(storage, REGISTER))
    with counted(storage) as cost:
        assert len(staged_keys(storage, definition, kept)) == MANY
    assert (cost.lists, cost.reads) == (1, 0)
    with pytest.raises(BuildFailed, match=r"20200101T000000Z-00000000 is not staged"):
        staged_keys(storage, definition, (*kept, "20200101T000000Z-00000000"))
