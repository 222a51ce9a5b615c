from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tools.processes import free_port

ROWS = 200_000


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def long_register() -> Iterator[int]:
    port = free_port()
    code = f"from catalunya.demo.server import serve; serve(port={port}, rows={ROWS})"
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        while not listens(port):
            assert process.poll() is None, "the portal did not start"
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=600)


def test_a_long_register_is_served_in_pages_of_50000_rows(long_register: int) -> None:
    """How fast is measured by `bench/fetch.py`."""
    connection = http.client.HTTPConnection("127.0.0.1", long_register, timeout=600)
    ends = []
    for offset in range(0, ROWS, 50_000):
        connection.request("GET", f"/resource/ivft-vegh.json?$order=:id&$limit=50000&$offset={offset}")
        body = connection.getresponse().read()
        ends.append(body.count(b'"registre"'))
    assert ends == [50_000] * 4


def test_a_page_never_has_more_than_50000_rows_and_the_order_without_order_is_rotated(
    long_register: int,
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", long_register, timeout=600)
    connection.request("GET", "/resource/ivft-vegh.json?$limit=60000&$offset=100000&$select=registre,:id")
    rows = json.loads(connection.getresponse().read())
    assert len(rows) == 50_000
    connection.request("GET", "/resource/ivft-vegh.json?$limit=1&$select=registre")
    assert json.loads(connection.getresponse().read()) != [{"registre": "S0000001"}]
