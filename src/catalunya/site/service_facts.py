"""What the pages say of services: their states in time and their changes, as the marts have them."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from dataclasses import dataclass
from datetime import date
from typing import Any

import duckdb

from catalunya.site.language import slug

CHANGES = (
    "opened", "closed", "reopened", "capacity_changed", "moved", "owner_changed", "type_changed", "renamed",
)  # fmt: skip
_LONGEST_SLUG = 60
_COLUMNS = """
    history.service_id, history.name, coalesce(type.name, ''), history.service_group, ownership, owner_name, places,
    address, postal_code, registered_on, municipality_id, stated_municipality_name, basis, valid_from, valid_to
"""


@dataclass(frozen=True)
class Period:
    """A period in which nothing about a service changed."""

    name: str
    kind: str
    """As the register words it; empty where it is not known."""
    group: str
    ownership: str
    owner: str | None
    places: int | None
    address: str | None
    postal_code: str | None
    registered_on: date | None
    municipality_id: str | None
    stated_municipality: str | None
    basis: str
    valid_from: date
    valid_to: date | None
    """The first day after it; None while it lasts."""


@dataclass(frozen=True)
class Change:
    """A change of a service."""

    service_id: str
    changed_on: date
    change: str
    before: str | None
    after: str | None
    municipality_id: str | None


@dataclass(frozen=True)
class Service:
    """A service that is, or was, for older people."""

    service_id: str
    periods: tuple[Period, ...]
    """In their order; one at least."""
    changes: tuple[Change, ...] = ()
    """The newest first."""

    @property
    def state(self) -> Period:
        """What is known of it last."""
        return self.periods[-1]

    @property
    def closed_on(self) -> date | None:
        """The first day without it in the register; None while it is there."""
        return self.state.valid_to

    @property
    def path(self) -> str:
        """Its part of an address. The words are those of its first name: a new name breaks no link."""
        words = slug(self.periods[0].name)[:_LONGEST_SLUG].strip("-")
        number = self.service_id
        if not re.fullmatch(r"[A-Z][A-Z0-9]{0,19}", number):
            # No number of the register as it is: it could be no file's name, or that of another page.
            number = f"{slug(number)[:20]}-{hashlib.sha256(number.encode()).hexdigest()[:12]}".strip("-")
        return f"{number}-{words}" if words and words != slug(number) else number

    def on(self, day: date) -> Period:
        """Return its state of a day; before it is known the first one, after it closed the last one."""
        return next(
            (period for period in reversed(self.periods) if period.valid_from <= day), self.periods[0]
        )


def read_services(con: duckdb.DuckDBPyConnection) -> dict[str, Service]:
    """Return every service that is or was for older people, by its number in the register."""
    chosen = "service_id in (select service_id from service_history where service_group <> 'other')"
    changes: dict[str, list[Change]] = defaultdict(list)
    for row in _rows(
        con,
        "service_id, changed_on, change, before, after, municipality_id from service_changes "
        f"where {chosen} order by changed_on desc, change",
    ):
        changes[row[0]].append(Change(*row))
    periods: dict[str, list[Period]] = defaultdict(list)
    for service_id, name, *rest in _rows(
        con,
        f"{_COLUMNS} from service_history as history left join dim_service_type as type using (service_type_id) "
        f"where {chosen} order by service_id, valid_from",
    ):
        periods[service_id].append(Period(_shown(name, service_id), *rest))
    return {
        service_id: Service(service_id, tuple(found), tuple(changes[service_id]))
        for service_id, found in periods.items()
    }


def current_by_municipality(services: dict[str, Service]) -> dict[str | None, list[Service]]:
    """Return the services for older people of the register of now, by municipality and name; None is no municipality."""
    found: dict[str | None, list[Service]] = defaultdict(list)
    for service in sorted(services.values(), key=lambda one: (one.state.name, one.service_id)):
        if service.closed_on is None and service.state.group != "other":
            found[service.state.municipality_id].append(service)
    return dict(found)


def newest_changes(services: dict[str, Service]) -> list[Change]:
    """Return the changes of all services, the newest first, of one day by the name of the service."""
    changes = [change for service in services.values() for change in service.changes]
    changes.sort(key=lambda one: (services[one.service_id].state.name, one.service_id, one.change))
    changes.sort(key=lambda one: one.changed_on, reverse=True)
    return changes


def _shown(name: str | None, service_id: str) -> str:
    """A name that can be read and clicked: the number of a service that has none."""
    return name if name and any(character.isalnum() for character in name) else service_id


def _rows(con: duckdb.DuckDBPyConnection, selected: str) -> list[tuple[Any, ...]]:
    return con.execute(f"select {selected}").fetchall()
