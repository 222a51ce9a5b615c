"""The public site in its container: a page before the first release, each new site without a restart, nothing to take."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest

from catalunya.site.headers import HEADERS
from orchestration.tests.stack.stack import docker

pytestmark = pytest.mark.stack


def get(url: str) -> tuple[int, dict[str, str], str]:
    """Return status, headers and text of an answer, whatever the status."""
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, {k.lower(): v for k, v in error.headers.items()}, error.read().decode()


def test_before_the_first_release_the_site_is_healthy_and_says_that_there_are_no_data_yet(stack):
    [site] = stack.of("site")
    check = site["Config"]["Healthcheck"]["Test"][1]
    alone = docker(
        ["docker", "run", "--detach", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", stack.env["CATALUNYA_IMAGE"],
         "site"]
    ).strip()  # fmt: skip
    try:
        stack.wait(
            lambda: not docker(["docker", "exec", alone, "sh", "-c", f"{check} || echo no"], check=False),
            "the site did not become healthy",
        )
        page = docker(["docker", "exec", alone, "curl", "-s", "-i", "http://localhost:8081/ca/"])
        assert "503" in page.splitlines()[0] and "Encara no hi ha dades publicades" in page
        assert "content-security-policy" in page
        docker(["docker", "stop", "--time", "20", alone])
        [ended] = json.loads(docker(["docker", "inspect", alone]))
        assert (ended["RestartCount"], ended["State"]["ExitCode"]) == (0, 0)
    finally:
        docker(["docker", "rm", "--force", alone])


def test_each_release_is_on_the_site_after_its_run_without_a_restart(stack):
    assert stack.run(force=True).states()["build_site"] == "success"

    def shown() -> str:
        return str(json.loads(get(f"{stack.site_url}/site.json")[2])["release_id"])

    assert shown() == stack.pointer()
    status, headers, page = get(f"{stack.site_url}/ca/")
    assert status == 200 and "DADES DE DEMOSTRACIÓ" in page.upper()
    assert {name: headers[name] for name in HEADERS} == HEADERS
    assert get(f"{stack.site_url}/ca/municipis/080193-barcelona/")[0] == 200
    assert get(f"{stack.site_url}/nothing/")[0] == 404
    before = stack.pointer()
    ended = stack.run(force=True)
    assert ended.states()["build_site"] == "success", ended.states()
    assert shown() == stack.pointer() != before
    [site] = stack.of("site")
    assert (site["RestartCount"], site["State"]["Health"]["Status"]) == (0, "healthy")


def test_the_site_s_container_has_no_lake_no_secret_and_cannot_change_the_site(stack):
    [site] = stack.of("site")
    volumes = {mount["Destination"]: mount["RW"] for mount in site["Mounts"] if mount["Type"] == "volume"}
    assert volumes == {"/var/lib/catalunya/site": False}
    names = {line.partition("=")[0] for line in site["Config"]["Env"]}
    assert not {
        name for name in names if "PASSWORD" in name or "SECRET" in name or name.startswith("AIRFLOW__")
    }
    said = stack.inside("site", "touch", "/var/lib/catalunya/site/x", check=False)
    assert "Read-only file system" in said
    found = stack.inside("site", "sh", "-c", "ls /run/catalunya /var/lib/catalunya/lake /opt/airflow")
    assert not [line for line in found.splitlines() if line and not line.endswith(":") and line != "logs"]
