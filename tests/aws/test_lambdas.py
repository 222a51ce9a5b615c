"""The functions on AWS, called the way AWS calls them, on a lake in S3 and portals on loopback."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import obstore
import pytest
from obstore.store import S3Store

from catalunya.errors import LakeBusy, SourceUnreadable, UsageError
from catalunya.ingest import Ingested
from catalunya.lake import layout, snapshot
from catalunya.lake.lock import lake_lock
from catalunya.lake.opening import open_lake
from catalunya.lake.storage import Storage
from catalunya.runs import aws_lambda, steps
from catalunya.runs.record import RunRecord
from catalunya.runs.reporter import NullReporter
from catalunya.runs.steps import StepwiseRun
from catalunya.settings import Settings
from tests.aws.invocation import RUN_ID, Invocation, event, variables

CALL = """
import json, sys
from catalunya.runs import aws_lambda
from catalunya.runs.record import RunRecord
from catalunya.runs.reporter import NullReporter
from catalunya.runs.steps import StepwiseRun
from catalunya.settings import Settings
from tests.aws.invocation import Invocation
print("ANSWER", json.dumps(getattr(aws_lambda, sys.argv[1])(json.loads(sys.argv[2]), Invocation())))
"""


@pytest.fixture
def lake(s3_bucket, demo, monkeypatch) -> Storage:
    for name, value in variables(s3_bucket, demo.url).items():
        monkeypatch.setenv(name, value)
    return open_lake(f"s3://{s3_bucket}/lake")


def versions(lake: Storage) -> dict[str, str]:
    """Every object but the locks, with its ETag."""
    store = S3Store(
        lake.bucket, endpoint=lake.endpoint, region="us-east-1", client_options={"allow_http": True}
    )
    found = [meta for chunk in obstore.list(store) for meta in chunk]
    return {meta["path"]: meta["e_tag"] for meta in found if "/locks/" not in meta["path"]}


def record_of(lake: Storage, part: str) -> RunRecord:
    return RunRecord.model_validate_json(lake.read(layout.part(RUN_ID, part)))


def test_a_second_invocation_of_the_same_key_sends_no_request_and_writes_nothing(lake, demo):
    first = aws_lambda.ingest(event("population"), Invocation())
    staged = aws_lambda.stage(event("population"), Invocation())
    assert (first["outcome"], staged["outcome"]) == ("new", "staged")
    assert staged["rows_staged"] + staged["rows_quarantined"] + staged["rows_duplicated"] == first["rows_in"]
    before, requests = versions(lake), len(demo.log)
    for function in (aws_lambda.ingest, aws_lambda.stage):
        again = function(event("population", force=True), Invocation())
        assert again["outcome"] == "done before"
        assert again["snapshot_id"] == first["snapshot_id"]
    assert (versions(lake), len(demo.log)) == (before, requests)


def test_two_invocations_of_one_key_at_once_do_the_work_once(lake, demo):
    command = [sys.executable, "-c", CALL, "ingest", json.dumps(event("social_services"))]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=600)[0] for process in both]
    answers = [json.loads(text.split("ANSWER ")[1]) for text in outputs]
    assert sorted(answer["outcome"] for answer in answers) == ["done before", "new"]
    assert len(snapshot.complete(lake, "social_services")) == 1
    pages = [path for _, path, _ in demo.log if "ivft-vegh" in path and "offset" in path]
    assert pages
    assert len(pages) == len(set(pages))


def test_an_invocation_whose_key_is_locked_for_long_ends_as_under_way_and_one_of_another_run_raises(
    lake, demo, monkeypatch
):
    monkeypatch.setattr(steps, "LOCK_TIMEOUT_S", 0.0)
    with lake_lock(lake, RUN_ID, "call-ingest-population"):
        assert aws_lambda.ingest(event("population"), Invocation())["outcome"] == "under way"
        with pytest.raises(LakeBusy):
            aws_lambda.ingest(event("population", "20260105T120000Z-00000000"), Invocation())
    assert demo.log == []


def test_a_portal_that_is_down_is_raised_and_recorded_and_the_next_try_reads_it(lake, demo):
    demo.faults.add("population:down")
    with pytest.raises(SourceUnreadable, match="population"):
        aws_lambda.ingest(event("population"), Invocation())
    assert record_of(lake, "ingest.population").datasets["population"].outcome == "unreadable"
    demo.faults.clear()
    assert aws_lambda.ingest(event("population"), Invocation())["outcome"] == "new"


def test_an_unexpected_error_is_raised_and_the_next_invocation_does_the_work(lake, demo, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr("catalunya.runs.pipeline.ingest", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            aws_lambda.ingest(event("population"), Invocation())
    assert aws_lambda.ingest(event("population"), Invocation())["outcome"] == "new"


def test_a_source_that_drifted_is_returned_recorded_and_not_read_again(lake, demo, monkeypatch):
    drifted = Ingested("boundaries", "drifted", None, {}, 1, 1, "boundaries: CODICOMAR is gone")
    monkeypatch.setattr("catalunya.runs.pipeline.ingest", lambda *_, **__: drifted)
    first = aws_lambda.ingest(event("boundaries"), Invocation())
    assert (first["outcome"], first["message"]) == ("refused", drifted.message)
    monkeypatch.undo()
    assert aws_lambda.is_done("ingest", "boundaries", record_of(lake, "ingest.boundaries"))


def test_a_snapshot_that_drifted_is_returned_recorded_and_not_staged_again(lake, demo):
    demo.faults.add("social_services:missing_column=telefon")
    aws_lambda.ingest(event("social_services"), Invocation())
    first = aws_lambda.stage(event("social_services"), Invocation())
    assert first["outcome"] == "refused"
    assert "telefon" in first["message"]
    assert list(snapshot.refused(lake, "social_services")) == snapshot.complete(lake, "social_services")
    before = versions(lake)
    assert aws_lambda.stage(event("social_services"), Invocation())["outcome"] == "done before"
    assert versions(lake) == before


def test_an_invocation_that_comes_after_its_run_has_ended_does_nothing(lake, demo):
    lake.put(layout.ledger(RUN_ID), b"{}")
    before = versions(lake)
    assert aws_lambda.ingest(event("population"), Invocation())["outcome"] == "ended"
    assert (versions(lake), demo.log) == (before, [])


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"run_id": "yesterday", "dataset": "population"}, "run_id"),
        ({"run_id": RUN_ID}, "dataset"),
        (event("population", force="yes please"), "force"),
    ],
)
def test_an_invalid_event_payload_is_named(lake, payload, message):
    with pytest.raises(UsageError, match=message):
        aws_lambda.ingest(payload, Invocation())


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"code": "0" * 16}, r"the code of Airflow \(0{16}\) is not that of this function"),
        ({"definition": "0" * 16}, r"the definition of population of Airflow \(0{16}\) is not that of this"),
        ({"code": ""}, "Airflow is older than this function"),
        ({"dataset": "weather"}, "no definition of weather, it was deployed with: boundaries"),
        ({"code": "0" * 16, "priority": 1}, "the code of Airflow"),
    ],
    ids=["other code", "other definition", "an older Airflow", "an unknown dataset", "a field of newer code"],
)
@pytest.mark.parametrize("stage", ["ingest", "stage"])
def test_an_event_of_another_commit_is_answered_at_once_with_what_to_do_and_is_not_retried(
    lake, demo, stage, changed, said
):
    payload = {**event("population"), **changed}
    with pytest.raises(UsageError, match=said):
        getattr(aws_lambda, stage)(payload, Invocation())
    assert demo.log == []
    result = record_of(lake, f"{stage}.{payload['dataset']}")
    # The task in Airflow raises the same error, which `final_errors` does not retry.
    with pytest.raises(UsageError, match=rf"{said}.*make deploy.*docs/aws.md"):
        aws_lambda.parse_result(stage, payload["dataset"], result)
    assert (result.status, result.exit_code) == ("failed", 2)
    assert [d.outcome for d in result.datasets.values()] == ["unreadable"] * (stage == "ingest")
    assert not aws_lambda.is_done(stage, payload["dataset"], result)
    StepwiseRun(Settings.load(), RUN_ID, NullReporter()).delete_result(f"{stage}.{payload['dataset']}")
    assert getattr(aws_lambda, stage)(event("population"), Invocation())["outcome"] != "done before"


def test_the_digest_of_the_code_is_of_every_module_and_not_of_line_ends(tmp_path, monkeypatch):
    package = Path(aws_lambda.__file__).parents[1]
    copy = tmp_path / "catalunya"
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))

    def digest() -> str:
        monkeypatch.setattr(aws_lambda, "__file__", str(copy / "runs" / "aws_lambda.py"))
        return aws_lambda.code_digest.__wrapped__()

    assert digest() == aws_lambda.code_digest()
    (copy / "__pycache__").mkdir()
    (copy / "__pycache__" / "ingest.cpython-313.pyc").write_bytes(b"x")
    module = copy / "ingest.py"
    module.write_bytes(module.read_bytes().replace(b"\n", b"\r\n"))
    assert digest() == aws_lambda.code_digest()
    module.write_bytes(module.read_bytes() + b"# changed\n")
    assert digest() != aws_lambda.code_digest()


def test_the_log_is_json_with_run_time_and_memory(lake, capsys):
    aws_lambda.ingest(event("population"), Invocation())
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["run_id"] for line in lines} == {RUN_ID}
    ended = next(line for line in lines if line["event"] == "ended")
    assert {
        "dataset": "population",
        "outcome": "new",
        "memory_mb": 1024,
        "remaining_ms": 900_000,
    }.items() <= (ended.items())
    assert ended["peak_memory_mb"] > 0
    assert ended["tmp_free_mb"] > 0


def test_a_killed_invocation_leaves_no_result_and_the_next_one_does_the_work(lake, demo):
    demo.faults.add("population:slow=30")
    command = [sys.executable, "-c", CALL, "ingest", json.dumps(event("population"))]
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    seen = threading.Event()
    while not demo.log and not seen.wait(0.05):
        assert killed.poll() is None
    killed.kill()
    killed.wait()
    demo.faults.clear()
    assert lake.list(layout.RUNS) == []
    # A lease that is not renewed expires after a minute.
    for key in [entry.key for entry in lake.list("locks")]:
        lake.delete(key)
    assert aws_lambda.ingest(event("population"), Invocation())["outcome"] == "new"
