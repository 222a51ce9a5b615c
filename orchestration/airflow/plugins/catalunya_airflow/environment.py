"""Numbers of the environment that the DAGs read themselves."""

from __future__ import annotations

import os


def number(name: str, default: float, most: float = 86_400) -> float:
    """Return a variable's number, `default` where it is empty or unset.

    Raises `ValueError` that names the variable, which Airflow shows as the import error of each DAG.
    """
    text = os.environ.get(name, "").strip()
    try:
        value = float(text) if text else default
    except ValueError:
        value = -1.0
    if not 0 <= value <= most:
        raise ValueError(f"{name}: {text!r} is not a number from 0 to {most:,.0f}; correct the variable")
    return value
