"""Draw the picture of the README from a release: residence places per 100 people of 65 and over, by comarca.

.venv/bin/python docs/picture.py RELEASE_FOLDER [docs/coverage.svg]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import altair as alt
import duckdb

QUERY = """
with places as (
    select comarca_id, year, ownership, sum(places) as places,
        any_value(people_aged_65_over_latest) as people, any_value(population_year_latest) as people_of
    from marts.coverage_comarca
    where service_group in ('assisted_residence', 'home_residence') and ownership <> 'all'
        and year = (select max(year) from marts.coverage_comarca where basis = 'observed')
    group by all
)
select comarca.name as comarca, year, ownership, 100.0 * places / people as per_100, people_of
from places inner join marts.dim_comarca as comarca using (comarca_id)
where people > 0
"""
OWNERSHIPS = {
    "public": ("public", "#2b6cb0"),
    "social_initiative": ("social initiative", "#38a169"),
    "mercantile": ("mercantile", "#dd8a3c"),
    "unknown": ("unknown", "#a0aec0"),
}


def chart(folder: Path) -> alt.Chart:
    """The chart of a release; its title says so when the data are demo data."""
    with duckdb.connect(folder / "catalunya.duckdb", read_only=True) as con:
        rows = con.execute(QUERY).fetchall()
    release = json.loads((folder / "release.json").read_text("utf-8"))
    values = [
        {"comarca": comarca, "ownership": OWNERSHIPS[ownership][0], "per_100": per_100, "order": index}
        for comarca, _, ownership, per_100, _ in rows
        for index in [list(OWNERSHIPS).index(ownership)]
    ]
    year, people_of = rows[0][1], sorted({str(row[4]) for row in rows})
    mark = "DEMO DATA, made by a generator. " if release["demo"] else ""
    return (
        alt.Chart(alt.Data(values=values))
        .mark_bar(height={"band": 0.82})
        .encode(
            x=alt.X("per_100:Q", title="places per 100 people of 65 and over", stack="zero"),
            y=alt.Y(
                "comarca:N", sort=alt.EncodingSortField("per_100", op="sum", order="descending"), title=None
            ),
            color=alt.Color(
                "ownership:N",
                title="ownership",
                scale=alt.Scale(
                    domain=[label for label, _ in OWNERSHIPS.values()],
                    range=[colour for _, colour in OWNERSHIPS.values()],
                ),
                legend=alt.Legend(orient="bottom"),
            ),
            order="order:O",
        )
        .properties(
            width=560,
            padding=16,
            height=43 * 15,
            title=alt.Title(
                f"Residence places for older people by comarca, {year}",
                subtitle=[
                    f"{mark}Release {release['release_id']}, today's division into comarques",
                    f"Places as observed in the register in {year}, people of 1 January {', '.join(people_of)}",
                ],
                anchor="start",
                subtitleColor="#c53030" if release["demo"] else "#4a5568",
            ),
        )
        .configure_view(stroke=None)
        .configure_axis(labelFontSize=11, grid=True, gridColor="#edf2f7")
        .configure_axisY(grid=False)
    )


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    target = Path(sys.argv[2] if len(sys.argv) > 2 else "docs/coverage.svg")
    chart(Path(sys.argv[1])).save(target)
    sys.stderr.write(f"drawn: {target}\n")
