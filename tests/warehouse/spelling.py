"""The ways in which a register may spell the name of a municipality."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, fields

from hypothesis import strategies as st

ARTICLES = ("el", "els", "la", "les", "lo", "los", "l'", "es", "ses", "sa")


def _front(stem: str, article: str) -> str:
    return article + stem if article.endswith("'") else f"{article} {stem}"


ARTICLE: dict[str, Callable[[str, str], str]] = {
    "in front": _front,
    "behind": lambda stem, article: f"{stem}, {article}",
    "behind a bare comma": lambda stem, article: f"{stem},{article}",
    "in brackets": lambda stem, article: f"{stem} ({article})",
}
CASE: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "capitals": str.upper,
    "small letters": str.lower,
    "capital letters in front": str.title,
}
ACCENTS: dict[str, Callable[[str], str]] = {
    "as they are": str,
    "left out": lambda text: "".join(
        c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c)
    ),
    "apart": lambda text: unicodedata.normalize("NFD", text),
}
APOSTROPHE = ("'", "’", "‘", "´", "`", "ʼ", "′", "' ", "’ ")
HYPHEN = ("-", "–", "—", "‐", "‑", " - ", " ")
SPACE = (
    " ",
    "  ",
    "   ",
    "\u00a0",
    "\u202f",
    "\u3000",
    "\u2009 ",
    "\u2028",
    "\u2029",
    "\u0085",
    "\t",
    "\u2800",
)
INVISIBLE = (
    "",
    *"\u00ad\u200b\u200c\u200d\u200e\u200f\u061c\u202a\u202c\u2060\u2066\u2069\ufeff\u180e\u034f\ufe0f\u3164\U000e0061",
)
"""Put in front, behind and after the first letter of every word."""
GEMINATE = ("l·l", "l.l", "l•l", "l‧l", "l∙l", "ŀl", "l· l")


@dataclass(frozen=True)
class Spelling:
    """One choice in each declared class."""

    article: str = "behind"
    case: str = "as it is"
    accents: str = "as they are"
    apostrophe: str = "'"
    hyphen: str = "-"
    space: str = " "
    geminate: str = "l·l"
    invisible: str = ""

    def of(self, name: str) -> str:
        """The name, given as the municipality list words it, in this spelling."""
        stem, comma, article = name.rpartition(", ")
        if comma and article.lower() in ARTICLES:
            name = ARTICLE[self.article](stem, article)
        name = name.replace("l·l", self.geminate).replace("-", self.hyphen).replace(" ", self.space)
        name = ACCENTS[self.accents](CASE[self.case](name))
        words = name.replace("'", self.apostrophe).split(" ")
        hidden = self.invisible
        return " ".join(f"{hidden}{word[:1]}{hidden}{word[1:]}{hidden}" if word else word for word in words)


CHOICES: dict[str, tuple[str, ...]] = {
    "article": tuple(ARTICLE),
    "case": tuple(CASE),
    "accents": tuple(ACCENTS),
    "apostrophe": APOSTROPHE,
    "hyphen": HYPHEN,
    "space": SPACE,
    "geminate": GEMINATE,
    "invisible": INVISIBLE,
}

SPELLINGS = st.builds(
    Spelling, **{field.name: st.sampled_from(CHOICES[field.name]) for field in fields(Spelling)}
)

ONE_BY_ONE = [
    Spelling(),
    *(Spelling(**{name: choice}) for name, choices in CHOICES.items() for choice in choices),
]
"""Every choice of every class, the others left as the list has them."""
