"""Which GeoJSON text is a border that can be drawn: closed rings of longitude and latitude."""

from __future__ import annotations


def faults(text: str) -> dict[str, str]:
    """Return what can be wrong with a border, as the reason that is given and SQL that is true for it.

    `text` is SQL of GeoJSON text; the first reason that holds is the one to give. A height after longitude and latitude
    is allowed, as are rings that cross themselves.
    """
    json = f"try_cast({text} as json)"
    kind = f"json_extract_string({json}, '$.type')"
    coordinates = f"json_extract({json}, '$.coordinates')"
    parts = f"case {kind} when 'Polygon' then json_array({coordinates}) else {coordinates} end"
    polygons = f"try_cast({parts} as double[][][][])"
    # A cast to numbers takes `true` and `"1"` for 1, and what is nested otherwise for null.
    numbers = rf"regexp_full_match({coordinates}::varchar, '[-+.0-9eE,\[\]\s]*')"
    position = "len(q) >= 2 and list_count(q) = len(q) and abs(q[1]) <= 180 and abs(q[2]) <= 90"
    ring = f"len(r) >= 4 and r[1][1:2] = r[-1][1:2] and {_every('r', 'q', position)}"
    polygon = f"len(p) > 0 and {_every('p', 'r', ring)}"
    whole = f"{numbers} and len({polygons}) > 0 and {_every(polygons, 'p', polygon)}"
    return {
        "is not a Polygon or MultiPolygon of GeoJSON": (
            f"({text} is not null and coalesce({kind}, '') not in ('Polygon', 'MultiPolygon'))"
        ),
        "has coordinates that are not closed rings of at least four positions in degrees": (
            f"({text} is not null and not coalesce({whole}, false))"
        ),
    }


def _every(elements: str, name: str, condition: str) -> str:
    """SQL that is true when the condition, on `name`, is true for every element."""
    return f"list_bool_and(list_transform({elements}, lambda {name}: coalesce({condition}, false)))"
