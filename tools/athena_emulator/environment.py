"""The whole stand-in, up and down: the emulator, Trino, and Athena in front of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from standin import trino
from standin.athena import api
from standin.athena.translate import CATALOG
from standin.emulator import emulator
from standin.process import free_port

REGION = "eu-west-1"


@dataclass(frozen=True)
class Stand:
    """Where everything answers."""

    aws: str
    """S3, STS and whatever else the emulator serves."""
    athena: str
    """Athena and Glue."""
    trino: str
    region: str = REGION
    asked: list[api.Asked] = field(default_factory=list)
    """Every request to Athena and Glue so far; Trino's own are signed by `trino`."""

    def env(self) -> dict[str, str]:
        """The variables that lead every client of AWS, and this project, here."""
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
    memory: str = trino.MEMORY,
    default_output: str | None = None,
) -> Iterator[Stand]:
    """The stand-in with its files in `folder`, over an emulator of its own or one that runs at `aws`."""
    with ExitStack() as up:
        at = aws or up.enter_context(emulator(folder / "aws"))
        yield up.enter_context(_over(folder, at, region, memory, default_output))


@contextmanager
def _over(folder: Path, aws: str, region: str, memory: str, default_output: str | None) -> Iterator[Stand]:
    """Athena first: Trino asks its Glue while it starts."""
    port, trino_port = free_port(), free_port()
    stand = Stand(aws, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{trino_port}", region)
    server = folder / "trino"
    server.mkdir(parents=True, exist_ok=True)
    with (
        api.serving(
            port,
            aws=aws,
            trino=stand.trino,
            region=region,
            default_output=default_output,
            asked=stand.asked,
        ),
        trino.running(server, port=trino_port, s3=aws, glue=stand.athena, region=region, memory=memory),
    ):
        yield stand
