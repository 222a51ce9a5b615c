"""The pages that say how each figure is made, and what each table depends on."""

from __future__ import annotations

from collections.abc import Iterator

from catalunya.site.pages import Pages


def method_pages(pages: Pages) -> Iterator[tuple[str, str]]:
    """Return the file and HTML of the pages Method and Lineage."""
    yield pages.page("method", {"sections": pages.language.texts["method"]["sections"]})
    yield pages.page("lineage", {"dbt_docs": pages.content.dbt_docs})
