"""The pages about the data: how each figure is made, what was read and judged, and what each table depends on."""

from __future__ import annotations

from collections.abc import Iterator

from catalunya.site.pages import Pages


def status_pages(pages: Pages) -> Iterator[tuple[str, str]]:
    """Return the file and HTML of the pages Method, Status and Lineage."""
    content = pages.content
    released_on = content.release.released_at.date()
    yield pages.page("method", {"sections": pages.language.texts["method"]["sections"]})
    yield pages.page(
        "status",
        {
            "status": content.status,
            "days_old": {
                name: (released_on - source.manifest.taken_at.date()).days
                for name, source in content.status.sources.items()
                if source.manifest
            },
        },
    )
    yield pages.page("lineage", {"dbt_docs": content.status.dbt_docs})
