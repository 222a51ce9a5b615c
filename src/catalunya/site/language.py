"""The three languages of the site: texts, numbers, dates, and how addresses are spelled."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from babel.dates import format_date
from babel.numbers import format_decimal

CODES = ("ca", "es", "en")
_TEXTS = Path(__file__).parent / "texts"
_ARTICLES = re.compile(r"^(l'|el |la |els |les |es |sa |ses |lo )")


@dataclass(frozen=True)
class Language:
    """One language of the site."""

    code: str
    texts: dict[str, Any]

    def text(self, name: str, **values: object) -> str:
        """Return a text by its name, such as `overview.title`, with values in place of `{names}`."""
        found: Any = self.texts
        for part in name.split("."):
            found = found[part]
        return str(found).format(**values)

    def number(self, value: float | None, digits: int = 0) -> str:
        """Return a number as it is written in the language; without one, the words for no data."""
        if value is None:
            return self.text("no_data")
        return _number(self.code, value, digits)

    def signed(self, value: int) -> str:
        """Return a change with its sign, a true minus included."""
        return f"{'+' if value > 0 else '−' if value < 0 else '±'}{self.number(abs(value))}"

    def places(self, count: int) -> str:
        """Return a number of places in words."""
        return self.text(f"places.{'one' if count == 1 else 'many'}", count=self.number(count))

    def day(self, value: date | None) -> str:
        """Return a date in words; without one, the words for no data."""
        return self.text("no_data") if value is None else _day(self.code, value)


# The same numbers and days are written on many pages.
@cache
def _number(code: str, value: float, digits: int) -> str:
    pattern = "#,##0." + "0" * digits if digits else "#,##0"
    return str(format_decimal(value, format=pattern, locale=code))


@cache
def _day(code: str, value: date) -> str:
    return str(format_date(value, "long", locale=code))


@cache
def language(code: str) -> Language:
    """Return a language by its code."""
    return Language(code, yaml.safe_load((_TEXTS / f"{code}.yml").read_text("utf-8")))


def slug(name: str) -> str:
    """Return a name as a part of an address: lower case, without accents, words joined by hyphens."""
    plain = unicodedata.normalize("NFKD", name.lower().replace("·", "")).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def folded(name: str) -> str:
    """Return a name as it is sorted: as `slug`, without the article in front."""
    return slug(_ARTICLES.sub("", name.lower()))
