"""The parameters of a stack, from the context of the CDK app: `-c alert_email=…`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from catalunya.address import split_login
from infrastructure.package import OUTPUT

_ACCOUNT = r"^arn:aws[a-z-]*:iam::\d{12}"
_PRINCIPAL = rf"{_ACCOUNT}:(role|user)/[\w+=,.@/-]+$"
"""One role or user; a `*` would trust principals that do not exist yet."""
_IDENTITY_CENTER = rf"{_ACCOUNT}:role/aws-reserved/sso\.amazonaws\.com/[\w+=,.@/*-]+$"


class Parameters(BaseModel):
    """One environment. Names in AWS begin with `prefix`, so that both fit into one account."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    environment: str = Field(pattern="^(development|production)$")
    package: Path
    """The functions' zip, for arm64."""
    alert_email: str | None = Field(None, pattern=r"^[^@\s]+@[^@\s]+$")
    """Receives alarms and the alerts of the budget; nobody by default."""
    budget_usd: int = Field(gt=0)
    """Costs of a month with the project's tag; alerts at 80 percent spent and at 100 percent forecasted."""
    scan_limit_bytes: int = Field(ge=10_000_000)
    """Limit of what one query may read."""
    project_url: str | None = Field(None, pattern=r"^https://[!-~]+$")
    """Address of whoever runs the pipeline, in the user agent of requests to portals; by default the repository's."""
    github_repository: str | None = Field(None, pattern=r"^[\w.-]+/[\w.-]+$")
    """The repository whose workflows may deploy, from the GitHub environment with the name of the stack's environment.

    None: nothing on GitHub may do anything in the account.
    """
    workers: tuple[Annotated[str, Field(pattern=_PRINCIPAL)], ...] = ()
    """ARNs of the roles or users that Airflow runs under, which may assume the role of the orchestrator.

    Without any, production is refused, and in development everybody in the account with the right to assume roles may.
    """
    external_id: str | None = Field(None, pattern=r"^[\w+=,.@:/-]+$", min_length=2, max_length=1224)
    """What `workers` must name as the external id; for hosts outside of AWS, as CATALUNYA_EXTERNAL_ID."""
    people: tuple[Annotated[str, Field(pattern=_IDENTITY_CENTER)], ...] = ()
    """ARNs of roles of IAM Identity Center, which asks for the second factor itself, that may publish and act as steward."""
    first_day: str = Field("2024-01-01", pattern=r"^\d{4}-\d\d-\d\d$")
    """No snapshot is older; Athena looks for partitions from this day on."""
    socrata_url: str | None = None
    idescat_url: str | None = None
    icgc_url: str | None = None
    """Base URLs of portals that are not the public ones."""
    memory_mb: int = Field(1024, ge=512, le=10_240)
    scratch_mb: int = Field(2048, ge=512, le=10_240)
    timeout_s: int = Field(900, ge=60, le=900)

    @model_validator(mode="after")
    def _has_workers(self) -> Self:
        if self.is_production and not self.workers:
            raise ValueError(
                "workers: production needs the ARNs of the roles or users that Airflow runs under; without them everybody "
                "in the account could publish without a second factor"
            )
        return self

    @field_validator("socrata_url", "idescat_url", "icgc_url")
    @classmethod
    def _is_public(cls, url: str | None) -> str | None:
        if url is not None and split_login(url)[1] is not None:
            raise ValueError(
                "the address holds a user or a password, which everybody who may read the function's settings would see; "
                "give an address without them"
            )
        return url

    @property
    def prefix(self) -> str:
        """What names in AWS begin with."""
        return f"catalunya-{self.environment}"

    @property
    def database(self) -> str:
        """What names of Glue databases begin with: no hyphens there."""
        return re.sub("-", "_", self.prefix)

    @property
    def project_address(self) -> str | None:
        """Address of whoever runs the pipeline, None when neither it nor a repository is given."""
        repository = self.github_repository
        return self.project_url or (f"https://github.com/{repository}" if repository else None)

    @property
    def is_production(self) -> bool:
        """True where data must outlive the stack."""
        return self.environment == "production"


_DEFAULTS: dict[str, dict[str, Any]] = {
    "development": {"budget_usd": 5, "scan_limit_bytes": 1_000_000_000},
    "production": {"budget_usd": 25, "scan_limit_bytes": 10_000_000_000},
}


def parameters(environment: str, context: Callable[[str], Any]) -> Parameters:
    """Return the defaults of an environment, overridden by the context; raises pydantic's `ValidationError`."""
    given = {name: context(name) for name in Parameters.model_fields if name != "environment"}
    chosen = {name: value for name, value in given.items() if value is not None}
    for name in ("workers", "people"):
        if isinstance(chosen.get(name), str):
            chosen[name] = tuple(arn for arn in chosen[name].split(",") if arn)
    package = {"package": OUTPUT / "functions-arm64.zip"}
    return Parameters(environment=environment, **{**package, **_DEFAULTS[environment], **chosen})
