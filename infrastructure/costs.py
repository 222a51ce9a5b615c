"""The costs of a month on AWS: list prices times the measured usage of a run. `bench/aws.py` measures and prints them."""

from __future__ import annotations

from dataclasses import asdict, dataclass

RUNS_A_MONTH = 4 * 30
"""One every six hours."""
HOURS_A_MONTH = 730
GB = 1024**3


@dataclass(frozen=True)
class Prices:
    """List prices in US dollars of US East (N. Virginia) without free tier; Ireland is up to a tenth more expensive.

    From aws.amazon.com/s3/pricing, /lambda/pricing, /athena/pricing, /cloudwatch/pricing, /ec2/pricing/on-demand,
    /ebs/pricing, /vpc/pricing, /cloudfront/pricing and /secrets-manager/pricing. In November 2026 second sources agreed
    for all of them except scratch space and CloudFront: check those before you rely on them.
    """

    stored_gb_month: float = 0.023
    writes_1000: float = 0.005
    """PUT, COPY, POST and LIST."""
    reads_1000: float = 0.0004
    """GET, HEAD and all others; DELETE is free."""
    transfer_gb: float = 0.09
    """Sent out of AWS; free within a region."""
    function_gb_second: float = 0.0000133334
    """On arm64."""
    scratch_gb_second: float = 0.0000000309
    """For the part above 512 MB."""
    invocations_million: float = 0.20
    athena_tb: float = 5.0
    log_gb: float = 0.50
    alarm_month: float = 0.10
    instance_hour: float = 0.0672
    """t4g.large on demand: two processors, 8 GiB."""
    volume_gb_month: float = 0.08
    """gp3."""
    address_hour: float = 0.005
    """A public IPv4 address."""
    secret_month: float = 0.40
    delivered_gb: float = 0.085
    """Sent by CloudFront to readers in Europe and North America."""
    delivered_10000: float = 0.012
    """Requests over TLS, in Europe."""
    routed_million: float = 0.10 + 0.03
    """Invocations of the function that leads each address, with its look into the key value store."""


@dataclass(frozen=True)
class Usage:
    """What a run, or a day of maintenance, asks for, or what there is after it."""

    writes: float = 0
    reads: float = 0
    downloaded_bytes: float = 0
    """From S3 to the machine of Airflow."""
    function_seconds: float = 0
    invocations: float = 0
    log_bytes: float = 0
    kept_bytes: float = 0
    """All of landing, staging and quarantine."""
    released_bytes: float = 0
    """The files of one release, its documentation and published copies."""
    queries: float = 0
    """Of Athena that read; it bills at least ten megabytes for each."""
    scanned_bytes: float = 0


def at(count: float, first: tuple[float, Usage], second: tuple[float, Usage]) -> Usage:
    """Return the usage at `count` snapshots, on the straight line through two measurements.

    Seconds do not follow the line: they differ more from run to run than they depend on snapshots (`bench/growth.py`). The
    smaller measurement counts, that of the less busy machine.
    """
    (low, small), (high, large) = first, second
    few, many = asdict(small), asdict(large)
    found = {name: few[name] + (many[name] - few[name]) / (high - low) * (count - low) for name in few}
    found["function_seconds"] = min(small.function_seconds, large.function_seconds)
    return Usage(**{name: max(0.0, value) for name, value in found.items()})


@dataclass(frozen=True)
class Line:
    """One line of the bill."""

    what: str
    amount: str
    usd: float


def month(
    nothing_new: Usage,
    new: Usage,
    daily: Usage,
    *,
    days_with_news: int,
    memory_mb: int,
    scratch_mb: int,
    slower: float,
    releases_kept: int = 30,
    days_deleted_kept: int = 30,
    alarms: int = 7,
    prices: Prices | None = None,
) -> list[Line]:
    """Return the bill of a month in which sources changed on `days_with_news` days, from the usage that its runs have.

    `daily` is the maintenance of a day. `slower` is the factor by which a function is slower than the machine that the usage
    was measured on. Athena is billed as if each query read ten megabytes more than it does, which is at most that much too
    much. Releases that were deleted are kept as versions for `days_deleted_kept`, one a day with news.
    """
    price = prices or Prices()
    quiet = RUNS_A_MONTH - days_with_news

    def total(name: str) -> float:
        runs = quiet * getattr(nothing_new, name) + days_with_news * getattr(new, name)
        return float(runs + 30 * getattr(daily, name))

    releases = releases_kept + days_deleted_kept * days_with_news / 30
    stored = (new.kept_bytes + new.released_bytes * releases) / GB
    seconds = total("function_seconds") * slower
    charged = (total("scanned_bytes") + total("queries") * 10_000_000) / 10**12
    return [
        Line("S3, storage", f"{stored:.2f} GB", stored * price.stored_gb_month),
        Line("S3, writes and lists", f"{total('writes'):,.0f}", total("writes") / 1000 * price.writes_1000),
        Line("S3, reads", f"{total('reads'):,.0f}", total("reads") / 1000 * price.reads_1000),
        Line(
            "Lambda, memory",
            f"{seconds * memory_mb / 1024:,.0f} GB-s",
            seconds * memory_mb / 1024 * price.function_gb_second,
        ),
        Line(
            "Lambda, scratch space, invocations, logs",
            f"{total('invocations'):,.0f}",
            seconds * (scratch_mb - 512) / 1024 * price.scratch_gb_second
            + total("invocations") / 1e6 * price.invocations_million
            + total("log_bytes") / GB * price.log_gb,
        ),
        Line("Alarms", str(alarms), alarms * price.alarm_month),
        Line("Athena", f"{charged:.3f} TB", charged * price.athena_tb),
    ]


def transfer(
    nothing_new: Usage, new: Usage, daily: Usage, *, days_with_news: int, prices: Prices | None = None
) -> Line:
    """Return what a month costs more when Airflow runs outside AWS: the bytes that it downloads."""
    price = prices or Prices()
    quiet = RUNS_A_MONTH - days_with_news
    runs = quiet * nothing_new.downloaded_bytes + days_with_news * new.downloaded_bytes
    sent = (runs + 30 * daily.downloaded_bytes) / GB
    return Line("Transfer out of AWS", f"{sent:.2f} GB", sent * price.transfer_gb)


def machine(volumes_gb: int = 16 + 50, secrets: int = 2, prices: Prices | None = None) -> list[Line]:
    """Return the monthly bill of the instance that runs Airflow in the account (`infrastructure/airflow_instance.py`)."""
    price = prices or Prices()
    return [
        Line("t4g.large, on demand", f"{HOURS_A_MONTH} hours", HOURS_A_MONTH * price.instance_hour),
        Line("Volumes, gp3", f"{volumes_gb} GB", volumes_gb * price.volume_gb_month),
        Line("Public IPv4 address", f"{HOURS_A_MONTH} hours", HOURS_A_MONTH * price.address_hour),
        Line("Secrets", str(secrets), secrets * price.secret_month),
    ]


def site(
    files: int,
    size: float,
    *,
    days_with_news: int = 30,
    kept: int = 30,
    requests: float,
    delivered: float,
    prices: Prices | None = None,
) -> list[Line]:
    """Return the monthly bill of the public site: `files` of `size` bytes in all, uploaded on each day with news.

    Readers make `requests`, which get `delivered` bytes. CloudFront's free tier, 1 TB and ten million requests a month, is
    not taken off.
    """
    price = prices or Prices()
    uploads = files * days_with_news
    stored = size * kept / GB
    return [
        Line("S3, uploads", f"{uploads:,}", uploads / 1000 * price.writes_1000),
        Line("S3, storage", f"{stored:.2f} GB", stored * price.stored_gb_month),
        Line("CloudFront, bytes", f"{delivered / GB:.1f} GB", delivered / GB * price.delivered_gb),
        Line(
            "CloudFront, requests",
            f"{requests:,.0f}",
            requests / 10_000 * price.delivered_10000 + requests / 1e6 * price.routed_million,
        ),
    ]


def table(lines: list[Line]) -> str:
    """Return the bill as a Markdown table with its sum."""
    rows = [f"| {line.what} | {line.amount} | {line.usd:.2f} |" for line in lines]
    whole = f"| **all** | | **{sum(line.usd for line in lines):.2f}** |"
    return "\n".join(["| what | a month | US dollars |", "|---|---:|---:|", *rows, whole])
