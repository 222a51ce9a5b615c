"""The connections of a database and a queue outside of the stack, from the URLs by which hosts name them.

    connections.py FOLDER        # writes the files that airflow.cfg reads, from DATABASE_URL and REDIS_URL
    connections.py address URL   # prints host and port, for a wait

Dokku, Heroku and others link services by such a URL. Parameters of TLS and all others are kept; nothing of a password is
printed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

POSTGRES = {"postgres", "postgresql"}
REDIS = {"redis", "rediss"}
_PORTS = {"postgres": 5432, "redis": 6379}
_CERT_REQS = {"none": "CERT_NONE", "optional": "CERT_OPTIONAL", "required": "CERT_REQUIRED"}


class WrongUrl(Exception):
    """A URL cannot be used; the message names its variable and what to do, and nothing that it holds."""


def from_database(url: str) -> dict[str, str]:
    """Return the connections of Airflow and of Celery's results to the database, by the names of their files.

    Airflow's asynchronous engine gets psycopg, which takes the same parameters as libpq; asyncpg knows no `sslmode`.
    """
    parts = _parse(
        "DATABASE_URL", url, POSTGRES, "postgres://user:password@host:5432/database?sslmode=require"
    )
    if not parts.path.strip("/"):
        raise WrongUrl("set DATABASE_URL to a URL that ends with the name of a database: /NAME")
    rest = urlunsplit(parts._replace(scheme=""))
    return {
        "sql_alchemy_conn": f"postgresql+psycopg2:{rest}",
        "sql_alchemy_conn_async": f"postgresql+psycopg:{rest}",
        "result_backend": f"db+postgresql+psycopg2:{rest}",
    }


def from_redis(url: str) -> dict[str, str]:
    """Return the connection of Celery to its queue. Over TLS the certificate is verified, unless the URL says otherwise."""
    parts = _parse("REDIS_URL", url, REDIS, "redis://:password@host:6379/0 or rediss://…")
    query = parse_qsl(parts.query, keep_blank_values=True)
    if parts.scheme == "rediss":
        given = dict(query).get("ssl_cert_reqs", "required")
        query = [(name, value) for name, value in query if name != "ssl_cert_reqs"]
        query.append(("ssl_cert_reqs", _CERT_REQS.get(given, given)))
    path = parts.path if parts.path.strip("/") else "/0"
    return {
        "broker_url": urlunsplit(
            parts._replace(path=path, query=urlencode(query, quote_via=quote, safe="/:"))
        )
    }


def address(url: str) -> tuple[str, int]:
    """Return host and port of a URL of either kind."""
    parts = urlsplit(url)
    default = _PORTS["redis" if parts.scheme in REDIS else "postgres"]
    return parts.hostname or "", parts.port or default


def _parse(variable: str, url: str, schemes: set[str], example: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        is_right = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0 and not parts.fragment
    except ValueError:
        is_right = False
    if not is_right:
        raise WrongUrl(
            f"set {variable} to a URL such as {example}; in a password write / ? # @ [ ] as %2F %3F %23 %40 %5B %5D"
        )
    login, at, host = parts.netloc.rpartition("@")
    user, colon, password = login.partition(":")
    return parts._replace(netloc=f"{_encoded(user)}{colon}{_encoded(password)}{at}{host}")


def _encoded(text: str) -> str:
    """Percent-encode a part of a login, whether it is encoded already or not."""
    return quote(unquote(text), safe="")


def main(arguments: list[str]) -> int:
    """Write the files, or print an address; returns 1 when a URL cannot be used."""
    if arguments[0] == "address":
        print(*address(arguments[1]))
        return 0
    folder = Path(arguments[0])
    found: dict[str, str] = {}
    try:
        for variable, translate in (("DATABASE_URL", from_database), ("REDIS_URL", from_redis)):
            if url := os.environ.get(variable):
                found |= translate(url)
    except WrongUrl as error:
        print(f"entrypoint: {error}", file=sys.stderr)
        return 1
    for name, text in found.items():
        new = folder / f".{name}"
        new.unlink(missing_ok=True)
        new.touch(mode=0o600)
        new.write_text(text)
        new.chmod(0o400)
        new.replace(folder / name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
