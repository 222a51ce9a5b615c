"""Municipalities, comarques and their people, in plain Python."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any

from .kept import Kept, Row, seed
from .names import ARTICLES, Gazetteer


def dim_municipality(kept: Kept) -> Iterator[Row]:
    """One row per municipality and period in which its name and comarca did not change."""
    lists = kept.counting("municipalities")
    by_code = [{row["municipality_id"]: row for row in listed.rows} for listed in lists]
    for municipality_id in {code for rows in by_code for code in rows}:
        period: Row | None = None
        for listed, rows in zip(lists, by_code, strict=True):
            row = rows.get(municipality_id)
            same = period and row and all(period[c] == row[c] for c in ("name", "comarca_id"))
            if period and not same:
                yield {**period, "valid_to": listed.day, "is_current": False}
                period = None
            if row:
                begun = period["valid_from"] if period else listed.day
                period = {**row, "valid_from": begun, "display_name": display_name(row["name"])}
        if period:
            yield {**period, "valid_to": None, "is_current": True}


def display_name(name: str) -> str:
    """The name with its article in front, in the list's own letters."""
    stem, comma, article = name.rpartition(", ")
    if not comma or article.lower().replace("’", "'") not in ARTICLES:
        return name
    return article + stem if article.endswith(("'", "’")) else f"{article} {stem}"


def dim_comarca(kept: Kept) -> Iterator[Row]:
    """One row per comarca of today's division."""
    newest = kept.newest("municipalities")
    names: dict[str, str] = {}
    members: dict[str, int] = {}
    for row in newest.rows:
        comarca_id = row["comarca_id"]
        members[comarca_id] = members.get(comarca_id, 0) + 1
        names[comarca_id] = max(names.get(comarca_id, ""), row["comarca_name"])
    for comarca_id, count in members.items():
        yield {
            "comarca_id": comarca_id,
            "name": names[comarca_id],
            "municipalities": count,
            "division_on": newest.updated_on or newest.day,
        }


def population(kept: Kept) -> Iterator[Row]:
    """One row per municipality and year, from the newest snapshot that has the year."""
    newest_with: dict[int, Any] = {}
    for snapshot in kept.counting("population"):
        for year in {row["year"] for row in snapshot.rows}:
            newest_with[year] = snapshot
    for year, snapshot in newest_with.items():
        for row, origin in snapshot.rows_with_origin:
            if row["year"] == year:
                yield {**row, "snapshot_id": origin}


def comarca_of_today(kept: Kept) -> dict[str, str]:
    """Municipality of the newest list to its comarca."""
    return {row["municipality_id"]: row["comarca_id"] for row in kept.newest("municipalities").rows}


def abolished(kept: Kept) -> dict[str, tuple[str, date]]:
    """Municipality that the newest list no longer has to its successor in it, and the day of the merger."""
    today = comarca_of_today(kept)
    return {
        row["municipality_id"]: (row["successor_id"], date.fromisoformat(row["abolished_on"]))
        for row in seed("municipality_successions")
        if row["municipality_id"] not in today and row["successor_id"] in today
    }


def left_on(kept: Kept) -> dict[str, date]:
    """Municipality that the newest list no longer has, without a known successor, to the day of the first such list."""
    gone: dict[str, date] = {}
    listed_before: set[str] = set()
    for listed in kept.counting("municipalities"):
        codes = {row["municipality_id"] for row in listed.rows}
        gone = {code: day for code, day in gone.items() if code not in codes}
        gone |= dict.fromkeys(listed_before - codes - gone.keys(), listed.day)
        listed_before |= codes
    return {code: day for code, day in gone.items() if code not in abolished(kept)}


def counted_in(kept: Kept) -> dict[str, str]:
    """Municipality of any list, or of the seed of successions, to the one whose figures it is in."""
    listed = {row["municipality_id"] for s in kept.counting("municipalities") for row in s.rows}
    return {code: code for code in listed} | {
        code: successor for code, (successor, _) in abolished(kept).items()
    }


def comarca_of_counted(kept: Kept) -> dict[str, str | None]:
    """Municipality that has figures to its comarca: of today, or the last one where it left the list."""
    last: dict[str, str | None] = {}
    for listed in kept.counting("municipalities"):
        last |= {row["municipality_id"]: row["comarca_id"] for row in listed.rows}
    today = set(comarca_of_today(kept).values())
    counted = set(counted_in(kept).values())
    return {code: comarca if comarca in today else None for code, comarca in last.items() if code in counted}


def comarca_on(kept: Kept, day: date) -> dict[str, str | None]:
    """Municipality that has figures to its comarca on a day: what it left after the day, the earliest first."""
    dated = {
        (row["municipality_id"], row["comarca_id"]): date.fromisoformat(row["valid_to"])
        for row in seed("municipality_former_comarques")
        if row["valid_to"]
    }
    left = [(code, until, comarca_id) for (code, comarca_id), until in dated.items()]
    left += [
        (row["municipality_id"], row["valid_to"], row["comarca_id"])
        for row in dim_municipality(kept)
        if row["valid_to"] and (row["municipality_id"], row["comarca_id"]) not in dated
    ]
    found = comarca_of_counted(kept)
    for code, until, comarca_id in sorted(left, reverse=True):
        if code in found and until > day:
            found[code] = comarca_id
    return found


def gazetteer(kept: Kept) -> Gazetteer:
    """All names and comarques that the lists and the seeds know of the municipalities that have figures."""
    counted = counted_in(kept)
    found = Gazetteer(comarca_of={code: name for code, name in comarca_of_counted(kept).items() if name})
    for row in dim_municipality(kept):
        found.add_name(counted[row["municipality_id"]], row["name"], is_current=row["is_current"])
        found.former_comarques.setdefault(counted[row["municipality_id"]], set()).add(row["comarca_id"])
        found.add_comarca_name(row["comarca_id"], row["comarca_name"])
    for row in seed("municipality_former_names"):
        if row["municipality_id"] in counted:
            found.add_name(counted[row["municipality_id"]], row["former_name"], is_current=False)
    for row in seed("municipality_successions"):
        if row["municipality_id"] in abolished(kept):
            found.add_name(row["successor_id"], row["name"], is_current=False)
    for row in seed("municipality_former_comarques"):
        if row["municipality_id"] in counted:
            found.former_comarques.setdefault(counted[row["municipality_id"]], set()).add(row["comarca_id"])
    for row in seed("comarca_names"):
        found.add_comarca_name(row["comarca_id"], row["name"])
    return found
