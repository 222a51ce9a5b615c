"""`python -m standin`: the stand-in until Ctrl-C; the variables that lead there are printed for a shell to read."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from standin import trino
from standin.install import installed
from standin.stand import running


def main() -> None:
    """Install what is missing, start everything, and wait."""
    words = argparse.ArgumentParser(prog="python -m standin", description=__doc__)
    words.add_argument("--aws", help="endpoint of an emulator of S3 and Glue that runs already")
    words.add_argument("--memory", default=trino.MEMORY, help="what Trino may take (default: %(default)s)")
    words.add_argument("--env", type=Path, help="write the variables to this file as well, once all is up")
    words.add_argument("--output", help="s3:// address where the workgroup `primary` puts results")
    words.add_argument("--install", action="store_true", help="only install the parts")
    chosen = words.parse_args()
    installed()
    if chosen.install:
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with (
        tempfile.TemporaryDirectory(prefix="standin-") as folder,
        running(Path(folder), aws=chosen.aws, memory=chosen.memory, default_output=chosen.output) as stand,
    ):
        lines = "".join(f"export {name}={value}\n" for name, value in stand.env().items())
        sys.stdout.write(lines)
        sys.stdout.flush()
        if chosen.env:
            chosen.env.write_text(lines, "utf-8")
        try:
            signal.pause()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
