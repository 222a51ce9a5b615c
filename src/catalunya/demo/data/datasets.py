"""The datasets that the demo portal publishes: their columns, and where their rows come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from functools import lru_cache

import msgspec

from catalunya.demo.data import register, service_users
from catalunya.demo.data.events import last_change
from catalunya.demo.data.service import SERVICE_FIELDS, Row
from catalunya.demo.data.territory import LLUCANES_CREATED, municipality_rows_at

REGISTER, MUNICIPALITIES, SERVICE_USERS = "ivft-vegh", "9aju-tpwc", "yavr-pn8q"
DEMO_MARK = " (dades de demostració)"
LICENCE = "See Terms of Use"
ATTRIBUTION = "Dades de demostració generades; no són del registre oficial"


@dataclass(frozen=True)
class PortalColumn:
    """A column in the portal's metadata."""

    name: str
    field: str
    type: str = "text"


@dataclass(frozen=True)
class PortalDataset:
    """A dataset at one moment: metadata, and a function that generates its rows.

    `lines`, where given, generates the same rows as JSON text, for tables of a million rows.
    """

    id: str
    name: str
    attribution: str
    columns: tuple[PortalColumn, ...]
    updated: datetime
    rows: Callable[[], Iterable[Row]]
    faulted_field: str
    lines: Callable[[], Iterable[bytes]] | None = None
    licence: str = LICENCE


REGISTER_TITLES = (
    "Registre", "Nom", "Tipologia", "Inscripció", "Capacitat", "Adreça", "Municipi", "Districte", "CP", "Comarca",
    "Telèfon", "Entitat titular", "Qualificació", "NIF",
)  # fmt: skip
REGISTER_COLUMNS = tuple(
    PortalColumn(title, name) for title, name in zip(REGISTER_TITLES, SERVICE_FIELDS, strict=True)
)
MUNICIPALITY_COLUMNS = (
    PortalColumn("Codi", "codi"),
    PortalColumn("Nom", "nom"),
    PortalColumn("Codi comarca", "codi_comarca"),
    PortalColumn("Nom comarca", "nom_comarca"),
    PortalColumn("UTM X", "utm_x", "number"),
    PortalColumn("UTM Y", "utm_y", "number"),
    PortalColumn("Longitud", "longitud", "number"),
    PortalColumn("Latitud", "latitud", "number"),
    PortalColumn("Georeferència", "georefer_ncia", "point"),
)
USER_COLUMNS = (
    PortalColumn("Any", "any"),
    PortalColumn("Codi", "codi"),
    PortalColumn("Comarca", "comarca"),
    *(PortalColumn(title, name, "number") for title, name in service_users.MEASURES),
)


@lru_cache(maxsize=16)
def demo_datasets(day: date, rows: int | None = None) -> dict[str, PortalDataset]:
    """Return the generated Socrata datasets as of that day; `rows` makes the register that long instead."""
    decode = msgspec.json.Decoder(Row).decode
    datasets = (
        PortalDataset(
            id=REGISTER,
            name="Registre d'entitats, serveis i establiments socials" + DEMO_MARK,
            attribution=ATTRIBUTION,
            columns=REGISTER_COLUMNS,
            updated=_morning(last_change(day, register.EPOCH)),
            rows=lambda: (
                register.register_at(day) if rows is None else map(decode, register.scaled_lines(rows))
            ),
            faulted_field="capacitat",
            lines=None if rows is None else (lambda: register.scaled_lines(rows)),
        ),
        PortalDataset(
            id=MUNICIPALITIES,
            name="Municipis Catalunya Geo" + DEMO_MARK,
            attribution=ATTRIBUTION,
            columns=MUNICIPALITY_COLUMNS,
            updated=_morning(LLUCANES_CREATED if day >= LLUCANES_CREATED else date(2021, 2, 24)),
            rows=lambda: municipality_rows_at(day),
            faulted_field="codi_comarca",
        ),
        PortalDataset(
            id=SERVICE_USERS,
            name="Persones ateses en centres de dia i residències per a gent gran" + DEMO_MARK,
            attribution=ATTRIBUTION,
            columns=USER_COLUMNS,
            updated=_morning(date(2024, 9, 23)),
            rows=service_users.service_user_rows,
            faulted_field="total",
        ),
    )
    return {dataset.id: dataset for dataset in datasets}


def _morning(day: date) -> datetime:
    return datetime.combine(day, time(6, 0), UTC)
