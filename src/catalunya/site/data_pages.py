"""The pages about the data themselves: what can be fetched, and how they came about."""

from __future__ import annotations

from collections.abc import Iterator

from catalunya.site.language import language
from catalunya.site.pages import Content, Pages


def data_pages(content: Content, code: str) -> Iterator[tuple[str, str]]:
    """Return the file and HTML of the pages *Data* and *Status* in a language."""
    pages = Pages(content, language(code))
    yield pages._page("data", {"downloads": content.downloads})
    yield pages._page("status", {})
