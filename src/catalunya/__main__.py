"""`catalunya` and `python -m catalunya`: signals are handled before the command is imported, which takes a second."""

from __future__ import annotations

import json
import sys

from catalunya import signals


def main() -> None:
    """Entry point of the command; one that is stopped while it is imported says so as it does later."""
    signals.listen()
    try:
        try:
            from catalunya.cli.main import main as command
        finally:
            # A library may have taken the interruption for a failure of its own import.
            signals.check()
    except signals.Stopped as stopped:
        if "--json" in sys.argv[1:]:
            answer = {"status": "failed", "message": str(stopped), "exit_code": stopped.exit_code}
            sys.stdout.write(json.dumps(answer) + "\n")
        sys.stderr.write(f"error {stopped}\n")
        sys.exit(stopped.exit_code)
    command()


if __name__ == "__main__":
    main()
