"""People attended in day centres and residences, by comarca and year: invented, of plausible size."""

from __future__ import annotations

from catalunya.demo.data.rng import seeded
from catalunya.demo.data.service import Row
from catalunya.demo.data.territory import comarques, municipalities

FIRST_YEAR, LAST_YEAR = 2015, 2024
MEASURES = (
    ("Dones centre de dia gent gran", "dones_centre_de_dia_gent"),
    ("Homes centre de dia gent gran", "homes_centre_de_dia_gent"),
    ("Total centre de dia gent gran", "total_centre_de_dia_gent"),
    ("Dones residència gent gran", "dones_resid_ncia_gent_gran"),
    ("Homes residència gent gran", "homes_resid_ncia_gent_gran"),
    ("Total residència gent gran", "total_resid_ncia_gent_gran"),
    ("Dones total", "dones_total"),
    ("Homes total", "homes_total"),
    ("Total", "total"),
)


def service_user_rows() -> list[Row]:
    """Return 422 rows: 42 comarques a year until 2022, 43 with Lluçanès from 2023; zeros are left out."""
    return [
        _row(year, comarca_id)
        for year in range(FIRST_YEAR, LAST_YEAR + 1)
        for comarca_id in sorted(comarques(), key=lambda known: comarques()[known])
        if comarca_id != "43" or year >= 2023
    ]


def _row(year: int, comarca_id: str) -> Row:
    rng = seeded(f"users {year} {comarca_id}")
    aged = sum(
        m.people_aged_65_over
        for m in municipalities()
        if comarca_id == (m.comarca_id if year >= 2023 else m.former_comarca_id or m.comarca_id)
    )
    women_day, men_day = round(aged * rng.uniform(0.003, 0.006)), round(aged * rng.uniform(0.0004, 0.002))
    women_in, men_in = round(aged * rng.uniform(0.012, 0.02)), round(aged * rng.uniform(0.004, 0.008))
    values = (
        women_day, men_day, women_day + men_day, women_in, men_in, women_in + men_in,
        women_day + women_in, men_day + men_in, women_day + men_day + women_in + men_in,
    )  # fmt: skip
    row: Row = {"any": str(year), "codi": comarca_id, "comarca": comarques()[comarca_id]}
    return row | {name: str(value) for (_, name), value in zip(MEASURES, values, strict=True) if value}
