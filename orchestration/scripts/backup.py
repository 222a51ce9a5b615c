"""Back up everything that a machine holds: metadata database, lake, secrets (docs/backup.md).

    python -m orchestration.scripts.backup FOLDER [--keep 7]

`make backup` calls it. It needs nothing but Python and, for a stack in containers, Docker; Compose's own variables
(COMPOSE_FILE, COMPOSE_ENV_FILES, COMPOSE_PROJECT_NAME) choose the stack. With DATABASE_URL the database is that one;
without a stack the lake of CATALUNYA_LAKE is copied by `.venv/bin/catalunya`.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import shutil
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from orchestration.scripts import backup_parts as parts
from orchestration.scripts.backup_parts import BackupError, say

_NAME = re.compile(r"\d{8}T\d{6}Z")


def env_files() -> list[Path]:
    """Return the files with the settings of the stack, which may hold secrets."""
    named = os.environ.get("COMPOSE_ENV_FILES", "")
    found = [Path(name) for name in named.split(",") if name] or [parts.ORCHESTRATION / ".env"]
    return [path for path in found if path.is_file()]


def write_secrets(folder: Path, *, containers: bool) -> None:
    """Write the secrets of the stack and its files of settings as one archive: encrypted, or for this user only."""
    plain = folder / parts.SECRETS
    work = folder / "secrets"
    work.mkdir(mode=0o700)
    if containers:
        (work / "volume.tar").touch(mode=0o600)
        with (work / "volume.tar").open("wb") as file:
            words = ("tar", "--create", "--file", "-", "--directory", "/run/catalunya", ".")
            parts.container("secrets-init", *words, failed="the secrets could not be read", stdout=file)
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
            f"{parts.SECRETS} is NOT encrypted, only this user may read it; BACKUP_PASSPHRASE_FILE=FILE encrypts it"
        )
        return
    command = [
        *parts.CIPHER,
        "-salt",
        "-pass",
        f"file:{passphrase}",
        "-in",
        str(plain),
        "-out",
        str(folder / parts.ENCRYPTED),
    ]
    try:
        parts.run(command, failed="the secrets could not be encrypted")
    finally:
        plain.unlink()
    (folder / parts.ENCRYPTED).chmod(0o600)


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
    containers = parts.in_containers()
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
    (folder / parts.DUMP).touch(mode=0o600)
    with (folder / parts.DUMP).open("wb") as file:
        parts.database(
            "pg_dump", "--format", "custom", failed="the metadata database could not be dumped", stdout=file
        )
    say("secrets")
    write_secrets(folder, containers=containers)
    # Last, so that it has every release that the database knows of.
    lake = os.environ.get("BACKUP_LAKE") or str(to / "lake")
    say(f"lake, to {lake}")
    parts.copy_lake(lake, back=False, containers=containers)
    record = {
        "made_at": f"{now:%Y-%m-%dT%H:%M:%SZ}",
        "environment": os.environ.get("ENVIRONMENT", "demo" if containers else "development"),
        "lake": os.environ.get("BACKUP_LAKE") or "../lake",
        "containers": containers,
    }
    (folder / parts.RECORD).write_text(json.dumps(record, indent=1) + "\n")
    sums = [f"{parts.digest(path)}  {path.name}\n" for path in sorted(folder.iterdir())]
    (folder / parts.SUMS).write_text("".join(sums))
    folder.rename(to / name)
    return to / name


def main(arguments: list[str] | None = None) -> int:
    """Make a backup; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="backup", description="Back up metadata database, lake and secrets."
    )
    parser.add_argument("to", type=Path, help="folder for the backups")
    parser.add_argument("--keep", type=int, default=7, help="backups to keep")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.keep < 1:
            raise BackupError("KEEP must be 1 or more")
        say(f"made {backup(chosen.to.resolve(), chosen.keep, datetime.now(UTC))}")
    except (BackupError, OSError) as error:
        say(f"failed: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
