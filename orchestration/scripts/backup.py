"""Backup and restore of everything that a machine holds: metadata database, lake, secrets (docs/backup.md).

    python -m orchestration.scripts.backup backup --to FOLDER [--keep 7]
    python -m orchestration.scripts.backup restore --from FOLDER/20261127T031500Z [--force]

`make backup` and `make restore` call it. It needs nothing but Python and, for a stack in containers, Docker; Compose's own
variables (COMPOSE_FILE, COMPOSE_ENV_FILES, COMPOSE_PROJECT_NAME) choose the stack. With DATABASE_URL the database is that
one, and with CATALUNYA_LAKE and without a stack the lake is copied by `.venv/bin/catalunya`.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
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
_NAME = re.compile(r"\d{8}T\d{6}Z")
_CIPHER = ("openssl", "enc", "-aes-256-cbc", "-pbkdf2", "-iter", "600000")


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


def env_files() -> list[Path]:
    """Return the files with the settings of the stack, which may hold secrets."""
    named = os.environ.get("COMPOSE_ENV_FILES", "")
    found = [Path(name) for name in named.split(",") if name] or [ORCHESTRATION / ".env"]
    return [path for path in found if path.is_file()]


def write_secrets(folder: Path, *, containers: bool) -> None:
    """Write the secrets of the stack and its files of settings as one archive: encrypted, or for this user only."""
    plain = folder / SECRETS
    work = folder / "secrets"
    work.mkdir(mode=0o700)
    if containers:
        (work / "volume.tar").touch(mode=0o600)
        with (work / "volume.tar").open("wb") as file:
            words = ("tar", "--create", "--directory", "/run/catalunya", ".")
            container("secrets-init", *words, failed="the secrets could not be read", stdout=file)
    for path in env_files():
        (work / "env").mkdir(exist_ok=True)
        shutil.copy(path, work / "env" / path.name)
    with tarfile.open(plain, "w") as archive:
        archive.add(work, arcname=".")
    plain.chmod(0o600)
    shutil.rmtree(work)
    passphrase = os.environ.get("BACKUP_PASSPHRASE_FILE")
    if not passphrase:
        say(
            f"the secrets are NOT encrypted, only this user may read {SECRETS}; BACKUP_PASSPHRASE_FILE=FILE encrypts them"
        )
        return
    command = [
        *_CIPHER,
        "-salt",
        "-pass",
        f"file:{passphrase}",
        "-in",
        str(plain),
        "-out",
        str(folder / ENCRYPTED),
    ]
    try:
        run(command, failed="the secrets could not be encrypted")
    finally:
        plain.unlink()
    (folder / ENCRYPTED).chmod(0o600)


@contextmanager
def alone(to: Path) -> Iterator[None]:
    """Make the folder of the backups, for this user only, and let one backup at a time work in it."""
    to.mkdir(mode=0o700, parents=True, exist_ok=True)
    to.chmod(0o700)
    with (to / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupError(f"another backup to {to} is going on; wait until it ends") from None
        yield


def backup(to: Path, keep: int, now: datetime) -> Path:
    """Make one backup and delete those beyond the newest `keep`; returns its folder."""
    with alone(to):
        made = _backup(to, now)
        for old in sorted(path for path in to.iterdir() if _NAME.fullmatch(path.name))[:-keep]:
            shutil.rmtree(old)
            say(f"deleted {old.name}: the newest {keep} are kept")
        return made


def _backup(to: Path, now: datetime) -> Path:
    """Make one backup; its folder has a name that begins with a dot until it is complete."""
    containers = in_containers()
    if not containers and not os.environ.get("DATABASE_URL"):
        raise BackupError(
            "no stack runs here and DATABASE_URL is not set: start the stack (`make up`), or set it"
        )
    for left in to.glob(".*Z"):
        shutil.rmtree(left)
    name = f"{now:%Y%m%dT%H%M%SZ}"
    folder = to / f".{name}"
    folder.mkdir(mode=0o700)
    say("metadata database")
    (folder / DUMP).touch(mode=0o600)
    with (folder / DUMP).open("wb") as file:
        database(
            "pg_dump", "--format", "custom", failed="the metadata database could not be dumped", stdout=file
        )
    say("secrets")
    write_secrets(folder, containers=containers)
    # Last, so that it has every release that the database knows of.
    lake = os.environ.get("BACKUP_LAKE") or str(to / "lake")
    say(f"lake, to {lake}")
    copy_lake(lake, back=False, containers=containers)
    record = {
        "made_at": f"{now:%Y-%m-%dT%H:%M:%SZ}",
        "environment": os.environ.get("ENVIRONMENT", "demo" if containers else "development"),
        "lake": os.environ.get("BACKUP_LAKE") or "../lake",
        "containers": containers,
    }
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n")
    sums = [f"{digest(path)}  {path.name}\n" for path in sorted(folder.iterdir())]
    (folder / SUMS).write_text("".join(sums))
    folder.rename(to / name)
    return to / name


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check(folder: Path) -> dict[str, object]:
    """Compare the files of a backup with its checksums; returns its record. Raises `BackupError`."""
    if not (folder / SUMS).is_file():
        raise BackupError(
            f"{folder} is no backup: it has no {SUMS}; name the folder of one, such as BACKUPS/20261127T031500Z"
        )
    for line in (folder / SUMS).read_text().splitlines():
        expected, _, name = line.partition("  ")
        if not (folder / name).is_file() or digest(folder / name) != expected:
            raise BackupError(
                f"{folder / name} is missing or damaged; take another backup. Nothing was restored"
            )
    found: dict[str, object] = json.loads((folder / RECORD).read_text())
    return found


def restore(folder: Path, *, force: bool) -> None:
    """Restore secrets, metadata database and lake, on a machine that has none of them, or with `force` over them."""
    record = check(folder)
    containers = not os.environ.get("DATABASE_URL") or in_containers()
    if not force:
        require_empty(containers=containers)
    say("secrets")
    read_secrets(folder, containers=containers)
    if containers and not os.environ.get("DATABASE_URL"):
        compose("up", "--detach", "--wait", "postgres", failed="the database did not start")
    say("metadata database")
    with (folder / DUMP).open("rb") as file:
        words: tuple[str, ...] = (
            "--clean",
            "--if-exists",
            "--no-owner",
            "--no-privileges",
            "--exit-on-error",
            "--single-transaction",
        )
        if os.environ.get("DATABASE_URL"):
            words = (*words, "--dbname", connection(os.environ["DATABASE_URL"])["PGDATABASE"])
        database("pg_restore", *words, failed="the metadata database could not be restored", stdin=file)
    lake = str(record["lake"])
    lake = str((folder / lake).resolve()) if "://" not in lake else lake
    say(f"lake, from {lake}")
    copy_lake(lake, back=True, containers=containers)


def require_empty(*, containers: bool) -> None:
    """Raise `BackupError` when there is something that a restore would overwrite."""
    force = "FORCE=yes restores over it"
    if containers and not os.environ.get("DATABASE_URL"):
        words = ("sh", "-c", "ls /run/catalunya | head -1")
        if container("secrets-init", *words, failed="the volume of the secrets could not be read").strip():
            raise BackupError(
                f"this machine has the secrets of a stack already; nothing was restored: {force}"
            )
        return
    found = database(
        "psql", "--no-align", "--tuples-only", "--command", "select to_regclass('alembic_version')",
        failed="the metadata database could not be read",
    ).strip()  # fmt: skip
    if found:
        raise BackupError(
            f"the database of DATABASE_URL has tables of Airflow already; nothing was restored: {force}"
        )


def read_secrets(folder: Path, *, containers: bool) -> None:
    """Restore the secrets of the stack; files of settings are written where none of their name is."""
    archive, work = folder / SECRETS, folder / ".secrets"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(mode=0o700)
    try:
        if (folder / ENCRYPTED).exists():
            passphrase = os.environ.get("BACKUP_PASSPHRASE_FILE")
            if not passphrase:
                raise BackupError(
                    "the secrets are encrypted: set BACKUP_PASSPHRASE_FILE. Nothing was restored"
                )
            archive = work / SECRETS
            command = [
                *_CIPHER,
                "-d",
                "-pass",
                f"file:{passphrase}",
                "-in",
                str(folder / ENCRYPTED),
                "-out",
                str(archive),
            ]
            run(command, failed="the secrets could not be decrypted: is it the right passphrase?")
        with tarfile.open(archive) as opened:
            opened.extractall(work, filter="data")
        for path in sorted((work / "env").glob("*")) if (work / "env").is_dir() else []:
            target = ORCHESTRATION / path.name
            if target.exists():
                continue
            shutil.copy(path, target)
            target.chmod(0o600)
            say(f"settings: {target}; COMPOSE_ENV_FILES names it for Compose")
        if containers and (work / "volume.tar").exists():
            with (work / "volume.tar").open("rb") as file:
                words = (
                    "tar",
                    "--extract",
                    "--preserve-permissions",
                    "--directory",
                    "/run/catalunya",
                    "--no-overwrite-dir",
                )
                container("secrets-init", *words, failed="the secrets could not be restored", stdin=file)
    finally:
        shutil.rmtree(work)


def main(arguments: list[str] | None = None) -> int:
    """Make a backup or restore one; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="backup", description="Back up or restore metadata database, lake and secrets."
    )
    words = parser.add_subparsers(dest="word", required=True)
    made = words.add_parser("backup")
    made.add_argument("--to", required=True, type=Path, help="folder for the backups")
    made.add_argument("--keep", type=int, default=7, help="backups to keep")
    restored = words.add_parser("restore")
    restored.add_argument("--from", required=True, type=Path, dest="folder", help="folder of one backup")
    restored.add_argument("--force", action="store_true", help="restore over what is there")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.word == "backup":
            if chosen.keep < 1:
                raise BackupError("KEEP must be 1 or more")
            say(f"made {backup(chosen.to.resolve(), chosen.keep, datetime.now(UTC))}")
        else:
            restore(chosen.folder.resolve(), force=chosen.force)
            say(
                "restored; start the services (`make up`), then compare: `catalunya lake check`, `catalunya status`"
            )
    except (BackupError, OSError) as error:
        say(f"failed: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
