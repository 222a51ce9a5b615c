"""Trino on loopback over Glue and S3: one server that coordinates and works, or a coordinator and workers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from tools.athena_emulator import install
from tools.athena_emulator.server import server
from tools.athena_emulator.translate import CATALOG, ICEBERG
from tools.athena_emulator.unsupported import MAX_PARTITIONS
from tools.processes import free_port

MEMORY = "1500M"


@contextmanager
def running(
    folder: Path, *, port: int, s3: str, glue: str, region: str, memory: str, workers: int = 0
) -> Iterator[None]:
    """Run Trino on a port of loopback over S3 and Glue at these endpoints, with its files in `folder`.

    With `workers` the server on that port only coordinates. Each server may take `memory`.
    """
    with ExitStack() as stack:
        for number in range(workers + 1):
            one, at = (folder / f"worker-{number}", free_port()) if number else (folder, port)
            _configure(one / "etc", at, port, s3, glue, region, workers=workers)
            stack.enter_context(_server(one, at, memory))
        yield


def _server(folder: Path, port: int, memory: str) -> AbstractContextManager[None]:
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
        f"{install.trino() / 'lib'}/*",
        "io.trino.server.TrinoServer",
    ]
    # It answers some seconds before it takes queries, and says so.
    health = f"http://127.0.0.1:{port}/v1/info"
    return server(command, folder, health, lambda answer: not answer.json()["starting"], timeout_s=600)


def _configure(
    etc: Path, port: int, coordinator: int, s3: str, glue: str, region: str, *, workers: int
) -> None:
    """Write the configuration of the server on `port`; the one on the port `coordinator` coordinates."""
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
        "node.id": f"emulator-{port}",
        "node.internal-address": "127.0.0.1",
        "node.bind-ip": "127.0.0.1",
        "coordinator": str(port == coordinator).lower(),
        "http-server.http.port": str(port),
        "discovery.uri": f"http://127.0.0.1:{coordinator}",
        "plugin.dir": str(install.trino() / "plugin"),
        "catalog.config-dir": str(catalogs),
        "query.min-expire-age": "60m",
        "query.max-history": "5000",
    }
    if port == coordinator:
        config |= {
            "web-ui.enabled": "false",
            "node-scheduler.include-coordinator": str(not workers).lower(),
            "query-manager.required-workers": str(workers or 1),
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
