from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from catalunya.lake.local import LocalStorage
from catalunya.lake.opening import open_lake
from catalunya.lake.storage import Storage
from tests.lake.faulty_proxy import FaultyProxy
from tests.s3 import S3Emulator


@pytest.fixture
def local_lake(tmp_path: Path) -> Storage:
    lake = open_lake(str(tmp_path / "lake"))
    assert isinstance(lake, LocalStorage)
    lake.prepare()
    return lake


@pytest.fixture
def s3_lake(s3_bucket: str) -> Storage:
    return open_lake(f"s3://{s3_bucket}/some/prefix")


@pytest.fixture(params=["local_lake", "s3_lake"])
def lake(request: pytest.FixtureRequest) -> Storage:
    """A folder, then a bucket: both must behave alike."""
    storage = request.getfixturevalue(request.param)
    assert isinstance(storage, Storage)
    return storage


@pytest.fixture
def proxy(s3_emulator: S3Emulator, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """A server in front of the S3 emulator that can fail; the environment leads to it."""
    with FaultyProxy(s3_emulator.endpoint) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        server.lake_url = f"s3://{s3_bucket}/lake"
        yield server
