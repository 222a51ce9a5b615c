"""Random numbers that are the same in every process."""

from __future__ import annotations

import random


def seeded(seed: str) -> random.Random:
    """Return a random number generator that depends on the seed alone."""
    return random.Random(seed)  # noqa: S311 - invented data, no secrets
