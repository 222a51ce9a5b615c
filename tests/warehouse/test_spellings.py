"""Names find their municipality in any spelling, no two are confused, and an unknown name finds none.

The examples go in batches through the SQL that dbt compiled, on the 947 municipalities of the list of 2024-12, with
the names and comarques that they had before.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalunya.demo.data.territory import comarques, municipalities
from tests.oracle.kept import seed
from tests.oracle.names import place_key, without_article

from .spelling import ONE_BY_ONE, SPELLINGS, Spelling
from .warehouse import Warehouse, kept_models, municipality

pytestmark = pytest.mark.xdist_group("dbt")

QUICK = settings(
    max_examples=60,
    database=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)
Stated = tuple[str, str | None]
"""A municipality and a comarca as a register words them."""


@dataclass(frozen=True)
class Named:
    """A name that a municipality has or had, as a list words it, and a comarca that it belongs or belonged to."""

    municipality_id: str
    name: str
    comarca: str
    municipality_match: str
    """How the name is to be found in that comarca."""

    @property
    def found(self) -> tuple[str, str]:
        """What the matching is to answer."""
        return self.municipality_id, self.municipality_match


def _all_named() -> Iterator[Named]:
    behind = {"el", "la", "els", "les"}
    before: dict[str, set[str]] = {}
    for row in seed("municipality_former_comarques"):
        before.setdefault(row["municipality_id"], set()).add(row["comarca_id"])
    former: dict[str, set[str]] = {}
    for row in seed("municipality_former_names"):
        article, _, stem = row["former_name"].partition(" ")
        listed = f"{stem}, {article}" if article in behind else row["former_name"]
        former.setdefault(row["municipality_id"], set()).add(listed)
    for m in municipalities():
        names = {m.name, *former.get(m.municipality_id, ())}
        belonged = {m.comarca_id, *before.get(m.municipality_id, ())}
        for name in sorted(names):
            for comarca_id in sorted(belonged):
                here = "name_in_comarca" if comarca_id == m.comarca_id else "name_in_former_comarca"
                how = here if name == m.name else "former_name"
                yield Named(m.municipality_id, name, comarques()[comarca_id], how)


GEMINATE = Named("081496", "Vil·la d'Olost, la", "Lluçanès", "former_name")
"""No municipality of today has l·l in its name, so one is given such a name of before."""
NAMED = [*_all_named(), GEMINATE]
KEYS = {place_key(named.name) for named in NAMED} | {place_key(m.former_name) for m in municipalities()}
SHORT = {without_article(key) for key in KEYS}
"""Names without their article, which are known within a comarca."""
COMARQUES = list(comarques().values())


class Matcher:
    """The model of the matching, on an open warehouse."""

    def __init__(self, warehouse: Warehouse) -> None:
        [self._statement] = [
            node.statement for node in kept_models().nodes if node.result.name == "int_municipality_match"
        ]
        self._con = duckdb.connect(warehouse.path)

    def find(self, stated: Iterable[Stated]) -> dict[Stated, tuple[str | None, str]]:
        """What each pair means: the municipality, and how it was found."""
        pairs = list(stated)
        self._con.execute("begin")
        # One JSON text: lists of thousands are slow to hand over one value at a time.
        self._con.execute(
            "insert into staging.social_services (municipality_name, comarca_name) "
            """select pair[1], pair[2] from (select unnest(from_json(?::json, '[["VARCHAR"]]')) as pair)""",
            [json.dumps(pairs)],
        )
        self._con.execute("drop table intermediate.int_municipality_match")
        self._con.execute(self._statement)
        rows = self._con.execute(
            "select municipality_name, comarca_name, municipality_id, municipality_match "
            "from intermediate.int_municipality_match where municipality_name is not null"
        ).fetchall()
        self._con.execute("rollback")
        return {(name, comarca): (found, how) for name, comarca, found, how in rows}

    def close(self) -> None:
        """Give the file back."""
        self._con.close()


@pytest.fixture(scope="module")
def matcher(tmp_path_factory: pytest.TempPathFactory, work: Path) -> Iterator[Matcher]:
    """The matching on the list of 2024-12, after that of 2023-05 and one with the invented name."""
    warehouse = Warehouse(tmp_path_factory.mktemp("names") / "candidate.duckdb", work)
    geminate = municipality(GEMINATE.municipality_id, GEMINATE.name, "24", "Osona")
    before, after = [], []
    for m in municipalities():
        for rows, name, comarca_id in (
            (before, m.former_name or m.name, m.former_comarca_id or m.comarca_id),
            (after, m.name, m.comarca_id),
        ):
            rows.append(municipality(m.municipality_id, name, comarca_id, comarques()[comarca_id]))
    warehouse.add("municipalities", "2022-05-15", [geminate])
    warehouse.add("municipalities", "2023-05-15", before)
    warehouse.add("municipalities", "2024-12-19", after)
    warehouse.build(tests=False)
    opened = Matcher(warehouse)
    yield opened
    opened.close()


def test_every_kind_of_spelling_finds_every_municipality(matcher: Matcher) -> None:
    wanted = {
        (spelling.of(named.name), named.comarca): named.found for named in NAMED for spelling in ONE_BY_ONE
    }
    assert len({municipality_id for municipality_id, _ in wanted.values()}) == 947
    assert wrong(matcher.find(wanted), wanted) == []


@QUICK
@given(st.lists(st.tuples(st.sampled_from(NAMED), SPELLINGS, SPELLINGS), min_size=1, max_size=60))
def test_any_mixture_of_spellings_finds_the_municipality(
    matcher: Matcher, examples: list[tuple[Named, Spelling, Spelling]]
) -> None:
    wanted = {
        (name.of(named.name), comarca.of(named.comarca)): named.found for named, name, comarca in examples
    }
    assert wrong(matcher.find(wanted), wanted) == []


def test_a_name_without_its_article_finds_its_municipality_in_its_comarca_alone(matcher: Matcher) -> None:
    today = {m.municipality_id: m.name for m in municipalities()}
    short = {
        (named.name.rpartition(", ")[0], named.comarca): named.municipality_id
        for named in NAMED
        if named is not GEMINATE
        and place_key(named.name.rpartition(", ")[0]) not in KEYS | {""}
        and without_article(place_key(named.name)) == place_key(named.name.rpartition(", ")[0])
    }
    assert len({code for code in short.values() if code in today}) > 100
    wanted = {pair: (code, "name_without_article") for pair, code in short.items()}
    homes: dict[str, set[str]] = {}
    for name, comarca in short:
        homes.setdefault(place_key(name), set()).add(comarca)
    wanted |= {
        (name, comarca): (None, "unmatched")
        for name, _ in short
        for comarca in [*COMARQUES, None]
        if comarca not in homes[place_key(name)]
    }
    assert wrong(matcher.find(wanted), wanted) == []


def test_no_two_municipalities_are_confused_wherever_they_are_said_to_be(matcher: Matcher) -> None:
    current = {m.municipality_id: m.name for m in municipalities()}
    spelling = Spelling(article="in front", case="capitals", accents="left out", hyphen=" ")
    spelt = {spelling.of(name): key for key, name in current.items()}
    wanted = {(name, comarca): key for name, key in spelt.items() for comarca in [*COMARQUES, None]}
    found = {pair: municipality_id for pair, (municipality_id, _) in matcher.find(wanted).items()}
    assert len(wanted) == 947 * 44
    assert wrong(found, wanted) == []


def test_names_that_differ_by_a_letter_are_told_apart(matcher: Matcher) -> None:
    near = list(_near_names())
    assert len(near) > 20
    wanted = {
        (spelling.of(one.name), other.comarca): one.municipality_id
        for one, other in near
        for spelling in ONE_BY_ONE
    }
    found = {pair: municipality_id for pair, (municipality_id, _) in matcher.find(wanted).items()}
    assert wrong(found, wanted) == []


@QUICK
@given(
    st.lists(
        st.tuples(
            st.one_of(
                st.text(st.characters(codec="utf-8"), max_size=30),
                st.text("abcdeilnorstuàçéïò'-· ", min_size=1, max_size=12),
                st.builds(
                    lambda named, at, letter, cut: named.name[:at] + letter + named.name[at + cut :],
                    st.sampled_from(NAMED),
                    st.integers(0, 30),
                    st.sampled_from(["", "x", "n", "s", " i ", ", el", ".", "(", "1"]),
                    st.integers(0, 3),
                ),
                st.builds(lambda a, b: f"{a.name} {b.name}", st.sampled_from(NAMED), st.sampled_from(NAMED)),
                st.builds(lambda named: named.name.rpartition(", ")[0], st.sampled_from(NAMED)),
            ),
            SPELLINGS,
            st.sampled_from([*COMARQUES, None, "Enlloc"]),
        ),
        min_size=1,
        max_size=60,
    )
)
def test_an_unknown_name_is_never_matched(
    matcher: Matcher, examples: list[tuple[str, Spelling, str | None]]
) -> None:
    spelt = {(spelling.of(name), comarca) for name, spelling, comarca in examples}
    unknown = [pair for pair in spelt if pair[0] and place_key(pair[0]) not in KEYS | SHORT]
    assert wrong(matcher.find(unknown), dict.fromkeys(unknown, (None, "unmatched"))) == []


def wrong(found: dict[Stated, Any], wanted: dict[Stated, Any]) -> list[tuple[Stated, Any, Any]]:
    """The first pairs that mean something else than they are to: what was found, and what was wanted."""
    return [(pair, found.get(pair), wanted[pair]) for pair in wanted if found.get(pair) != wanted[pair]][:20]


def _near_names() -> Iterator[tuple[Named, Named]]:
    """Ordered pairs of municipalities whose names of today become one when each loses a letter at most."""
    by_part: dict[str, set[int]] = {}
    today = {m.municipality_id: m.name for m in municipalities()}
    names = [named for named in NAMED if named.name == today[named.municipality_id]]
    for index, named in enumerate(names):
        key = place_key(named.name)
        for part in {key, *(key[:at] + key[at + 1 :] for at in range(len(key)))}:
            by_part.setdefault(part, set()).add(index)
    for indexes in by_part.values():
        for one in indexes:
            for other in indexes:
                if names[one].municipality_id != names[other].municipality_id:
                    yield names[one], names[other]
