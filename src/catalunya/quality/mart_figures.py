"""The gate `marts`: figures of the marts of a candidate, compared with those of the last release.

A model's YAML declares them as a list under `config: meta: figures`, each with the fields of `MartFigure`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import duckdb
import yaml
from pydantic import BaseModel, ConfigDict, Field

from catalunya.datasets.loader import LOADER
from catalunya.quality.comparisons import change
from catalunya.quality.findings import Finding

LIFTING = frozenset({"schema", "quarantine", "expected", "rows", "figures", "marts"})
"""Gates of a snapshot: a change of the marts that comes with one accepted by hand only warns."""


class MartFigure(BaseModel):
    """A number that is made of a mart, or one for each combination of `by`, and how far it may change."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mart: str
    figure: str
    value: str
    """SQL aggregate, such as `sum(places)`."""
    where: str | None = None
    """SQL condition of the rows."""
    by: tuple[str, ...] = ()
    newest: int | None = Field(None, ge=1)
    """Of the first column of `by`, a year, only so many newest values."""
    tolerated_ratio: float | None = Field(None, ge=0)
    """Change up or down relative to the value before."""
    tolerated_points: float | None = Field(None, ge=0)
    """Rise of a share, 0 to 1."""
    minimum: float = Field(20, ge=0)
    """A smaller number before is not compared by ratio."""

    @property
    def name(self) -> str:
        """`service_history.places`; the groups follow in brackets."""
        return f"{self.mart}.{self.figure}"


def declared_figures(project: Path) -> tuple[MartFigure, ...]:
    """Return the figures that the models of a dbt project declare, by model and in their order."""
    found = []
    for file in sorted((project / "models" / "marts").glob("*.yml")):
        content = yaml.load(file.read_text("utf-8"), Loader=LOADER)  # noqa: S506 (a safe loader)
        for model in content.get("models", []):
            meta = (model.get("config") or {}).get("meta") or {}
            found += [
                MartFigure.model_validate({"mart": model["name"], **entry})
                for entry in meta.get("figures", [])
            ]
    return tuple(found)


def mart_figures(
    relation: Callable[[str], str], con: duckdb.DuckDBPyConnection, declared: Iterable[MartFigure]
) -> dict[str, float]:
    """Return every declared figure of a candidate or release by name, `service_history.places[day_centre]`.

    `relation` turns the name of a mart into what `con` reads it from; it is called once for each mart, as it may fetch
    files. Figures without a value are left out.
    """
    relation = cache(relation)
    return {
        name: value
        for figure in declared
        for name, value in _values(con, relation(figure.mart), figure).items()
    }


def _values(con: duckdb.DuckDBPyConnection, relation: str, figure: MartFigure) -> dict[str, float]:
    groups = ", ".join(figure.by)
    where = f"where {figure.where}" if figure.where else ""
    grouped = f"group by {groups}" if groups else ""
    rank = f"dense_rank() over (order by {figure.by[0]} desc)" if figure.newest else ""
    newest = f"qualify {rank} <= {figure.newest}" if figure.newest else ""
    selected = f"{groups + ', ' if groups else ''}cast({figure.value} as double)"
    query = f"select {selected} from {relation} {where} {grouped} {newest} order by all"
    found = {}
    for *group, value in con.execute(query).fetchall():
        if value is not None:
            name = f"{figure.name}[{', '.join(str(part) for part in group)}]" if group else figure.name
            found[name] = round(float(value), 6)
    return found


def compare_marts(
    now: dict[str, float],
    before: dict[str, float] | None,
    tolerances: Iterable[MartFigure],
    lifted: frozenset[str] = frozenset(),
) -> list[Finding]:
    """Return a finding for each figure of a mart that changed more than its model's YAML tolerates.

    Args:
        now: the candidate's figures.
        before: those of the last release; a figure that it lacks is not compared.
        tolerances: what was declared.
        lifted: gates that were lifted for the snapshots that the candidate adds; with one of `LIFTING` findings are
            warnings.
    """
    declared = {figure.name: figure for figure in tolerances}
    findings = []
    for name, then in (before or {}).items():
        figure = declared.get(name.split("[", 1)[0])
        if figure is None or (figure.newest and name not in now):
            continue
        after = now.get(name, 0.0)
        tolerated = _exceeded(figure, then, after)
        if tolerated is None:
            continue
        points = f"{100 * (after - then):+.1f} points" if figure.tolerated_points is not None else None
        finding = Finding(
            gate="marts",
            severity="error",
            message=f"{name} is {after:.10g}, in the last release {then:.10g} ({points or change(then, after)}); "
            f"tolerated {tolerated}",
            figures={"figure": name, "before": then, "after": after, "tolerated": tolerated},
        )
        findings.append(finding.lifted() if lifted & LIFTING else finding)
    return findings


def _exceeded(figure: MartFigure, then: float, after: float) -> str | None:
    """The end of the sentence that says what was tolerated; None when the change is within it."""
    points, ratio = figure.tolerated_points, figure.tolerated_ratio
    if points is not None and after - then > points:
        return f"is a rise of {100 * points:g} points"
    if ratio is not None and abs(then) >= figure.minimum and abs(after - then) > ratio * abs(then):
        return f"are -{min(ratio, 1):.0%} to +{ratio:.0%}"
    return None
