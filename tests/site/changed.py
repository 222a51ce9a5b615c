"""A week in which services changed, some to what nobody would call a service."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from catalunya.demo.data.service import Service
from catalunya.site.facts import GROUPS


@dataclass(frozen=True)
class ChangedSite:
    """The site of a week later, built over that of before in a folder of its own. To be read only."""

    answer: dict[str, Any]
    """Of `catalunya site build`."""
    told: str
    """What it told a person meanwhile, and at its end."""
    site: Path
    database: Path
    services: dict[str, str]
    """What happened to a service, to its number in the register."""


HOSTILE = {
    "script": "<script>document.title='hacked'</script>",
    "quotes": "\"><img src=x onerror='alert(1)'> \\' &amp; {{ 7 * 7 }} %s {0}",
    "direction": "Residència \u202eלאה\u202c \u2066x\u2069\u200b",
    "long": "ó" * 10_000,
    "emoji": "Casa 🏠👵🏽\nde dos\u2028línies\x07",
    "spaces": "   ",
    "marks": "--- !!! ---",
}
"""Names that a source could give a service."""


def changed_services(services: list[Service]) -> tuple[list[Service], dict[str, str]]:
    """Return services of which ten changed, one closed and two opened, and what happened to which number."""
    old = [one for one in services if one.group in GROUPS and one.places][200:211]
    new = [replace(one, name=name) for one, name in zip(old, HOSTILE.values(), strict=False)]
    happened = dict(zip(HOSTILE, old, strict=False))
    new.append(
        replace(old[7], owner="</td><script>alert(2)</script>", ownership="public", places=old[7].places + 5)
    )
    new.append(
        replace(old[8], address="javascript:alert(3)", municipality_id=old[9].municipality_id, district="")
    )
    new.append(replace(old[9], places=old[9].places - 1))
    happened |= {"owner": old[7], "moved": old[8], "shrunk": old[9], "closed": old[10]}
    next_number = max(one.number for one in services) + 1
    for position, name in enumerate(("twin", "other twin")):
        happened[name] = replace(old[0], number=next_number + position, name="Residència la Bessona")
        new.append(happened[name])
    kept = [one for one in services if one not in old]
    return sorted([*kept, *new], key=lambda one: one.number), {
        name: f"S{one.number:05d}" for name, one in happened.items()
    }
