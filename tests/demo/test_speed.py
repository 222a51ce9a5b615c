from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

ROWS = 200_000


@pytest.fixture(scope="module")
def long_register() -> Iterator[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    code = f"from catalunya.demo.server import serve; serve(port={port}, rows={ROWS})"
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        for _ in range(300):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=20)


def test_a_long_register_is_served_far_faster_than_a_client_can_read_it(long_register: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", long_register, timeout=60)
    read, ends = 0, []
    started = time.perf_counter()
    for offset in range(0, ROWS, 50_000):
        connection.request("GET", f"/resource/ivft-vegh.json?$order=:id&$limit=50000&$offset={offset}")
        body = connection.getresponse().read()
        read += len(body)
        ends.append(body.count(b'"registre"'))
    assert ends == [50_000] * 4
    assert read / (time.perf_counter() - started) > 100e6, "bytes a second; a quiet machine gives 1.5e9"


def test_a_page_never_has_more_than_50000_rows_and_the_order_without_order_is_rotated(
    long_register: int,
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", long_register, timeout=60)
    connection.request("GET", "/resource/ivft-vegh.json?$limit=60000&$offset=100000&$select=registre,:id")
    rows = json.loads(connection.getresponse().read())
    assert len(rows) == 50_000
    connection.request("GET", "/resource/ivft-vegh.json?$limit=1&$select=registre")
    assert json.loads(connection.getresponse().read()) != [{"registre": "S0000001"}]
