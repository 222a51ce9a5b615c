"""One registered service of the demo, and its row in the register, spelling variants and gaps included."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from datetime import date

from catalunya.demo.data import vocabulary
from catalunya.demo.data.territory import comarques, municipality_by_id

Row = dict[str, object]

SERVICE_FIELDS = (
    "registre", "nom", "tipologia", "inscripcio", "capacitat", "adreca", "municipi", "districte", "cp", "comarca",
    "telefon", "entitat_titular", "qualificacio", "nif",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Service:
    """A service with its true values: the municipality as a code, the ownership as one of the known kinds.

    `form` (0 to 999) selects the spelling in the register; `places` is None where the register has no number.
    """

    number: int
    kind: str
    group: str
    name: str
    inscribed: date
    places: int | None
    address: str
    municipality_id: str
    district: str
    postal_code: str
    phone: str
    owner: str
    ownership: str
    tax_id: str
    form: int


def municipality_form(service: Service) -> str:
    """Return the municipality of a service in one of the forms that the register uses."""
    municipality = municipality_by_id()[service.municipality_id]
    former = vocabulary.RENAMED.get(service.municipality_id)
    if former and service.form % 2:
        return former
    name = municipality.name
    if service.form < 90:
        name = municipality.name_in_front
    elif service.form < 140:
        name = municipality.name_in_front.upper()
    elif service.form < 160:
        name = name + " "
    elif service.form < 180:
        name = name.replace(" ", "  ")
    elif service.form < 195:
        name = unicodedata.normalize("NFD", name)
    return name


def comarca_form(service: Service) -> str:
    """Return the comarca of a service as the register states it: sometimes that of before May 2023."""
    municipality = municipality_by_id()[service.municipality_id]
    comarca_id = municipality.comarca_id
    if municipality.former_comarca_id and service.form % 3 < 2:
        comarca_id = municipality.former_comarca_id
    if comarca_id == "39" and service.form % 2:
        return "Val d'Aran"
    name = comarques()[comarca_id]
    return name.upper() if 200 <= service.form < 215 else name


def row_of(service: Service) -> Row:
    """Return the row of the register for a service; a field without a value is left out."""
    form = service.form
    name = service.name
    if "intel·lectual" in service.kind and form % 5 == 0:
        name = f"{name} per a persones amb discapacitat intel.lectual"
    if 215 <= form < 225:
        name = unicodedata.normalize("NFD", name)
    row: Row = {
        "registre": f"S{service.number:05d}",
        "nom": name,
        "tipologia": service.kind,
        "inscripcio": service.inscribed.isoformat(),
        "adreca": service.address,
        "municipi": municipality_form(service),
        "comarca": comarca_form(service),
        "entitat_titular": service.owner,
    }
    if service.places is not None:
        row["capacitat"] = str(service.places)
    if service.district:
        row["districte"] = service.district
    if form % 50 != 7:
        row["cp"] = service.postal_code
    if form % 20 != 3:
        row["telefon"] = service.phone
    if form % 33 != 5:
        row["nif"] = service.tax_id
    stated = vocabulary.OWNERSHIPS.get(service.ownership, "null" if form % 2 else "")
    if stated:
        row["qualificacio"] = stated
    return {field: row[field] for field in SERVICE_FIELDS if field in row}
