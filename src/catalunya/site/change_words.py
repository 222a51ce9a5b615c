"""A change of a service in words of the reader's language: what was before, and what is after."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta

from catalunya.site.facts import Facts
from catalunya.site.language import Language
from catalunya.site.service_facts import Change, Period

_OWNER = re.compile(r"(.*) \((public|social_initiative|mercantile|unknown)\)", re.DOTALL)
"""How `service_changes` words an owner."""


@dataclass(frozen=True)
class Told:
    """A change in words; empty where there is nothing to say."""

    before: str
    after: str
    difference: str = ""
    """Of places."""


def told(language: Language, facts: Facts, change: Change) -> Told:
    """Return a change in words of a language, texts of the source uncut."""
    service = facts.register[change.service_id]
    match change.change:
        case "opened" | "reopened":
            return Told("", _described(language, service.on(change.changed_on)))
        case "closed":
            return Told(_described(language, service.on(change.changed_on - timedelta(days=1))), "")
        case "capacity_changed":
            before, after = (int(value) if value else None for value in (change.before, change.after))
            grown = "" if before is None or after is None else language.signed(after - before)
            return Told(language.number(before), language.number(after), grown)
        case "owner_changed":
            return Told(_owner(language, change.before), _owner(language, change.after))
        case "type_changed":
            kinds = {period.kind: period.group for period in service.periods}
            return Told(*(_kind(language, kinds, kind) for kind in (change.before, change.after)))
    return Told(change.before or language.text("no_data"), change.after or language.text("no_data"))


def _described(language: Language, state: Period) -> str:
    kind = _kind(language, {state.kind: state.group}, state.kind)
    return kind if state.places is None else f"{kind}, {language.places(state.places)}"


def _kind(language: Language, groups: dict[str, str], kind: str | None) -> str:
    """The group of a kind in the language; a kind of no group as the register words it."""
    group = groups.get(kind or "", "other")
    return kind or language.text("no_data") if group == "other" else language.text(f"group.{group}")


def _owner(language: Language, owner: str | None) -> str:
    found = _OWNER.fullmatch(owner or "")
    if found is None:
        return owner or language.text("no_data")
    name = language.text("no_data") if found[1] == "?" else found[1]
    return f"{name} ({language.text(f'ownership.{found[2]}').lower()})"
