"""A site is shown as a whole, in a folder or in a bucket, and made again only when it is of something else."""

from __future__ import annotations

import fcntl
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import boto3
import pytest
from starlette.testclient import TestClient

from catalunya.datasets import loader
from catalunya.errors import CatalunyaError, LakeBusy, UsageError
from catalunya.lake.opening import open_lake
from catalunya.operations.query import find_release
from catalunya.release import Release
from catalunya.settings import Settings
from catalunya.site import build as site_build
from catalunya.site import material as site_material
from catalunya.site import record as site_record
from catalunya.site.bucket import SiteBucket, SiteMoved
from catalunya.site.build import Built, build_site
from catalunya.site.material import Material
from catalunya.site.publishing import FolderPlace, local_folder, open_place, place_of, refresh
from catalunya.site.record import RECORD
from catalunya.site.serve import site_app
from tests import s3
from tests.project import ROOT
from tests.s3 import S3Emulator

DATASETS = loader.load(ROOT / "datasets")
FIRST, SECOND, THIRD = (f"2026010{day}T060000Z-0000000{day}" for day in (1, 2, 3))


@dataclass(frozen=True)
class Small(Material):
    """A site of a few files, whose style differs with each release."""

    releases: tuple[str, ...] = ()

    def kept_releases(self) -> list[str]:
        return list(self.releases)

    def build(self, target: Path) -> Built:
        folder = target / f"{self.release.release_id}-{self.record.code[:12]}"
        files = {
            "index.html": "<p>", "ca/index.html": self.release.release_id, "404.html": "not here",
            f"assets/site.{self.release.release_id[-3:]}.css": "p {}", "data/csv/population.csv": "a\n1\n",
            "data/marts.parquet": "PAR1", RECORD: self.record.model_dump_json(),
        }  # fmt: skip
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        return Built(folder, 1, 0, sum(map(len, files.values())))


def small(lake: Path, release_id: str, *kept: str) -> Small:
    release = cast(Release, type("R", (), {"release_id": release_id}))
    return Small(
        open_lake(str(lake)), DATASETS, release, "https://data.example.cat", releases=kept or (release_id,)
    )


def test_the_record_says_whether_a_site_is_of_the_release_the_code_the_definitions_and_the_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    material = small(tmp_path, FIRST)
    assert material.record == small(tmp_path, FIRST).record
    changed = DATASETS["population"].model_copy(update={"cadence_days": 999})
    others = [
        small(tmp_path, SECOND),
        replace(material, url="https://other.example.cat"),
        replace(material, datasets={**DATASETS, "population": changed}),
    ]
    monkeypatch.setattr(site_record, "_code_digest", lambda: "other code")
    assert len({material.record, *(one.record for one in others)}) == 4
    monkeypatch.undo()
    assert small(tmp_path, FIRST).record not in {one.record for one in others}


def test_a_site_is_built_again_only_when_it_is_of_something_else(
    target: Path, first_release: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_lake(str(first_release.lake))
    material = Material(storage, DATASETS, find_release(storage, None), Settings().site_url)
    built: list[Path] = []
    monkeypatch.setattr(site_material, "build_site", lambda *given, **more: built.append(given[3]))
    place = FolderPlace(target)
    assert refresh(place, material) is None
    assert built == []
    refresh(place, replace(material, url="https://other.example.cat"))
    monkeypatch.setattr(site_record, "_code_digest", lambda: "other code")
    refresh(place, material)
    assert built == [target, target]


def test_a_damaged_record_counts_as_another_site(tmp_path: Path) -> None:
    place = FolderPlace(tmp_path)
    assert place.shown() is None
    (tmp_path / "current").mkdir()
    (tmp_path / "current" / RECORD).write_text("{")
    assert place.shown() is None


def test_two_builds_in_one_folder_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_build, "LOCK_TIMEOUT_S", 0.0)
    held = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        with pytest.raises(LakeBusy, match="another process builds a site"):
            build_site(cast(Any, None), {}, cast(Any, None), tmp_path)
    finally:
        os.close(held)


def test_the_place_of_the_site_is_named_by_an_option_a_variable_or_the_lake() -> None:
    assert place_of(Settings(CATALUNYA_LAKE="/lake"), "here") == "here"
    assert place_of(Settings(CATALUNYA_LAKE="/lake", CATALUNYA_SITE="s3://a-bucket")) == "s3://a-bucket"
    assert place_of(Settings(CATALUNYA_LAKE="/lake")) == "/lake/site"
    assert place_of(Settings(CATALUNYA_LAKE="s3://lake")) is None
    with pytest.raises(UsageError, match="CATALUNYA_SITE"):
        local_folder(None)
    with pytest.raises(UsageError, match="CloudFront"):
        local_folder("s3://a-bucket")
    with pytest.raises(ValueError, match="no prefix"):
        Settings(CATALUNYA_SITE="s3://a-bucket/prefix")


def test_the_server_shows_a_friendly_page_until_there_is_a_site_and_then_the_site(tmp_path: Path) -> None:
    client = TestClient(site_app(tmp_path / "site"))
    for path in ("/", "/ca/", "/assets/site.css"):
        early = client.get(path)
        assert (early.status_code, early.headers["cache-control"]) == (503, "no-cache")
        assert early.headers["retry-after"] == "60"
        assert "default-src 'none'" in early.headers["content-security-policy"]
        assert all(word in early.text for word in ("Encara", "Todavía", "No data"))
    assert client.post("/").status_code == 405

    def link(release_id: str) -> None:
        built = small(tmp_path, release_id).build(tmp_path / "site")
        new = tmp_path / "site" / ".link"
        new.symlink_to(built.folder.name)
        new.replace(tmp_path / "site" / "current")

    link(FIRST)
    assert client.get("/ca/").text == FIRST
    link(SECOND)
    assert client.get("/ca/").text == SECOND
    old, new = (client.get(f"/assets/site.{release_id[-3:]}.css") for release_id in (FIRST, SECOND))
    assert old.status_code == new.status_code == 200, "a page that was loaded before the swap has its style"
    assert client.get("/site.json").json()["release_id"] == SECOND


def test_the_server_redirects_within_the_site_and_says_what_files_are(tmp_path: Path) -> None:
    built = small(tmp_path, FIRST).build(tmp_path / "site")
    (tmp_path / "site" / "current").symlink_to(built.folder.name)
    client = TestClient(site_app(tmp_path / "site"), follow_redirects=False)
    for path in ("/ca?year=2020", "//ca?year=2020"):
        assert client.get(f"http://testserver{path}").headers["location"] == "/ca/?year=2020"
    missing = client.get("/nothing/")
    assert (missing.status_code, missing.text, missing.headers["cache-control"]) == (
        404,
        "not here",
        "no-cache",
    )
    assert client.get("/%2e%2e/%2e%2e/etc/passwd").status_code == 404
    assert client.get("/assets/../../../etc/passwd").status_code == 404
    kinds = {
        name: client.get(f"/data/{name}").headers["content-type"]
        for name in ("csv/population.csv", "marts.parquet")
    }
    assert kinds == {
        "csv/population.csv": "text/csv; charset=utf-8",
        "marts.parquet": "application/vnd.apache.parquet",
    }


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Emulator]:
    folder = tmp_path_factory.mktemp("aws")
    with s3.running(folder, "s3", "cloudfront", "cloudfront-keyvaluestore") as emulator:
        yield emulator


@pytest.fixture
def bucket(aws: S3Emulator, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket and the key value store of its name, both empty; the environment leads to them."""
    for name, value in aws.env.items():
        monkeypatch.setenv(name, value)
    # The host of a store's requests begins with the account's number.
    monkeypatch.setenv(
        "AWS_ENDPOINT_URL_CLOUDFRONT_KEYVALUESTORE", aws.endpoint.replace("127.0.0.1", "localhost")
    )
    look_up = socket.getaddrinfo

    def loopback(host: Any, *given: Any, **named: Any) -> Any:
        return look_up("127.0.0.1" if str(host).endswith(".localhost") else host, *given, **named)

    monkeypatch.setattr(socket, "getaddrinfo", loopback)
    name = aws.new_bucket()
    boto3.client("cloudfront", region_name="us-east-1").create_key_value_store(Name=name)
    return name


def keys(bucket: str) -> set[str]:
    found = boto3.client("s3", region_name="us-east-1").list_objects_v2(Bucket=bucket)
    return {entry["Key"] for entry in found.get("Contents", [])}


def sites(bucket: str) -> set[str]:
    return {found[1] for key in keys(bucket) if (found := re.match(r"sites/([^/]+)/site\.json$", key))}


def test_a_site_is_uploaded_whole_and_shown_by_one_write(bucket: str, tmp_path: Path) -> None:
    place = open_place(f"s3://{bucket}")
    assert place.shown() is None
    material = small(tmp_path, FIRST)
    folder = place.publish(material).folder
    name = folder.name
    assert folder == Path("sites", name)
    assert place.shown() == material.record
    inside = {key.removeprefix(f"sites/{name}/") for key in keys(bucket) if key.startswith(f"sites/{name}/")}
    assert inside >= {"index.html", "ca/index.html", "404.html", RECORD, "data/csv/population.csv"}
    assert keys(bucket) - {f"sites/{name}/{one}" for one in inside} == {"404.html", "assets/site.001.css"}
    s3_client = boto3.client("s3", region_name="us-east-1")
    served = {
        key: s3_client.head_object(Bucket=bucket, Key=key)
        for key in (f"sites/{name}/ca/index.html", "assets/site.001.css")
    }
    assert [(one["ContentType"], one["CacheControl"]) for one in served.values()] == [
        ("text/html; charset=utf-8", "no-cache"),
        ("text/css; charset=utf-8", "public, max-age=31536000, immutable"),
    ]
    assert refresh(place, material) is None


def test_old_sites_are_kept_as_long_as_their_release_and_shown_again_without_an_upload(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = open_place(f"s3://{bucket}")
    first = place.publish(small(tmp_path, FIRST)).folder.name
    second = place.publish(small(tmp_path, SECOND, FIRST, SECOND)).folder.name
    assert sites(bucket) == {first, second}
    assert {"assets/site.001.css", "assets/site.002.css"} <= keys(bucket)
    with monkeypatch.context() as patch:
        patch.setattr(Small, "build", lambda *_: pytest.fail("it is there already"))
        rolled_back = small(tmp_path, FIRST, FIRST, SECOND)
        assert place.publish(rolled_back).folder.name == first
        assert place.shown() == rolled_back.record
    third = place.publish(small(tmp_path, THIRD, SECOND, THIRD)).folder.name
    assert sites(bucket) == {second, third}
    assert not [key for key in keys(bucket) if first in key]
    assert "assets/site.001.css" not in keys(bucket)
    assert {"assets/site.002.css", "assets/site.003.css"} <= keys(bucket)


def test_an_upload_that_is_interrupted_leaves_the_old_site_shown_and_is_made_again(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = SiteBucket(f"s3://{bucket}")
    old, new = small(tmp_path, FIRST), small(tmp_path, SECOND, FIRST, SECOND)
    place.publish(old)
    for name in ("_put_shared", "_swap"):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                place.publish(new)
        assert place.shown() == old.record
    put = place._s3.put_object

    def die_at_the_record(**given: Any) -> None:
        if given["Key"].endswith(RECORD):
            raise KeyboardInterrupt
        put(**given)

    third = small(tmp_path, THIRD, FIRST, SECOND, THIRD)
    with monkeypatch.context() as patch:
        patch.setattr(place._s3, "put_object", die_at_the_record)
        with pytest.raises(KeyboardInterrupt):
            place.publish(third)
    assert place.shown() == old.record
    place.publish(third)
    assert place.shown() == third.record


def test_a_site_that_somebody_else_showed_meanwhile_stays_shown(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, other = SiteBucket(f"s3://{bucket}"), small(tmp_path, SECOND)
    upload = slow._upload

    def upload_slowly(material: Material) -> Built:
        SiteBucket(f"s3://{bucket}").publish(other)
        return upload(material)

    monkeypatch.setattr(slow, "_upload", upload_slowly)
    with pytest.raises(SiteMoved, match="try again"):
        slow.publish(small(tmp_path, FIRST))
    assert slow.shown() == other.record


def test_a_bucket_that_is_not_there_is_named_with_what_to_do(bucket: str) -> None:
    with pytest.raises(CatalunyaError, match=r"s3://no-such-bucket could not be read.*site = true"):
        open_place("s3://no-such-bucket").shown()
    with pytest.raises(UsageError, match="without a prefix"):
        open_place(f"s3://{bucket}/prefix")
