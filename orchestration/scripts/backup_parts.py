"""What backup and restore have in common: the database, the lake and the secrets of a stack, and how they are reached."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO
from urllib.parse import parse_qs, unquote, urlsplit

ROOT = Path(__file__).resolve().parents[2]
ORCHESTRATION = ROOT / "orchestration"
COMPOSE = ("docker", "compose", "--project-directory", str(ORCHESTRATION))
IN_CONTAINER = "/var/lib/catalunya-backup"
DUMP, SECRETS, ENCRYPTED, RECORD, SUMS = (
    "metadata.dump", "secrets.tar", "secrets.tar.enc", "backup.json", "SHA256SUMS",
)  # fmt: skip
CIPHER = ("openssl", "enc", "-aes-256-cbc", "-pbkdf2", "-iter", "600000")


class BackupError(Exception):
    """What went wrong, where, and what to do."""


def say(text: str) -> None:
    """Print progress to standard error."""
    print(f"backup: {text}", file=sys.stderr)


def run(
    command: list[str],
    *,
    failed: str,
    env: Mapping[str, str] | None = None,
    stdin: IO[bytes] | None = None,
    stdout: IO[bytes] | int | None = None,
) -> bytes:
    """Run a command; raises `BackupError` with `failed` and the end of what it said."""
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **(env or {})},
            stdin=stdin or subprocess.DEVNULL,
            stdout=stdout or subprocess.PIPE,
            stderr=subprocess.PIPE,
            check=False,
        )
    except FileNotFoundError:
        raise BackupError(f"{failed}: {command[0]} is not installed") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()[-6:]
        raise BackupError("\n  ".join([f"{failed} ({command[0]} ended with {done.returncode})", *said]))
    return done.stdout or b""


def compose(
    *words: str, failed: str, stdin: IO[bytes] | None = None, stdout: IO[bytes] | None = None
) -> bytes:
    """Run `docker compose`."""
    return run([*COMPOSE, *words], failed=failed, stdin=stdin, stdout=stdout)


def in_containers() -> bool:
    """Return whether a stack of Compose runs here."""
    if shutil.which("docker") is None:
        return False
    found = subprocess.run([*COMPOSE, "ps", "--quiet", "postgres"], capture_output=True, check=False)
    return found.returncode == 0 and bool(found.stdout.strip())


def connection(url: str) -> dict[str, str]:
    """Return libpq's variables of a database's address: a password on a command line would be seen by everybody."""
    parts = urlsplit(url)
    if not parts.scheme.startswith("postgres") or not parts.hostname or len(parts.path) < 2:
        raise BackupError("DATABASE_URL is not postgresql://user:password@host:port/database; correct it")
    found = {
        "PGHOST": parts.hostname,
        "PGPORT": str(parts.port or 5432),
        "PGDATABASE": unquote(parts.path[1:]),
        "PGUSER": unquote(parts.username or ""),
        "PGPASSWORD": unquote(parts.password or ""),
    }
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    found |= {f"PG{name.upper()}": options[name] for name in ("sslmode", "sslrootcert") if name in options}
    return {name: value for name, value in found.items() if value}


def database(
    tool: str, *words: str, failed: str, stdin: IO[bytes] | None = None, stdout: IO[bytes] | None = None
) -> bytes:
    """Run a tool of PostgreSQL on the metadata database: that of DATABASE_URL, else the one of the stack."""
    url = os.environ.get("DATABASE_URL")
    if url:
        return run([tool, *words], failed=failed, env=connection(url), stdin=stdin, stdout=stdout)
    inside = ("exec", "--no-TTY", "postgres", tool, "--username", "airflow", "--dbname", "airflow", *words)
    return run([*COMPOSE, *inside], failed=failed, stdin=stdin, stdout=stdout)


def container(
    service: str,
    *words: str,
    failed: str,
    options: tuple[str, ...] = (),
    stdin: IO[bytes] | None = None,
    stdout: IO[bytes] | None = None,
) -> bytes:
    """Run a command in a new container of a service, with its volumes."""
    return compose(
        "run",
        "--rm",
        "--no-deps",
        "--no-TTY",
        *options,
        service,
        *words,
        failed=failed,
        stdin=stdin,
        stdout=stdout,
    )


def copy_lake(backup: str, *, back: bool, containers: bool) -> None:
    """Copy the lake to its backup, or `back`; only what differs is copied."""
    failed = f"the lake could not be copied {'from' if back else 'to'} {backup}"
    own = "$CATALUNYA_LAKE" if containers else os.environ.get("CATALUNYA_LAKE", str(ROOT / "data"))
    is_folder = "://" not in backup
    if is_folder:
        folder = Path(backup)
        folder.mkdir(parents=True, exist_ok=True)
        if containers:
            # The user of the containers writes there; the folder above is open to nobody else.
            with_rights(folder)
    there = IN_CONTAINER if containers and is_folder else backup
    source, target = (there, own) if back else (own, there)
    if not containers:
        run([str(ROOT / ".venv/bin/catalunya"), "lake", "copy", source, target], failed=failed)
        return
    mount = (
        "--volume",
        f"{Path(backup).resolve()}:{IN_CONTAINER}:rw{',z' if os.environ.get('CATALUNYA_SELINUX') else ''}",
    )
    command = f'exec catalunya lake copy "{source}" "{target}"'
    container("airflow-scheduler", "sh", "-c", command, failed=failed, options=mount if is_folder else ())


def with_rights(folder: Path) -> None:
    """Let the user of the containers write into a folder, and into what a restore or another machine left in it."""
    for path in (folder, folder / ".lake"):
        if path.exists() and path.stat().st_uid == os.geteuid():
            path.chmod(0o777)
    if (folder / ".lake").exists() and (folder / ".lake").stat().st_uid == os.geteuid():
        shutil.rmtree(folder / ".lake")


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
