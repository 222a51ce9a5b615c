from __future__ import annotations

from datetime import datetime
from types import SimpleNamespace

import httpx
import pytest

from catalunya.demo.errors import UnknownFault
from catalunya.demo.faults import middleware
from catalunya.demo.faults.switches import FAULTS, Faults
from catalunya.demo.server import RunningPortal, running, serve
from catalunya.listening import PortTaken

REGISTER = "/resource/ivft-vegh.json"
OTHER = "/resource/9aju-tpwc.json"
Client = httpx.Client


def rows_of(http: Client, path: str = REGISTER, size: int = 3_000) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = []
    while True:
        asked = {"$order": ":id", "$limit": size, "$offset": len(rows), "$select": ":*,*"}
        page = http.get(path, params=asked).raise_for_status().json()
        rows += page
        if len(page) < size:
            return rows


@pytest.mark.parametrize(("fault", "status"), [("http_429", 429), ("http_500", 500)])
def test_the_first_requests_are_refused_and_later_ones_answered(
    portal: RunningPortal, http: Client, fault: str, status: int
) -> None:
    portal.faults.add(f"{fault}=2")
    answers = [http.get(OTHER) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [status, status, 200]
    if status == 429:
        assert answers[0].headers["Retry-After"] == "1"


def test_a_fault_without_a_number_lasts(portal: RunningPortal, http: Client) -> None:
    portal.faults.add("http_500")
    assert {http.get(OTHER).status_code for _ in range(5)} == {500}
    portal.faults.clear()
    assert http.get(OTHER).status_code == 200


def test_a_fault_can_be_kept_to_one_dataset(portal: RunningPortal, http: Client) -> None:
    portal.faults.add("ivft-vegh:http_500")
    assert (http.get(REGISTER).status_code, http.get(OTHER).status_code) == (500, 200)
    assert http.get("/api/views/ivft-vegh.json").status_code == 500
    portal.faults.clear()
    portal.faults.add("population:http_500")
    assert (http.get(REGISTER).status_code, http.get("/taules/v2").status_code) == (200, 500)


@pytest.fixture
def delays(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the portal would have waited; it waits none of them."""
    asked: list[float] = []

    async def sleep(seconds: float) -> None:
        asked.append(seconds)

    monkeypatch.setattr(middleware, "asyncio", SimpleNamespace(sleep=sleep))
    return asked


@pytest.mark.parametrize(("fault", "seconds"), [("slow", 1.0), ("slow=0.3", 0.3)])
def test_slow_delays_each_response(
    portal: RunningPortal, http: Client, delays: list[float], fault: str, seconds: float
) -> None:
    portal.faults.add(fault)
    assert [http.get(OTHER).status_code for _ in range(2)] == [200, 200]
    assert delays == [seconds, seconds]


def test_drip_sends_small_parts_with_a_pause_after_each(
    portal: RunningPortal, http: Client, delays: list[float]
) -> None:
    whole = http.get(OTHER).content
    portal.faults.add("drip=0.01")
    assert http.get(OTHER, headers={"Accept-Encoding": "identity"}).content == whole
    assert delays == [0.01] * middleware.DRIP_PARTS


def test_throttling_spares_those_with_a_token(portal: RunningPortal, http: Client) -> None:
    portal.faults.add("throttled=2")
    assert {http.get(OTHER, headers={"X-App-Token": "any"}).status_code for _ in range(4)} == {200}
    assert [http.get(OTHER).status_code for _ in range(4)].count(429) == 2


def test_a_truncated_response_ends_before_its_length(portal: RunningPortal, http: Client) -> None:
    portal.faults.add("truncated=1")
    with pytest.raises(httpx.RemoteProtocolError):
        http.get(OTHER)
    assert http.get(OTHER).status_code == 200


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_cut_json_is_a_whole_response_that_cannot_be_parsed(
    portal: RunningPortal, http: Client, encoding: str
) -> None:
    portal.faults.add("cut_json=1")
    response = http.get(OTHER, headers={"Accept-Encoding": encoding})
    assert response.status_code == 200
    with pytest.raises(ValueError):
        response.json()
    assert http.get(OTHER).json()


def test_html_error_is_a_200_that_is_no_json(portal: RunningPortal, http: Client) -> None:
    portal.faults.add("html_error=1")
    response = http.get(REGISTER)
    assert response.status_code == 200 and response.headers["content-type"].startswith("text/html")


def test_down_closes_the_connection_without_an_answer(portal: RunningPortal, http: Client) -> None:
    portal.faults.add("down=1")
    with pytest.raises(httpx.TransportError):
        http.get(OTHER)
    assert http.get(OTHER).status_code == 200


def test_reordered_pages_overlap(portal: RunningPortal, http: Client) -> None:
    honest = rows_of(http)
    portal.faults.add("reordered")
    rows = rows_of(http)
    assert len(rows) == len(honest)
    assert len({row[":id"] for row in rows}) < len(rows)


def test_shifting_loses_a_row_and_shows_it_only_in_the_date(portal: RunningPortal, http: Client) -> None:
    honest = [row[":id"] for row in rows_of(http)]
    portal.faults.add("shifting")
    first = http.get("/api/views/ivft-vegh.json").json()["rowsUpdatedAt"]
    rows = rows_of(http)
    read = {row[":id"] for row in rows}
    assert len(rows) == len(honest)
    assert honest[3_000] not in read, "the row that slid over the edge of the first page"
    assert read - set(honest)
    assert http.get("/api/views/ivft-vegh.json").json()["rowsUpdatedAt"] > first


def fields(http: Client, dataset: str = "ivft-vegh") -> dict[str, str]:
    columns = http.get(f"/api/views/{dataset}.json").json()["columns"]
    return {column["fieldName"]: column["dataTypeName"] for column in columns}


def test_columns_come_go_and_change_type(portal: RunningPortal, http: Client) -> None:
    honest = fields(http)
    portal.faults.add("new_column")
    assert fields(http).keys() - honest.keys() == {"columna_nova"}
    assert all("columna_nova" in row for row in http.get(REGISTER).json())
    portal.faults.clear()
    portal.faults.add("missing_column=municipi")
    assert honest.keys() - fields(http).keys() == {"municipi"}
    assert not any("municipi" in row for row in http.get(REGISTER).json())
    assert http.get(REGISTER, params={"municipi": "Vic"}).status_code == 400
    portal.faults.clear()
    portal.faults.add("yavr-pn8q:retyped_column=total")
    assert (honest, fields(http, "yavr-pn8q")["total"]) == (fields(http), "text")
    assert {row["total"] for row in http.get("/resource/yavr-pn8q.json").json()} == {"sí"}


def test_duplicate_rows_are_the_same_each_time_and_counted(portal: RunningPortal, http: Client) -> None:
    honest = rows_of(http)
    portal.faults.add("doubled_rows")
    once, again = rows_of(http), rows_of(http)
    assert once == again
    assert len(once) - len(honest) == 111
    assert len({row[":id"] for row in once}) == len(once)
    assert http.get(REGISTER, params={"$select": "count(*)"}).json() == [{"count": str(len(once))}]


def test_bad_rows_break_the_definition_in_some_rows_only(portal: RunningPortal, http: Client) -> None:
    portal.faults.add("bad_rows")
    bad = [row for row in rows_of(http) if row.get("capacitat") == "n/d"]
    assert 20 < len(bad) < 30


@pytest.mark.parametrize(
    "spec", ["htpp_500", "nowhere:slow", "slow=soon", "http_500=-1", "html_error=x", "reordered=3"]
)
def test_an_unknown_fault_is_refused_and_the_known_ones_are_named(spec: str) -> None:
    with pytest.raises(UnknownFault, match=r"known are|takes"):
        Faults.parse([spec])
    assert issubclass(UnknownFault, ValueError)


def test_every_fault_can_be_given_by_name() -> None:
    assert [fault.name for fault in Faults.parse(FAULTS).active] == list(FAULTS)
    assert Faults.parse(["social_services:http_500=2"]).active[0].dataset == "ivft-vegh"


def test_a_port_in_use_is_named(portal: RunningPortal) -> None:
    port = int(portal.url.rpartition(":")[2])
    with pytest.raises(PortTaken, match=str(port)):
        serve(port=port, on_listening=print)
    with pytest.raises(PortTaken), running(port=port):
        pass


def test_a_portal_that_was_stopped_is_gone() -> None:
    with running() as portal:
        assert datetime.fromisoformat(httpx.get(f"{portal.url}/health").json()["day"])
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{portal.url}/health")
