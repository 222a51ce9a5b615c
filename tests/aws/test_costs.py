"""The bill of a month, from usage whose costs are known."""

from __future__ import annotations

import pytest

from infrastructure import costs
from infrastructure.costs import GB, Usage
from tests.project import ROOT

GIVEN = {"days_with_news": 30, "memory_mb": 1024, "scratch_mb": 2048, "slower": 1.0}


def test_usage_is_followed_along_the_line_through_two_measurements():
    first, second = (
        Usage(writes=100, reads=50, kept_bytes=2 * GB),
        Usage(writes=104, reads=50, kept_bytes=3 * GB),
    )
    assert costs.at(362, (2, first), (4, second)) == Usage(writes=820, reads=50, kept_bytes=182 * GB)
    assert costs.at(1, (2, Usage(function_seconds=3)), (4, Usage(function_seconds=2))).function_seconds == 2
    assert costs.at(1, (2, first), (4, Usage(writes=1000))).writes == 0


def test_a_month_has_its_runs_its_maintenance_and_what_is_stored():
    bill = {
        line.what: line.usd
        for line in costs.month(
            Usage(writes=10),
            Usage(
                writes=100,
                reads=1000,
                kept_bytes=2 * GB,
                released_bytes=GB / 30,
                queries=100,
                scanned_bytes=10**9,
            ),
            Usage(reads=500),
            **GIVEN,
        )
    }
    assert bill["S3, writes and lists"] == pytest.approx((90 * 10 + 30 * 100) / 1000 * 0.005)
    assert bill["S3, reads"] == pytest.approx((30 * 1000 + 30 * 500) / 1000 * 0.0004)
    # Thirty releases that are kept, and thirty that were deleted within a month.
    assert bill["S3, storage"] == pytest.approx((2 + 2) * 0.023)
    assert bill["Athena"] == pytest.approx(30 * (100 * 10_000_000 + 10**9) / 10**12 * 5)
    assert bill["Alarms"] == pytest.approx(0.70)


def test_bytes_that_leave_aws_are_charged_when_airflow_is_outside():
    news, day = Usage(downloaded_bytes=GB), Usage(downloaded_bytes=GB / 10)
    assert costs.transfer(Usage(), news, day, days_with_news=30).usd == pytest.approx(33 * 0.09)


def test_the_table_of_the_site_in_the_guide_is_what_its_bill_says():
    lines = costs.site(12_000, 150e6, requests=500_000, delivered=15 * GB)
    assert costs.table(lines) in (ROOT / "docs" / "aws.md").read_text("utf-8")
    assert lines[0].usd == pytest.approx(12 * 30 * 0.005)


def test_a_table_has_the_sum():
    assert costs.table(costs.machine()).splitlines()[-1].endswith("**58.79** |")
