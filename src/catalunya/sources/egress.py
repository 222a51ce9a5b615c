"""Which hosts the client of the portals may call: those that are configured, at public addresses.

A portal, or whoever answers in its place, must not be able to send the pipeline to a service of the machine or network that
it runs in, by a redirect or by its name's address. A portal that its owner configured may be at any address.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from urllib3.connection import port_by_scheme
from urllib3.util import parse_url

from catalunya import address
from catalunya.errors import SourceUnreadable

HINT = (
    "If the portal moved, set its base URL (CATALUNYA_SOCRATA_URL, CATALUNYA_IDESCAT_URL or CATALUNYA_ICGC_URL), or name "
    "the host in CATALUNYA_ALLOWED_HOSTS; otherwise ask the portal."
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class Refused(Exception):
    """A host that must not be called; the message says which and why."""


@contextmanager
def refusals(url: str, dataset: str) -> Iterator[None]:
    """Raise the refusal of a host as `SourceUnreadable` that names the request of a dataset."""
    try:
        yield
    except Refused as refusal:
        raise SourceUnreadable(f"{dataset}: GET {address.redacted(url)}: {refusal}. {HINT}") from None


@dataclass(frozen=True)
class Egress:
    """The hosts that may be called. Without any, only the origin that a request names itself."""

    hosts: frozenset[str] = frozenset()
    own: frozenset[tuple[str, int]] = frozenset()
    """Host and port of portals that their owner configured: they may be at addresses that are not public."""

    @classmethod
    def of(cls, urls: Iterable[str], public: Iterable[str] = (), more: Iterable[str] = ()) -> Egress:
        """Return what base URLs allow, and `more` hosts; those that are not `public` were set by their owner."""
        own: set[tuple[str, int]] = set()
        hosts = {host.lower() for host in more}
        known = set(public)
        for url in urls:
            hosts.add(_origin(url)[0])
            own |= set() if url in known else _origins(url)
        return cls(frozenset(hosts), frozenset(own))

    def including(self, url: str) -> Egress:
        """Return the same, or what allows `url` alone where nothing is configured."""
        return self if self.hosts else Egress.of([url])

    def check(self, url: str) -> None:
        """Raise `Refused` unless the host of `url` may be called; its name is not looked up."""
        host, port = _origin(url)
        if host not in self.hosts:
            raise Refused(
                f"{host} is not one of the hosts that may be called ({', '.join(sorted(self.hosts))})"
            )
        if not self.may_be_private(host, port):
            named = "127.0.0.1" if address.is_loopback(host) else host
            _require_public(host, named)

    def may_be_private(self, host: str, port: int) -> bool:
        """Return whether this may be at an address that is not public."""
        return (host.strip("[]").lower().rstrip("."), port) in self.own


def require_public(host: str, port: int) -> None:
    """Raise `Refused` when any address of a host is not public; a name that has none is left to the connection."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except OSError:
        return
    for entry in found:
        _require_public(host, str(entry[4][0]))


def require_public_peer(host: str, connected: socket.socket) -> None:
    """Raise `Refused` when a connection leads to an address that is not public: the name has another one by now."""
    _require_public(host, str(connected.getpeername()[0]))


def _require_public(host: str, text: str) -> None:
    try:
        found = ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        # A name; its addresses are checked when it is called.
        return
    inner = found
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or found
        if found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
    if inner.is_global and not inner.is_multicast:
        return
    kind = (
        "this machine" if inner.is_loopback else "a link-local one" if inner.is_link_local else "not public"
    )
    where = host if host.strip("[]") == text.strip("[]") else f"{host} is at {text}, which"
    raise Refused(f"{where} is an address that is {kind}; no request was sent to it")


def _origin(url: str) -> tuple[str, int]:
    parts = parse_url(url)
    port = parts.port or port_by_scheme.get(parts.scheme or "", 0)
    return (parts.host or "").strip("[]").lower().rstrip("."), port


def _origins(url: str) -> set[tuple[str, int]]:
    """The origin of an address, and that of its redirect from http to https."""
    host, port = _origin(url)
    return {(host, port), (host, 443)} if port == 80 else {(host, port)}
