"""Web addresses: which are this machine's, and how they are shown without the password that they may hold."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

_LOGIN = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*://)[^\s/?#]*@")


class Login(NamedTuple):
    """User and password of a web address, decoded."""

    user: str
    password: str


def redacted(text: object) -> str:
    """`text` with the user and password of every web address in it replaced by `***`."""
    return _LOGIN.sub(r"\1***@", str(text))


def split_login(url: str) -> tuple[str, Login | None]:
    """`url` without user and password, and the two; None when it names no user."""
    parts = urlsplit(url)
    named, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, None
    user, _, password = named.partition(":")
    return urlunsplit(parts._replace(netloc=host)), Login(unquote(user), unquote(password))


def is_loopback(host: str) -> bool:
    """True when `host`, a name or an address without a port, is this machine."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def is_loopback_url(url: str) -> bool:
    """True when the host of `url` is this machine."""
    return is_loopback(urlsplit(url).hostname or "")


def origin(url: str) -> str:
    """Scheme, host and port of `url`, without a slash at the end; raises `ValueError` when it is, or has, anything else."""
    wanted = "an origin such as https://data.example.cat: http or https, a host, no path, no query"
    try:
        parts = urlsplit(url)
        is_origin = (
            parts.scheme in {"http", "https"}
            and bool(parts.hostname)
            and parts.port != 0
            and re.fullmatch(r"[A-Za-z0-9.:\[\]-]+", parts.netloc)
            and url.rstrip("/") == f"{parts.scheme}://{parts.netloc}"
        )
    except ValueError:
        is_origin = False
    if not is_origin:
        raise ValueError(f"{redacted(url)!r} is not {wanted}")
    return url.rstrip("/")
