"""A Trino server on loopback over the emulator's Glue and S3: one process that coordinates and works."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from standin.athena.refusals import MAX_PARTITIONS
from standin.athena.translate import CATALOG, ICEBERG
from standin.install import java, trino
from standin.process import server

MEMORY = "1500M"


@contextmanager
def running(
    folder: Path, *, port: int, s3: str, glue: str, region: str, memory: str = MEMORY
) -> Iterator[str]:
    """The address of a Trino server over S3 and Glue at these endpoints; its files lie in `folder`."""
    _configure(folder, s3, glue, region, port)
    home = trino()
    command = [
        str(java()),
        f"-Xmx{memory}",
        "-XX:+ExitOnOutOfMemoryError",
        "-Djdk.attach.allowAttachSelf=true",
        "-Dfile.encoding=UTF-8",
        f"-Dconfig={folder / 'etc' / 'config.properties'}",
        f"-Dlog.levels-file={folder / 'etc' / 'log.properties'}",
        f"-Dnode.data-dir={folder / 'data'}",
        "-cp",
        f"{home / 'lib'}/*",
        "io.trino.server.TrinoServer",
    ]
    url = f"http://127.0.0.1:{port}"
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder)}
    with server(command, env, folder, lambda: _started(url), patience_s=120):
        yield url


def _started(url: str) -> bool:
    """True when the server takes queries: it says so itself, some seconds after it answers at all."""
    try:
        with urllib.request.urlopen(f"{url}/v1/info", timeout=2) as response:
            return json.loads(response.read())["starting"] is False
    except (urllib.error.URLError, OSError, ValueError):
        return False


def _configure(folder: Path, s3: str, glue: str, region: str, port: int) -> None:
    etc = folder / "etc"
    (etc / "catalog").mkdir(parents=True)
    storage = {
        "fs.native-s3.enabled": "true",
        "s3.endpoint": s3,
        "s3.region": region,
        "s3.path-style-access": "true",
        "s3.aws-access-key": "test",
        "s3.aws-secret-key": "test",
    }
    metastore = {
        "hive.metastore.glue.endpoint-url": glue,
        "hive.metastore.glue.region": region,
        "hive.metastore.glue.aws-access-key": "trino",
        "hive.metastore.glue.aws-secret-key": "test",
    }
    _write(
        etc / "config.properties",
        {
            "node.environment": "standin",
            "node.id": "standin",
            "node.internal-address": "127.0.0.1",
            "node.bind-ip": "127.0.0.1",
            "coordinator": "true",
            "node-scheduler.include-coordinator": "true",
            "http-server.http.port": str(port),
            "discovery.uri": f"http://127.0.0.1:{port}",
            "plugin.dir": str(trino() / "plugin"),
            "catalog.config-dir": str(etc / "catalog"),
            "query.min-expire-age": "60m",
            "query.max-history": "5000",
            "web-ui.enabled": "false",
        },
    )
    _write(etc / "log.properties", {"io.trino": "WARN", "io.airlift": "WARN", "org": "WARN"})
    _write(
        etc / "catalog" / f"{CATALOG}.properties",
        {
            "connector.name": "hive",
            "hive.metastore": "glue",
            "hive.non-managed-table-writes-enabled": "true",
            "hive.storage-format": "PARQUET",
            "hive.iceberg-catalog-name": ICEBERG,
            "hive.max-partitions-per-writers": str(MAX_PARTITIONS),
            **metastore,
            **storage,
        },
    )
    _write(
        etc / "catalog" / f"{ICEBERG}.properties",
        {"connector.name": "iceberg", "iceberg.catalog.type": "glue", **metastore, **storage},
    )


def _write(path: Path, settings: dict[str, str]) -> None:
    path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()), "utf-8")
