"""A lake in a bucket: retries, conditional writes, uploads and downloads, credentials.

One module, because all cases share one bucket and its proxy.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import patch

import boto3
import pytest

from catalunya.errors import CatalunyaError, UsageError
from catalunya.lake import layout
from catalunya.lake.lock import lake_lock
from catalunya.lake.opening import open_lake
from catalunya.lake.s3 import _PART_BYTES as S3_PART
from catalunya.lake.s3 import S3Storage
from catalunya.lake.storage import Conflict, Entry, KeyExists, MissingKey, Storage
from catalunya.operations import maintenance
from tests.factories import DEFINITIONS, NOW, land
from tests.lake.faulty_proxy import DENIED, NO_SUCH_UPLOAD, FaultyProxy


def file(folder: Path, content: bytes, name: str = "upload.bin") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def names(storage: Storage, prefix: str) -> list[str]:
    return [entry.key for entry in storage.list(prefix)]


def test_folders_after_a_name_cost_one_request_however_many_come_before(proxy: FaultyProxy) -> None:
    lake = open_lake(proxy.lake_url)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: lake.put(f"r/{number:05d}/a", b""), range(1050)))
    proxy.requests.clear()
    assert lake.folders("r", after="01048") == ["01049"]
    assert len(proxy.requests) == 1


def test_delete_folder_removes_more_objects_than_one_request_can(s3_lake: Storage) -> None:
    threads = [
        threading.Thread(target=lambda i=i: [s3_lake.put(f"a/{i}-{j}", b"") for j in range(105)])
        for i in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(s3_lake.list("a")) == 1050
    s3_lake.delete_folder("a")
    assert s3_lake.list() == []


def test_a_bucket_that_is_not_there_is_named_with_what_to_check(s3_bucket: str) -> None:
    with pytest.raises(
        UsageError, match=r"CATALUNYA_LAKE: the bucket of s3://no-such-bucket/x .*NoSuchBucket"
    ):
        open_lake("s3://no-such-bucket/x")


def test_a_server_that_is_not_there_is_named_soon(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(UsageError, match=r"CATALUNYA_LAKE: .*cannot be reached at http://127\.0\.0\.1:9"):
        open_lake(f"s3://{s3_bucket}")


def test_the_whole_bucket_can_be_the_lake(s3_bucket: str) -> None:
    storage = open_lake(f"s3://{s3_bucket}")
    storage.put("a/b", b"x")
    assert storage.uri("a/b") == f"s3://{s3_bucket}/a/b"
    assert open_lake(f"s3://{s3_bucket}/a/").list() == [Entry("b", 1)]


def test_lakes_in_one_bucket_do_not_see_each_other(s3_bucket: str) -> None:
    one, sibling = open_lake(f"s3://{s3_bucket}/lake"), open_lake(f"s3://{s3_bucket}/lake2")
    one.put("a", b"1")
    sibling.put("a", b"22")
    assert one.list() == [Entry("a", 1)]
    one.delete_folder("a")
    assert sibling.list() == [Entry("a", 2)]


def test_the_endpoint_for_s3_alone_comes_before_the_general_one(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", os.environ["AWS_ENDPOINT_URL"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    storage = open_lake(f"s3://{s3_bucket}")
    assert storage.list() == []


@pytest.mark.parametrize("url", ["http://exa mple:9000", "127.0.0.1:9000", "http://127.0.0.1:9000?x=1"])
@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
def test_a_mistyped_endpoint_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, url: str) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    monkeypatch.setenv(variable, url)
    with pytest.raises(UsageError, match=f"^{variable}: "):
        open_lake("s3://bucket/prefix")


def test_throttled_requests_are_tried_again(proxy: FaultyProxy, tmp_path: Path) -> None:
    storage = open_lake(proxy.lake_url)
    assert isinstance(storage, S3Storage)
    for work in (
        lambda: storage.put("a/b", b"1"),
        lambda: storage.read("a/b"),
        lambda: storage.read_tail("a/b", 1),
        lambda: storage.copy("a/b", "a/c"),
        lambda: storage.age_s("a/b"),
        storage.list,
        lambda: storage.replace("c", b"1", None),
        lambda: storage.put_file("d", file(tmp_path, b"x" * 40_000_000)),
        lambda: storage.fetch("d", tmp_path / "out"),
        lambda: storage.delete_folder("a"),
    ):
        proxy.throttle(3)
        before = len(proxy.requests)
        work()
        assert len(proxy.requests) >= before + 4
    assert [e for e in storage.list() if not e.key.startswith("locks/")] == [
        Entry("c", 1),
        Entry("d", 40_000_000),
    ]


def test_a_conditional_write_whose_answer_was_lost_is_known_as_our_own(proxy: FaultyProxy) -> None:
    storage = open_lake(proxy.lake_url)

    def lose_one_put() -> None:
        lost = iter([True])
        proxy.lose_answer = lambda method, path: method == "PUT" and next(lost, False)

    lose_one_put()
    first = storage.replace("current.json", b"same", None)
    lose_one_put()
    second = storage.replace("current.json", b"same again", first)
    assert storage.read_versioned("current.json") == (b"same again", second)
    lose_one_put()
    storage.put("created", b"x", create=True)
    with pytest.raises(Conflict):
        storage.replace("current.json", b"same again", first)


def test_an_upload_that_breaks_off_leaves_no_object_and_keeps_the_source(
    proxy: FaultyProxy, tmp_path: Path
) -> None:
    storage = open_lake(proxy.lake_url)
    source = file(tmp_path, os.urandom(40_000_000))
    proxy.fault = lambda method, path: (403, DENIED) if "partNumber=2" in path else None
    with pytest.raises(CatalunyaError, match=r"lake/big: .*(AccessDenied|403)"):
        storage.put_file("big", source)
    proxy.fault = lambda method, path: None
    assert source.stat().st_size == 40_000_000
    assert storage.list() == []
    assert any(method == "DELETE" and "uploadId=" in path for method, path in proxy.requests)


def test_an_upload_whose_last_answer_was_lost_has_arrived(proxy: FaultyProxy, tmp_path: Path) -> None:
    storage = open_lake(proxy.lake_url)
    source = file(tmp_path, b"x" * 40_000_000)
    completions: list[str] = []

    def ends_an_upload(method: str, path: str) -> bool:
        return method == "POST" and "uploadId=" in path

    def know_it_no_more(method: str, path: str) -> tuple[int, bytes] | None:
        if ends_an_upload(method, path):
            completions.append(path)
        return (404, NO_SUCH_UPLOAD) if ends_an_upload(method, path) and len(completions) > 1 else None

    proxy.lose_answer = ends_an_upload
    proxy.fault = know_it_no_more
    storage.put_file("big", source)
    assert len(completions) == 2
    assert storage.list() == [Entry("big", 40_000_000)]
    assert not source.exists()


def test_a_download_that_breaks_off_leaves_nothing_behind(proxy: FaultyProxy, tmp_path: Path) -> None:
    storage = open_lake(proxy.lake_url)
    storage.put_file("big", file(tmp_path, os.urandom(40_000_000)))
    answered = iter([None, None])
    proxy.fault = lambda method, path: next(answered, (403, DENIED))
    with pytest.raises(CatalunyaError, match="access denied"):
        storage.fetch("big", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_message_about_a_failure_holds_no_credential(
    proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "verysecret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "tokentoken")
    storage = open_lake(proxy.lake_url)
    assert isinstance(storage, S3Storage)
    storage.put("a", b"")
    proxy.fault = lambda method, path: (403, DENIED)
    for work in (lambda: storage.read("a"), lambda: storage.put("a", b""), lambda: storage.age_s("a")):
        with pytest.raises(CatalunyaError) as caught:
            work()
        for secret in ("verysecret", "tokentoken", "Signature"):
            assert secret not in str(caught.value)


def test_a_profile_that_cannot_be_read_is_refused_with_what_to_do(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_PROFILE", "work")
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(UsageError, match=r"AWS_PROFILE: .*'work' needs boto3"):
        open_lake(f"s3://{s3_bucket}/lake")


def test_a_process_forked_after_s3_was_used_is_refused_rather_than_left_hanging(s3_lake: Storage) -> None:
    s3_lake.put("a", b"x")

    def work(results: multiprocessing.SimpleQueue[str]) -> None:
        for use in (lambda: s3_lake.read("a"), lambda: open_lake(s3_lake.url)):
            try:
                use()
            except CatalunyaError as error:
                results.put(str(error))

    fork = multiprocessing.get_context("fork")
    results = fork.SimpleQueue()
    child = fork.Process(target=work, args=(results,))
    child.start()
    child.join(10)
    child.kill()
    assert child.exitcode == 0
    for _ in range(2):
        assert "which already used S3; start it afresh" in results.get()


CLASH = b"<Error><Code>ConditionalRequestConflict</Code><Message>Try again</Message></Error>"


def test_a_listing_after_a_name_asks_s3_for_no_more_than_that(proxy: FaultyProxy) -> None:
    storage = open_lake(proxy.lake_url)
    for number in range(5):
        storage.put(f"ledger/{number}", b"")
    proxy.requests.clear()
    assert [entry.key for entry in storage.list("ledger", after="3")] == ["ledger/4"]
    [(method, path)] = proxy.requests
    assert (method, "start-after=" in path) == ("GET", True)


def test_a_store_that_ignores_conditions_is_refused_before_anything_relies_on_them(
    proxy: FaultyProxy,
) -> None:
    proxy.ignore_conditions = True
    storage = open_lake(proxy.lake_url)
    for _ in range(2):
        with (
            pytest.raises(
                UsageError, match=rf"CATALUNYA_LAKE: the store of {proxy.lake_url} .* does not honour If-"
            ),
            lake_lock(storage, "run-a"),
        ):
            pytest.fail("a lock that locks nothing")
    assert names(storage, "") == ["locks/probe.json"]
    proxy.ignore_conditions = False
    with lake_lock(open_lake(proxy.lake_url), "run-b"):
        pass


def test_a_good_store_is_asked_once_for_all_processes_and_each_endpoint(proxy: FaultyProxy) -> None:
    def writes() -> int:
        return sum(method == "PUT" and "probe" in path for method, path in proxy.requests)

    open_lake(proxy.lake_url).replace("a", b"1", None)
    asked = writes()
    assert asked > 0
    second = open_lake(proxy.lake_url)
    second.replace("b", b"1", None)
    second.replace("c", b"1", None)
    assert writes() == asked
    second.put(
        "locks/probe.json", json.dumps({"endpoint": "http://elsewhere", "conditional_writes": True}).encode()
    )
    open_lake(proxy.lake_url).replace("d", b"1", None)
    assert writes() > asked + 1


def clashes(times: int) -> Iterator[tuple[int, bytes]]:
    for _ in range(times):
        yield 409, CLASH


def test_a_clash_that_passes_is_tried_again_and_not_taken_for_a_loss(
    proxy: FaultyProxy, tmp_path: Path
) -> None:
    storage = open_lake(proxy.lake_url)
    storage.put("x", b"1")
    storage.put("releases/old/a", b"1")
    storage.put("releases/old/b", b"1")
    (tmp_path / "f").write_bytes(b"f")
    found = storage.read_versioned("x")
    assert found is not None
    for work in (
        lambda: storage.put("n", b"1", create=True),
        lambda: storage.replace("x", b"2", found[1]),
        lambda: storage.put("y", b"1"),
        lambda: storage.put_file("z", tmp_path / "f"),
        lambda: storage.delete("y"),
        lambda: storage.delete_folder("releases/old"),
    ):
        left = clashes(2)
        proxy.fault = lambda method, path, left=left: (
            next(left, None) if method in {"PUT", "POST", "DELETE"} and "probe" not in path else None
        )  # type: ignore[misc]
        work()
        assert next(left, None) is None
    assert storage.list("releases") == []
    with lake_lock(storage, "run-a"):
        pass
    with pytest.raises(KeyExists):
        storage.put("n", b"2", create=True)
    with pytest.raises(Conflict):
        storage.replace("x", b"3", found[1])


@pytest.mark.parametrize("code", ["InternalError", "SlowDown", "OperationAborted"])
def test_objects_that_one_request_for_many_could_not_delete_are_tried_again(
    proxy: FaultyProxy, code: str
) -> None:
    storage = open_lake(proxy.lake_url)
    names = ["releases/old/a", "releases/old/b"]
    for name in names:
        storage.put(name, b"1")
    errors = "".join(
        f"<Error><Key>lake/{name}</Key><Code>{code}</Code><Message>later</Message></Error>" for name in names
    )
    body = f'<?xml version="1.0" encoding="UTF-8"?><DeleteResult>{errors}</DeleteResult>'.encode()
    left = iter([(200, body)] * 2)
    proxy.fault = lambda method, path: next(left, None) if method == "POST" else None
    storage.delete_folder("releases/old")
    assert next(left, None) is None
    assert storage.list("releases") == []


def test_a_clash_that_stays_is_explained(proxy: FaultyProxy) -> None:
    storage = open_lake(proxy.lake_url)
    storage.replace("a", b"1", None)
    proxy.fault = lambda method, path: (409, CLASH) if method == "PUT" else None
    with (
        patch("catalunya.lake.s3.CONTENTION_TIMEOUT_S", 0.5),
        pytest.raises(CatalunyaError, match="another request is in the way"),
    ):
        storage.put("n", b"1", create=True)


def test_no_proxy_is_asked_for_a_store_on_this_machine(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")
    storage = open_lake(f"s3://{s3_bucket}/lake")
    with lake_lock(storage, "run"):
        assert storage.age_s("locks/run.json") is not None  # type: ignore[attr-defined]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_s3_keeps_the_checksum_of_each_upload_and_answers_it_without_the_bytes(
    proxy: FaultyProxy, tmp_path: Path
) -> None:
    lake = open_lake(proxy.lake_url)
    lake.put("a/put", b"one")
    lake.replace("a/create", b"two", None)
    lake.put_file("a/file", file(tmp_path, b"three"))
    lake.copy("a/file", "a/copy")
    proxy.requests.clear()
    found = {name: lake.stored_sha256(f"a/{name}") for name in ("put", "create", "file", "copy")}
    assert found == {
        "put": sha256(b"one"), "create": sha256(b"two"), "file": sha256(b"three"), "copy": sha256(b"three"),
    }  # fmt: skip
    assert {method for method, _ in proxy.requests} == {"HEAD"}
    with pytest.raises(MissingKey, match="a/nothing"):
        lake.stored_sha256("a/nothing")


def test_an_object_without_a_checksum_of_the_whole_has_to_be_read(
    s3_lake: S3Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = tmp_path / "large"
    large.write_bytes(b"x" * (S3_PART + 1))
    s3_lake.put_file("a/parts", large)
    assert s3_lake.stored_sha256("a/parts") is None
    by_others = boto3.client("s3", endpoint_url=s3_lake.endpoint, region_name=s3_lake.region)
    by_others.put_object(Bucket=s3_lake.bucket, Key="some/prefix/a/other", Body=b"x")
    assert s3_lake.stored_sha256("a/other") is None
    s3_lake.put("a/own", b"x")
    monkeypatch.setitem(sys.modules, "boto3", None)
    assert open_lake(s3_lake.url).stored_sha256("a/own") is None


def test_the_daily_check_reads_no_landed_byte_and_finds_one_that_was_overwritten(proxy: FaultyProxy) -> None:
    lake = open_lake(proxy.lake_url)
    manifest = land(lake, DEFINITIONS["population"], [[{"a": 1}], [{"a": 2}]])
    read: list[str] = []
    proxy.listener = lambda method, path, _: read.append(f"{method} {path.partition('?')[0]}")
    assert maintenance.verify(lake, "population", day=NOW.date()) == (2, [])
    assert [one for one in read if one.startswith("GET") and "page-" in one] == []
    assert maintenance.verify(lake, "population") == (2, [])
    assert len([one for one in read if one.startswith("GET") and "page-" in one]) == 2
    key = layout.landing("population", manifest.snapshot_id, "page-00001.json")
    lake.put(key, b'[{"a": 3}]')
    for day in (NOW.date(), None):
        [fault] = maintenance.verify(lake, "population", day=day)[1]
        assert lake.uri(key) in fault and sha256(b'[{"a": 3}]')[:16] in fault
    lake.delete(key)
    assert "is missing" in maintenance.verify(lake, "population", day=NOW.date())[1][0]
