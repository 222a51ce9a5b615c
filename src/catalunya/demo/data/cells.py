"""Schematic areas of the demo: each municipality is the squares of a grid that lie nearest to its seat."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache

import numpy as np

from catalunya.demo.data.territory import municipalities

STEP_LONGITUDE = 0.03
STEP_LATITUDE = 0.0225
"""Sides of a square in degrees: about 2.5 km each at 41.7 degrees north."""
REACH_KM = 13.0
"""Squares that are farther from every seat are no land of the demo."""
_KM_PER_DEGREE = 111.2
_NOWHERE = -1

Cell = tuple[int, int]
"""Column and row of a square, counted from the south-west."""
Corner = tuple[int, int]
Polygon = list[list[list[float]]]
"""An outer ring and its holes, as GeoJSON has them."""


@cache
def cells() -> dict[str, frozenset[Cell]]:
    """Municipality to its squares: at least the one that its seat is given."""
    seats = municipalities()
    west, south = _corner()
    columns = int((max(seat.longitude for seat in seats) - west) / STEP_LONGITUDE) + 8
    rows = int((max(seat.latitude for seat in seats) - south) / STEP_LATITUDE) + 10
    longitudes = west + (np.arange(columns) + 0.5) * STEP_LONGITUDE
    latitudes = south + (np.arange(rows) + 0.5) * STEP_LATITUDE
    narrowing = np.cos(np.radians(latitudes.mean()))
    owner = np.full((rows, columns), _NOWHERE)
    nearest = np.full((rows, columns), (REACH_KM / _KM_PER_DEGREE) ** 2)
    for number, seat in enumerate(seats):
        x, y = (longitudes - seat.longitude) * narrowing, latitudes - seat.latitude
        near = np.ix_(abs(y) * _KM_PER_DEGREE <= REACH_KM, abs(x) * _KM_PER_DEGREE <= REACH_KM)
        squared = np.add.outer(y[near[0].ravel()] ** 2, x[near[1].ravel()] ** 2)
        closer = squared < nearest[near]
        nearest[near] = np.where(closer, squared, nearest[near])
        owner[near] = np.where(closer, number, owner[near])
    taken: set[Cell] = set()
    for number, seat in enumerate(seats):
        cell = next(cell for cell in _around(seat.longitude, seat.latitude) if cell not in taken)
        taken.add(cell)
        owner[cell[1], cell[0]] = number
    found: dict[str, set[Cell]] = {seat.municipality_id: set() for seat in seats}
    for row, column in zip(*np.nonzero(owner != _NOWHERE), strict=True):
        found[seats[owner[row, column]].municipality_id].add((int(column), int(row)))
    return {name: frozenset(squares) for name, squares in found.items()}


@cache
def _corner() -> tuple[float, float]:
    """The south-west corner of the grid."""
    west = min(seat.longitude for seat in municipalities()) - 4 * STEP_LONGITUDE
    south = min(seat.latitude for seat in municipalities()) - 5 * STEP_LATITUDE
    return west, south


def _around(longitude: float, latitude: float) -> Iterator[Cell]:
    """The square of a place, then those around it, from near to far."""
    west, south = _corner()
    column, row = int((longitude - west) / STEP_LONGITUDE), int((latitude - south) / STEP_LATITUDE)
    around = [(x, y) for x in range(-4, 5) for y in range(-4, 5)]
    for x, y in sorted(around, key=lambda step: (step[0] ** 2 + step[1] ** 2, step)):
        yield column + x, row + y


def polygons(squares: Iterable[Cell]) -> list[Polygon]:
    """Return the polygons of squares; those that share a side are one, and neighbours share all corners."""
    west, south = _corner()

    def place(corner: Corner) -> list[float]:
        return [
            round(west + corner[0] * STEP_LONGITUDE, 5),
            round(south + corner[1] * STEP_LATITUDE, 5),
        ]

    return [[[place(corner) for corner in ring] for ring in _rings(part)] for part in _parts(set(squares))]


def _parts(left: set[Cell]) -> Iterator[set[Cell]]:
    """The squares that hang together by their sides, in a fixed order."""
    while left:
        waiting, part = [min(left)], set()
        while waiting:
            column, row = cell = waiting.pop()
            if cell in left:
                left.remove(cell)
                part.add(cell)
                waiting += [(column + 1, row), (column - 1, row), (column, row + 1), (column, row - 1)]
        yield part


def _rings(part: set[Cell]) -> list[list[Corner]]:
    """The outer ring, counterclockwise, then the holes, clockwise."""
    following: dict[Corner, list[Corner]] = {}
    for column, row in sorted(part):
        corners = [(column, row), (column + 1, row), (column + 1, row + 1), (column, row + 1)]
        neighbours = [(column, row - 1), (column + 1, row), (column, row + 1), (column - 1, row)]
        for number, neighbour in enumerate(neighbours):
            if neighbour not in part:
                following.setdefault(corners[number], []).append(corners[(number + 1) % 4])
    rings = []
    while following:
        first = min(following)
        ring, corner, before = [first], following[first].pop(0), first
        while corner != first:
            ring.append(corner)
            before, corner = corner, _next(before, corner, following)
        ring.append(first)
        following = {corner: ends for corner, ends in following.items() if ends}
        rings.append(ring)
    return sorted(rings, key=min)


def _next(before: Corner, corner: Corner, following: dict[Corner, list[Corner]]) -> Corner:
    """The next corner; where two squares touch by a corner alone, the ring stays at its own square: it turns left."""
    ends = following[corner]
    left = (corner[0] - (corner[1] - before[1]), corner[1] + (corner[0] - before[0]))
    return ends.pop(ends.index(left) if len(ends) > 1 else 0)
