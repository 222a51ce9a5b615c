"""Run the emulator until Ctrl-C, and print the variables that lead clients to it, for a shell to read."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from tools.athena_emulator import install, trino_server
from tools.athena_emulator.environment import running


def main() -> None:
    """Install the parts that are missing, start all servers, and wait."""
    parser = argparse.ArgumentParser(prog="python -m tools.athena_emulator", description=__doc__)
    parser.add_argument("--memory", default=trino_server.MEMORY, help="heap of Trino (default: %(default)s)")
    parser.add_argument("--env", type=Path, help="also write the variables to this file, once all is up")
    parser.add_argument("--install", action="store_true", help="only install the parts")
    options = parser.parse_args()
    install.install_all()
    if options.install:
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with (
        tempfile.TemporaryDirectory(prefix="athena-emulator-") as folder,
        running(Path(folder), memory=options.memory) as environment,
    ):
        lines = "".join(f"export {name}={value}\n" for name, value in environment.variables().items())
        sys.stdout.write(lines)
        sys.stdout.flush()
        if options.env:
            options.env.write_text(lines, "utf-8")
        try:
            signal.pause()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
