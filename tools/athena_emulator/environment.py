"""Start and stop the whole emulator: ministack, Trino, and Athena's API in front of both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools.athena_emulator import api, ministack, trino_server
from tools.athena_emulator.translate import CATALOG
from tools.processes import free_port

REGION = "eu-west-1"


@dataclass(frozen=True)
class Environment:
    """The addresses of the servers."""

    aws: str
    """S3, STS and everything else that ministack serves."""
    athena: str
    """Athena and Glue."""
    trino: str
    region: str
    requests: list[api.Request]
    """Every request to Athena and Glue so far; Trino's own are signed by `trino`."""

    def variables(self) -> dict[str, str]:
        """Return the variables that lead every client of AWS, and this project, to the emulator."""
        return {
            "AWS_ENDPOINT_URL": self.aws,
            "AWS_ENDPOINT_URL_ATHENA": self.athena,
            "AWS_ENDPOINT_URL_GLUE": self.athena,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "CATALUNYA_TRINO_URL": self.trino,
            "CATALUNYA_TRINO_CATALOG": CATALOG,
        }


@contextmanager
def running(
    folder: Path,
    *,
    aws: str | None = None,
    region: str = REGION,
    memory: str = trino_server.MEMORY,
    workers: int = 0,
) -> Iterator[Environment]:
    """Run the emulator with its files in `folder`, over a ministack of its own or one that runs at `aws`.

    Trino asks Glue while it starts, so Athena's API, which serves Glue too, starts first.
    """
    port = free_port()
    trino = f"http://127.0.0.1:{port}"
    with ExitStack() as stack:
        aws = aws or stack.enter_context(ministack.running(folder / "aws"))
        athena, requests = stack.enter_context(api.serving(aws=aws, trino=trino, region=region))
        stack.enter_context(
            trino_server.running(
                folder / "trino",
                port=port,
                s3=aws,
                glue=athena,
                region=region,
                memory=memory,
                workers=workers,
            )
        )
        yield Environment(aws, athena, trino, region, requests)
