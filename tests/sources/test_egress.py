"""A portal cannot send the pipeline to a host that is not configured, nor to an address that is not public."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from catalunya.errors import SourceUnreadable
from catalunya.ingest import ingest
from catalunya.settings import Settings
from catalunya.sources import Http, egress
from catalunya.sources.egress import Egress
from catalunya.sources.responses import decode
from tests.factories import DEFINITIONS, NOW, local_lake
from tests.sources.portals import Reply, Server, settings

Serve = Callable[..., Server]


def redirecting(location: str) -> Callable[[Any], Reply]:
    return lambda request: Reply(b"", status=302, headers={"Location": location})


def get(http: Http, url: str) -> Any:
    return http.get(url, dataset="population", parse=decode).data


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("http://169.254.169.254/latest/meta-data/", "169.254.169.254 is not one of the hosts"),
        ("http://localhost:8080/api", "localhost is not one of the hosts"),
        ("http://[::1]:8080/", "::1 is not one of the hosts"),
        ("http://2130706433/", "2130706433 is not one of the hosts"),
        ("http://other.example/", "other.example is not one of the hosts"),
        ("//other.example/", "other.example is not one of the hosts"),
        ("file:///etc/passwd", "which is no web address"),
        ("gopher://127.0.0.1/", "which is no web address"),
        ("http://127.0.0.1:1/", "127.0.0.1 is an address that is this machine"),
    ],
)
def test_a_redirect_to_where_nothing_is_configured_is_refused_at_once(serve: Serve, location: str, said: str):
    server = serve(redirecting(location))
    with Http(attempts=3) as http, pytest.raises(SourceUnreadable) as caught:
        get(http, server.url)
    message = str(caught.value)
    assert caught.value.exit_code == 4
    assert said in message
    assert message.startswith("population: GET http://")
    assert len(server.requests) == 1, "no second request, and none is repeated"
    if "web address" not in said:
        assert "CATALUNYA_ALLOWED_HOSTS" in message


def test_a_redirect_to_another_service_of_this_machine_is_not_followed(serve: Serve):
    inner = serve(lambda request: Reply({"secret": 1}))
    server = serve(redirecting(f"{inner.url}/admin"))
    with (
        Http() as http,
        pytest.raises(SourceUnreadable, match=r"127\.0\.0\.1 is an address that is this machine"),
    ):
        get(http, server.url)
    assert not inner.requests


def test_portals_may_redirect_to_each_other_and_to_hosts_that_are_named(serve: Serve):
    other = serve(lambda request: Reply({"here": 1}))
    server = serve(redirecting(f"{other.url}/x"))
    with Http(egress=Egress.of([server.url, other.url])) as http:
        assert get(http, server.url) == {"here": 1}
    named = Egress.of(["https://portal.example"], more=["CDN.example"])
    named.check("https://cdn.example/file")
    with pytest.raises(egress.Refused, match=r"cdn2\.example is not one of the hosts"):
        named.check("https://cdn2.example/file")


def answer(monkeypatch: pytest.MonkeyPatch, *in_turn: str) -> list[str]:
    """Let `portal.example` have these addresses, one after the other; gives those that are left."""
    left, real = list(in_turn), socket.getaddrinfo

    def look_up(host: Any, port: Any, *args: Any, **more: Any) -> Any:
        if host != "portal.example":
            return real(host, port, *args, **more)
        found = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (found, port))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return left


def public(port: int) -> Egress:
    """As in a run on the public portals: nobody configured their addresses."""
    return Egress(frozenset({"portal.example"}), frozenset())


@pytest.mark.parametrize(
    "addresses",
    [("127.0.0.1",), ("10.0.0.5",), ("169.254.169.254",), ("93.184.215.14", "127.0.0.1")],
    ids=["this machine", "private", "link-local", "another at the second look-up"],
)
def test_the_name_of_a_public_portal_must_not_lead_to_an_inner_address(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, addresses: tuple[str, ...]
):
    server = serve(lambda request: Reply({"secret": 1}))
    port = int(server.url.rpartition(":")[2])
    answer(monkeypatch, *addresses)
    with Http(egress=public(port), attempts=3) as http, pytest.raises(SourceUnreadable) as caught:
        get(http, f"http://portal.example:{port}/x")
    assert f"portal.example is at {addresses[-1]}" in str(caught.value)
    assert not server.requests


def test_a_portal_that_its_owner_configured_may_be_on_this_machine(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
):
    server = serve(lambda request: Reply({"here": 1}))
    port = int(server.url.rpartition(":")[2])
    answer(monkeypatch, "127.0.0.1")
    with Http(egress=Egress.of([f"http://portal.example:{port}"])) as http:
        assert get(http, f"http://portal.example:{port}/x") == {"here": 1}


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("93.184.215.14", True), ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True), ("10.1.2.3", False),
        ("172.16.0.1", False), ("192.168.0.1", False), ("100.64.0.1", False), ("0.0.0.0", False), ("224.0.0.1", False),
        ("::1", False), ("fe80::1", False), ("fd00::1", False), ("::ffff:127.0.0.1", False), ("2002:7f00:1::", False),
        ("64:ff9b::7f00:1", False), ("64:ff9b::5db8:d70e", True), ("240.0.0.1", False),
    ],
)  # fmt: skip
def test_only_public_addresses_are_public(host: str, allowed: bool):
    if allowed:
        egress.require_public(host, 443)
        return
    with pytest.raises(egress.Refused, match="no request was sent"):
        egress.require_public(host, 443)


def test_a_whole_reading_ends_unreadable_and_the_other_sources_go_on(serve: Serve, tmp_path: Path):
    inner = serve(lambda request: Reply({"secret": 1}))
    server = serve(redirecting(f"{inner.url}/"))
    for name in ("social_services", "population", "boundaries"):
        lake = local_lake(tmp_path / name)
        found = ingest(lake, DEFINITIONS[name], settings(server.url), run_id="r", now=NOW)
        assert found.outcome == "unreadable"
        assert "an address that is this machine" in found.message
    assert not inner.requests


def test_hosts_are_read_from_the_variable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CATALUNYA_ALLOWED_HOSTS", "a.example, b.example")
    assert Settings.load().allowed_hosts == ("a.example", "b.example")
