"""How near the nearest service is, and how many places are within reach for the people who share them.

The two-step floating catchment area of Luo and Wang (2003), with one radius and no decay: first each place's
municipality divides its places among the people of 65 and over around it, then each municipality adds up what the
places around it offer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import asin, cos, radians, sin, sqrt

from .coverage import GROUPS
from .kept import Kept, Row

EARTH_RADIUS_M = 6_371_008.8
CATCHMENT_KM = 20
Centre = tuple[float, float]
"""Latitude and longitude in degrees."""
Sites = dict[str, list[int]]
"""Municipality to the services of a group there, and their places."""


def access_municipality(kept: Kept, history: Iterable[Row], coverage: Iterable[Row]) -> Iterator[Row]:
    """One row per municipality of the newest list and service group."""
    people = _newest_people(coverage)
    listed = kept.newest("municipalities").rows
    centres = {
        row["municipality_id"]: (row["latitude"], row["longitude"])
        for row in listed
        if row["latitude"] is not None and row["longitude"] is not None
    }
    metres = _distances(centres)
    sites, not_located = _sites(history, centres)
    for group in GROUPS:
        shares = {site: _share(site, counts[1], metres, people) for site, counts in sites[group].items()}
        for row in listed:
            municipality_id = row["municipality_id"]
            aged, year = people[municipality_id]
            yield {
                "municipality_id": municipality_id,
                "service_group": group,
                **_reach(metres.get(municipality_id), sites[group], shares),
                "catchment_km": CATCHMENT_KM,
                "people_aged_65_over_latest": aged,
                "population_year_latest": year,
                "services_not_located": not_located[group],
                "register_on": kept.newest("social_services").day,
            }


def _newest_people(coverage: Iterable[Row]) -> dict[str, tuple[int | None, int | None]]:
    """Municipality to its people of 65 and over in the newest year published for it, and that year."""
    newest: dict[str, Row] = {}
    for row in coverage:
        known = newest.setdefault(row["municipality_id"], row)
        if row["year"] > known["year"]:
            newest[row["municipality_id"]] = row
    return {
        code: (row["people_aged_65_over_latest"], row["population_year_latest"])
        for code, row in newest.items()
    }


def _sites(history: Iterable[Row], centres: dict[str, Centre]) -> tuple[dict[str, Sites], dict[str, int]]:
    """Where the services of the newest register are, by group, and how many are nowhere."""
    sites: dict[str, Sites] = {group: {} for group in GROUPS}
    not_located = dict.fromkeys(GROUPS, 0)
    for row in history:
        group = row["service_group"]
        if not row["is_current"] or group == "other":
            continue
        if row["municipality_id"] not in centres:
            not_located[group] += 1
            continue
        counts = sites[group].setdefault(row["municipality_id"], [0, 0])
        counts[0] += 1
        counts[1] += row["places"] or 0
    return sites, not_located


def _distances(centres: dict[str, Centre]) -> dict[str, dict[str, int]]:
    """Great-circle metres between every two centres, by the haversine formula."""
    points = [
        (code, radians(latitude), radians(longitude)) for code, (latitude, longitude) in centres.items()
    ]
    metres: dict[str, dict[str, int]] = {code: {code: 0} for code in centres}
    for index, (one, latitude, longitude) in enumerate(points):
        for other, other_latitude, other_longitude in points[index + 1 :]:
            across = sin((other_latitude - latitude) / 2) ** 2
            along = sin((other_longitude - longitude) / 2) ** 2
            half_chord = sqrt(across + cos(latitude) * cos(other_latitude) * along)
            metres[one][other] = metres[other][one] = round(2 * EARTH_RADIUS_M * asin(min(1.0, half_chord)))
    return metres


def _share(
    site: str,
    places: int,
    metres: dict[str, dict[str, int]],
    people: dict[str, tuple[int | None, int | None]],
) -> int | None:
    """Places per person of 65 and over within reach of a site, in whole billionths; None where nobody is counted."""
    around = sum(people[code][0] or 0 for code, away in metres[site].items() if away <= CATCHMENT_KM * 1000)
    return (2 * places * 10**9 + around) // (2 * around) if around else None


def _reach(metres: dict[str, int] | None, sites: Sites, shares: dict[str, int | None]) -> Row:
    """What a municipality has near it; nothing is known of one without a centre."""
    if metres is None:
        return dict.fromkeys(
            ("nearest_km", "nearest_municipality_id", "accessibility_ratio", "services_in_catchment",
             "places_in_catchment")
        )  # fmt: skip
    nearest = min(((metres[site], site) for site in sites), default=(None, None))
    within = [site for site in sites if metres[site] <= CATCHMENT_KM * 1000]
    offered = [shares[site] for site in within]
    ratio = None if None in offered else (sum(offered) + 500) // 1000 / 1e6
    return {
        "nearest_km": None if nearest[0] is None else nearest[0] / 1000,
        "nearest_municipality_id": nearest[1],
        "accessibility_ratio": ratio,
        "services_in_catchment": sum(sites[site][0] for site in within),
        "places_in_catchment": sum(sites[site][1] for site in within),
    }
