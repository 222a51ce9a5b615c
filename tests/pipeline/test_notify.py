"""Alerts reach a real receiver when a run ends badly, and only then."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from catalunya import notify
from catalunya.demo import portal
from catalunya.lake.storage import Storage
from tests.pipeline.conftest import DAY, SMALL, Command


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[dict[str, str]]]]:
    heard: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"json://127.0.0.1:{server.server_port}", heard
    server.shutdown()
    server.server_close()


def test_a_run_that_fails_is_told_of_with_the_dataset_and_the_reason(tmp_path, receiver):
    address, heard = receiver
    command = Command(str(tmp_path / "lake"), "http://127.0.0.1:9", env={"CATALUNYA_NOTIFY_URLS": address})
    answer = command.run()
    assert answer.code == 4
    [alert] = heard
    assert answer.json["run_id"] in alert["title"]
    assert "boundaries" in alert["message"]


def test_a_run_with_nothing_new_is_not_told_of(released, receiver):
    address, heard = receiver
    released.env = {"CATALUNYA_NOTIFY_URLS": address}
    assert released.run(now="2026-01-05T12:00:00Z").code == 0
    assert heard == []


def test_an_address_that_does_not_answer_is_said_and_changes_no_exit_code(tmp_path):
    env = {"CATALUNYA_NOTIFY_URLS": "json://127.0.0.1:9"}
    answer = Command(str(tmp_path / "lake"), "http://127.0.0.1:9", env=env).run()
    assert answer.code == 4
    assert "CATALUNYA_NOTIFY_URLS" in answer.words


def test_people_are_told_also_when_the_lake_cannot_remember_it(tmp_path, receiver):
    address, heard = receiver
    lake = Storage.open(str(tmp_path / "lake"))
    (tmp_path / "lake" / "alerts").write_text("in the way")
    alert = notify.Alert(kind="failed", subject="ingest", reason="the disk is full", event="x")
    assert notify.deliver(lake, (address,), [alert])
    assert notify.deliver(None, (address,), [alert])
    assert len(heard) == 2


def test_an_unusual_change_and_a_portal_that_fell_silent_are_told_of_once(small_release, tmp_path, receiver):
    address, heard = receiver
    lake = tmp_path / "lake"
    shutil.copytree(small_release[0], lake)
    with portal.running(day=DAY, rows=SMALL) as small:
        command = Command(str(lake), small.url, env={"CATALUNYA_NOTIFY_URLS": address})
        assert command.run("--force", now="2026-03-01T06:00:00Z").code == 0
        told = {alert["title"].partition(": ")[2]: alert["message"] for alert in heard}
        assert len(told) == len(heard) == 2
        assert f"{SMALL} rows, expected are" in told["social_services changed in an unusual way"]
        silent = "social_services has been silent for longer than its cadence"
        assert "its cadence is 31 days" in told[silent]
        assert command.run("--force", now="2026-03-02T06:00:00Z").code == 0
    assert len(heard) == 2
