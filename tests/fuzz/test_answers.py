"""Invalid answers of every kind, through ingest and stage as in a run: none ends in an unexplained error."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from catalunya import stage
from catalunya.datasets.model import Dataset
from catalunya.errors import Refused
from catalunya.ingest import ingest
from catalunya.lake import snapshot
from catalunya.lake.opening import open_lake
from catalunya.lake.staged import Staged, staged_record
from catalunya.lake.storage import Storage
from catalunya.settings import PORTAL_VARIABLES, Settings
from catalunya.sources import Http, base
from tests.factories import DEFINITIONS
from tests.fuzz.mutations import answer, mutated

SOURCES = ("socrata", "idescat", "download")
MUTATIONS = int(os.environ.get("CATALUNYA_FUZZ", "200"))
"""In all; they are shared out among the sources."""
PER_SOURCE = -(-MUTATIONS // len(SOURCES))
NOW = datetime(2026, 1, 5, tzinfo=UTC)


class Portal:
    """Good answers by path; `odd` takes the place of one of them."""

    def __init__(self) -> None:
        self.good: dict[str, bytes] = {}
        self.odd: dict[str, bytes] = {}
        self.day = 0

    def reply(self, target: str) -> bytes:
        path = urlsplit(target).path
        if path.startswith("/resource/"):
            path += "?count" if "count" in target else ""
        if path in self.odd:
            return self.odd[path]
        if path not in self.good:
            return answer(b"{}", status=b"HTTP/1.1 404 Not Found")
        return answer(self.good[path].replace(b'"@day"', b"%d" % (1_700_000_000 + self.day)))


@contextmanager
def serving(portal: Portal) -> Iterator[str]:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            target = self.rfile.readline().split(b" ")[1].decode("latin-1")
            while self.rfile.readline().strip():
                pass
            try:
                self.wfile.write(portal.reply(target))
            except OSError:
                return

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def socrata_portal(shared: Path) -> tuple[Dataset, dict[str, bytes]]:
    """A real page, under a definition of its own."""
    page = (shared / "pages" / "623z-r97q.json").read_bytes()
    rows: list[dict[str, str]] = json.loads(page)
    names = list(rows[0])
    definition = DEFINITIONS["social_services"].model_dump(mode="json")
    columns: list[dict[str, Any]] = [
        {"name": name, "source": name, "type": "date" if name == "data" else "integer", "description": name}
        for name in names
    ]
    columns[0]["constraints"] = {"required": True}
    definition |= {"columns": columns, "key": [names[0]], "ignored": [], "expectations": [], "figures": {}}
    definition["source"]["resource"] = "623z-r97q"
    described = [{"fieldName": name, "dataTypeName": "text"} for name in names]
    return Dataset.model_validate(definition), {
        "/api/views/623z-r97q.json": json.dumps(
            {"id": "623z-r97q", "rowsUpdatedAt": "@day", "columns": described}
        ).encode(),
        "/resource/623z-r97q.json?count": json.dumps([{"count": str(len(rows))}]).encode(),
        "/resource/623z-r97q.json": page,
    }


def idescat_portal(shared: Path) -> tuple[Dataset, dict[str, bytes]]:
    """JSON-stat of some municipalities with their real codes, names and people."""
    with (shared / "population" / "b4rr-d25b_2019.csv").open(encoding="utf-8") as file:
        lines = [line for line in csv.reader(file) if line[0].isdigit()][:30]
    names = {line[0].zfill(6): line[1] for line in lines} | {"TOTAL": "Catalunya"}
    labels = {
        "YEAR": {"2018": "2018", "2019": "2019"},
        "MUN": names,
        "SEX": {"TOTAL": "Total"},
        "AGE": {"TOTAL": "Total", "Y_GE065": "65 i més"},
    }
    table = {
        "version": "2.0",
        "class": "dataset",
        "updated": "2026-01-01",
        "id": list(labels),
        "size": [len(one) for one in labels.values()],
        "dimension": {name: {"category": {"index": list(one), "label": one}} for name, one in labels.items()},
    }
    values = [
        1000 + 10 * place + age
        for _ in labels["YEAR"]
        for place in range(len(names))
        for age in range(len(labels["AGE"]))
    ]
    address = "/taules/v2/censph/540/19948/mun"
    return DEFINITIONS["population"], {
        address: json.dumps({**table, "extension": "@day"}).encode(),
        f"{address}/data": json.dumps({**table, "value": values, "extension": "@day"}).encode(),
    }


def download_portal(shared: Path) -> tuple[Dataset, dict[str, bytes]]:
    """Some features of the real borders."""
    good = {}
    dataset = DEFINITIONS["boundaries"]
    assert dataset.source.protocol == "download"
    for file, name in zip(dataset.source.files, ("comarques", "municipis"), strict=True):
        tree = json.loads((shared / "boundaries" / f"{name}_500000_2026-01.geojson").read_bytes())
        tree["features"] = sorted(tree["features"], key=lambda feature: len(str(feature)))[:6]
        good[file.path] = json.dumps({**tree, "extension": "@day"}, ensure_ascii=False).encode()
    return dataset, good


MAKERS = {"socrata": socrata_portal, "idescat": idescat_portal, "download": download_portal}


def stage_explained(lake: Storage, dataset: Dataset, now: datetime) -> list[Staged]:
    """What could be staged; a snapshot that cannot be is refused."""
    try:
        return stage.stage(lake, dataset, run_id="r", now=now)
    except Refused as refusal:
        assert refusal.snapshots.keys() == snapshot.refused(lake, dataset.id).keys()
        return []


def settings_for(url: str, *, timeout_s: float) -> Settings:
    values: dict[str, Any] = dict.fromkeys(PORTAL_VARIABLES, url)
    return Settings(**values, CATALUNYA_HTTP_ATTEMPTS=1, CATALUNYA_HTTP_TIMEOUT=timeout_s)


@pytest.fixture(autouse=True)
def without_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Http, "pause", lambda *_: None)
    monkeypatch.setattr(base, "TRIES", 1)


@pytest.mark.parametrize("source", SOURCES)
def test_no_odd_answer_ends_in_an_unexplained_error_and_the_good_one_after_it_is_staged(
    source: str, shared: Path, tmp_path: Path
) -> None:
    dataset, good = MAKERS[source](shared)
    portal = Portal()
    portal.good = good
    with serving(portal) as url:
        hasty, patient = settings_for(url, timeout_s=1), settings_for(url, timeout_s=60)
        for seed in range(PER_SOURCE):
            rng = random.Random(f"{source} {seed}")
            path = rng.choice(list(good))
            kind, odd = mutated(rng, good[path].replace(b'"@day"', b"1700000000"))
            said = f"seed {seed}: {kind} of {path}"
            lake = open_lake(str(tmp_path / "lake"))
            try:
                portal.odd, portal.day = {path: odd}, 0
                found = ingest(lake, dataset, hasty, run_id="r", now=NOW)
                assert found.outcome in {"new", "unreadable", "drifted"}, said
                assert "unexpected error" not in found.message, f"{said}: {found.message}"
                assert found.message or found.outcome == "new", said
                for staged in stage_explained(lake, dataset, NOW) if found.outcome == "new" else ():
                    counted = staged.rows_staged + staged.rows_quarantined + staged.rows_duplicated
                    assert counted == staged.rows_in, said
                if found.outcome != "new" and seed % 5:
                    # Nothing landed, so that the lake is as it was; the good answer is tried after some of these.
                    continue
                portal.odd, portal.day = {}, 1
                later = NOW + timedelta(days=1)
                second = ingest(lake, dataset, patient, run_id="r", now=later)
                assert second.outcome in {"new", "unchanged"}, f"{said}: {second.message}"
                last = snapshot.latest(lake, dataset.id)
                assert last is not None
                stage.stage(lake, dataset, run_id="r", now=later)
                record = staged_record(lake, dataset.id, last.snapshot_id)
                assert record is not None, said
                if second.outcome == "new":
                    assert (record.rows_quarantined, record.rows_duplicated) == (0, 0), said
            except Exception as error:
                raise AssertionError(f"{said}: {type(error).__name__}: {error}") from error
            finally:
                shutil.rmtree(tmp_path / "lake", ignore_errors=True)
