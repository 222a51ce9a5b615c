"""How fast and in how much memory rows are fetched: this project, sodapy and dlt from one local server.

    .venv/bin/python bench/fetch.py            # 1 and 5 million rows; 4 minutes
    .venv/bin/python bench/fetch.py --rows 200000 --without dlt

Each contender reads every row in a process of its own, in turn with the others; the fastest of its runs counts.
Time is that of reading, without imports; memory is the peak of the whole process. sodapy and dlt keep nothing; we
store, hash and check every page. Exits with 1 when a bound is broken.
"""

from __future__ import annotations

import argparse
import array
import atexit
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

MOST_MB = 150
LEAST_RATIO = 6.0
GROWTH_MB = 15
"""Between the smallest and the largest number of rows; pages in flight differ by rng."""
PAGE = 50_000
CONTENDERS = ("ours", "sodapy", "dlt")
RESOURCE = "ivft-vegh"
WORK = Path(__file__).parent / ".work"
FIELDS = [
    *("registre", "nom", "tipologia", "inscripcio", "capacitat", "adreca", "municipi", "districte"),
    *("cp", "comarca", "telefon", "entitat_titular", "qualificacio", "nif"),
]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 5_000_000])
    parser.add_argument("--runs", type=int, default=5, help="of each contender; the fastest counts")
    parser.add_argument("--without", nargs="*", default=[], choices=CONTENDERS[1:])
    options = parser.parse_args()
    results: list[dict[str, Any]] = []
    for count in options.rows:
        names = [n for n in CONTENDERS if n not in options.without] if count == options.rows[0] else ["ours"]
        taken: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        with serving(count) as url:
            for _ in range(options.runs):
                for name, runs in taken.items():
                    runs.append(measure(name, url, count))
        results += [fastest(runs) for runs in taken.values()]
    return report(results)


def fastest(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The fastest run, with the largest memory of any."""
    return {**min(runs, key=lambda run: run["seconds"]), "peak_mb": max(run["peak_mb"] for run in runs)}


def report(results: list[dict[str, Any]]) -> int:
    ours = [result for result in results if result["name"] == "ours"]
    print(f"{'':8} {'rows':>9} {'seconds':>8} {'rows/s':>9} {'CPU s':>6} {'peak MB':>8} {'ratio':>6}")
    broken = []
    for result in results:
        ratio = result["seconds"] / ours[0]["seconds"] * ours[0]["rows"] / result["rows"]
        print(
            f"{result['name']:8} {result['rows']:>9,} {result['seconds']:>8.2f} "
            f"{result['rows'] / result['seconds']:>9,.0f} {result['cpu_seconds']:>6.2f} "
            f"{result['peak_mb']:>8.0f} {ratio:>6.1f}"
        )
        if result["name"] == "ours":
            if result["peak_mb"] >= MOST_MB:
                broken.append(f"{result['rows']:,} rows took {result['peak_mb']:.0f} MB, bound {MOST_MB}")
        elif ratio < LEAST_RATIO:
            broken.append(f"only {ratio:.1f} times as fast as {result['name']}, bound {LEAST_RATIO}")
    growth = ours[-1]["peak_mb"] - ours[0]["peak_mb"]
    if growth > GROWTH_MB:
        broken.append(f"memory grew by {growth:.0f} MB, bound {GROWTH_MB}")
    for line in broken:
        print("broken:", line)
    return 1 if broken else 0


def measure(name: str, url: str, count: int) -> dict[str, Any]:
    command = [sys.executable]
    if name == "dlt":
        # An environment of its own: dlt is no dependency of this project.
        command = [
            shutil.which("uv") or str(Path(__file__).parents[1] / ".uv/bin/uv"),
            "run",
            "--isolated",
            "--no-project",
            "--python",
            sys.executable,
            "--with",
            "dlt>=1.5",
        ]
        command.append("python")
    done = subprocess.run(
        [*command, "-W", "ignore", __file__, "--contender", name, url, str(count)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "RUNTIME__DLTHUB_TELEMETRY": "false"},
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if result["rows"] != count:
        raise SystemExit(f"{name} read {result['rows']} of {count} rows")
    return result


def contender(name: str, url: str, count: int) -> None:
    """Runs in a process of its own; prints one line of JSON."""
    read = {"ours": ours, "sodapy": sodapy, "dlt": dlt}[name]()
    began, cpu = time.perf_counter(), time.process_time()
    rows = read(url, count)
    result = {
        "name": name,
        "rows": rows,
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(result))


def ours() -> Callable[[str, int], int]:
    from catalunya.sources import FetchRequest, Http, keys, socrata  # noqa: F401

    source: Any = SimpleNamespace(resource=RESOURCE)

    def read(url: str, _: int) -> int:
        # The pages are there to be kept: removing them is no part of reading.
        spool = tempfile.mkdtemp(dir=WORK)
        atexit.register(shutil.rmtree, spool)
        with Http() as http:
            fetched = socrata.fetch(
                FetchRequest(
                    source=source, base_url=url, http=http, spool=Path(spool), dataset="x", key=("registre",)
                )
            )
            assert fetched is not None
            return fetched.rows

    return read


def sodapy() -> Callable[[str, int], int]:
    from sodapy import Socrata  # type: ignore[import-untyped]

    def read(url: str, count: int) -> int:
        client = Socrata(urlsplit(url).netloc, None)
        client.uri_prefix = "http://"
        return sum(
            len(client.get(RESOURCE, limit=PAGE, offset=offset, order=":id"))
            for offset in range(0, count, PAGE)
        )

    return read


def dlt() -> Callable[[str, int], int]:
    from dlt.sources.rest_api import rest_api_source  # type: ignore[import-not-found]

    def read(url: str, count: int) -> int:
        paginator = {
            "type": "offset",
            "limit": PAGE,
            "limit_param": "$limit",
            "offset_param": "$offset",
            "total_path": None,
            "maximum_offset": count,
        }
        endpoint = {"path": f"resource/{RESOURCE}.json", "params": {"$order": ":id"}, "paginator": paginator}
        source = rest_api_source(
            {"client": {"base_url": url}, "resources": [{"name": "register", "endpoint": endpoint}]}
        )
        return sum(1 for _ in source.resources["register"])

    return read


@contextmanager
def serving(count: int) -> Iterator[str]:
    prepare(count)
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve", str(count)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
    finally:
        server.terminate()
        server.wait()


def prepare(count: int) -> Path:
    """Rows as the portal writes them, one after the other, and where each begins."""
    WORK.mkdir(exist_ok=True)
    data = WORK / f"{count}.rows"
    starts = data.with_suffix(".starts")
    if starts.exists():
        return data
    rng = random.Random(count)
    offsets = array.array("q", [0])
    with data.open("wb") as file:
        for number in range(count):
            row = (
                json.dumps(register_row(number, rng), ensure_ascii=False, separators=(",", ":")).encode()
                + b"\n,"
            )
            file.write(row)
            offsets.append(offsets[-1] + len(row))
    starts.write_bytes(offsets.tobytes())
    return data


def register_row(number: int, rng: random.Random) -> dict[str, str]:
    values = (
        f"S{number * 7919 % 10_000_019:08d}",
        f"Residència {number}",
        "Servei de centre de dia per a gent gran de caràcter temporal o permanent",
        f"20{rng.randrange(10, 26)}-0{rng.randrange(1, 10)}-1{rng.randrange(10)}",
        str(rng.randrange(200)),
        f"C. Major, {rng.randrange(300)}",
        "Prat de Llobregat, el",
        "Centre",
        "08820",
        "Baix Llobregat",
        "930000000",
        f"Fundació {rng.randrange(4000)}",
        "Entitat privada d'iniciativa social",
        "G00000000",
    )
    return dict(zip(FIELDS, values, strict=True))


def serve(count: int) -> None:
    """A Socrata portal over the prepared rows, by sendfile: the server must not be what is measured."""
    data = prepare(count)
    starts = array.array("q")
    starts.frombytes(data.with_suffix(".starts").read_bytes())
    columns = [{"fieldName": name, "dataTypeName": "text"} for name in FIELDS]
    metadata = json.dumps({"id": RESOURCE, "rowsUpdatedAt": 1_700_000_000, "columns": columns}).encode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = dict(parse_qsl(parts.query))
            if parts.path.startswith("/api/views/"):
                return self.say(metadata)
            if "count" in query.get("$select", ""):
                return self.say(json.dumps([{"count": str(count)}]).encode())
            first = min(int(query.get("$offset", 0)), count)
            last = min(first + int(query.get("$limit", 1000)), count)
            if first == last:
                return self.say(b"[]\n")
            begin, end = starts[first], starts[last] - 1
            self.head(end - begin + 2)
            self.wfile.write(b"[")
            with data.open("rb") as file:
                while begin < end:
                    begin += os.sendfile(self.connection.fileno(), file.fileno(), begin, end - begin)
            self.wfile.write(b"]")
            return None

        def say(self, body: bytes) -> None:
            self.head(len(body))
            self.wfile.write(body)

        def head(self, size: int) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json;charset=utf-8")
            self.send_header("Content-Length", str(size))
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--serve", count]:
            serve(int(count))
        case ["--contender", name, url, count]:
            contender(name, url, int(count))
        case _:
            raise SystemExit(main())
