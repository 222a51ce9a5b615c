"""Chance that comes out the same every time."""

from __future__ import annotations

import random


def seeded(seed: str) -> random.Random:
    """Return a source of chance that depends on the seed alone."""
    return random.Random(seed)  # noqa: S311 - invented data, no secrets
