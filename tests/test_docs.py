"""dbt's documentation page of a demo release."""

from __future__ import annotations

from importlib.resources import files

import pytest

from catalunya.errors import BuildFailed
from catalunya.publication import demo_notice
from catalunya.runs import dbt_docs


def test_dbts_own_page_says_demo_data_in_its_title_and_at_the_top_of_its_body():
    page = files("dbt.task.docs").joinpath("index.html").read_text("utf-8")
    marked = dbt_docs.marked(page)
    assert marked.count(demo_notice.NOTICE) == 1
    assert "<title>DEMO DATA: dbt Docs</title>" in marked
    top = marked.partition("<body>")[2]
    assert top.index(demo_notice.NOTICE) < top.index("<svg")
    assert "display:none" not in top[: top.index(demo_notice.NOTICE)]
    assert ".app{top:24px !important" in top


@pytest.mark.parametrize("page", ["", "<html><title>dbt</title></html>", "<html><body></body></html>"])
def test_a_page_that_cannot_be_marked_is_an_error_not_an_unmarked_page(page):
    with pytest.raises(BuildFailed, match="cannot be marked as demo data"):
        dbt_docs.marked(page)
