"""The same stages on an S3 lake end in the same release."""

from __future__ import annotations

import obstore
import pytest
from obstore.store import S3Store

from tests.pipeline.command import Command
from tests.s3 import S3Emulator


@pytest.fixture
def store(s3_emulator: S3Emulator, s3_bucket: str) -> S3Store:
    return S3Store(
        s3_bucket,
        endpoint=s3_emulator.endpoint,
        region="us-east-1",
        access_key_id="test",
        secret_access_key="test",
        client_options={"allow_http": True},
    )


def test_each_stage_alone_on_s3_ends_in_the_same_bytes_as_one_run_on_a_folder(
    first_release,
    demo,
    s3_emulator,
    s3_bucket,
    store,
):
    command = Command(f"s3://{s3_bucket}/lake", demo.url, env=s3_emulator.env)
    for stage in ("ingest", "stage", "build", "audit", "publish"):
        answer = command(stage)
        assert answer.code == 0, answer.stderr
    folder = first_release.folder
    key = answer.json["release"].removeprefix(f"s3://{s3_bucket}/")
    for path in sorted([*folder.glob("csv/*"), *folder.glob("parquet/*")]):
        name = path.relative_to(folder).as_posix()
        assert bytes(obstore.get(store, f"{key}/{name}").bytes()) == path.read_bytes(), name
    traced = command("trace", "coverage_comarca", "--comarca", "11", "--year", "2024", "--verify")
    assert (traced.code, traced.json["faults"]) == (0, []), traced.stderr
    assert traced.json["files"][0]["address"].startswith(f"s3://{s3_bucket}/lake/releases/")
    again = command.run(now="2026-01-05T12:00:00Z")
    assert (again.code, again.json["status"]) == (0, "unchanged")


def test_a_run_that_loses_the_pointer_on_s3_leaves_the_lake_as_it_was(
    demo,
    s3_emulator,
    s3_bucket,
    store,
):
    command = Command(f"s3://{s3_bucket}/lake", demo.url, env=s3_emulator.env)
    obstore.put(store, "lake/current.json", b"not a pointer")
    answer = command.run()
    assert answer.code == 1
    assert "current.json" in answer.json["message"]
    assert bytes(obstore.get(store, "lake/current.json").bytes()) == b"not a pointer"
