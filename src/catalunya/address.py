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


_HOST = re.compile(
    r"(?=.{1,253}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?|\[[0-9a-f:.]+(%[\w.~-]+)?\]", re.IGNORECASE
)


def require_web_address(url: str) -> None:
    """Raise `ValueError` that says why no request can be sent to `url`; the text does not name it: it may be a secret."""
    # Here, because the settings, which every command reads, rarely need it.
    from urllib3.exceptions import LocationParseError
    from urllib3.util import parse_url

    if not url.isprintable() or " " in url or "\\" in url:
        raise ValueError("it has a space, a backslash or an invisible character")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("its host is no IPv6 address, which is what brackets are for") from None
    try:
        is_port = parts.port != 0
    except ValueError:
        is_port = False
    if not is_port:
        raise ValueError("the port is not a number from 1 to 65535; in a password write / ? # as %2F %3F %23")
    if parts.scheme not in {"http", "https"}:
        raise ValueError("it does not begin with http:// or https://")
    try:
        host = parse_url(url).host or ""
    except LocationParseError:
        host = ""
    if not _HOST.fullmatch(host):
        raise ValueError("it has no valid host")


def base_url(url: str) -> str:
    """`url` without a slash at the end; raises `ValueError` when paths cannot be added to it."""
    require_web_address(url)
    if "?" in url or "#" in url:
        raise ValueError("it has a query or a fragment; addresses are made by adding a path to it")
    return url.rstrip("/")


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
