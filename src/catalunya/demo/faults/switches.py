"""What can go wrong with a portal, switched on by name: `http_500=2`, `ivft-vegh:missing_column=capacitat`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from catalunya.demo.errors import UnknownFault

TRANSPORT_FAULTS = {
    "slow": "SECONDS of delay before each response (default 1)",
    "drip": "the body comes in small pieces with SECONDS between them (default 0.02)",
    "http_429": "429 with Retry-After: 1, for the first N requests or for all",
    "http_500": "500, for the first N requests or for all",
    "throttled": "429 for every Nth request that has no application token (default 3)",
    "truncated": "the connection ends before Content-Length is reached, for N responses or for all",
    "cut_json": "a complete response whose JSON is cut in the middle, for N responses or for all",
    "html_error": "200 with a maintenance page in HTML, for N responses or for all",
    "down": "the connection is closed without an answer, for N requests or for all",
}
DATA_FAULTS = {
    "reordered": "each page is cut from another order of the rows, so that pages overlap",
    "shifting": "between two pages one row vanishes and one appears",
    "new_column": "a column more than declared",
    "missing_column": "the column FIELD is gone",
    "retyped_column": "the column FIELD has another type and other values",
    "doubled_rows": "one row in a hundred comes twice, the same ones each time",
    "bad_rows": "one row in five hundred holds a value that breaks the declaration",
}
FAULTS = TRANSPORT_FAULTS | DATA_FAULTS
COUNTED = frozenset({"http_429", "http_500", "truncated", "cut_json", "html_error", "down"})
NUMBERED = COUNTED | {"slow", "drip", "throttled"}
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

    @property
    def number(self) -> float | None:
        """The value as a number, None where none was given."""
        return float(self.value) if self.value else None


@dataclass
class Faults:
    """The faults of a portal. It may be changed while the portal runs."""

    active: list[Fault] = field(default_factory=list)

    @classmethod
    def parse(cls, specs: Iterable[str]) -> Faults:
        """Return the faults that texts like `dataset:name=value` stand for; raises UnknownFault."""
        faults = cls()
        for spec in specs:
            faults.add(spec)
        return faults

    def add(self, spec: str) -> Fault:
        """Switch one fault on and return it; raises UnknownFault for a name or value that is wrong."""
        fault = parse_fault(spec)
        self.active = [*self.active, fault]
        return fault

    def clear(self) -> None:
        """Switch every fault off."""
        self.active = []

    def find(self, name: str, dataset: str) -> Fault | None:
        """Return the fault of that name that hits the dataset, without using it up."""
        return next(
            (
                fault
                for fault in self.active
                if fault.name == name and fault.dataset in ("", dataset) and fault.left != 0
            ),
            None,
        )

    def take(self, name: str, dataset: str) -> Fault | None:
        """Return the fault of that name that hits the dataset, and count it down."""
        fault = self.find(name, dataset)
        if fault is not None and fault.left is not None:
            fault.left -= 1
        return fault

    def of_data(self, dataset: str) -> tuple[tuple[str, str], ...]:
        """Return names and values of the faults that change the rows of a dataset."""
        lasting = DATA_FAULTS.keys() - {"reordered", "shifting"}
        return tuple(
            (fault.name, fault.value)
            for fault in self.active
            if fault.name in lasting and fault.dataset in ("", dataset)
        )


def parse_fault(spec: str) -> Fault:
    """Return the fault that `[dataset:]name[=value]` stands for; raises UnknownFault naming those known."""
    scoped, _, value = spec.strip().partition("=")
    scope, colon, name = scoped.rpartition(":")
    name = name.strip()
    if name not in FAULTS:
        raise UnknownFault(
            f"no fault is called {name!r} (in {spec!r}); known are {', '.join(sorted(FAULTS))}"
        )
    known_scopes = {*SCOPES, *SCOPES.values()}
    if colon and scope not in known_scopes:
        raise UnknownFault(
            f"no dataset is called {scope!r} (in {spec!r}); known are {', '.join(sorted(known_scopes))}"
        )
    if value and name in NUMBERED and not _is_number(value, whole=name not in ("slow", "drip")):
        raise UnknownFault(f"the fault {name} takes a number, not {value!r}: {FAULTS[name]}")
    if value and name not in NUMBERED | FIELDED:
        raise UnknownFault(f"the fault {name} takes no value, found {value!r}: {FAULTS[name]}")
    left = int(value) if name in COUNTED and value else None
    return Fault(name=name, value=value, dataset=SCOPES.get(scope, scope), left=left)


def _is_number(value: str, *, whole: bool) -> bool:
    try:
        return (int(value) if whole else float(value)) >= 0
    except ValueError:
        return False
