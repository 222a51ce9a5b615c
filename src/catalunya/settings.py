"""The environment variables as typed settings. A wrong value is an error that names its variable, never a default."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from catalunya import address
from catalunya.errors import UsageError

Environment = Literal["demo", "development", "production"]
Engine = Literal["duckdb", "athena", "trino"]
ENGINES: tuple[Engine, ...] = get_args(Engine)
"""Each has the module of its name in `warehouse/engines/`, the dbt adapter `dbt-<name>` and an output in dbt's profile."""

PORTALS = {
    "socrata_url": "https://analisi.transparenciacatalunya.cat",
    "idescat_url": "https://api.idescat.cat",
    "icgc_url": "https://datacloud.icgc.cat",
}
"""Field of `Settings` with the base URL of a portal, to the public URL; the variable is CATALUNYA_<FIELD>."""
PORTAL_VARIABLES = tuple(f"CATALUNYA_{name.upper()}" for name in PORTALS)

_SECRET = {
    "SOCRATA_APP_TOKEN",
    "CATALUNYA_HEARTBEAT_URL",
    "CATALUNYA_NOTIFY_URLS",
    "CATALUNYA_SIGNING_KEY",
    "CATALUNYA_TRINO_PASSWORD",
}
"""Each can be in a file, which the variable of its name with `_FILE` names."""

LOOPBACK_SITE = "http://127.0.0.1:8081"
"""Where `catalunya site serve` shows the site by default."""

ROOT = Path(__file__).resolve().parents[2]
_BETWEEN_ADDRESSES = r"[\s,]*\s[\s,]*|^,+|,+(?=arn:|[A-Za-z][A-Za-z0-9+.-]*://)|,+$"
"""What separates addresses for alerts: white space, or a comma before a scheme; an address may contain commas."""
_FIRST_YEAR, _LAST_YEAR = 1970, 9000
_BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/?")
_ROLES = re.compile(r"(?P<partition>arn:aws[a-z-]*):iam::(?P<account>\d{12}):role/(?P<prefix>\S+)")


def spare_loopback() -> None:
    """Keep the HTTP clients of this process from using a proxy for this machine: add its names to NO_PROXY and no_proxy.

    `::1` has no brackets: httpx, which Airflow's tasks use, cannot read `[::1]` there.
    """
    given = [os.environ.get(name, "") for name in ("NO_PROXY", "no_proxy")]
    named = [host.strip() for value in given for host in value.split(",") if host.strip()]
    if "*" not in named:
        named += ["localhost", "127.0.0.1", "127.0.0.0/8", "::1"]
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = ",".join(dict.fromkeys(named))


AWS_REGION = "us-east-1"
"""Where lake, engine and alerts are looked for when no region is set."""


def aws_region() -> str | None:
    """Return the region of AWS that is set; boto3 itself reads AWS_DEFAULT_REGION only."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or None


class Settings(BaseModel):
    """Every setting of the environment. `Settings.load()` creates it."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    environment: Environment = Field("development", validation_alias="ENVIRONMENT")
    lake: str = Field("./data", validation_alias="CATALUNYA_LAKE")
    engine: Engine | None = Field(None, validation_alias="CATALUNYA_ENGINE")
    socrata_url: str = Field(PORTALS["socrata_url"], validation_alias="CATALUNYA_SOCRATA_URL")
    idescat_url: str = Field(PORTALS["idescat_url"], validation_alias="CATALUNYA_IDESCAT_URL")
    icgc_url: str = Field(PORTALS["icgc_url"], validation_alias="CATALUNYA_ICGC_URL")
    allowed_hosts: tuple[str, ...] = Field((), validation_alias="CATALUNYA_ALLOWED_HOSTS")
    """Hosts beside the portals' own that they may redirect to."""
    log_format: Literal["text", "json"] = Field("text", validation_alias="CATALUNYA_LOG_FORMAT")
    """`json`: one event a line on standard error, for programs that collect logs; `log.py` reads the variable itself."""
    now_override: datetime | None = Field(None, validation_alias="CATALUNYA_NOW")
    socrata_app_token: str | None = Field(None, validation_alias="SOCRATA_APP_TOKEN", repr=False)
    notify_urls: tuple[str, ...] = Field((), validation_alias="CATALUNYA_NOTIFY_URLS", repr=False)
    heartbeat_url: str | None = Field(
        None, pattern=r"^https?://[!-~]+$", validation_alias="CATALUNYA_HEARTBEAT_URL", repr=False
    )
    """Requested after each run that ended well, for a service that raises the alarm when no request comes."""
    signing_key: str | None = Field(None, validation_alias="CATALUNYA_SIGNING_KEY", repr=False)
    """Secret key of minisign by which releases are signed; None: they are not."""
    public_keys: tuple[str, ...] = Field((), validation_alias="CATALUNYA_PUBLIC_KEYS")
    """Public keys of minisign that releases may be signed with: today's and earlier ones."""
    require_signature: bool = Field(False, validation_alias="CATALUNYA_REQUIRE_SIGNATURE")
    """True: nothing is published without a signature."""
    home: Path = Field(ROOT, validation_alias="CATALUNYA_HOME")
    """The folder that holds `datasets/`, `dbt/mart/` and `orchestration/dbt/`."""
    keep_releases: int = Field(30, ge=2, le=10_000, validation_alias="CATALUNYA_KEEP_RELEASES")
    dbt_threads: int = Field(2, ge=1, le=1_000, validation_alias="CATALUNYA_DBT_THREADS")
    """Models that dbt builds at once; the profile reads the variable itself."""
    duckdb_memory: str | None = Field(
        None, pattern=r"^[1-9][0-9]{0,8}(MB|GB)$", validation_alias="CATALUNYA_DUCKDB_MEMORY"
    )
    """Most memory of DuckDB in a build; the profile reads the variable itself. None: four fifths of the machine's."""
    project_url: str | None = Field(
        None, pattern=r"^https://[!-~]+$", validation_alias="CATALUNYA_PROJECT_URL"
    )
    """Where portals and readers of lineage find out who runs this pipeline; None: nowhere."""
    site: str | None = Field(None, validation_alias="CATALUNYA_SITE")
    """The folder of the public site, or `s3://bucket` behind CloudFront; None: `site` in a local lake."""
    site_url: str = Field(LOOPBACK_SITE, validation_alias="CATALUNYA_SITE_URL")
    """Origin at which the public site is served, without a slash at the end."""
    publisher: str | None = Field(None, validation_alias="CATALUNYA_PUBLISHER")
    """Name of whoever publishes the site; None: the name of the project."""
    publisher_code: str | None = Field(
        None, pattern=r"^[A-Z][A-Z0-9]{8}$", validation_alias="CATALUNYA_PUBLISHER_CODE"
    )
    """Its code in Spain's common directory of public bodies (DIR3); None: no body."""
    publisher_email: str | None = Field(
        None, pattern=r"^[^@\s]+@[^@\s]+$", validation_alias="CATALUNYA_PUBLISHER_EMAIL"
    )
    publisher_phone: str | None = Field(
        None, pattern=r"^\+[0-9-]{6,20}$", validation_alias="CATALUNYA_PUBLISHER_PHONE"
    )
    sql_schema: str = Field("marts", pattern=r"^[a-z][a-z0-9_]{0,60}$", validation_alias="CATALUNYA_SCHEMA")
    """The schema that readers of Trino or Athena query; the names of the lake's other schemas begin with it."""
    trino_url: str | None = Field(None, validation_alias="CATALUNYA_TRINO_URL")
    trino_user: str = Field("catalunya", validation_alias="CATALUNYA_TRINO_USER")
    trino_password: str | None = Field(None, validation_alias="CATALUNYA_TRINO_PASSWORD", repr=False)
    trino_catalog: str = Field(
        "hive", pattern=r"^[a-z][a-z0-9_]*$", validation_alias="CATALUNYA_TRINO_CATALOG"
    )
    """A catalogue of the Hive connector that reads and writes the lake's bucket."""
    athena_workgroup: str = Field("primary", validation_alias="CATALUNYA_ATHENA_WORKGROUP")
    athena_results: str | None = Field(None, pattern=r"^s3://.+", validation_alias="CATALUNYA_ATHENA_RESULTS")
    """Where Athena puts results; None: where the workgroup says."""
    athena_poll_s: float = Field(1.0, gt=0, le=60, validation_alias="CATALUNYA_ATHENA_POLL")
    """Seconds between two requests for the state of a query of Athena."""
    scan_usd_per_tb: float = Field(5.0, ge=0, le=1_000_000, validation_alias="CATALUNYA_SCAN_USD_PER_TB")
    """Price of Athena in the lake's region, per 10^12 bytes scanned."""
    http_attempts: int = Field(5, ge=1, le=10, validation_alias="CATALUNYA_HTTP_ATTEMPTS")
    """Attempts of one request, the first included."""
    http_timeout_s: float = Field(300.0, gt=0, le=86_400, validation_alias="CATALUNYA_HTTP_TIMEOUT")
    """Seconds that one response may take in all; at most a day."""

    lambda_prefix: str | None = Field(
        None, pattern=r"^[A-Za-z0-9-]+$", validation_alias="CATALUNYA_LAMBDA_PREFIX"
    )
    """The functions `<prefix>-ingest` and `<prefix>-stage` run these stages of the DAG; None: the DAG's tasks do."""
    roles: str | None = Field(None, pattern=f"^{_ROLES.pattern}$", validation_alias="CATALUNYA_ROLES")
    """Beginning of the ARNs of the roles that this process assumes, one for each kind of step; None: it assumes no role."""
    external_id: str | None = Field(None, validation_alias="CATALUNYA_EXTERNAL_ID")
    """Named when the orchestrator's role is assumed; None: the stack asks for none."""

    @field_validator(*PORTALS, "trino_url")
    @classmethod
    def _base_url(cls, url: str | None) -> str | None:
        if url is None:
            return None
        try:
            return address.base_url(url)
        except ValueError as error:
            shown = _without_password(url)
            raise ValueError(f"{shown!r} is not a base URL such as https://portal.example: {error}") from None

    @field_validator("heartbeat_url", "project_url")
    @classmethod
    def _web_address(cls, url: str | None) -> str | None:
        if url is not None:
            address.require_web_address(url)
        return url

    @field_validator("site")
    @classmethod
    def _folder_or_bucket(cls, place: str | None) -> str | None:
        if place and "://" in place and not _BUCKET.fullmatch(place):
            raise ValueError("is neither a folder nor s3://bucket; a bucket of a site has no prefix")
        return place

    @field_validator("site_url")
    @classmethod
    def _origin(cls, url: str) -> str:
        return address.origin(url)

    @field_validator("socrata_app_token")
    @classmethod
    def _fits_a_header(cls, token: str | None) -> str | None:
        if token is not None and not (token.isascii() and token.isprintable()):
            raise ValueError("has a character that an HTTP header cannot have; copy it again from the portal")
        return token

    @field_validator("now_override")
    @classmethod
    def _utc(cls, moment: datetime | None) -> datetime | None:
        if moment is None:
            return None
        # The years of a run leave room on either side for what is reckoned from its clock.
        if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
            raise ValueError(f"is not in the years {_FIRST_YEAR} to {_LAST_YEAR}")
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return aware.astimezone(UTC).replace(microsecond=0)

    @field_validator("notify_urls", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(url for url in re.split(_BETWEEN_ADDRESSES, value) if url)
        return value

    @field_validator("public_keys", "allowed_hosts", mode="before")
    @classmethod
    def _split_words(cls, value: object) -> object:
        return tuple(re.split(r"[\s,]+", value.strip(" ,"))) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _lake_can_be_reached(self) -> Self:
        if self.lake != self.lake.strip() or not self.lake.isprintable():
            raise ValueError(
                f"CATALUNYA_LAKE: {self.lake!r} begins or ends with a space, or has an invisible character; "
                "correct the variable"
            )
        is_bucket = self.lake.startswith("s3://")
        if "://" in self.lake and not is_bucket and not self.lake.startswith("file://"):
            raise ValueError(f"CATALUNYA_LAKE: {self.lake!r} is neither a folder nor s3://bucket/prefix")
        if self.lambda_prefix and not is_bucket:
            raise ValueError(
                f"CATALUNYA_LAMBDA_PREFIX: functions on AWS cannot reach the lake {self.lake!r}; "
                "set CATALUNYA_LAKE=s3://bucket/prefix, or unset it"
            )
        if self.roles and not self.lambda_prefix:
            raise ValueError(
                "CATALUNYA_ROLES: only the functions have the roles that ingest and stage; set CATALUNYA_LAMBDA_PREFIX, too"
            )
        if self.environment == "production" and not is_bucket:
            raise ValueError(f"CATALUNYA_LAKE: production needs s3://bucket/prefix, not {self.lake!r}")
        return self

    @model_validator(mode="after")
    def _production_is_strict(self) -> Self:
        if self.environment != "production":
            return self
        if self.now_override is not None:
            raise ValueError("CATALUNYA_NOW: production runs on the real clock; unset it")
        for variable, url in self.base_urls().items():
            if url.startswith("http://") and not address.is_loopback_url(url):
                raise ValueError(
                    f"{variable}: production reads over https only, not {address.redacted(url)!r}"
                )
        return self

    @classmethod
    def load(cls) -> Settings:
        """Return the settings of the process environment; raises `UsageError` that names the variable."""
        spare_loopback()
        try:
            return cls.model_validate(_from_files({name: v for name, v in os.environ.items() if v}))
        except ValidationError as error:
            lines = [_explain(e["loc"], e["msg"], e.get("input")) for e in error.errors()]
            raise UsageError("; ".join(lines)) from None

    def base_urls(self) -> dict[str, str]:
        """Return the base URL of each portal by the name of its variable."""
        return dict(zip(PORTAL_VARIABLES, (getattr(self, name) for name in PORTALS), strict=True))

    @property
    def resolved_engine(self) -> Engine:
        """The engine that is set, else Athena in production and DuckDB elsewhere."""
        return self.engine or ("athena" if self.environment == "production" else "duckdb")

    @property
    def alert_addresses(self) -> tuple[str, ...]:
        """Where alerts go: `notify_urls`, or by default the topic of the stack on AWS whose roles the tasks assume."""
        found = _ROLES.fullmatch(self.roles or "")
        if self.notify_urls or found is None:
            return self.notify_urls
        region = aws_region() or AWS_REGION
        return (f"{found['partition']}:sns:{region}:{found['account']}:{found['prefix']}alerts",)

    @property
    def portals_are_default(self) -> bool:
        """True when no base URL was set, so that the demo environment starts its own portal."""
        return all(getattr(self, name) == public for name, public in PORTALS.items())

    def now(self) -> datetime:
        """Return the time of the run: UTC, aware, whole seconds."""
        return self.now_override or datetime.now(UTC).replace(microsecond=0)


def _from_files(variables: dict[str, str]) -> dict[str, str]:
    """Return the variables, with the secrets that are in files; raises `UsageError`."""
    found = dict(variables)
    for name in sorted(_SECRET):
        path = variables.get(f"{name}_FILE")
        if path is None:
            continue
        if name in variables:
            raise UsageError(f"{name} and {name}_FILE are both set; unset one of them")
        try:
            found[name] = Path(path).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise UsageError(f"{name}_FILE: {path} cannot be read: {reason}; correct the variable") from None
        if not found[name]:
            raise UsageError(f"{name}_FILE: {path} is empty; write the secret into it, or unset the variable")
    return found


def _explain(loc: tuple[int | str, ...], message: str, value: object) -> str:
    message = message.removeprefix("Value error, ")
    if not loc:
        return message
    shown = _without_password(value)
    if loc[0] in _SECRET or shown in message or repr(shown) in message:
        return f"{loc[0]}: {message}"
    return f"{loc[0]}: {message}, not {shown!r}"


def _without_password(value: object) -> str:
    """The value as text, without the user and password that a mistyped address may have."""
    text = address.redacted(value)
    return f"***@{text.rpartition('@')[2]}" if "@" in text.replace("***@", "") else text
