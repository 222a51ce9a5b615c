"""Run the pipeline on an emulated S3 as one role after the other: each is denied what its policy does not allow."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from infrastructure.permissions import PROBE
from tests.aws.gate import Gate
from tests.aws.needs import Need, Place
from tests.aws.policy import Account
from tests.lake.faulty_proxy import FaultyProxy

KEY = "pipeline"
"""The access key of whatever role the pipeline is in."""


class Recorder:
    """A proxy of an S3 server in which the roles of an account act on one bucket."""

    def __init__(self, backend: str, policies: Account, bucket: str) -> None:
        self._probe = f"{backend}/{bucket}/{PROBE}"
        self._role = ""
        self.gate = Gate(policies, Place(lake=bucket), lambda key: self._role)
        self.front = FaultyProxy(backend)
        self.front.gate = self.gate.check

    @property
    def needed(self) -> dict[str, set[Need]]:
        """Whole name of a role to all that its requests needed."""
        return self.gate.needed

    @contextmanager
    def role(self, name: str) -> Iterator[None]:
        """Act as a role of production; its first conditional write tests again whether the store has such writes."""
        before, self._role = self._role, f"catalunya-production-{name}"
        with urllib.request.urlopen(urllib.request.Request(self._probe, method="DELETE"), timeout=10):
            pass
        try:
            yield
        finally:
            self._role = before
