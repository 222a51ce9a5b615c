from __future__ import annotations

import gzip
import hashlib
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from catalunya.errors import SourceUnreadable
from catalunya.sources import Http
from catalunya.sources.http import InvalidResponse, _RateLimiter, portal_message

from .conftest import Answering, Reply, Server

Serve = Callable[[Answering], Server]
InTurn = Callable[..., Answering]


def ask(http: Http, url: str, expect: type = dict, **more: object) -> object:
    return http.json(url, dataset="population", expect=expect, **more).data  # type: ignore[arg-type]


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
def test_an_answer_that_may_pass_is_asked_for_again(
    serve: Serve, in_turn: InTurn, http: Http, fault: Reply
) -> None:
    server = serve(in_turn(fault, Reply({"good": 1})))
    assert ask(http, server.url) == {"good": 1}
    assert len(server.asked) == http.requests == 2


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        (Reply(b"<html>", status=200), "a page of HTML"),
        (Reply(b'{"a": 1'), "cut off or broken"),
        (Reply(b""), "an empty body"),
        (Reply({"message": "Not today", "error": True}), "a JSON object where a JSON list is due: Not today"),
        (Reply({"message": "overloaded"}, status=503), "status 503, overloaded"),
        (Reply([1], cut=2), "cut off 2 bytes before its end"),
    ],
)
def test_a_fault_that_stays_is_named_with_address_and_tries(
    serve: Serve, in_turn: InTurn, http: Http, fault: Reply, found: str
) -> None:
    server = serve(in_turn(fault))
    with pytest.raises(SourceUnreadable) as caught:
        ask(http, server.url + "/rows.json", list)
    message = str(caught.value)
    assert found in message
    assert "population: GET " + server.url + "/rows.json" in message
    assert "tried 5 times" in message
    assert len(server.asked) == 5


def test_a_retry_waits_as_long_as_the_portal_asks(serve: Serve, in_turn: InTurn, http: Http) -> None:
    server = serve(in_turn(Reply(b"", status=429, headers={"Retry-After": "1"}), Reply({})))
    began = time.monotonic()
    ask(http, server.url)
    assert 0.95 < time.monotonic() - began < 2


def test_a_retry_waits_until_the_date_the_portal_gives(serve: Serve, in_turn: InTurn, http: Http) -> None:
    moment = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    server = serve(in_turn(Reply(b"", status=503, headers={"Retry-After": moment}), Reply({})))
    began = time.monotonic()
    ask(http, server.url)
    assert 0.8 < time.monotonic() - began < 3


def test_a_portal_that_asks_for_more_than_two_minutes_is_left_at_once(
    serve: Serve, in_turn: InTurn, http: Http
) -> None:
    server = serve(in_turn(Reply(b"", status=429, headers={"Retry-After": "3600"})))
    with pytest.raises(SourceUnreadable, match=r"3600 s, more than the 120 s.*Run again later"):
        ask(http, server.url)
    assert len(server.asked) == 1


def test_a_request_that_is_refused_is_not_repeated(serve: Serve, in_turn: InTurn, http: Http) -> None:
    server = serve(in_turn(Reply({"message": "No such column", "code": "query.no-column"}, status=400)))
    with pytest.raises(SourceUnreadable, match=r"status 400, No such column \(query.no-column\)"):
        ask(http, server.url)
    assert len(server.asked) == 1


@pytest.mark.parametrize("drip_headers", [False, True], ids=["body", "headers"])
def test_a_response_that_drips_is_cut_off_when_its_time_is_over(
    serve: Serve, in_turn: InTurn, drip_headers: bool
) -> None:
    server = serve(in_turn(Reply({"good": "x" * 500}, drip_s=0.02, drip_headers=drip_headers)))
    began = time.monotonic()
    with (
        Http(attempts=2, timeout_s=0.3, first_wait_s=0.002) as http,
        pytest.raises(SourceUnreadable, match=r"not complete after 0.3 s.*CATALUNYA_HTTP_TIMEOUT"),
    ):
        ask(http, server.url)
    assert time.monotonic() - began < 2


def test_a_dead_server_fails_within_seconds_and_says_where_to_look() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    began = time.monotonic()
    with Http() as http, pytest.raises(SourceUnreadable, match=f"no connection.*Check that {url}"):
        ask(http, url)
    assert time.monotonic() - began < 6


def test_a_redirect_to_another_host_does_not_carry_the_token(
    serve: Serve, in_turn: InTurn, http: Http
) -> None:
    other = serve(in_turn(Reply({"here": 1})))
    server = serve(in_turn(Reply(b"", status=302, headers={"Location": other.url + "/x"})))
    assert ask(http, server.url, headers={"X-App-Token": "secret"}) == {"here": 1}
    assert server.asked[0].headers["x-app-token"] == "secret"
    assert "x-app-token" not in other.asked[0].headers


def test_a_redirect_on_the_same_host_keeps_the_token(serve: Serve, in_turn: InTurn, http: Http) -> None:
    server = serve(in_turn(Reply(b"", status=301, headers={"Location": "/x"}), Reply({})))
    ask(http, server.url, headers={"X-App-Token": "secret"})
    assert [asked.headers["x-app-token"] for asked in server.asked] == ["secret", "secret"]


def test_redirects_that_go_in_a_circle_end(serve: Serve, in_turn: InTurn, http: Http) -> None:
    server = serve(in_turn(Reply(b"", status=302, headers={"Location": "/again"})))
    with pytest.raises(SourceUnreadable, match="more than 5 redirects"):
        ask(http, server.url)
    assert len(server.asked) == 6


def test_a_stored_file_is_what_was_sent_and_what_was_hashed(
    serve: Serve, in_turn: InTurn, http: Http, tmp_path: Path
) -> None:
    body = b"[" + b"1," * 700_000 + b"1]"
    server = serve(in_turn(Reply(body)))
    answer = http.store(server.url, tmp_path / "f", dataset="x")
    assert (tmp_path / "f").read_bytes() == body
    assert (answer.size, answer.sha256) == (len(body), hashlib.sha256(body).hexdigest())
    assert http.bytes == len(body)


def test_a_second_try_leaves_nothing_of_the_first_in_the_file(
    serve: Serve, in_turn: InTurn, http: Http, tmp_path: Path
) -> None:
    server = serve(in_turn(Reply(b"a" * 5000, cut=10), Reply(b"b")))
    answer = http.store(server.url, tmp_path / "f", dataset="x")
    assert (tmp_path / "f").read_bytes() == b"b"
    assert answer.sha256 == hashlib.sha256(b"b").hexdigest()


def test_a_compressed_body_is_stored_unpacked(
    serve: Serve, in_turn: InTurn, http: Http, tmp_path: Path
) -> None:
    packed = gzip.compress(b'{"good": 1}')
    server = serve(in_turn(Reply(packed, headers={"Content-Encoding": "gzip"})))
    answer = http.store(server.url, tmp_path / "f", dataset="x")
    assert (tmp_path / "f").read_bytes() == b'{"good": 1}'
    assert answer.sha256 == hashlib.sha256(b'{"good": 1}').hexdigest()


def test_a_304_to_a_request_without_condition_is_no_answer(
    serve: Serve, in_turn: InTurn, http: Http, tmp_path: Path
) -> None:
    server = serve(in_turn(Reply(status=304), Reply(b"x")))
    assert http.store(server.url, tmp_path / "f", dataset="x").size == 1


def test_a_body_that_its_reader_calls_unfit_is_asked_for_again(
    serve: Serve, in_turn: InTurn, http: Http
) -> None:
    def check(data: dict[str, int]) -> None:
        if data["version"] < 2:
            raise InvalidResponse("found version 1")

    server = serve(in_turn(Reply({"version": 1}), Reply({"version": 2})))
    assert ask(http, server.url, check=check) == {"version": 2}


def test_each_retry_is_one_event_in_the_log_and_none_shows_the_token(
    serve: Serve, in_turn: InTurn, http: Http
) -> None:
    server = serve(in_turn(Reply(b"", status=500), Reply(b"", status=502), Reply({})))
    with capture_logs() as events:
        ask(http, server.url, headers={"X-App-Token": "secret"})
    assert [event["retry_num"] for event in events] == [1, 2]
    assert "status 500" in events[0]["caused_by"]
    assert "population: GET" in events[0]["callable"]
    assert "secret" not in str(events)


def test_requests_say_who_asks(serve: Serve, in_turn: InTurn) -> None:
    server = serve(in_turn(Reply({})))
    with Http(contact="mailto:data@example.org") as http:
        ask(http, server.url)
    agent = server.asked[0].headers["user-agent"]
    assert agent.startswith("catalunya-data-pipeline/")
    assert agent.endswith("(+mailto:data@example.org)")


def test_remote_hosts_are_asked_at_a_polite_rate_and_this_machine_at_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("catalunya.sources.http.time.sleep", slept.append)
    monkeypatch.setattr("catalunya.sources.http.time.monotonic", lambda: 0.0)
    bucket = _RateLimiter(4.0, 8)
    for _ in range(50):
        bucket.take("127.0.0.1")
    assert slept == []
    for _ in range(10):
        bucket.take("api.idescat.cat")
    assert slept == [0.25, 0.5]


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("idescat_416_too_many_cells.json", "Nombre màxim de dades superat. (05)"),
        ("socrata_404_not_found.json", "Not found (not_found)"),
        ("socrata_400_malformed.json", "Could not parse SoQL query"),
        ("socrata_400_no_such_column.json", "No such column: definitely_not_a_field"),
    ],
)
def test_the_portals_own_words_are_found_in_their_real_error_bodies(
    shared: Path, file: str, said: str
) -> None:
    assert said in (portal_message((shared / "errors" / file).read_bytes()) or "")


def test_parameters_are_written_as_the_portals_document_them(
    serve: Serve, in_turn: InTurn, http: Http
) -> None:
    server = serve(in_turn(Reply({})))
    answer = http.json(
        server.url, dataset="x", expect=dict, params={"$select": "count(*)", "AGE": "TOTAL,Y", "q": "a b&c"}
    )
    assert answer.url.endswith("?$select=count(*)&AGE=TOTAL,Y&q=a+b%26c")
    assert server.asked[0].query == {"$select": "count(*)", "AGE": "TOTAL,Y", "q": "a b&c"}
