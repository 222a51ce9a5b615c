from __future__ import annotations

import gzip
import hashlib
import json
import socket
import subprocess
import sys
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from types import ModuleType

import pytest
from structlog.testing import capture_logs

from catalunya.errors import SourceUnreadable
from catalunya.sources import Http, Stop, responses, transport
from catalunya.sources import http as http_module
from catalunya.sources.egress import Egress
from catalunya.sources.http import Answer, redirect, user_agent
from catalunya.sources.rate_limit import rate_limiter
from catalunya.sources.responses import InvalidResponse, decode, portal_message
from tests.sources.portals import InTurn, Reply, Serve, Timers


def get(http: Http, url: str, kind: type = dict, headers: dict[str, str] | None = None) -> object:
    def parse(body: bytes) -> object:
        return decode(body, kind, f"a JSON {kind.__name__}")

    return http.get(url, dataset="population", parse=parse, headers=headers).data


def store(http: Http, url: str, path: Path) -> Answer:
    return http.store(url, path, dataset="population", parse=lambda stored: None)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses before retries, which take no time."""
    pauses: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", pauses.append)
    return pauses


@pytest.mark.parametrize(
    "fault",
    [
        Reply({"message": "slow down"}, status=429),
        Reply(b"oops", status=500),
        Reply(b"", status=503),
        Reply({"processing": True}, status=202),
        Reply({"good": "x" * 1000}, cut=400),
        Reply(b'{"good": [1, 2'),
        Reply(b"<!doctype html><title>Maintenance</title>", headers={"Content-Type": "text/html"}),
        Reply(b""),
        Reply([1, 2]),
    ],
    ids=["429", "500", "503", "202", "truncated", "cut JSON", "HTML", "empty", "a list for an object"],
)
def test_a_temporary_failure_is_retried(serve: Serve, in_turn: InTurn, http: Http, fault: Reply) -> None:
    server = serve(in_turn(fault, Reply({"good": 1})))
    assert get(http, server.url) == {"good": 1}
    assert len(server.requests) == http.requests == 2


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        (Reply(b"<html>", status=200), "a page of HTML"),
        (Reply(b'[{"a": 1'), "cut off or broken"),
        (Reply(b""), "an empty body"),
        (Reply({"message": "Not today", "error": True}), "found Not today, expected a JSON list"),
        (Reply({"message": "overloaded"}, status=503), "status 503, overloaded"),
        (Reply([1], cut=2), "cut off 2 bytes before its end"),
    ],
)
def test_a_fault_that_stays_is_named_with_address_and_tries(
    serve: Serve, in_turn: InTurn, http: Http, fault: Reply, found: str
) -> None:
    server = serve(in_turn(fault))
    with pytest.raises(SourceUnreadable) as caught:
        get(http, server.url + "/rows.json", list)
    message = str(caught.value)
    assert found in message
    assert "population: GET " + server.url + "/rows.json" in message
    assert "tried 5 times" in message
    assert len(server.requests) == 5


def test_a_retry_waits_as_long_as_the_portal_asks(
    serve: Serve, in_turn: InTurn, http: Http, slept: list[float]
) -> None:
    server = serve(in_turn(Reply(b"", status=429, headers={"Retry-After": "100"}), Reply({})))
    get(http, server.url)
    assert slept == [100.0]


def test_a_retry_waits_until_the_date_the_portal_gives(
    serve: Serve, in_turn: InTurn, http: Http, slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Clock:
            return cls(2026, 1, 20, 8, 0, 0, tzinfo=UTC)

    monkeypatch.setattr(responses, "datetime", Clock)
    moment = {"Retry-After": "Tue, 20 Jan 2026 08:01:40 GMT"}
    get(http, serve(in_turn(Reply(b"", status=503, headers=moment), Reply({}))).url)
    assert slept == [100.0]


def test_a_retry_after_of_more_than_two_minutes_is_not_waited_for(
    serve: Serve, in_turn: InTurn, http: Http
) -> None:
    server = serve(in_turn(Reply(b"", status=429, headers={"Retry-After": "3600"})))
    with pytest.raises(SourceUnreadable, match=r"3600 s, more than the 120 s.*Run again later"):
        get(http, server.url)
    assert len(server.requests) == 1


def test_a_request_that_is_refused_is_not_repeated(serve: Serve, in_turn: InTurn, http: Http) -> None:
    server = serve(in_turn(Reply({"message": "No such column", "code": "query.no-column"}, status=400)))
    with pytest.raises(SourceUnreadable, match=r"status 400, No such column \(query.no-column\)"):
        get(http, server.url)
    assert len(server.requests) == 1


@pytest.mark.parametrize("of_headers", [False, True], ids=["body", "headers"])
def test_a_response_is_cut_off_when_its_time_is_over(
    serve: Serve, in_turn: InTurn, timers: Timers, of_headers: bool
) -> None:
    reply = Reply({"good": "x" * 500}, midway=timers.expire, midway_of_headers=of_headers)
    server = serve(in_turn(reply))
    with (
        Http(attempts=2, timeout_s=30, first_wait_s=0.002) as http,
        pytest.raises(SourceUnreadable, match=r"not complete after 30 s.*CATALUNYA_HTTP_TIMEOUT"),
    ):
        get(http, server.url)
    assert len(server.requests) == 2


def test_a_response_whose_length_is_not_announced_is_cut_off_too(
    serve: Serve, in_turn: InTurn, timers: Timers
) -> None:
    reply = Reply({"good": "x" * 500}, midway=timers.expire, announced=False)
    with (
        Http(attempts=1, timeout_s=30) as http,
        pytest.raises(SourceUnreadable, match="not complete after 30 s"),
    ):
        get(http, serve(in_turn(reply)).url)


def test_a_dead_server_is_named_with_where_to_look(slept: list[float]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with Http() as http, pytest.raises(SourceUnreadable, match=f"no connection.*Check that {url}"):
            get(http, url)
    assert len(slept) == 4


def test_a_redirect_to_another_host_does_not_carry_the_token(serve: Serve, in_turn: InTurn) -> None:
    other = serve(in_turn(Reply({"here": 1})))
    server = serve(in_turn(Reply(b"", status=302, headers={"Location": other.url + "/x"})))
    with Http(egress=Egress.of([server.url, other.url])) as http:
        assert get(http, server.url, headers={"X-App-Token": "secret"}) == {"here": 1}
    assert server.requests[0].headers["x-app-token"] == "secret"
    assert "x-app-token" not in other.requests[0].headers


def test_a_redirect_on_the_same_host_keeps_the_token(serve: Serve, in_turn: InTurn, http: Http) -> None:
    server = serve(in_turn(Reply(b"", status=301, headers={"Location": "/x"}), Reply({})))
    get(http, server.url, headers={"X-App-Token": "secret"})
    assert [request.headers["x-app-token"] for request in server.requests] == ["secret", "secret"]


def redirected_headers(url: str, location: str) -> tuple[str, ...]:
    sent = {"X-App-Token": "secret", "Authorization": "Basic x", "Accept": "application/json"}
    return tuple(redirect(url, location, sent, "population")[1])


def test_a_redirect_to_https_on_the_same_host_keeps_the_password() -> None:
    assert redirected_headers("http://portal.example/a", "https://portal.example/b") == (
        "Authorization",
        "Accept",
    )


@pytest.mark.parametrize(
    "location", ["https://other.example/", "//other.example/", "http://portal.example:81/"]
)
def test_a_redirect_to_another_host_drops_every_secret(location: str) -> None:
    assert redirected_headers("http://portal.example/a", location) == ("Accept",)


def test_a_redirect_from_https_to_http_is_refused() -> None:
    with pytest.raises(SourceUnreadable, match=r"redirected from https to http://portal\.example/"):
        redirect("https://portal.example/", "http://portal.example/", {}, "population")


def test_redirects_that_go_in_a_circle_end(serve: Serve, in_turn: InTurn, http: Http) -> None:
    server = serve(in_turn(Reply(b"", status=302, headers={"Location": "/again"})))
    with pytest.raises(SourceUnreadable, match="more than 5 redirects"):
        get(http, server.url)
    assert len(server.requests) == 6


def test_a_stored_file_is_what_was_sent_and_what_was_hashed(
    serve: Serve, in_turn: InTurn, http: Http, tmp_path: Path
) -> None:
    body = b"[" + b"1," * 700_000 + b"1]"
    server = serve(in_turn(Reply(body)))
    answer = store(http, server.url, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == body
    assert (answer.size, answer.sha256) == (len(body), hashlib.sha256(body).hexdigest())
    assert http.bytes_received == len(body)


def test_a_second_try_leaves_nothing_of_the_first_in_the_file(
    serve: Serve, in_turn: InTurn, http: Http, tmp_path: Path
) -> None:
    server = serve(in_turn(Reply(b"a" * 5000, cut=10), Reply(b"b")))
    answer = store(http, server.url, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == b"b"
    assert answer.sha256 == hashlib.sha256(b"b").hexdigest()


def test_a_compressed_body_is_stored_unpacked(
    serve: Serve, in_turn: InTurn, http: Http, tmp_path: Path
) -> None:
    packed = gzip.compress(b'{"good": 1}')
    server = serve(in_turn(Reply(packed, headers={"Content-Encoding": "gzip"})))
    answer = store(http, server.url, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == b'{"good": 1}'
    assert answer.sha256 == hashlib.sha256(b'{"good": 1}').hexdigest()


def test_a_body_that_is_small_when_packed_and_huge_unpacked_is_refused_before_it_fills_the_disk(
    serve: Serve, in_turn: InTurn, http: Http, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_module, "_STORED_BYTES", 1 << 20)
    packed = gzip.compress(b" " * (64 << 20))
    server = serve(in_turn(Reply(packed, headers={"Content-Encoding": "gzip"}), Reply(b"x")))
    with pytest.raises(SourceUnreadable, match=r"population: GET .*larger than 1,048,576 bytes, unpacked"):
        store(http, server.url, tmp_path / "f")
    assert (tmp_path / "f").stat().st_size <= 1 << 20
    assert len(server.requests) == 1, "it is not tried again"


def test_a_304_to_a_request_without_condition_is_no_answer(
    serve: Serve, in_turn: InTurn, http: Http, tmp_path: Path
) -> None:
    server = serve(in_turn(Reply(status=304), Reply(b"x")))
    assert store(http, server.url, tmp_path / "f").size == 1


def test_a_body_that_its_parser_refuses_is_retried(serve: Serve, in_turn: InTurn, http: Http) -> None:
    def parse(body: bytes) -> bytes:
        if body == b"old":
            raise InvalidResponse("found an old version")
        return body

    server = serve(in_turn(Reply(b"old"), Reply(b"new")))
    assert http.get(server.url, dataset="population", parse=parse).data == b"new"


@pytest.mark.parametrize(("module", "size"), [(transport, "_CHUNK"), (http_module, "_DECODED_BYTES")])
def test_a_character_in_two_chunks_is_utf_8(
    module: ModuleType,
    size: str,
    serve: Serve,
    in_turn: InTurn,
    http: Http,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, size, 3)
    body = "aé·’€😀\u0080\u07ff".encode()
    store(http, serve(in_turn(Reply(body))).url, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == body


def test_each_retry_is_one_event_in_the_log_and_none_shows_the_token(
    serve: Serve, in_turn: InTurn, http: Http
) -> None:
    server = serve(in_turn(Reply(b"", status=500), Reply(b"", status=502), Reply({})))
    with capture_logs() as events:
        get(http, server.url, headers={"X-App-Token": "secret"})
    assert [(event["event"], event["retry"]) for event in events] == [
        ("retry scheduled", 1),
        ("retry scheduled", 2),
    ]
    assert "status 500" in events[0]["reason"]
    assert "population: GET" in events[0]["request"]
    assert "secret" not in str(events)


def test_requests_say_who_asks(serve: Serve, in_turn: InTurn, http: Http) -> None:
    server = serve(in_turn(Reply({}), Reply({})))
    get(http, server.url)
    agent = server.requests[0].headers["user-agent"]
    assert agent.startswith("catalunya-data-pipeline/")
    assert "(" not in agent, "an address that nobody set"
    with Http(project_url="https://example.org/care") as configured:
        get(configured, server.url)
    assert server.requests[1].headers["user-agent"] == f"{agent} (+https://example.org/care)"
    assert user_agent("https://example.org/care") == f"{agent} (+https://example.org/care)"


def test_the_request_rate_is_limited_for_remote_hosts_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("catalunya.sources.rate_limit.time.sleep", slept.append)
    monkeypatch.setattr("catalunya.sources.rate_limit.time.monotonic", lambda: 0.0)
    monkeypatch.setattr("catalunya.sources.rate_limit._limiters", {})
    for _ in range(50):
        rate_limiter("127.0.0.1").wait()
    assert slept == []
    for _ in range(10):
        rate_limiter("api.idescat.cat").wait()
    rate_limiter("datacloud.icgc.cat").wait()
    assert slept == [0.25, 0.5], "each portal has a limit of its own, which all sessions share"


def test_a_stopped_session_keeps_no_body_and_sends_no_request(
    serve: Serve, in_turn: InTurn, tmp_path: Path
) -> None:
    stopped = Stop()

    def stop(_: object) -> Reply:
        stopped.set()
        return Reply([1])

    server = serve(stop)
    with Http(stopped=stopped) as http:
        with pytest.raises(SourceUnreadable, match="was stopped"):
            store(http, server.url, tmp_path / "page")
        with pytest.raises(SourceUnreadable, match="was stopped"):
            get(http, server.url, list)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("idescat_416_too_many_cells.json", "Nombre màxim de dades superat. (05)"),
        ("socrata_404_not_found.json", "Not found (not_found)"),
        ("socrata_400_malformed.json", "Could not parse SoQL query"),
        ("socrata_400_no_such_column.json", "No such column: definitely_not_a_field"),
    ],
)
def test_messages_are_found_in_the_portals_real_error_bodies(shared: Path, file: str, said: str) -> None:
    assert said in (portal_message((shared / "errors" / file).read_bytes()) or "")


def test_parameters_are_written_as_the_portals_document_them(
    serve: Serve, in_turn: InTurn, http: Http
) -> None:
    server = serve(in_turn(Reply({})))
    answer = http.get(
        server.url, dataset="x", parse=decode, params={"$select": "count(*)", "AGE": "TOTAL,Y", "q": "a b&c"}
    )
    assert answer.url.endswith("?$select=count(*)&AGE=TOTAL,Y&q=a+b%26c")
    assert server.requests[0].query == {"$select": "count(*)", "AGE": "TOTAL,Y", "q": "a b&c"}


FIRST_DECODES = """
import sys, threading
import msgspec
from catalunya.sources.responses import decode

sys.setswitchinterval(1e-6)
for _ in range(300):
    inner = msgspec.defstruct("Inner", [(f"f{number}", int | str | None, None) for number in range(6)])
    outer = msgspec.defstruct("Outer", [("one", inner), ("many", list[inner]), ("name", str | None, None)])
    together = threading.Barrier(4)

    def read():
        together.wait()
        decode(b'{"one": {"f5": "x"}, "many": [{"f1": 2}]}', outer)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""


def test_threads_that_read_a_type_for_the_first_time_at_once_do_not_end_the_process():
    """As the sources of a run do; msgspec alone ends it with a segmentation fault."""
    done = subprocess.run([sys.executable, "-c", FIRST_DECODES], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_long_message_of_a_portal_is_shortened() -> None:
    for body in (
        {"class": "error", "label": "no " * 5000, "id": "5" * 5000},
        {"message": "no " * 5000, "code": "5" * 5000},
    ):
        message = portal_message(json.dumps(body).encode())
        assert message is not None
        assert message.startswith("no no")
        assert len(message) < 610


def test_interim_responses_are_passed_over(serve: Serve, http: Http) -> None:
    interim = b"HTTP/1.1 %d Interim\r\nLink: </style.css>; rel=icon\r\n\r\n"
    server = serve(lambda request: Reply({"good": 1}, interim=interim % 103 + interim % 100 + interim % 102))
    assert get(http, server.url) == get(http, server.url) == {"good": 1}
    assert len(server.requests) == 2
