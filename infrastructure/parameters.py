"""The parameters of a stack, from its settings file `infrastructure/environments/<environment>.toml`."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from catalunya.address import split_login
from infrastructure.package import OUTPUT, ROOT

ENVIRONMENTS = ("development", "production")
GITHUB = "token.actions.githubusercontent.com"
GITHUB_STACK = "catalunya-github"
TAG = "project"
"""The tag of everything in a stack, by which the budget counts."""
EXAMPLE = ROOT / "infrastructure" / "environments" / "example.toml"
"""Beside it lie the settings files, which Git ignores, unless CATALUNYA_ENVIRONMENTS names another folder."""
WITHOUT_BUDGETS = {
    "af-south-1", "ap-east-1", "ap-east-2", "ap-northeast-3", "ap-south-2", "ap-southeast-3", "ap-southeast-4",
    "ap-southeast-5", "ap-southeast-6", "ap-southeast-7", "ca-west-1", "eu-central-2", "eu-north-1", "eu-south-1",
    "eu-south-2", "il-central-1", "me-central-1", "mx-central-1", "us-gov-east-1", "us-gov-west-1",
}  # fmt: skip
"""Regions whose CloudFormation has no AWS::Budgets::Budget, by the resource schemas that AWS publishes."""


class SettingsError(Exception):
    """A settings file is missing or holds a wrong value; the message says which and what to do."""


_ACCOUNT = r"^arn:aws[a-z-]*:iam::\d{12}"
_PRINCIPAL = rf"{_ACCOUNT}:(role|user)/[\w+=,.@/-]+$"
"""One role or user; a `*` would trust principals that do not exist yet."""
_IDENTITY_CENTER = rf"{_ACCOUNT}:role/aws-reserved/sso\.amazonaws\.com/[\w+=,.@/*-]+$"


class Parameters(BaseModel):
    """One environment. Names in AWS begin with `prefix`, so that both fit into one account."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    environment: str = Field(pattern="^(development|production)$")
    region: str = Field("eu-west-1", pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")
    """Where the stack is deployed; the template itself is the same in all regions that have the same services."""
    account: str | None = Field(None, pattern=r"^\d{12}$")
    """The only account that the stack may be deployed to; any by default."""
    package: Path
    """The functions' zip, for arm64."""
    alert_email: str | None = Field(None, pattern=r"^[^@\s]+@[^@\s]+$")
    """Receives alarms and the alerts of the budget; nobody by default."""
    budget_usd: int = Field(ge=0)
    """Costs of a month with the project's tag; alerts at 80 percent spent and at 100 percent forecasted. 0: no budget."""
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
    airflow: bool = False
    """An instance that runs Airflow in the account; without it, Airflow runs elsewhere under one of `workers`."""
    airflow_instance: str = Field("t4g.large", pattern=r"^[a-z]+\d+g[a-z]*\.\w+$")
    """The type of the instance, one with a Graviton processor; the stack of containers needs 6 GB of memory."""
    site: bool = False
    """The public site, in a bucket behind CloudFront; everybody can read it."""
    site_domain: str | None = Field(None, pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9-]+)+$")
    """The domain of the site, whose record in the DNS leads to the distribution; by default CloudFront's own name."""
    site_certificate: str | None = Field(
        None, pattern=r"^arn:aws[a-z-]*:acm:us-east-1:\d{12}:certificate/[\w-]+$"
    )
    """ARN of its certificate, which CloudFront takes from us-east-1 only."""
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
        if self.is_production and not self.workers and not self.airflow:
            raise ValueError(
                "workers: production needs `airflow = true`, or the ARNs of the roles or users that Airflow runs under; "
                "without them everybody in the account could publish without a second factor"
            )
        return self

    @model_validator(mode="after")
    def _domain_has_a_certificate(self) -> Self:
        if bool(self.site_domain) != bool(self.site_certificate):
            raise ValueError("site_domain and site_certificate: give both or none")
        if self.site_domain and not self.site:
            raise ValueError("site_domain: there is no site; set site = true")
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
    def has_budget(self) -> bool:
        """True where a budget is wanted and CloudFormation can make one."""
        return self.budget_usd > 0 and self.region not in WITHOUT_BUDGETS

    @property
    def project_address(self) -> str | None:
        """Address of whoever runs the pipeline, None when neither it nor a repository is given."""
        repository = self.github_repository
        return self.project_url or (f"https://github.com/{repository}" if repository else None)

    @property
    def is_production(self) -> bool:
        """True where data must outlive the stack."""
        return self.environment == "production"

    def airflow_variables(self, account: str, region: str, site_url: str | None = None) -> dict[str, str]:
        """Return the environment variables by which Airflow uses this stack; `site_url` is the address of its site."""
        optional = {
            "CATALUNYA_EXTERNAL_ID": self.external_id,
            "CATALUNYA_PROJECT_URL": self.project_address,
            "CATALUNYA_SITE": f"s3://{self.prefix}-site-{account}" if self.site else None,
            # CloudFront serves it: no container does.
            "CATALUNYA_SITE_SERVER": "0" if self.site else None,
            "CATALUNYA_SITE_URL": site_url if self.site else None,
        }
        return {
            "ENVIRONMENT": self.environment,
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
            "CATALUNYA_LAKE": f"s3://{self.prefix}-lake-{account}",
            "CATALUNYA_LAMBDA_PREFIX": self.prefix,
            "CATALUNYA_ROLES": f"arn:aws:iam::{account}:role/{self.prefix}-",
            "CATALUNYA_SCHEMA": f"{self.database}_marts",
            "CATALUNYA_ATHENA_WORKGROUP": f"{self.prefix}-build",
            **{name: value for name, value in optional.items() if value},
        }


_DEFAULTS: dict[str, dict[str, Any]] = {
    "development": {"budget_usd": 5, "scan_limit_bytes": 1_000_000_000},
    "production": {"budget_usd": 25, "scan_limit_bytes": 10_000_000_000},
}
_AIRFLOW_USD = 70
"""Added to the default of the budget for the instance of Airflow, which costs 59 dollars (`costs.machine`) and some more."""


def parameters(environment: str, given: Mapping[str, Any]) -> Parameters:
    """Return the defaults of an environment, overridden by `given`; raises pydantic's `ValidationError`."""
    defaults = {"package": OUTPUT / "functions-arm64.zip", **_DEFAULTS[environment]}
    if given.get("airflow"):
        defaults["budget_usd"] += _AIRFLOW_USD
    return Parameters(environment=environment, **{**defaults, **given})


def read(environment: str) -> Parameters:
    """Return what the settings file of an environment says; raises `SettingsError`."""
    folder = Path(os.environ.get("CATALUNYA_ENVIRONMENTS") or EXAMPLE.parent)
    if environment not in ENVIRONMENTS:
        raise SettingsError(f"ENVIRONMENT is {environment!r}: give one of {', '.join(ENVIRONMENTS)}")
    path = folder / f"{environment}.toml"
    if not path.is_file():
        raise SettingsError(f"the settings file is missing: cp {EXAMPLE} {path}, then edit it")
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
        if "region" not in given:
            raise SettingsError(f"{path}: region is missing; name the region, such as eu-west-1")
        return parameters(environment, given)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not TOML: {error}") from error
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, one['loc'])) or 'the file'}: {one['msg']}" for one in error.errors()
        )
        raise SettingsError(f"{path}: {wrong}") from error
    except TypeError as error:
        raise SettingsError(f"{path}: {error}") from error
