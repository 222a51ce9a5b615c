"""Ask Airflow's secrets backend for secrets, before a service starts.

    secret_backend.py NAME=KEY…        # prints NAME=VALUE, each ended by a zero byte

The backend is that of AIRFLOW__SECRETS__BACKEND and AIRFLOW__SECRETS__BACKEND_KWARGS, for example AWS Secrets Manager or the
Parameter Store of Systems Manager; KEY is looked up as it looks up an option of Airflow's configuration (`config_prefix`).
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import redirect_stdout
from importlib import import_module
from typing import Any


def backend() -> Any:
    """Return the backend of the environment."""
    module, _, name = os.environ["AIRFLOW__SECRETS__BACKEND"].rpartition(".")
    given = json.loads(os.environ.get("AIRFLOW__SECRETS__BACKEND_KWARGS") or "{}")
    return getattr(import_module(module), name)(**given)


def main(wanted: list[str]) -> int:
    """Print the secrets; returns 1 and prints none when one is missing."""
    try:
        # Airflow logs to standard output, which is for the secrets alone.
        with redirect_stdout(sys.stderr):
            asked = backend()
            found = {name: asked.get_config(key) for name, _, key in (one.partition("=") for one in wanted)}
    except Exception as error:  # noqa: BLE001 (whatever the backend raises is told, without a traceback of its requests)
        print(f"entrypoint: the secrets backend failed: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    for one in wanted:
        name, _, key = one.partition("=")
        if found[name] is None:
            print(
                f"entrypoint: set {name}_SECRET to a secret that exists: there is no {key}", file=sys.stderr
            )
            return 1
    sys.stdout.write("".join(f"{name}={value}\0" for name, value in found.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
