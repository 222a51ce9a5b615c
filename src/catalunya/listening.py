"""Sockets of the servers: bound before their address is announced."""

from __future__ import annotations

import socket

from catalunya.errors import UsageError


class PortTaken(UsageError):
    """A server cannot listen where it should: another process does, or the address is none of this machine's."""


def listen(host: str, port: int, server: str) -> socket.socket:
    """Return a socket that listens, port 0 on any free one; raises `PortTaken` that names the `server` and the address."""
    where = url_address(host, port)
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=128)
    except (OSError, UnicodeError, OverflowError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).partition(" (while")[0]
        raise PortTaken(
            f"{server} cannot listen on {where} ({reason}); stop what uses the port, or give another --port or --host"
        ) from error


def address_of(listening: socket.socket, host: str) -> str:
    """Return the host and port of a socket as they are in a URL; `host` is what was asked for."""
    return url_address(host, listening.getsockname()[1])


def url_address(host: str, port: int) -> str:
    """Return host and port as they are in a URL: an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
