"""Alerts reach a real receiver when a run fails or something is unusual, and only then."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import pytest

from catalunya.audit import Finding
from catalunya.lake.opening import open_lake
from catalunya.operations import alerts
from catalunya.runs.record import DatasetRecord, RunRecord
from tests.factories import local_lake
from tests.pipeline.command import Command
from tests.webhook_sink import listening


def test_a_run_that_fails_is_an_alert_with_the_dataset_and_the_reason(tmp_path, webhook_sink):
    command = Command(
        str(tmp_path / "lake"), "http://127.0.0.1:9", env={"CATALUNYA_NOTIFY_URLS": webhook_sink.channel}
    )
    answer = command.run()
    assert answer.code == 4
    [alert] = webhook_sink.heard
    assert answer.json["run_id"] in alert["title"]
    assert "boundaries" in alert["message"]


def test_a_run_with_nothing_new_sends_no_alert(small, small_demo, webhook_sink):
    small.env, small.url = {"CATALUNYA_NOTIFY_URLS": webhook_sink.channel}, small_demo.url
    assert small.run(now="2026-01-05T12:00:00Z").code == 0
    assert webhook_sink.heard == []


def test_an_address_that_does_not_answer_is_reported_and_changes_no_exit_code(tmp_path):
    env = {"CATALUNYA_NOTIFY_URLS": "json://127.0.0.1:9"}
    answer = Command(str(tmp_path / "lake"), "http://127.0.0.1:9", env=env).run()
    assert answer.code == 4
    assert "CATALUNYA_NOTIFY_URLS" in answer.stderr


def test_an_alert_is_sent_also_when_the_lake_cannot_store_the_sent_marker(tmp_path, webhook_sink):
    lake = local_lake(tmp_path / "lake")
    (tmp_path / "lake" / "alerts").write_text("in the way")
    alert = alerts.Alert(kind="failed", subject="ingest", reason="the disk is full", event="x")
    assert alerts.deliver(lake, (webhook_sink.channel,), [alert])
    assert alerts.deliver(None, (webhook_sink.channel,), [alert])
    assert len(webhook_sink.heard) == 2


@pytest.mark.parametrize(("outcome", "kinds"), [("unreadable", ["unreadable"]), ("new", []), ("drifted", [])])
def test_a_dataset_whose_snapshot_is_refused_is_no_alert_of_a_portal_that_cannot_be_read(outcome, kinds):
    stale = Finding(gate="stale", severity="warn", message="56 days old", dataset_id="population")
    run = RunRecord(
        run_id="r", environment="demo", engine="duckdb", lake="lake", started_at=datetime(2026, 1, 5, tzinfo=UTC),
        datasets={"population": DatasetRecord(snapshot_id="s", outcome=outcome)}, findings=[stale],
    )  # fmt: skip
    assert [alert.kind for alert in alerts.of_findings(run)] == kinds


def event(name: str = "x") -> alerts.Alert:
    return alerts.Alert(kind="failed", subject="ingest", reason="the disk is full", event=name)


def test_each_address_gets_an_alert_once_and_only_one_that_failed_is_tried_again(tmp_path, webhook_sink):
    lake = open_lake(str(tmp_path / "lake"))
    dead = "json://127.0.0.1:9/?secret=xyzzy"
    assert not alerts.deliver(lake, (dead, webhook_sink.channel), [event()])
    assert not alerts.deliver(lake, (dead, webhook_sink.channel), [event()])
    assert len(webhook_sink.heard) == 1
    with listening() as corrected:
        assert alerts.deliver(lake, (webhook_sink.channel, corrected.channel), [event()])
        assert alerts.deliver(lake, (corrected.channel, webhook_sink.channel, corrected.channel), [event()])
        assert (len(corrected.heard), len(webhook_sink.heard)) == (1, 1)
    kept = [lake.read(entry.key) for entry in lake.list("alerts")]
    assert len(kept) == 2
    assert not any(b"127.0.0.1" in note or b"xyzzy" in note for note in kept)


def test_an_address_that_apprise_does_not_know_is_reported_and_the_others_get_the_alert(
    tmp_path, webhook_sink
):
    lake = open_lake(str(tmp_path / "lake"))
    assert not alerts.deliver(lake, ("nonsense://x", webhook_sink.channel), [event()])
    assert len(webhook_sink.heard) == 1


def test_an_address_with_commas_is_one_address():
    [(url, channel)] = alerts.channels(
        ("mailto://user:pass@example.org?to=a@example.org,b@example.org",)
    ).items()
    assert url.endswith("b@example.org")
    assert {address for _, address in channel.channel.targets} == {"a@example.org", "b@example.org"}


TOPIC = "arn:aws:sns:eu-west-1:111122223333:catalunya-production-alerts"


@contextmanager
def topic(monkeypatch, status: int = 200) -> Iterator[list[dict[str, list[str]]]]:
    """A server that answers as Amazon SNS does, and what was published to it."""
    published: list[dict[str, list[str]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            published.append(parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode()))
            body = (
                b"<PublishResponse><PublishResult><MessageId>1</MessageId></PublishResult></PublishResponse>"
            )
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name, value in {
            "AWS_ENDPOINT_URL_SNS": f"http://127.0.0.1:{server.server_port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }.items():
            monkeypatch.setenv(name, value)
        try:
            yield published
        finally:
            server.shutdown()


def test_an_alert_is_published_to_a_topic_once_with_a_subject_that_it_takes(tmp_path, monkeypatch):
    lake = open_lake(str(tmp_path / "lake"))
    alert = alerts.Alert(kind="failed", subject="Lleó " * 30, reason="ple " * 100_000, event="x")
    with topic(monkeypatch) as published:
        assert alerts.deliver(lake, (TOPIC,), [alert])
        assert alerts.deliver(lake, (TOPIC,), [alert])
    [message] = published
    assert message["TopicArn"] == [TOPIC]
    [subject], [text] = message["Subject"], message["Message"]
    assert subject.startswith("Catalunya Data Pipeline: Lle? ") and len(subject) == 99
    assert text.startswith(alert.title) and "ple" in text and len(text.encode()) <= 256 * 1024


def test_an_alert_that_a_topic_refuses_is_reported_and_published_again_by_the_next_run(
    tmp_path, monkeypatch, webhook_sink
):
    lake = open_lake(str(tmp_path / "lake"))
    with topic(monkeypatch, 403) as refused:
        assert not alerts.deliver(lake, (TOPIC, webhook_sink.channel), [event()])
    assert (len(refused), len(webhook_sink.heard)) == (1, 1)
    with topic(monkeypatch) as published:
        assert alerts.deliver(lake, (TOPIC, webhook_sink.channel), [event()])
    assert (len(published), len(webhook_sink.heard)) == (1, 1)


def test_no_proxy_is_asked_for_an_address_on_this_machine(tmp_path, webhook_sink, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")
    assert alerts.deliver(None, (webhook_sink.channel,), [event()])
    assert len(webhook_sink.heard) == 1


@pytest.mark.parametrize(("status", "code", "kinds"), [
    ("released", 0, ["refused", "refused"]), ("unchanged", 0, ["refused", "refused"]), ("refused", 3, ["refused"]),
])  # fmt: skip
def test_each_snapshot_that_was_refused_while_others_were_released_is_one_alert(status, code, kinds):
    run = RunRecord(
        run_id="r", environment="demo", engine="duckdb", lake="lake", started_at=datetime(2026, 1, 5, tzinfo=UTC),
        status=status, exit_code=code, refused={"a": "half of it is gone", "b": "no key"},
    )  # fmt: skip
    found = alerts.of_run(run)
    assert [alert.kind for alert in found] == kinds
    if status != "refused":
        assert [(alert.event, alert.reason) for alert in found] == [
            ("refused a", "half of it is gone"),
            ("refused b", "no key"),
        ]


@pytest.mark.parametrize("port", [None, 9])
def test_an_address_for_alerts_is_in_no_log_also_at_the_level_debug(port, caplog, webhook_sink):
    caplog.set_level("DEBUG")
    host = webhook_sink.address if port is None else f"127.0.0.1:{port}"
    address = f"json://reader:planted-password@{host}/planted-path"
    alert = alerts.Alert(kind="failed", subject="x", reason="y", event="z")
    assert alerts.deliver(None, (address,), [alert]) is (port is None)
    assert "planted" not in caplog.text
