"""The costs of a month on AWS: list prices times the measured usage of a run. `bench/aws.py` measures and prints them."""

from __future__ import annotations

from dataclasses import dataclass

RUNS_A_MONTH = 4 * 30
"""One every six hours."""
GB = 1024**3


@dataclass(frozen=True)
class Prices:
    """List prices in US dollars of US East (N. Virginia) without free tier; Ireland is up to a tenth more expensive.

    From aws.amazon.com/s3/pricing, /lambda/pricing, /athena/pricing and /cloudwatch/pricing. In November 2026 second
    sources agreed for storage, requests, functions on arm64, Athena and logs. There was no second source for infrequent
    access, scratch space and alarms: check these before you rely on them.
    """

    stored_gb_month: float = 0.023
    cold_gb_month: float = 0.0125
    """Standard - Infrequent Access, for landed bytes older than 90 days."""
    writes_1000: float = 0.005
    """PUT, COPY, POST and LIST."""
    reads_1000: float = 0.0004
    """GET and all others; DELETE is free."""
    function_gb_second: float = 0.0000133334
    """On arm64."""
    scratch_gb_second: float = 0.0000000309
    """For the part above 512 MB."""
    invocations_million: float = 0.20
    athena_tb: float = 5.0
    log_gb: float = 0.50
    alarm_month: float = 0.10


@dataclass(frozen=True)
class RunUsage:
    """The measured usage of one run."""

    writes: int
    reads: int
    function_seconds: float
    invocations: int
    log_bytes: int
    landed_bytes: int
    """In landing, staging and quarantine."""
    released_bytes: int
    scanned_bytes: int = 0
    """Read by Athena, which bills at least ten megabytes a query; 0 when DuckDB builds."""


@dataclass(frozen=True)
class Line:
    """One line of the bill."""

    what: str
    amount: str
    usd: float


def month(
    nothing_new: RunUsage,
    new: RunUsage,
    *,
    days_with_news: int,
    memory_mb: int,
    scratch_mb: int,
    slower: float,
    months: int = 12,
    releases_kept: int = 30,
    alarms: int = 6,
    prices: Prices | None = None,
) -> list[Line]:
    """Return the bill of the last of `months` months, in which sources changed on `days_with_news` days.

    `slower` is the factor by which a function is slower than the machine that the usage was measured on.
    """
    price = prices or Prices()
    quiet = RUNS_A_MONTH - days_with_news

    def total(name: str) -> float:
        return float(quiet * getattr(nothing_new, name) + days_with_news * getattr(new, name))

    seconds = total("function_seconds") * slower
    landed = new.landed_bytes * days_with_news / GB
    warm, cold = landed * min(months, 3), landed * max(months - 3, 0)
    released = new.released_bytes * releases_kept / GB
    return [
        Line("S3, storage", f"{warm + released:.2f} GB", (warm + released) * price.stored_gb_month),
        Line("S3, storage of landed bytes after 90 days", f"{cold:.2f} GB", cold * price.cold_gb_month),
        Line("S3, writes and lists", f"{total('writes'):,.0f}", total("writes") / 1000 * price.writes_1000),
        Line("S3, reads", f"{total('reads'):,.0f}", total("reads") / 1000 * price.reads_1000),
        Line(
            "Lambda, memory",
            f"{seconds * memory_mb / 1024:,.0f} GB-s",
            seconds * memory_mb / 1024 * price.function_gb_second,
        ),
        Line(
            "Lambda, scratch space",
            f"{seconds * (scratch_mb - 512) / 1024:,.0f} GB-s",
            seconds * (scratch_mb - 512) / 1024 * price.scratch_gb_second,
        ),
        Line(
            "Lambda, invocations",
            f"{total('invocations'):,.0f}",
            total("invocations") / 1e6 * price.invocations_million,
        ),
        Line("Logs", f"{total('log_bytes') / GB:.3f} GB", total("log_bytes") / GB * price.log_gb),
        Line("Alarms", str(alarms), alarms * price.alarm_month),
        Line(
            "Athena, bytes read",
            f"{total('scanned_bytes') / GB:.2f} GB",
            total("scanned_bytes") / 1024**4 * price.athena_tb,
        ),
    ]


def table(lines: list[Line]) -> str:
    """Return the bill as a Markdown table with its sum."""
    rows = [f"| {line.what} | {line.amount} | {line.usd:.2f} |" for line in lines]
    whole = f"| **all** | | **{sum(line.usd for line in lines):.2f}** |"
    return "\n".join(["| what | a month | US dollars |", "|---|---:|---:|", *rows, whole])
