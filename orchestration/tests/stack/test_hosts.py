"""The stack on other hosts: one processor, a proxy, a name server that does not answer, the next environment."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from orchestration.tests.api import PIPELINE
from orchestration.tests.stack.stack import make_stack, removed_at_the_end

pytestmark = pytest.mark.stack

HOSTS = Path(__file__).with_name("hosts.yml")
PROXY = "http://192.0.2.3:3128"


def behind_a_proxy(folder: Path) -> Path:
    """A configuration of Docker's client that gives every container a proxy, which does not answer."""
    given = Path(os.environ.get("DOCKER_CONFIG", Path.home() / ".docker"))
    proxies = {"default": {"httpProxy": PROXY, "httpsProxy": PROXY, "noProxy": "intranet.example.org"}}
    folder.mkdir()
    settings = {"proxies": proxies, "cliPluginsExtraDirs": [str(given / "cli-plugins")]}
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


def test_a_run_succeeds_with_one_processor_behind_a_proxy_and_without_a_name_server(image, tmp_path):
    stack = make_stack("hosts", image, tmp_path, DOCKER_CONFIG=str(behind_a_proxy(tmp_path / "docker")))
    stack.files = (*stack.files, HOSTS)
    with removed_at_the_end(stack):
        stack.up()
        given = stack.inside(
            "airflow-scheduler", "sh", "-c", "nproc; echo $HTTPS_PROXY; getent hosts airflow-worker"
        )
        assert given.split() == ["1", PROXY, "192.0.2.2", "airflow-worker"]
        [run] = stack.wait(
            lambda: stack.request(f"/dags/{PIPELINE}/dagRuns")["dag_runs"], "no run was scheduled"
        )
        ended = stack.ended(run["dag_run_id"])
        assert ended.state == "success", ended.states()
        stack.assert_release_is_whole()
        assert stack.executor() == "LocalExecutor"
        assert all(one["RestartCount"] == 0 for one in stack.containers())
        for one in stack.containers():
            if one["State"]["Running"]:
                assert one["HostConfig"]["NanoCpus"] == 0
                assert one["State"]["Health"]["Status"] == "healthy", one["Name"]


def test_each_environment_has_its_own_data_and_the_former_ones_are_kept(stack, tmp_path):
    def volumes() -> set[str]:
        mounts = [mount for one in stack.containers() for mount in one["Mounts"]]
        return {mount["Name"].removeprefix(stack.project) for mount in mounts if mount["Type"] == "volume"}

    assert stack.run(force=True).state == "success"
    before = stack.pointer()
    assert volumes() == {f"_{name}_demo" for name in ("lake", "logs", "postgres", "redis", "secrets", "site")}
    stack.env_file = tmp_path / "development.env"
    closed = "".join(f"CATALUNYA_{name}_URL=http://127.0.0.1:9\n" for name in ("SOCRATA", "IDESCAT", "ICGC"))
    stack.env_file.write_text(f"ENVIRONMENT=development\n{closed}")
    stack.up()
    assert volumes() == {
        f"_{name}_development" for name in ("lake", "logs", "postgres", "redis", "secrets", "site")
    }
    assert stack.of("demo-portal") == []
    status = json.loads(stack.inside("airflow-scheduler", "catalunya", "status", "--json"))
    assert status["release_id"] is None
    stack.env_file = None
    stack.up()
    assert stack.pointer() == before
