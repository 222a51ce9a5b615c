"""`catalunya` and `python -m catalunya`: streams and signals are ready before the command is imported."""

from __future__ import annotations

import json
import sys

from catalunya import signals, streams


def main() -> None:
    """Run the command; a signal that comes while it is imported is answered as one that comes later."""
    streams.prepare()
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
