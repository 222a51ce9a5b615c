from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from catalunya.lake.opening import open_lake
from catalunya.lake.storage import Storage
from tests.lake.faulty import FaultyFront
from tests.s3 import S3Emulator, s3_bucket, s3_emulator  # noqa: F401


@pytest.fixture
def local_lake(tmp_path: Path) -> Storage:
    return open_lake(str(tmp_path / "lake"))


@pytest.fixture
def s3_lake(s3_bucket: str) -> Storage:  # noqa: F811
    return open_lake(f"s3://{s3_bucket}/some/prefix")


@pytest.fixture(params=["local_lake", "s3_lake"])
def lake(request: pytest.FixtureRequest) -> Storage:
    """The same behaviour is asked of a folder and of a bucket."""
    storage = request.getfixturevalue(request.param)
    assert isinstance(storage, Storage)
    return storage


@pytest.fixture
def front(
    s3_emulator: S3Emulator,  # noqa: F811
    s3_bucket: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[FaultyFront]:
    """A server in front of the S3 emulator that can misbehave; the environment leads to it."""
    with FaultyFront(s3_emulator.endpoint) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        server.lake_url = f"s3://{s3_bucket}/lake"
        yield server
