"""Between the portal and the disk: headers, proxies, passwords, full disks, unexpected errors."""

from __future__ import annotations

import errno
import io
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from catalunya import ingest as ingesting
from catalunya.address import is_loopback, redacted, split_login
from catalunya.errors import SourceUnreadable, UsageError
from catalunya.ingest import ingest
from catalunya.lake import disk, snapshot
from catalunya.lake.snapshot import Refusal
from catalunya.settings import Settings
from catalunya.sources import Http
from catalunya.sources.responses import decode
from catalunya.sources.transport import proxy_of
from tests.factories import DEFINITIONS, NOW, local_lake
from tests.sources.portals import (
    FILES,
    Answering,
    Files,
    InTurn,
    Register,
    Reply,
    Request,
    Serve,
    Tables,
    fetch,
    settings,
)

ROWS = [{"registre": f"S{number:05d}", "nom": "Residència", "tipologia": "x"} for number in range(40)]
COLUMNS = ["registre", "nom", "tipologia", "inscripcio", "capacitat", "adreca", "municipi", "comarca", "cp"]
COLUMNS += ["telefon", "entitat_titular", "qualificacio", "nif", "districte"]


@contextmanager
def raw(answer: bytes) -> Iterator[str]:
    """A server that sends the same bytes to everyone and hangs up."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            self.wfile.write(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nX-Odd: \xff\xe9",
        b"HTTP/1.1 200 OK\r\nSet-Cookie: \xc5\xb5=\xc5\xb5",
    ],
)
def test_unusual_headers_are_accepted(head: bytes) -> None:
    with raw(head + b"\r\n\r\n" + b"{}") as url, Http(attempts=1) as http:
        for _ in range(2):
            assert http.get(url, dataset="population", parse=decode).data == {}


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\n" + b"\r\n".join(b"X-%d: 1" % n for n in range(200)),
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip",
        b"HTTP/1.1 302 Found\r\nLocation: \xff\xfe://",
        b"HTTP/1.1 302 Found\r\nLocation: mailto:nobody@example.org",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:99999/",
        b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd",
        b"HTTP/1.1 429 Slow\r\nRetry-After: Tue, 20 Jan 2026 08:00:00 +99999999",
        b"HTTP/1.1 429 Slow\r\nRetry-After: Mon, 01 Jan 0001 00:00:00 +2359",
        b"HTTP/1.1 503 Slow\r\nRetry-After: " + b"9" * 400,
        b"HTTP/1.1 999 Odd \xff",
        b"\x00\xff",
    ],
)
def test_invalid_headers_are_an_explained_error(head: bytes) -> None:
    with (
        raw(head + b"\r\n\r\n" + b"{}") as url,
        Http(attempts=2, first_wait_s=0.002) as http,
        pytest.raises(SourceUnreadable, match="population: GET http"),
    ):
        http.get(url, dataset="population", parse=decode)


def test_a_validator_that_no_request_can_carry_is_not_kept(serve: Serve, http: Http, tmp_path: Path) -> None:
    portal = Files()
    portal.tags = {"/comarques.json": '"caf\u00e9"', "/municipis.json": '"b"'}
    server = serve(portal)
    found = fetch(FILES, server.url, http, tmp_path, dataset="boundaries")
    assert found is not None
    assert [list(file) for file in found.validators["files"].values()] == [
        ["last_modified", "level"],
        ["etag", "last_modified", "level"],
    ]
    previous = {"files": {file.path: {"etag": '"\u0175"', "level": file.level} for file in FILES.files}}
    assert (
        fetch(FILES, server.url, http, tmp_path, dataset="boundaries", previous_validators=previous)
        is not None
    )


def test_a_write_that_takes_less_than_it_is_given_is_repeated(
    serve: Serve, in_turn: InTurn, http: Http, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Short(io.FileIO):
        def write(self, data: Any) -> int:
            return super().write(memoryview(data)[:1000])

    monkeypatch.setattr(Path, "open", lambda path, mode, buffering: Short(path, mode))
    body = b"[" + b"1," * 30_000 + b"1]"
    http.store(serve(in_turn(Reply(body))).url, tmp_path / "f", dataset="x", parse=lambda path: None)
    monkeypatch.undo()
    assert (tmp_path / "f").read_bytes() == body


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_reported_for_its_source_and_the_next_one_lands(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def full(*_: object) -> None:
        raise OSError(number, "No space left on device")

    lake = local_lake(tmp_path / "lake")
    with monkeypatch.context() as patch:
        patch.setattr(disk, "write_all", full)
        register = serve(Register(ROWS, COLUMNS))
        found = ingest(lake, DEFINITIONS["social_services"], settings(register.url), run_id="r", now=NOW)
    assert found.outcome == "unreadable"
    assert found.message.startswith("social_services: ")
    assert "free space or move CATALUNYA_LAKE" in found.message
    good = ingest(lake, DEFINITIONS["population"], settings(serve(Tables()).url), run_id="r", now=NOW)
    assert good.outcome == "new"


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("x"), RecursionError("y"), MemoryError("z"), KeyError("k")]
)
def test_an_unexpected_error_is_the_outcome_of_its_source_and_logged_with_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(ingesting.sources, "fetch", broken)
    with capture_logs() as events:
        found = ingest(
            local_lake(tmp_path / "lake"),
            DEFINITIONS["population"],
            settings("http://127.0.0.1:1"),
            run_id="r",
            now=NOW,
        )
    assert found.outcome == "unreadable"
    assert found.message == (
        f"population: unexpected error {type(error).__name__}: {error}; this is a defect: please report it"
    )
    assert any(event.get("exc_info") for event in events)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), UsageError("x")])
def test_an_error_that_ends_the_run_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(ingesting.sources, "fetch", broken)
    with pytest.raises(type(error)):
        ingest(
            local_lake(tmp_path / "lake"),
            DEFINITIONS["population"],
            settings("http://127.0.0.1:1"),
            run_id="r",
            now=NOW,
        )


def test_a_snapshot_that_could_not_be_decoded_is_read_again_though_the_portal_says_nothing_changed(
    serve: Serve, tmp_path: Path
) -> None:
    lake, dataset, url = local_lake(tmp_path / "lake"), DEFINITIONS["population"], serve(Tables()).url
    first = ingest(lake, dataset, settings(url), run_id="r", now=NOW)
    assert first.snapshot_id is not None
    before = ingest(lake, dataset, settings(url), run_id="r", now=NOW).requests
    refusal = Refusal(gate="unreadable", reason="x", figures={}, refused_at=NOW, run_id="r")
    snapshot.refuse(lake, dataset.id, first.snapshot_id, refusal)
    assert ingest(lake, dataset, settings(url), run_id="r", now=NOW).requests > before


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.9.1", "localhost", "LOCALHOST.", "a.localhost", "[::1]"]
)
def test_this_machine_is_never_requested_through_a_proxy(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    assert proxy_of(f"http://{host}/") is None


def test_an_address_without_brackets_is_this_machine() -> None:
    assert is_loopback("::1")
    assert is_loopback("::ffff:127.0.0.1")


@pytest.mark.parametrize("host", ["portal.example", "127.example.org", "localhost.example.org"])
def test_another_machine_is_requested_through_the_proxy(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    assert not is_loopback(host)
    assert proxy_of(f"http://{host}/") == "http://proxy.example:3128"


def test_a_portal_on_this_machine_is_read_though_a_proxy_is_set(
    serve: Serve, in_turn: InTurn, http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert http.get(serve(in_turn(Reply({}))).url, dataset="x", parse=decode).data == {}


@pytest.mark.parametrize(
    ("proxy", "said"),
    [
        ("http://boss:secret@127.0.0.1:1", r"the proxy http://\*\*\*@127\.0\.0\.1:1 cannot be used"),
        ("127.0.0.1:1", "the proxy 127.0.0.1:1 cannot be used"),
        ("socks5://boss:secret@127.0.0.1:1", "unsupported scheme socks5"),
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_refuses_is_named_without_its_password_and_with_a_hint(
    monkeypatch: pytest.MonkeyPatch, proxy: str, said: str, scheme: str
) -> None:
    monkeypatch.setenv(f"{scheme}_proxy", proxy)
    with Http(attempts=1) as http, pytest.raises(SourceUnreadable, match=said) as caught:
        http.get(f"{scheme}://portal.example/x", dataset="population", parse=decode)
    assert "HTTP_PROXY" in str(caught.value)
    assert "NO_PROXY" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_proxy_gets_the_user_and_password_of_its_address(
    serve: Serve, in_turn: InTurn, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = serve(in_turn(Reply({}, status=407), Reply({"good": 1})))
    monkeypatch.setenv("http_proxy", proxy.url.replace("//", "//boss:s%40cret@"))
    with Http(attempts=1) as http:
        with pytest.raises(
            SourceUnreadable, match=r"the proxy http://\*\*\*@.* refused: status 407.*NO_PROXY"
        ):
            http.get("http://portal.example/x", dataset="x", parse=decode)
        assert http.get("http://portal.example/x", dataset="x", parse=decode).data == {"good": 1}
    assert proxy.requests[0].headers["proxy-authorization"] == "Basic Ym9zczpzQGNyZXQ="


@pytest.mark.parametrize("login", ["reader:pa55word", "reader:p%40pa55word", "reader:p@pa55word", "pa55word"])
def test_a_password_in_a_base_url_opens_the_portal_and_is_kept_nowhere(
    serve: Serve, tmp_path: Path, login: str
) -> None:
    makers: dict[str, Any] = {"social_services": Register(ROWS, COLUMNS), "population": Tables()}
    for name, portal in makers.items():

        def guarded(request: Request, portal: Answering = portal) -> Reply:
            return portal(request) if "authorization" in request.headers else Reply({}, status=401)

        server = serve(guarded)
        url = server.url.replace("//", f"//{login}@")
        lake = local_lake(tmp_path / name)
        with capture_logs() as events:
            found = ingest(lake, DEFINITIONS[name], settings(url), run_id="r", now=NOW)
        assert found.outcome == "new", found.message
        manifest = snapshot.latest(lake, name)
        assert manifest is not None
        kept = [manifest.model_dump_json(), str(found), str(events)]
        assert not any("pa55word" in text for text in kept)
        server.answer = lambda request: Reply({}, status=500)
        with capture_logs() as events:
            failed = ingest(lake, DEFINITIONS[name], settings(url), run_id="r", now=NOW, force=True)
        assert "status 500" in failed.message
        assert "pa55word" not in f"{failed} {events}"


def test_a_password_in_a_redirect_is_not_shown(serve: Serve, in_turn: InTurn, http: Http) -> None:
    server = serve(in_turn(Reply(b"", status=302, headers={"Location": "ftp://boss:pa55word@host/"})))
    with pytest.raises(SourceUnreadable, match=r"redirected to ftp://\*\*\*@host/, which is no web address"):
        http.get(server.url, dataset="x", parse=decode)


@pytest.mark.parametrize(
    "value", ["ftp://reader:pa55@host", "http://reader:pa/55@host", "http://reader:pa55@", "reader:pa55@host"]
)
def test_a_base_url_that_is_wrong_is_refused_without_its_password(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("CATALUNYA_SOCRATA_URL", value)
    with pytest.raises(UsageError, match="CATALUNYA_SOCRATA_URL") as caught:
        Settings.load()
    assert "pa55" not in str(caught.value)
    assert "pa/55" not in str(caught.value)


def test_a_token_that_no_header_takes_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOCRATA_APP_TOKEN", "caf\u00e9")
    with pytest.raises(UsageError, match="SOCRATA_APP_TOKEN") as caught:
        Settings.load()
    assert "caf" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://reader:pw@host/a", "http://***@host/a"),
        ("a http://r:p@ss@h, https://t@h2/x@y", "a http://***@h, https://***@h2/x@y"),
        ("http://host/:@computed?a=b@c", "http://host/:@computed?a=b@c"),
        ("s3://bucket/key", "s3://bucket/key"),
    ],
)
def test_user_and_password_are_taken_out_of_every_address_in_a_text(text: str, shown: str) -> None:
    assert redacted(text) == shown


def test_user_and_password_are_decoded() -> None:
    assert split_login("https://a%20b:p%40s:s@h:1/x") == ("https://h:1/x", ("a b", "p@s:s"))
    assert split_login("https://h/x@y") == ("https://h/x@y", None)
