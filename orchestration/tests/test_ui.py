"""The web interface in a real browser; screenshots are kept in `.artefacts/` or CATALUNYA_ARTEFACTS."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from orchestration.tests.airflow_instance import Airflow
from orchestration.tests.api import EndedRun
from tests.project import ROOT

pytestmark = pytest.mark.xdist_group("airflow")


@pytest.fixture(scope="module")
def pictures() -> Path:
    path = Path(os.environ.get("CATALUNYA_ARTEFACTS", ROOT / ".artefacts"))
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture(scope="module")
def page(browser: Browser) -> Page:
    found = browser.new_page(viewport={"width": 1500, "height": 900})
    found.set_default_timeout(120_000)
    return found


@pytest.fixture(scope="module")
def inside(page: Page, airflow: Airflow) -> Page:
    """Logged in as the development user."""
    page.goto(airflow.url)
    page.fill("input[name=username]", "airflow")
    page.fill("input[name=password]", "airflow")
    page.click("button:has-text('Sign in')")
    expect(page.get_by_role("heading", name="Catalunya (demo data)")).to_be_visible()
    return page


def test_a_wrong_password_is_refused(page, airflow, pictures):
    page.goto(airflow.url)
    page.fill("input[name=username]", "airflow")
    page.fill("input[name=password]", "wrong")
    page.click("button:has-text('Sign in')")
    expect(page.get_by_text("Invalid credentials").first).to_be_visible()
    assert "login" in page.url


def test_the_graph_shows_every_task(inside, airflow, first, pictures):
    inside.goto(f"{airflow.url}/dags/catalunya_data_pipeline")
    inside.get_by_label("Show Graph").first.click()
    for name in {name.split("[")[0] for name in first.tasks}:
        expect(inside.locator(".react-flow__node", has_text=name).first).to_be_visible()
    inside.screenshot(path=pictures / "dag-graph.png")


def test_a_finished_run_shows_its_tasks_and_the_log_of_dbt(inside, airflow, first: EndedRun, pictures):
    run = f"{airflow.url}/dags/catalunya_data_pipeline/runs/{first.run_id}"
    inside.goto(run)
    expect(inside.get_by_text("validate_data_quality").first).to_be_visible()
    expect(inside.get_by_text("Success").first).to_be_visible()
    inside.screenshot(path=pictures / "run.png")
    inside.goto(f"{run}/tasks/run_dbt_transformations")
    # The page draws only the lines of the log that are in sight.
    expect(inside.get_by_text(re.compile(r"model \w+: OK in")).first).to_be_visible()
    inside.screenshot(path=pictures / "dbt-log.png")


def test_the_assets_lead_from_the_datasets_to_the_marts(inside, airflow, first, pictures):
    inside.goto(f"{airflow.url}/assets")
    inside.get_by_text("marts/coverage_comarca", exact=True).first.click()
    inside.get_by_text("Task Dependencies").first.click()
    for name in ("landing/population", "publish_release", "marts/coverage_comarca"):
        expect(inside.locator(".react-flow__node", has_text=name).first).to_be_visible()
    inside.wait_for_timeout(1000)
    inside.screenshot(path=pictures / "assets.png")
