"""The package of the functions: small enough, reproducible, and complete by itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile

import pytest

from catalunya.runs import aws_lambda
from catalunya.staging import row_sql
from infrastructure import package
from infrastructure.package import MOST_BYTES, Package, PackageError
from tests.aws.invocation import event, variables
from tests.factories import DEFINITIONS

pytestmark = pytest.mark.aws

ALONE = """
import json, sys
sys.path.insert(0, sys.argv[1])
import resource
from catalunya.runs import aws_lambda

class Invocation:
    aws_request_id = "request-1"
    memory_limit_in_mb = "1024"
    def get_remaining_time_in_millis(self):
        return 900_000

for name in ("ingest", "stage"):
    print("ANSWER", json.dumps(getattr(aws_lambda, name)(json.loads(sys.argv[2]), Invocation())))
from catalunya.datasets import loader
from catalunya.staging import row_sql
definitions = loader.load(aws_lambda._settings().home / "datasets")
print("ANSWER", json.dumps({name: row_sql.definition_digest(definition) for name, definition in definitions.items()}))
print("ANSWER", json.dumps(aws_lambda.code_digest()))
outside = [m.__file__ for m in sys.modules.values() if "site-packages" in (getattr(m, "__file__", None) or "")]
print("ANSWER", json.dumps(outside))
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Package]:
    folder = tmp_path_factory.mktemp("packages")
    return {name: package.build(name, folder) for name in package.ARCHITECTURES}


def test_a_package_is_the_same_bytes_again(tmp_path, packages):
    again = package.build("arm64", tmp_path)
    assert again.path.read_bytes() == packages["arm64"].path.read_bytes()


@pytest.mark.parametrize("architecture", package.ARCHITECTURES)
def test_a_package_is_small_enough_and_holds_only_what_is_needed(packages, architecture):
    first = packages[architecture]
    assert first.unzipped_bytes < MOST_BYTES
    with zipfile.ZipFile(first.path) as archive:
        entries = archive.infolist()
    names = [entry.filename for entry in entries]
    assert names == sorted(names)
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
    assert sum(entry.file_size for entry in entries) == first.unzipped_bytes
    tops = {name.split("/")[0] for name in names}
    assert {"catalunya", "datasets", "duckdb", "obstore"} <= tops
    assert not {"dbt", "airflow", "boto3", "bin"} & tops
    machine = {"arm64": "aarch64", "x86_64": "x86_64"}[architecture]
    assert f"_duckdb.cpython-313-{machine}-linux-gnu.so" in names
    assert not [name for name in names if "/tests/" in name or "__pycache__" in name]


def test_a_package_that_is_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(package, "MOST_BYTES", 1_000_000)
    with pytest.raises(PackageError, match="leave something out"):
        package.build("arm64", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_functions_run_from_their_package_alone_by_the_same_rules_as_here(
    bundle, tmp_path, demo, s3_emulator, s3_bucket
):
    with zipfile.ZipFile(bundle.path) as archive:
        archive.extractall(tmp_path / "task")
    env = {"PATH": os.environ["PATH"], **s3_emulator.env, **variables(s3_bucket, demo.url)}
    done = subprocess.run(
        [sys._base_executable, "-I", "-S", "-c", ALONE, str(tmp_path / "task"), json.dumps(event("population"))],
        env=env, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line[7:]) for line in done.stdout.splitlines() if line.startswith("ANSWER")]
    ingested, staged, digests, code, outside = answers
    assert (ingested["outcome"], staged["outcome"]) == ("new", "staged")
    assert staged["rows_staged"] > 0
    assert digests == {
        name: row_sql.definition_digest(definition) for name, definition in DEFINITIONS.items()
    }
    assert code == aws_lambda.code_digest()
    assert outside == []
