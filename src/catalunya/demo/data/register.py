"""The demo register: about 11,000 invented services whose residence places add up to the published totals."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date, timedelta
from functools import cache

import msgspec

from catalunya.demo.data import vocabulary
from catalunya.demo.data.events import History
from catalunya.demo.data.rng import seeded
from catalunya.demo.data.service import Row, Service, row_of
from catalunya.demo.data.territory import (
    Municipality,
    comarques,
    municipalities,
    official_residence_places,
    service_types,
)

EPOCH = date(2024, 12, 31)
SERVICES = 11_000
HOME_RESIDENCE_RATIO = 0.08
FIRST_YEAR = 1985
HEADINGS = {
    "assisted_residence": "Residència",
    "home_residence": "Llar residència",
    "sheltered_housing": "Habitatges tutelats",
    "day_centre": "Centre de dia",
}


def register_at(day: date) -> list[Row]:
    """Return the rows of the register as the portal has them on that day, errors included.

    Before EPOCH it is the base state. A day does not depend on the days asked before.
    """
    rows = [row_of(service) for service in services_at(day)]
    duplicates = [dict(rows[index]) for index in (17, 1_234, 5_678)]
    return [*rows, *_unmatched_rows(), *duplicates, *_broken_rows()]


def services_at(day: date) -> list[Service]:
    """Return the services registered on that day with their true values, by number."""
    services = {service.number: service for service in base_services()}
    for number, state in _history().until(day):
        if state is None:
            services.pop(number, None)
        else:
            services[number] = state
    return [services[number] for number in sorted(services)]


@cache
def _history() -> History:
    return History(base_services(), EPOCH)


@cache
def base_services() -> tuple[Service, ...]:
    """Return the services registered at EPOCH, by number; numbers have gaps where one was closed before."""
    rng = seeded("register")
    services = _residences(rng)
    services += _companions(rng, services)
    services += _former_names(rng)
    services += _others(rng, SERVICES - len(services))
    services.sort(key=lambda service: (service.inscribed, service.name, service.form))
    number = 0
    numbered = []
    for service in services:
        number += 2 if rng.random() < 0.04 else 1
        numbered.append(replace(service, number=number))
    return tuple(numbered)


def draw_service(rng: random.Random, kind: str, municipality: Municipality, ownership: str) -> Service:
    """Return a new invented service without a number, inscribed between 1985 and EPOCH."""
    group = service_types()[kind]
    place = rng.choice(vocabulary.PLACES if rng.random() < 0.8 else vocabulary.SAINTS)
    heading = HEADINGS.get(group) or "Servei"
    owner, tax_id = _owner(rng, ownership, municipality)
    barcelona = municipality.municipality_id == "080193"
    return Service(
        number=0,
        kind=kind,
        group=group,
        name=f"{heading} {place}",
        inscribed=_inscription(rng),
        places=None,
        address=f"{rng.choice(vocabulary.STREET_KINDS)} {rng.choice(vocabulary.STREETS)}, {rng.randint(1, 180)}",
        municipality_id=municipality.municipality_id,
        district=rng.choice(vocabulary.BARCELONA_DISTRICTS) if barcelona else "",
        postal_code=f"{municipality.municipality_id[:2]}{rng.randint(1, 980):03d}",
        phone=f"900000{rng.randint(0, 999):03d}",
        owner=owner,
        ownership=ownership,
        tax_id=tax_id,
        form=rng.randrange(1000),
    )


def split_places(rng: random.Random, total: int, low: int, high: int) -> list[int]:
    """Return sizes that add up to `total`, most of them between `low` and `high`."""
    sizes: list[int] = []
    left = total
    while left > high:
        size = min(high, max(low, round(rng.lognormvariate(0, 0.5) * (low + high) * 0.36)))
        sizes.append(size)
        left -= size
    if left and sizes and left < low:
        sizes[-1] += left
    elif left:
        sizes.append(left)
    return sizes


def _residences(rng: random.Random) -> list[Service]:
    assisted, home = _kind_of("assisted_residence"), _kind_of("home_residence")
    services = []
    for (comarca_id, ownership), total in official_residence_places().items():
        home_places = round(total * HOME_RESIDENCE_RATIO)
        if home_places < 5:
            home_places = 0
        parts = [(assisted, size) for size in split_places(rng, total - home_places, 15, 150)]
        parts += [(home, size) for size in split_places(rng, home_places, 6, 28)]
        for kind, places in parts:
            municipality = _municipality_of_comarca(rng, comarca_id)
            services.append(replace(draw_service(rng, kind, municipality, ownership), places=places))
    return services


def _companions(rng: random.Random, residences: Sequence[Service]) -> list[Service]:
    """Day centres and sheltered housing; many share name, address and owner with a residence."""
    by_municipality: dict[str, list[Service]] = {}
    for residence in residences:
        by_municipality.setdefault(residence.municipality_id, []).append(residence)
    services = []
    for group, people_per_place, low, high in (("day_centre", 80, 8, 45), ("sheltered_housing", 420, 6, 50)):
        kind = _kind_of(group)
        for comarca_id in comarques():
            aged = sum(_weights(comarca_id)[1])
            for places in split_places(rng, aged // people_per_place, low, high):
                municipality = _municipality_of_comarca(rng, comarca_id)
                service = draw_service(rng, kind, municipality, _ownership(rng))
                hosts = by_municipality.get(municipality.municipality_id)
                if hosts and rng.random() < 0.45:
                    service = _moved_in(service, rng.choice(hosts))
                services.append(replace(service, places=places))
    return services


def _former_names(rng: random.Random) -> list[Service]:
    """One service at least in each municipality that was renamed or moved to another comarca."""
    return [
        replace(draw_service(rng, "Servei d'ajuda a domicili", municipality, "public"), form=501)
        for municipality in municipalities()
        if municipality.former_comarca_id or municipality.municipality_id in vocabulary.RENAMED
    ]


def _others(rng: random.Random, count: int) -> list[Service]:
    kinds = [kind for kind, group in service_types().items() if group == "other"]
    weights = [1 / (rank + 4) for rank in range(len(kinds))]
    rng.shuffle(weights)
    drawn = kinds + rng.choices(kinds, weights, k=count - len(kinds))
    places = rng.choices(municipalities(), [m.people + 40 for m in municipalities()], k=count)
    return [
        replace(draw_service(rng, kind, municipality, _ownership(rng)), places=_other_places(rng, kind))
        for kind, municipality in zip(drawn, places, strict=True)
    ]


def _other_places(rng: random.Random, kind: str) -> int | None:
    if "llar" in kind or "centre" in kind or "residència" in kind:
        return rng.randint(4, 40)
    return rng.choice((0, 0, None, None, rng.randint(5, 60)))


def _moved_in(service: Service, host: Service) -> Service:
    shared = ("name", "address", "district", "postal_code", "phone", "owner", "ownership", "tax_id")
    return replace(service, **{field: getattr(host, field) for field in shared})


def _owner(rng: random.Random, ownership: str, municipality: Municipality) -> tuple[str, str]:
    number = rng.randint(0, 9_999_999)
    if ownership == "public":
        return f"Ajuntament de demostració de {municipality.name_in_front}", f"P{number:07d}X"
    if ownership == "mercantile":
        return f"{rng.choice(vocabulary.COMPANIES)} {rng.choice(vocabulary.SURNAMES)}, SL", f"B{number:07d}X"
    return f"{rng.choice(vocabulary.FOUNDATIONS)} {rng.choice(vocabulary.SURNAMES)}", f"G{number:07d}X"


def _ownership(rng: random.Random) -> str:
    return rng.choices(("public", "social_initiative", "mercantile", "unknown"), (30, 44, 22, 4))[0]


def _inscription(rng: random.Random) -> date:
    years = EPOCH.year - FIRST_YEAR
    year = FIRST_YEAR + min(years, int(rng.betavariate(2.2, 1.7) * (years + 1)))
    return date(year, 1, 1) + timedelta(days=rng.randrange(365))


def _unmatched_rows() -> list[Row]:
    """Services whose municipality cannot be matched."""
    rng = seeded("unmatched")
    rows = []
    for index, name in enumerate(
        ("No consta", "No consta", "Vilademostra", "Granolers", "Sant Cuat", "Altres/Diversos")
    ):
        kind = _kind_of("day_centre") if index % 2 else "Servei d'ajuda a domicili"
        service = draw_service(rng, kind, municipalities()[index], "social_initiative")
        row = row_of(replace(service, number=90_001 + index, places=20, form=500))
        rows.append(row | {"municipi": name, "comarca": "No consta" if index < 2 else row["comarca"]})
    return rows


def _broken_rows() -> list[Row]:
    """Rows that break the definition of the dataset: two lack a required value, three have a bad optional value."""
    rng = seeded("broken")
    rows = []
    broken: tuple[Row, ...] = (
        {"capacitat": "n/d"},
        {"inscripcio": "2011-02-30", "capacitat": "0"},
        {"tipologia": "null"},
        {"tipologia": "", "inscripcio": "31/12/1999"},
        {"capacitat": "-5"},
    )
    for index, change in enumerate(broken):
        kind = _kind_of("assisted_residence")
        service = draw_service(rng, kind, municipalities()[index * 90], "mercantile")
        rows.append(row_of(replace(service, number=90_101 + index, places=30, form=500)) | change)
    return rows


@cache
def _kind_of(group: str) -> str:
    return next(kind for kind, known in service_types().items() if known == group)


@cache
def _weights(comarca_id: str) -> tuple[tuple[Municipality, ...], tuple[int, ...]]:
    members = tuple(m for m in municipalities() if m.comarca_id == comarca_id)
    return members, tuple(m.people_aged_65_over for m in members)


def _municipality_of_comarca(rng: random.Random, comarca_id: str) -> Municipality:
    return rng.choices(*_weights(comarca_id))[0]


def scaled_lines(rows: int) -> Iterator[bytes]:
    """Yield so many rows shaped like the register, with numbers `S0000001` on, as JSON objects, for benchmarks."""
    tails = [msgspec.json.encode(row)[len('{"registre":"S00001"') :] for row in register_at(EPOCH)[:SERVICES]]
    for number in range(1, rows + 1):
        yield b'{"registre":"S%07d"%b' % (number, tails[number % len(tails)])
