"""Logs as JSON: one event a line, with the run and the dataset."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from catalunya.errors import printable
from catalunya.log import bound, get_logger
from tests.pipeline.command import Command
from tests.project import ROOT


def test_values_that_are_bound_are_in_every_event_of_the_context_and_gone_after_it():
    structlog = pytest.importorskip("structlog")
    log = get_logger("x")
    with structlog.testing.capture_logs() as events:
        with bound(run="r"):
            with bound(dataset="d"):
                log.info("inner", rows=1)
            log.warning("outer", run="own")
        log.error("after")
    assert [{**event, "log_level": None} for event in events] == [
        {"run": "r", "dataset": "d", "rows": 1, "event": "inner", "log_level": None},
        {"run": "own", "event": "outer", "log_level": None},
        {"event": "after", "log_level": None},
    ]


def test_every_line_of_a_run_is_json_with_the_run_and_where_it_is_about_one_the_dataset(
    tmp_path, small_project, fork_server, small_demo
):
    small_demo.faults.add("population:down")
    env = {"CATALUNYA_LOG_FORMAT": "json"}
    answer = Command(str(tmp_path / "lake"), small_demo.url, home=small_project, env=env).run()
    events = [json.loads(line) for line in answer.stderr.splitlines()]
    assert {event["run"] for event in events} == {answer.json["run_id"]}
    assert all({"timestamp", "level", "event"} <= event.keys() for event in events)
    [landed] = [e for e in events if e["event"] == "landed" and e["dataset"] == "social_services"]
    assert landed["rows"] == 600
    [down] = [e for e in events if e["event"] == "source unreadable"]
    assert (down["dataset"], down["level"]) == ("population", "warning")
    assert any(e["event"] == "stage ended" and e["stage"] == "ingest" for e in events)
    assert events[-1]["event"] == "run ended"


def test_a_retry_before_any_other_event_is_not_on_standard_output(tmp_path):
    process = Command(str(tmp_path / "lake"), "http://127.0.0.1:9").start("ingest", "-d", "population")
    out, stderr = process.communicate(timeout=600)
    assert (process.returncode, out) == (4, "")
    assert "retry scheduled" in stderr


def test_without_the_command_events_are_on_standard_error():
    code = "from catalunya.log import get_logger; get_logger('x').warning('told', rows=1)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert "told" in done.stderr


def test_an_error_is_one_event_with_its_code(tmp_path, fork_server):
    env = {"CATALUNYA_LOG_FORMAT": "json", "CATALUNYA_KEEP_RELEASES": "none"}
    answer = Command(str(tmp_path / "lake"), None, env=env)("status")
    [event] = [json.loads(line) for line in answer.stderr.splitlines()]
    assert (event["level"], event["exit_code"]) == ("error", 2)
    assert "CATALUNYA_KEEP_RELEASES" in event["event"]


def test_another_format_is_refused(tmp_path, fork_server):
    answer = Command(str(tmp_path / "lake"), None, env={"CATALUNYA_LOG_FORMAT": "xml"})("status")
    assert answer.code == 2
    assert "CATALUNYA_LOG_FORMAT" in answer.stderr


def test_the_entrypoint_writes_json_too(tmp_path: Path):
    head = (ROOT / "orchestration/docker/entrypoint.sh").read_text("utf-8").partition("fail() {")[0]
    script = f'{head}\nsay \'set "X" to C:\\y\'; echo "$AIRFLOW__LOGGING__JSON_LOGS"'
    env = {"PATH": "/usr/bin:/bin", "CATALUNYA_LOG_FORMAT": "json"}
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, check=True)
    assert json.loads(done.stderr)["event"] == 'set "X" to C:\\y'
    assert done.stdout == "True\n"


def test_what_cannot_be_seen_is_an_escape():
    assert printable("a\u202eb\x1b[31mc\x00é\n\td") == "a\\u202eb\\x1b[31mc\\x00é\n\td"
