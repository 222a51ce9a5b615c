"""A run signs its release, anybody can verify it, and no change of a file passes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from catalunya.demo import server
from catalunya.operations.integrity.releases import SIGNATURE
from catalunya.publication.signature import SecretKey
from tests.pipeline.command import DAY, LATER, SMALL, Answer, Command, ReleasedLake

KEY = SecretKey.generate()
TEXT = KEY.file().splitlines()[1]


@pytest.fixture(scope="module")
def signed(small_release: ReleasedLake, small_project, tmp_path_factory) -> Command:
    """The command on a lake whose second release is signed. To be read only."""
    folder = tmp_path_factory.mktemp("signed")
    shutil.copytree(small_release.lake, folder / "lake")
    (folder / "release.key").write_text(KEY.file())
    with server.running(rows=SMALL, day=DAY) as portal:
        env = {
            "CATALUNYA_SIGNING_KEY_FILE": str(folder / "release.key"),
            "CATALUNYA_REQUIRE_SIGNATURE": "true",
        }
        command = Command(str(folder / "lake"), portal.url, now=LATER, home=small_project, env=env)
        answer = command.run("--force")
    assert (answer.code, answer.json["status"]) == (0, "released"), answer.stderr
    command.env = {}
    return command


@pytest.fixture
def copy(signed: Command, tmp_path: Path) -> Path:
    """A downloaded copy of the signed release."""
    pointer = json.loads(Path(signed.lake, "current.json").read_text())
    shutil.copytree(Path(signed.lake, "releases", pointer["release_id"]), tmp_path / "release")
    return tmp_path / "release"


def verify(command: Command, *words: object) -> Answer:
    return command("verify", *map(str, words))


def test_a_release_of_the_lake_and_a_downloaded_copy_are_verified(signed, copy):
    shown = verify(signed, "--key", KEY.public)
    assert (shown.code, shown.json["status"]) == (0, "whole"), shown.stderr
    assert shown.json["signature"] == f"signed by the key {KEY.public.name}"
    (copy.parent / "release.pub").write_text(KEY.public.file())
    downloaded = verify(signed, copy, "--key", copy.parent / "release.pub")
    assert (downloaded.code, downloaded.json["faults"]) == (0, []), downloaded.stderr
    assert shown.json["files"] == downloaded.json["files"]
    without_key = verify(signed, copy)
    assert (without_key.code, "was not checked" in without_key.json["signature"]) == (0, True)


def edit_record(folder: Path) -> None:
    record = folder / "release.json"
    record.write_text(
        record.read_text().replace('"demo":true', '"demo":false').replace('"demo": true', '"demo": false')
    )


def append(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes() + b" ")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (append("SHA256SUMS"), "not a signature of this content"),
        (append("catalunya.duckdb"), "catalunya.duckdb has the SHA-256"),
        (edit_record, "release.json has the SHA-256"),
        (lambda folder: (folder / "LICENCES.md").unlink(), "LICENCES.md is missing"),
        (lambda folder: (folder / "csv" / "more.csv").write_text("x"), "more.csv is none of the"),
        (lambda folder: (folder / SIGNATURE).unlink(), "the release is not signed"),
        (
            lambda folder: (folder / SIGNATURE).write_text(SecretKey.generate().sign(b"x", "y")),
            "it is of the key",
        ),
        (lambda folder: (folder / SIGNATURE).write_bytes(b"\xff\x00"), "empty, cut or changed"),
        (lambda folder: (folder / "SHA256SUMS").unlink(), "SHA256SUMS is missing"),
    ],
    ids=[
        "sums",
        "database",
        "record",
        "missing",
        "extra",
        "unsigned",
        "another key",
        "no signature",
        "no sums",
    ],
)
def test_no_change_of_a_downloaded_release_passes(signed, copy, change, said):
    change(copy)
    answer = verify(signed, copy, "--key", KEY.public)
    assert (answer.code, answer.json["status"]) == (1, "damaged"), answer.stderr
    assert said in answer.stderr
    assert all("take the release from its publisher" in fault["hint"] for fault in answer.json["faults"])


def test_a_release_without_a_signature_is_published_unless_one_is_required(small, small_demo):
    small.url = small_demo.url
    before = Path(small.lake, "current.json").read_bytes()
    small.env = {"CATALUNYA_REQUIRE_SIGNATURE": "true"}
    refused = small.run("--force")
    assert refused.code == 2
    assert "CATALUNYA_SIGNING_KEY is not set" in refused.json["message"]
    assert Path(small.lake, "current.json").read_bytes() == before
    small.env = {"CATALUNYA_SIGNING_KEY": "not a key"}
    wrong = small.run("--force")
    assert (wrong.code, "CATALUNYA_SIGNING_KEY: it is no key" in wrong.json["message"]) == (2, True)
    assert "not a key" not in wrong.stderr + json.dumps(wrong.json)
    small.env = {}
    assert verify(small).json["signature"] == "not signed"
    assert verify(small, "--key", KEY.public).code == 1


def test_the_key_is_nowhere_in_the_lake(signed):
    secret = TEXT.encode()
    files = [path for path in Path(signed.lake).rglob("*") if path.is_file()]
    assert len(files) > 20
    assert not [path for path in files if secret in path.read_bytes()]
