"""The profile `monitoring` of the stack: its services in docker-compose.yml, and what Airflow sends to it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.pipeline.command import CLEAN
from tests.project import ROOT

FOLDER = ROOT / "orchestration" / "config" / "monitoring"
SERVICES = ("metrics", "prometheus", "grafana")
SEND = """
from airflow.observability.metrics.otel_logger import get_otel_logger
get_otel_logger().incr("scheduler_heartbeat")
from opentelemetry import metrics
metrics.get_meter_provider().force_flush()
"""


@pytest.fixture(scope="module")
def stack() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "orchestration/docker-compose.yml").read_text("utf-8"))
    return found


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_of_the_profile_is_hardened_pinned_watched_and_on_loopback(
    stack: dict[str, Any], name: str
) -> None:
    service = stack["services"][name]
    assert service["profiles"] == ["monitoring"]
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["healthcheck"]["interval"] == "10s"
    assert service["deploy"]["resources"]["limits"]["memory"]
    assert all(port.startswith("${AIRFLOW_BIND:-127.0.0.1}:") for port in service.get("ports", []))
    version = service["image"].rpartition(":")[2]
    assert name == "metrics" or (version[-1].isdigit() and version.count(".") == 2)
    assert "secrets:" not in str(service["volumes"])


def test_prometheus_asks_the_service_that_there_is(stack: dict[str, Any]) -> None:
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text("utf-8"))
    [job] = config["scrape_configs"]
    host, port = job["static_configs"][0]["targets"][0].split(":")
    assert host in stack["services"]
    assert f"localhost:{port}/metrics" in str(stack["services"][host]["healthcheck"]["test"])
    assert "--web.enable-otlp-receiver" in stack["services"]["prometheus"]["command"]


def test_grafana_finds_its_data_source_and_its_dashboard(stack: dict[str, Any]) -> None:
    grafana = stack["services"]["grafana"]
    [mount] = grafana["volumes"]
    inside = mount.split(":")[1]
    assert mount.startswith("./config/monitoring:")
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (FOLDER / Path(home).relative_to(inside)).is_file()
    provisioning = FOLDER / Path(grafana["environment"]["GF_PATHS_PROVISIONING"]).relative_to(inside)
    [source] = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text("utf-8"))["datasources"]
    assert source["url"] == "http://prometheus:9090"
    [provider] = yaml.safe_load((provisioning / "dashboards/catalunya.yml").read_text("utf-8"))["providers"]
    assert provider["options"]["path"] == inside
    json.loads((FOLDER / "dashboard.json").read_text("utf-8"))
    assert not any("PASSWORD" in name for name in grafana["environment"])


@pytest.mark.slow
def test_airflow_sends_its_metrics_where_prometheus_takes_them(stack: dict[str, Any], tmp_path: Path) -> None:
    heard: list[tuple[str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    given = stack["services"]["airflow-scheduler"]["environment"]
    default = given["OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"].partition(":-")[2].rstrip("}")
    assert default.startswith("http://prometheus:9090/")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        env = {
            **CLEAN,
            "AIRFLOW_HOME": str(tmp_path),
            "AIRFLOW__METRICS__OTEL_ON": "True",
            "OTEL_EXPORTER_OTLP_PROTOCOL": given["OTEL_EXPORTER_OTLP_PROTOCOL"],
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": default.replace(
                "prometheus:9090", f"127.0.0.1:{server.server_port}"
            ),
            "NO_PROXY": "127.0.0.1",
        }
        done = subprocess.run(
            [sys.executable, "-c", SEND], env=env, capture_output=True, text=True, check=False
        )
        server.shutdown()
    assert done.returncode == 0, done.stderr
    [path] = {path for path, _ in heard}
    # The address of the receiver of Prometheus 3: docs/guides/opentelemetry of its documentation.
    assert path == "/api/v1/otlp/v1/metrics"
    assert b"airflow.scheduler_heartbeat" in b"".join(body for _, body in heard)
