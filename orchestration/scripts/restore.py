"""Restore a backup of metadata database, lake and secrets on a machine that has none of them (docs/backup.md).

    python -m orchestration.scripts.restore FOLDER/20261127T031500Z [--force]

`make restore` calls it; what it needs and which variables it reads are those of backup.py.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tarfile
from pathlib import Path

from orchestration.scripts import backup_parts as parts
from orchestration.scripts.backup_parts import BackupError, say


def check(folder: Path) -> dict[str, object]:
    """Compare the files of a backup with its checksums; returns its record. Raises `BackupError`."""
    if not (folder / parts.SUMS).is_file():
        raise BackupError(
            f"{folder} is no backup: it has no {parts.SUMS}; name the folder of one, such as BACKUPS/20261127T031500Z"
        )
    for line in (folder / parts.SUMS).read_text().splitlines():
        expected, _, name = line.partition("  ")
        if not (folder / name).is_file() or parts.digest(folder / name) != expected:
            raise BackupError(
                f"{folder / name} is missing or damaged; take another backup. Nothing was restored"
            )
    found: dict[str, object] = json.loads((folder / parts.RECORD).read_text())
    return found


def restore(folder: Path, *, force: bool) -> None:
    """Restore secrets, metadata database and lake, on a machine that has none of them, or with `force` over them."""
    record = check(folder)
    containers = not os.environ.get("DATABASE_URL") or parts.in_containers()
    if not force:
        require_empty(containers=containers)
    say("secrets")
    read_secrets(folder, containers=containers)
    if containers and not os.environ.get("DATABASE_URL"):
        parts.compose("up", "--detach", "--wait", "postgres", failed="the database did not start")
    say("metadata database")
    with (folder / parts.DUMP).open("rb") as file:
        words: tuple[str, ...] = (
            "--clean",
            "--if-exists",
            "--no-owner",
            "--no-privileges",
            "--exit-on-error",
            "--single-transaction",
        )
        if os.environ.get("DATABASE_URL"):
            words = (*words, "--dbname", parts.connection(os.environ["DATABASE_URL"])["PGDATABASE"])
        parts.database("pg_restore", *words, failed="the metadata database could not be restored", stdin=file)
    lake = str(record["lake"])
    lake = str((folder / lake).resolve()) if "://" not in lake else lake
    say(f"lake, from {lake}")
    parts.copy_lake(lake, back=True, containers=containers)


def require_empty(*, containers: bool) -> None:
    """Raise `BackupError` when there is something that a restore would overwrite."""
    force = "FORCE=yes restores over it"
    if containers and not os.environ.get("DATABASE_URL"):
        words = ("sh", "-c", "ls /run/catalunya | head -1")
        if parts.container(
            "secrets-init", *words, failed="the volume of the secrets could not be read"
        ).strip():
            raise BackupError(
                f"this machine has the secrets of a stack already; nothing was restored: {force}"
            )
        return
    found = parts.database(
        "psql", "--no-align", "--tuples-only", "--command", "select to_regclass('alembic_version')",
        failed="the metadata database could not be read",
    ).strip()  # fmt: skip
    if found:
        raise BackupError(
            f"the database of DATABASE_URL has tables of Airflow already; nothing was restored: {force}"
        )


def read_secrets(folder: Path, *, containers: bool) -> None:
    """Restore the secrets of the stack; files of settings are written where none of their name is."""
    archive, work = folder / parts.SECRETS, folder / ".secrets"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(mode=0o700)
    try:
        if (folder / parts.ENCRYPTED).exists():
            passphrase = os.environ.get("BACKUP_PASSPHRASE_FILE")
            if not passphrase:
                raise BackupError(
                    "the secrets are encrypted: set BACKUP_PASSPHRASE_FILE. Nothing was restored"
                )
            archive = work / parts.SECRETS
            command = [
                *parts.CIPHER,
                "-d",
                "-pass",
                f"file:{passphrase}",
                "-in",
                str(folder / parts.ENCRYPTED),
                "-out",
                str(archive),
            ]
            parts.run(command, failed="the secrets could not be decrypted: is it the right passphrase?")
        with tarfile.open(archive) as opened:
            # By hand: `filter="data"` of `extractall` is new in Python 3.11.4.
            for member in opened:
                inside = (work / member.name).resolve()
                if member.isdir():
                    continue
                if not member.isfile() or not inside.is_relative_to(work.resolve()):
                    raise BackupError(
                        f"{archive} holds {member.name!r}, which no backup has. Nothing was restored"
                    )
                inside.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                content = opened.extractfile(member)
                inside.write_bytes(content.read() if content else b"")
                inside.chmod(0o600)
        for path in sorted((work / "env").glob("*")) if (work / "env").is_dir() else []:
            target = parts.ORCHESTRATION / path.name
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
                    "--file",
                    "-",
                    "--preserve-permissions",
                    "--directory",
                    "/run/catalunya",
                    "--no-overwrite-dir",
                )
                parts.container(
                    "secrets-init", *words, failed="the secrets could not be restored", stdin=file
                )
    finally:
        shutil.rmtree(work)


def main(arguments: list[str] | None = None) -> int:
    """Restore a backup; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="restore", description="Restore metadata database, lake and secrets."
    )
    parser.add_argument("folder", type=Path, help="folder of one backup")
    parser.add_argument("--force", action="store_true", help="restore over what is there")
    chosen = parser.parse_args(arguments)
    try:
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
