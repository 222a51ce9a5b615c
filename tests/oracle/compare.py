"""Two tables row for row and column for column."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

Row = dict[str, Any]
SHOWN = 20


def differences(
    mart: str,
    key: Sequence[str],
    columns: Sequence[str],
    found: list[tuple[Any, ...]],
    expected: Iterable[Row],
) -> list[str]:
    """What differs, each with table, key, column and both values; a row that one side lacks is named whole."""
    wanted: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    told = []
    for row in expected:
        identity = tuple(row[name] for name in key)
        if identity in wanted:
            told.append(f"{mart} {_words(key, identity)}: twice in the plain computation")
        wanted[identity] = tuple(row[name] for name in columns)
    positions = [columns.index(name) for name in key]
    for values in found:
        identity = tuple(values[position] for position in positions)
        other = wanted.pop(identity, None)
        if other is None:
            told.append(f"{mart} {_words(key, identity)}: in the mart only, or twice: {values}")
        elif values != other:
            told += [
                f"{mart} {_words(key, identity)} {column}: {ours!r} in the mart, {plain!r} in plain Python"
                for column, ours, plain in zip(columns, values, other, strict=True)
                if ours != plain
            ]
    told += [f"{mart} {_words(key, identity)}: not in the mart: {row}" for identity, row in wanted.items()]
    return told


def report(told: list[str]) -> str:
    """The first differences, and how many there are."""
    return "\n".join([f"{len(told)} differences", *told[:SHOWN]])


def _words(key: Sequence[str], identity: tuple[Any, ...]) -> str:
    return " ".join(f"{name}={value}" for name, value in zip(key, identity, strict=True))
