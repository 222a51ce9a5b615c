"""Changes of the demo register: every Monday after the epoch services open, close and change."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date, timedelta
from itertools import chain
from typing import TYPE_CHECKING

from catalunya.demo.data import vocabulary
from catalunya.demo.data.rng import seeded
from catalunya.demo.data.territory import municipalities, municipality_by_id, service_types

if TYPE_CHECKING:
    from catalunya.demo.data.service import Service

Change = tuple[int, "Service | None"]


def last_change(day: date, epoch: date) -> date:
    """Return the last Monday after the epoch and up to `day`, or the epoch where there is none."""
    return max(day - timedelta(days=day.weekday()), epoch)


class History:
    """The changes of each week, drawn in order and kept: a week does not depend on the days asked before."""

    def __init__(self, base: Sequence[Service], epoch: date) -> None:
        self._first_monday = epoch + timedelta(days=7 - epoch.weekday())
        self._open = {service.number: service for service in base}
        self._closed: list[Service] = []
        self._next = max(self._open) + 1
        self._weeks: list[list[Change]] = []

    def until(self, day: date) -> Iterator[Change]:
        """Return what changed after the epoch up to `day`: number and new state, None where it closed."""
        weeks = max(0, (day - self._first_monday).days // 7 + 1)
        while len(self._weeks) < weeks:
            self._weeks.append(self._make_week(self._first_monday + timedelta(weeks=len(self._weeks))))
        return chain.from_iterable(self._weeks[:weeks])

    def _make_week(self, monday: date) -> list[Change]:
        rng = seeded(f"week {monday.isoformat()}")
        numbers = sorted(self._open)
        rng.shuffle(numbers)
        changes: list[Change] = []
        closures = rng.randint(2, 4)
        for number in numbers[:closures]:
            self._closed.append(self._open.pop(number))
            changes.append((number, None))
        rest = iter(numbers[closures:])
        for change, times in (
            (_change_capacity, rng.randint(4, 8)),
            (_move, rng.randint(0, 2)),
            (_change_owner, rng.randint(1, 3)),
            (_rename, rng.randint(1, 3)),
            (_change_type, int(rng.random() < 0.3)),
        ):
            for _ in range(times):
                changed = next((new for number in rest if (new := change(rng, self._open[number]))), None)
                if changed is not None:
                    changes.append((changed.number, changed))
        if rng.random() < 0.2 and len(self._closed) > closures:
            reopened = self._closed.pop(rng.randrange(len(self._closed) - closures))
            changes.append((reopened.number, reopened))
        changes += [self._open_service(rng, monday) for _ in range(rng.randint(6, 9))]
        self._open.update({number: state for number, state in changes if state is not None})
        return changes

    def _open_service(self, rng: random.Random, monday: date) -> Change:
        model = rng.choice(list(self._open.values())[:1000])
        municipality = rng.choices(municipalities(), [m.people for m in municipalities()])[0]
        service = replace(
            model,
            number=self._next,
            name=f"{model.name.split(' ')[0]} {rng.choice(vocabulary.PLACES)}",
            inscribed=monday - timedelta(days=rng.randint(0, 6)),
            address=f"C. {rng.choice(vocabulary.STREETS)}, {rng.randint(1, 180)}",
            municipality_id=municipality.municipality_id,
            district="",
            postal_code=f"{municipality.municipality_id[:2]}{rng.randint(1, 980):03d}",
            form=rng.randrange(1000),
        )
        self._next += 1
        return service.number, service


def _change_capacity(rng: random.Random, service: Service) -> Service | None:
    if not service.places:
        return None
    return replace(service, places=max(3, service.places + rng.choice((-6, -4, -2, 2, 4, 5, 8, 12))))


def _move(rng: random.Random, service: Service) -> Service:
    comarca_id = municipality_by_id()[service.municipality_id].comarca_id
    neighbours = [m for m in municipalities() if m.comarca_id == comarca_id]
    to = rng.choices(neighbours, [m.people for m in neighbours])[0]
    return replace(
        service,
        municipality_id=to.municipality_id,
        district="",
        address=f"Av. {rng.choice(vocabulary.STREETS)}, {rng.randint(181, 300)}",
        postal_code=f"{to.municipality_id[:2]}{rng.randint(1, 980):03d}",
    )


def _change_owner(rng: random.Random, service: Service) -> Service:
    others = [ownership for ownership in vocabulary.OWNERSHIPS if ownership != service.ownership]
    return replace(
        service,
        owner=f"{rng.choice(vocabulary.COMPANIES)} {rng.choice(vocabulary.SURNAMES)} {rng.randint(2, 99)}",
        ownership=rng.choice(others),
        tax_id=f"B{rng.randint(0, 9_999_999):07d}X",
    )


def _rename(rng: random.Random, service: Service) -> Service | None:
    name = f"{service.name.split(' ')[0]} {rng.choice(vocabulary.PLACES)} Nova"
    return None if name == service.name else replace(service, name=name)


def _change_type(_: random.Random, service: Service) -> Service | None:
    if service.group != "home_residence":
        return None
    kind = next(kind for kind, group in service_types().items() if group == "assisted_residence")
    return replace(service, kind=kind, group="assisted_residence")
