"""The pages of services: the list of the register of now, the list of each comarca, and one page for each service."""

from __future__ import annotations

from collections.abc import Iterator

from catalunya.site.language import CODES
from catalunya.site.pages import Pages, cut, service_address
from catalunya.site.service_facts import Service


def service_pages(pages: Pages) -> Iterator[tuple[str, str]]:
    """Return the file and HTML of each page of services."""
    facts, text = pages.facts, pages.language.text
    by_comarca = {
        comarca.code: [
            service
            for member in facts.members(comarca.code)
            for service in facts.services.get(member.code, [])
        ]
        for comarca in facts.comarques.values()
    }
    listed = [comarca for comarca in facts.sorted_comarques() if by_comarca[comarca.code]]
    yield pages.render(
        "services.html",
        "services",
        None,
        text("services.title"),
        {
            "comarques": [(comarca, len(by_comarca[comarca.code])) for comarca in listed],
            "count": sum(map(len, facts.services.values())),
            "unmatched": facts.services.get(None, []),
        },
    )
    for comarca in listed:
        title = text("services.title_comarca", comarca=comarca.name)
        values = {"territory": comarca, "services": by_comarca[comarca.code]}
        yield pages.render("services_comarca.html", "services", comarca, title, values)
    for service in facts.register.values():
        yield _service(pages, service)


def _service(pages: Pages, service: Service) -> tuple[str, str]:
    state = service.state
    place = pages.facts.municipalities.get(state.municipality_id or "")
    kind = pages.language.text(f"group.{state.group}")
    values = {
        "service": service,
        "comarca": place and pages.facts.comarques.get(place.comarca_id),
        "description": f"{cut(state.name)}. {kind}{f', {place.name}' if place else ''}.",
    }
    alternates = {code: service_address(code, service) for code in CODES}
    return pages.render_at(alternates, "service.html", "services", cut(state.name), values)
