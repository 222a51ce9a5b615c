"""Which municipality a name means, in plain Python, by the rules of the design."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field

APOSTROPHES = "’‘´`ʼ′"
HYPHENS = "–—‐‑-"
NOT_SHOWN = "\u034f\u115f\u1160\u2065\u3164\uffa0"
"""What is not seen although Unicode does not call it a format character."""
DOTS = "·.•‧∙"
ARTICLES = ("els", "el", "la", "les", "los", "lo", "l'", "es", "ses", "sa", "s'")

_BEHIND = re.compile(rf"(.+?)(?: ?, ?| ?\()({'|'.join(ARTICLES)}) ?\)?")
_GEMINATE = re.compile(f"l ?[{DOTS}] ?l")
_ELIDED = re.compile(r"\s*'\s*")


def plain(text: str) -> str:
    """Text without regard to case, accents, invisible characters, kinds of apostrophe, hyphen and space, the dot of l·l."""
    text = "".join(c for c in text if unicodedata.category(c) != "Cf" and c not in NOT_SHOWN)
    text = "".join(" " if c == "\u2800" or unicodedata.category(c) == "Cc" else c for c in text)
    for mark in APOSTROPHES:
        text = text.replace(mark, "'")
    for mark in HYPHENS:
        text = text.replace(mark, " ")
    decomposed = unicodedata.normalize("NFD", text.lower().replace("ŀ", "l"))
    bare = "".join(letter for letter in decomposed if not unicodedata.category(letter).startswith("M"))
    return " ".join(_ELIDED.sub("'", _GEMINATE.sub("ll", " ".join(bare.split()))).split())


def place_key(name: str) -> str:
    """A place's name as it is compared, with its article in front."""
    text = plain(name)
    behind = _BEHIND.fullmatch(text)
    if behind:
        stem, article = behind.groups()
        text = article + ("" if article.endswith("'") else " ") + stem
    return " ".join(text.replace(",", " ").split())


def without_article(key: str) -> str:
    """A comparable name that begins with an article, without it; any other name as it is."""
    for article in ARTICLES:
        front = article if article.endswith("'") else f"{article} "
        if key.startswith(front):
            return key.removeprefix(front)
    return key


def kind_id(name: str) -> str:
    """The id of a kind of service: lower-case words joined by hyphens."""
    return re.sub("[^a-z0-9]+", "-", plain(name)).strip("-")


def province_of(postal_code: str | None) -> str | None:
    """The first two digits of a Spanish postal code, which may have lost a zero in front; None for anything else."""
    digits = postal_code or ""
    return digits.zfill(5)[:2] if re.fullmatch("[0-9]{4,5}", digits) else None


@dataclass(frozen=True)
class Match:
    """What a stated municipality and comarca mean."""

    municipality_id: str | None
    municipality_match: str
    unmatched_reason: str | None = None
    comarca_contradicts: bool = False
    postal_code_contradicts: bool = False


@dataclass
class Gazetteer:
    """The names and comarques that each municipality that services are counted in has and had."""

    current_names: dict[str, set[str]] = field(default_factory=dict)
    """Key to the municipalities that have the name today."""
    former_names: dict[str, set[str]] = field(default_factory=dict)
    short_names: dict[str, set[str]] = field(default_factory=dict)
    """Key without its article to the municipalities that have or had the name with it."""
    comarca_of: dict[str, str] = field(default_factory=dict)
    former_comarques: dict[str, set[str]] = field(default_factory=dict)
    comarca_by_key: dict[str, set[str]] = field(default_factory=dict)

    def add_name(self, municipality_id: str, name: str, *, is_current: bool) -> None:
        """Learn that a municipality has, or had, a name."""
        names = self.current_names if is_current else self.former_names
        key = place_key(name)
        names.setdefault(key, set()).add(municipality_id)
        if without_article(key) != key:
            self.short_names.setdefault(without_article(key), set()).add(municipality_id)

    def add_comarca_name(self, comarca_id: str, name: str) -> None:
        """Learn that a comarca goes by a name."""
        self.comarca_by_key.setdefault(place_key(name), set()).add(comarca_id)

    def find(
        self, municipality_name: str | None, comarca_name: str | None, postal_code: str | None = None
    ) -> Match:
        """The one municipality that is meant: by name and comarca of today, then of before, then by name alone.

        Between the last two, a name without its article counts within the stated comarca.

        A postal code of another province casts doubt; together with a comarca that contradicts it refutes the name.
        """
        key = place_key(municipality_name or "")
        if key in {"", "no consta"}:
            return Match(None, "unmatched", "no_name")
        current = self.current_names.get(key, set())
        former = self.former_names.get(key, set()) - current
        stated = self._comarca(comarca_name)
        everyone = current | former
        short = self.short_names.get(key, set()) - everyone
        belongs = {m for m in everyone | short if stated and self.comarca_of.get(m) == stated}
        belonged = belongs | {m for m in everyone | short if stated in self.former_comarques.get(m, set())}
        choices: Iterable[tuple[str, set[str]]] = (
            ("name_in_comarca", current & belongs),
            ("name_in_former_comarca", current & belonged),
            ("former_name", former & belonged),
            ("name_without_article", short & belonged),
            ("name_unique", everyone),
        )
        how, found = next((choice for choice in choices if choice[1]), ("", set()))
        if len(found) != 1:
            return Match(None, "unmatched", "ambiguous_name" if found else "unknown_name")
        (municipality_id,) = found
        if how == "name_unique" and municipality_id in former:
            how = "former_name"
        comarca = self._says_something(comarca_name) and municipality_id not in belonged
        province = province_of(postal_code)
        post = province is not None and province != municipality_id[:2]
        if comarca and post:
            return Match(None, "unmatched", "contradicted", comarca, post)
        return Match(municipality_id, how, None, comarca, post)

    def _comarca(self, name: str | None) -> str | None:
        found = self.comarca_by_key.get(place_key(name or ""), set())
        return next(iter(found)) if len(found) == 1 else None

    @staticmethod
    def _says_something(comarca_name: str | None) -> bool:
        return place_key(comarca_name or "") not in {"", "no consta"}
