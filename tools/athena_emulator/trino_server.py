"""A Trino server on loopback over Glue and S3: one process that coordinates and works."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.athena_emulator import install
from tools.athena_emulator.server import server
from tools.athena_emulator.translate import CATALOG, ICEBERG
from tools.athena_emulator.unsupported import MAX_PARTITIONS

MEMORY = "1500M"


@contextmanager
def running(folder: Path, *, port: int, s3: str, glue: str, region: str, memory: str) -> Iterator[None]:
    """Run Trino on a port of loopback over S3 and Glue at these endpoints, with its files in `folder`."""
    home = install.trino()
    _configure(folder / "etc", home, port, s3, glue, region)
    command = [
        str(install.java()),
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
    # It answers some seconds before it takes queries, and says so.
    health = f"http://127.0.0.1:{port}/v1/info"
    with server(command, folder, health, lambda answer: not answer.json()["starting"], timeout_s=600):
        yield


def _configure(etc: Path, home: Path, port: int, s3: str, glue: str, region: str) -> None:
    catalogs = etc / "catalog"
    catalogs.mkdir(parents=True)
    shared = {
        "fs.native-s3.enabled": "true",
        "s3.endpoint": s3,
        "s3.region": region,
        "s3.path-style-access": "true",
        "s3.aws-access-key": "trino",
        "s3.aws-secret-key": "test",
        "hive.metastore.glue.endpoint-url": glue,
        "hive.metastore.glue.region": region,
        "hive.metastore.glue.aws-access-key": "trino",
        "hive.metastore.glue.aws-secret-key": "test",
    }
    config = {
        "node.environment": "emulator",
        "node.id": "emulator",
        "node.internal-address": "127.0.0.1",
        "node.bind-ip": "127.0.0.1",
        "coordinator": "true",
        "node-scheduler.include-coordinator": "true",
        "http-server.http.port": str(port),
        "discovery.uri": f"http://127.0.0.1:{port}",
        "plugin.dir": str(home / "plugin"),
        "catalog.config-dir": str(catalogs),
        "query.min-expire-age": "60m",
        "query.max-history": "5000",
        "web-ui.enabled": "false",
    }
    hive = {
        "connector.name": "hive",
        "hive.metastore": "glue",
        "hive.non-managed-table-writes-enabled": "true",
        "hive.storage-format": "PARQUET",
        "hive.iceberg-catalog-name": ICEBERG,
        "hive.max-partitions-per-writers": str(MAX_PARTITIONS),
        **shared,
    }
    iceberg = {"connector.name": "iceberg", "iceberg.catalog.type": "glue", **shared}
    for path, settings in {
        etc / "config.properties": config,
        etc / "log.properties": {"io.trino": "WARN", "io.airlift": "WARN", "org": "WARN"},
        catalogs / f"{CATALOG}.properties": hive,
        catalogs / f"{ICEBERG}.properties": iceberg,
    }.items():
        path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()), "utf-8")
