"""The faults of a portal, switched on by name: `http_500=2`, `ivft-vegh:missing_column=capacitat`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from catalunya.demo.errors import UnknownFault

TRANSPORT_FAULTS = {
    "slow": "SECONDS of delay before each response (default 1)",
    "drip": "the body comes in 20 parts with SECONDS between them (default 0.02)",
    "http_429": "429 with Retry-After: 1, for the first N requests or for all",
    "http_500": "500, for the first N requests or for all",
    "throttled": "429 for every Nth request that has no application token (default 3)",
    "truncated": "the connection ends before Content-Length is reached, for N responses or for all",
    "cut_json": "a complete response whose JSON is cut in the middle, for N responses or for all",
    "html_error": "200 with a maintenance page in HTML, for N responses or for all",
    "down": "the connection is closed without an answer, for N requests or for all",
}
PAGE_FAULTS = {
    "reordered": "each page is cut from another order of the rows, so that pages overlap",
    "shifting": "between two pages one row vanishes and one appears",
}
ROW_FAULTS = {
    "new_column": "one more column than declared",
    "missing_column": "the column FIELD is gone",
    "retyped_column": "the column FIELD has another type and other values",
    "doubled_rows": "one row in a hundred comes twice, the same ones each time",
    "bad_rows": "one row in five hundred holds a value that breaks the definition",
}
FAULTS = TRANSPORT_FAULTS | PAGE_FAULTS | ROW_FAULTS
IN_SECONDS = frozenset({"slow", "drip"})
COUNTED = TRANSPORT_FAULTS.keys() - IN_SECONDS - {"throttled"}
FIELDED = frozenset({"missing_column", "retyped_column"})
SCOPES = {
    "social_services": "ivft-vegh",
    "municipalities": "9aju-tpwc",
    "service_users": "yavr-pn8q",
    "population": "population",
    "boundaries": "boundaries",
}


@dataclass
class Fault:
    """One fault that is switched on; `left` counts down where only the first N requests are hit."""

    name: str
    value: str = ""
    dataset: str = ""
    left: int | None = None

    def number(self, default: float) -> float:
        """Return the value as a number, or the default where none was given."""
        return float(self.value or default)


@dataclass
class Faults:
    """The faults of a portal, which may change while it runs."""

    active: list[Fault] = field(default_factory=list)

    @classmethod
    def parse(cls, specs: Iterable[str]) -> Faults:
        """Return the faults of texts like `dataset:name=value`; raises UnknownFault."""
        return cls([parse_fault(spec) for spec in specs])

    def add(self, spec: str) -> None:
        """Switch one fault on; raises UnknownFault."""
        self.active.append(parse_fault(spec))

    def clear(self) -> None:
        """Switch every fault off."""
        self.active.clear()

    def find(self, name: str, dataset: str) -> Fault | None:
        """Return the fault of that name that hits the dataset, without counting it down."""
        hits = (f for f in self.active if f.name == name and f.dataset in ("", dataset) and f.left != 0)
        return next(hits, None)

    def take(self, name: str, dataset: str) -> Fault | None:
        """Return the fault of that name that hits the dataset, and count it down."""
        fault = self.find(name, dataset)
        if fault is not None and fault.left is not None:
            fault.left -= 1
        return fault

    def of_data(self, dataset: str) -> tuple[tuple[str, str], ...]:
        """Return names and values of the faults that change the rows of a dataset."""
        return tuple(
            (fault.name, fault.value)
            for fault in self.active
            if fault.name in ROW_FAULTS and fault.dataset in ("", dataset)
        )


def parse_fault(spec: str) -> Fault:
    """Return the fault of a text `[dataset:]name[=value]`; raises UnknownFault, which names those known."""
    scoped, _, value = spec.strip().partition("=")
    scope, colon, name = scoped.rpartition(":")
    name = name.strip()
    scopes = {*SCOPES, *SCOPES.values()}
    if name not in FAULTS:
        raise UnknownFault(
            f"no fault is called {name!r} (in {spec!r}); known are {', '.join(sorted(FAULTS))}"
        )
    if colon and scope not in scopes:
        raise UnknownFault(
            f"no dataset is called {scope!r} (in {spec!r}); known are {', '.join(sorted(scopes))}"
        )
    if value and name not in TRANSPORT_FAULTS.keys() | FIELDED:
        raise UnknownFault(f"the fault {name} takes no value, found {value!r}: {FAULTS[name]}")
    if value and name in TRANSPORT_FAULTS and not _is_number(value, whole=name not in IN_SECONDS):
        raise UnknownFault(f"the fault {name} takes a number, not {value!r}: {FAULTS[name]}")
    left = int(value) if value and name in COUNTED else None
    return Fault(name, value, SCOPES.get(scope, scope), left)


def _is_number(value: str, *, whole: bool) -> bool:
    try:
        return (int(value) if whole else float(value)) >= 0
    except ValueError:
        return False
