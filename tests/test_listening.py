"""The servers of the command: they say where they are once they listen there."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import urllib.request
from pathlib import Path

import pytest

from tests.pipeline.command import Command

SERVERS = [["site", "serve"], ["metrics", "--serve"], ["demo", "serve"]]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    return Command(str(tmp_path / "lake"), None)


def answer(process: subprocess.Popen[str]) -> dict[str, object]:
    out, _ = process.communicate(timeout=600)
    found: dict[str, object] = json.loads(out)
    assert process.returncode == found["exit_code"]
    return found


@pytest.mark.parametrize("server", SERVERS)
def test_a_port_that_is_taken_is_a_wrong_argument_and_nothing_is_announced(command, server):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = answer(command.start(*server, "--port", str(port), "--json"))
    assert (found["status"], found["exit_code"]) == ("failed", 2)
    assert f"127.0.0.1:{port} (Address already in use)" in str(found["message"])


@pytest.mark.parametrize("host", ["999.1.1.1", "a..b", "::g"])
def test_a_host_that_is_none_is_a_wrong_argument(command, host):
    found = answer(command.start("site", "serve", "--host", host, "--port", "0", "--json"))
    assert found["exit_code"] == 2
    assert "cannot listen on" in str(found["message"])


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("port", ["-1", "65536", "99999"])
def test_a_port_that_is_none_is_a_wrong_argument(command, fork_server, server, port):
    found = command(*server, "--port", port)
    assert found.code == found.json["exit_code"] == 2
    assert "'--port'" in found.json["message"]


@pytest.mark.parametrize("rows", ["0", "-5"])
def test_a_register_has_a_row(command, fork_server, rows):
    found = command("demo", "serve", "--rows", rows)
    assert found.code == 2
    assert "--rows" in found.json["message"]


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_address_that_is_announced_answers_at_once(command, server, host):
    process = command.start(*server, "--host", host, "--port", "0", "--json")
    assert process.stdout is not None
    url = json.loads(process.stdout.readline())["url"]
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), Any())
        with opener.open(url, timeout=60) as reply:
            assert reply.status
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


class Any(urllib.request.HTTPErrorProcessor):
    """Takes an answer of any status."""

    def http_response(self, request, response):
        return response
