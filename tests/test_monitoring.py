"""Metrics of a lake, the alert rules and dashboard that use them, and the heartbeat."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from catalunya.datasets import loader
from catalunya.demo import server
from catalunya.lake import layout
from catalunya.lake.opening import open_lake
from catalunya.operations.metrics import LakeMetrics, exposition
from catalunya.settings import Settings
from tests.pipeline.command import DAY, SMALL, Command, ReleasedLake
from tests.project import ROOT, missing

FOLDER = ROOT / "orchestration" / "config" / "monitoring"
DATASETS = loader.load(ROOT / "datasets")
TIMEOUT_S = 120.0
"""Seconds after which what was waited for never comes."""


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Name and label values of each sample."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture(scope="module")
def of_first(first_release: ReleasedLake) -> dict[tuple[str, ...], float]:
    """The metrics of a lake with one release."""
    with Command(str(first_release.lake), None).start("metrics") as command:
        text, said = command.communicate()
    assert command.returncode == 0, said
    return samples(text)


def test_the_metrics_say_what_the_run_said(
    first_release: ReleasedLake, of_first: dict[tuple[str, ...], float]
) -> None:
    run = first_release.answer.json
    for name, dataset in run["datasets"].items():
        for kind in ("in", "staged", "quarantined", "duplicated"):
            assert of_first["catalunya_dataset_rows", name, kind] == dataset[f"rows_{kind}"]
        assert of_first["catalunya_dataset_bytes", name] == dataset["bytes"]
        assert of_first["catalunya_dataset_unreadable", name] == 0
        assert of_first["catalunya_dataset_snapshots", name] == 1
        assert of_first["catalunya_dataset_cadence_seconds", name] == DATASETS[name].cadence_days * 86_400
    for stage in run["stages"]:
        assert of_first["catalunya_stage_duration_seconds", stage["name"]] == stage["seconds"]
    release = json.loads((first_release.folder / "release.json").read_text("utf-8"))
    for mart, rows in release["rows"].items():
        assert of_first["catalunya_release_rows", mart] == rows
    size = sum(path.stat().st_size for path in (first_release.lake / "landing").rglob("*") if path.is_file())
    assert of_first["catalunya_lake_bytes", "landing"] == size
    assert of_first["catalunya_last_run_exit_code",] == 0


def test_the_site_is_no_part_of_the_size_of_the_lake(
    first_release: ReleasedLake, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lake = shutil.copytree(first_release.lake, tmp_path / "lake")
    (lake / "site" / "one").mkdir(parents=True)
    (lake / "site" / "one" / "index.html").write_text("a page")
    (lake / "site" / "current").symlink_to("one")
    found = samples(
        exposition(
            LakeMetrics(open_lake(str(lake)), DATASETS, lambda: layout.moment_of("20260105T070000Z-00000000"))
        ).decode()
    )
    assert ("catalunya_lake_bytes", "releases") in found
    assert ("catalunya_lake_bytes", "site") not in found
    assert "site/current" not in "".join(capfd.readouterr())


def test_runs_are_counted_for_a_week_and_read_once(first_release: ReleasedLake, tmp_path: Path) -> None:
    lake = shutil.copytree(first_release.lake, tmp_path / "lake")
    [record] = (lake / "ledger").glob("*.json")
    content = json.loads(record.read_text("utf-8"))
    for day, status in ((2, "failed"), (3, "unchanged"), (4, "refused")):
        run_id = f"2026010{day}T060000Z-0000000{day}"
        changed = {
            **content, "run_id": run_id, "status": status, "exit_code": 1, "started_at": f"2026-01-0{day}T06:00:00Z"
        }  # fmt: skip
        (lake / "ledger" / f"{run_id}.json").write_text(json.dumps(changed))
    storage = open_lake(str(lake))
    read: list[str] = []
    real = storage.read
    storage.read = lambda key: (read.append(key), real(key))[1]  # type: ignore[method-assign]
    now = layout.moment_of("20260110T050000Z-00000000")
    metrics = LakeMetrics(storage, DATASETS, lambda: now)
    found = samples(exposition(metrics).decode())
    # That of 2 January is older than a week.
    assert [
        found["catalunya_recent_runs", status] for status in ("released", "unchanged", "refused", "failed")
    ] == [1, 1, 1, 0]
    before = [key for key in read if key.startswith("ledger/")]
    exposition(metrics)
    again = [key for key in read if key.startswith("ledger/")][len(before) :]
    # `status` reads the newest record, and nothing else does.
    assert len(again) == 1


def test_an_empty_lake_has_metrics(tmp_path: Path) -> None:
    found = samples(exposition(LakeMetrics(open_lake(str(tmp_path)), DATASETS, Settings().now)).decode())
    assert found["catalunya_recent_runs", "released"] == 0
    assert ("catalunya_last_run_timestamp_seconds",) not in found


def test_a_broken_record_of_a_run_breaks_no_metric(first_release: ReleasedLake, tmp_path: Path) -> None:
    lake = shutil.copytree(first_release.lake, tmp_path / "lake")
    [record] = (lake / "ledger").glob("*.json")
    (lake / "ledger" / f"{record.stem[:-8]}ffffffff.json").write_text("{")
    now = layout.moment_of(record.stem)
    found = samples(exposition(LakeMetrics(open_lake(str(lake)), DATASETS, lambda: now)).decode())
    assert found["catalunya_recent_runs", "released"] == 1
    assert found["catalunya_lake_faults",] == 1


def test_the_alert_rules_fire_when_they_should_and_not_before() -> None:
    promtool = shutil.which("promtool") or missing("promtool is not installed: apt-get install prometheus")
    subprocess.run([promtool, "check", "config", FOLDER / "prometheus.yml"], check=True)
    subprocess.run([promtool, "test", "rules", FOLDER / "alerts_test.yml"], check=True)


def rules() -> list[dict[str, Any]]:
    return [
        rule
        for group in yaml.safe_load((FOLDER / "alerts.yml").read_text("utf-8"))["groups"]
        for rule in group["rules"]
    ]


def expressions() -> list[str]:
    dashboard = json.loads((FOLDER / "dashboard.json").read_text("utf-8"))
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]] + [
        rule["expr"] for rule in rules()
    ]


def test_rules_and_dashboard_name_metrics_that_there_are(of_first: dict[tuple[str, ...], float]) -> None:
    there = {name for name, *_ in of_first}
    for expression in expressions():
        assert set(re.findall(r"\bcatalunya_\w+", expression)) <= there, expression


def test_every_alert_is_explained_in_the_runbook() -> None:
    titles = re.findall(r"^### (.+)$", (ROOT / "docs" / "runbook.md").read_text("utf-8"), re.MULTILINE)
    for rule in rules():
        assert rule["alert"] in titles
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def until(url: str, wanted: str) -> str:
    """The answer of `url` once it holds `wanted`."""
    for _ in range(int(TIMEOUT_S / 0.2)):
        try:
            with urllib.request.urlopen(url) as answer:
                text = str(answer.read().decode())
            if wanted in text:
                return text
        except OSError:
            pass
        time.sleep(0.2)
    pytest.fail(f"{url} never said {wanted!r}")


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """Kill the process at the end."""
    try:
        yield
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_prometheus_scrapes_the_metrics_and_takes_every_expression(
    first_release: ReleasedLake, tmp_path: Path
) -> None:
    prometheus = shutil.which("prometheus") or missing(
        "prometheus is not installed: apt-get install prometheus"
    )
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text("utf-8"))
    port, listen = free_port(), free_port()
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["scrape_configs"] = [
        {"job_name": "catalunya", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
    ]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    shutil.copy(FOLDER / "alerts.yml", tmp_path)
    command = [
        prometheus,
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{listen}",
    ]
    ours = Command(str(first_release.lake), None).start("metrics", "--serve", "--port", str(port))
    with (
        ended(ours),
        ended(subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)),
    ):
        api = f"http://127.0.0.1:{listen}/api/v1"
        until(f"{api}/query?query=catalunya_release_rows", '"mart":"population"')
        for expression in expressions():
            query = urllib.parse.quote(expression)
            with urllib.request.urlopen(f"{api}/query?query={query}") as answer:
                assert json.load(answer)["status"] == "success"
        until(f"{api}/rules", '"name":"CatalunyaNoRun"')


def test_the_server_says_why_it_has_no_metrics(first_release: ReleasedLake, tmp_path: Path) -> None:
    from starlette.testclient import TestClient

    from catalunya.operations.metrics import metrics_app

    lake = shutil.copytree(first_release.lake, tmp_path / "lake")
    client = TestClient(metrics_app(LakeMetrics(open_lake(str(lake)), DATASETS, Settings().now)))
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")
    (lake / "releases" / first_release.release_id / "release.json").write_text("{")
    assert client.get("/metrics").status_code in {200, 503}
    assert client.get("/elsewhere").status_code == 404


@contextmanager
def beats(status: int = 200) -> Iterator[tuple[str, list[str]]]:
    """A service that expects heartbeats: its address, and what it got."""
    heard: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as sink:
        threading.Thread(target=sink.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{sink.server_port}/secret-of-mine", heard
        finally:
            sink.shutdown()


def test_a_run_that_ends_well_sends_one_heartbeat_and_one_that_fails_none(small: Command) -> None:
    with beats() as (url, heard):
        small.env["CATALUNYA_HEARTBEAT_URL"] = url
        with server.running(rows=SMALL, day=DAY) as demo:
            small.url = demo.url
            assert small.run().code == 0
        assert heard == ["/secret-of-mine"]
        small.url = "http://127.0.0.1:9"
        small.env["CATALUNYA_HTTP_ATTEMPTS"] = "1"
        assert small.run().code == 4
        assert heard == ["/secret-of-mine"]


@pytest.mark.parametrize("status", [404, None])
def test_a_heartbeat_that_is_not_taken_fails_nothing_and_tells_no_secret(
    small: Command, status: int | None
) -> None:
    with beats(status or 200) as (url, heard), server.running(rows=SMALL, day=DAY) as demo:
        small.url = demo.url
        small.env["CATALUNYA_HEARTBEAT_URL"] = (
            url if status else f"http://127.0.0.1:{free_port()}/secret-of-mine"
        )
        answer = small.run()
    assert answer.code == 0
    assert len(heard) == (1 if status else 0)
    assert "CATALUNYA_HEARTBEAT_URL" in answer.stderr
    assert "secret-of-mine" not in answer.stderr


def test_a_wrong_address_of_the_heartbeat_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATALUNYA_HEARTBEAT_URL", "hc-ping.com/secret-of-mine")
    with pytest.raises(Exception, match="CATALUNYA_HEARTBEAT_URL") as error:
        Settings.load()
    assert "secret-of-mine" not in str(error.value)
