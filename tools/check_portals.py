"""A run against the live portals, and an issue on GitHub when one of them changed.

    python -m tools.check_portals            # the run; report.md is in .artefacts/portals when there is something to say
    python -m tools.check_portals --issue    # opens an issue with that report, or comments on the open one

The lake in `.artefacts/portals/lake` is kept from run to run, so that columns are compared with those of the last one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(".artefacts", "portals")
TITLE = "A portal changed"
LABEL = "source"
CHANGED = ("new column", "declared column")
"""What the warnings about the columns of a source say."""


def report(code: int, answer: dict[str, Any]) -> str:
    """Return what a person has to look at after a run, as Markdown; empty when the portals are as they were."""
    sources = [
        f"- `{name}`: {found['outcome']}. {found['message']}"
        for name, found in answer.get("datasets", {}).items()
        if found["outcome"] in {"unreadable", "drifted"}
    ]
    columns = [f"- {text}" for text in answer.get("warnings", []) if any(part in text for part in CHANGED)]
    if not code and not sources and not columns:
        return ""
    lines = [
        f"`catalunya run` against the live portals ended with exit code {code} ({answer.get('status', 'unknown')}).",
        answer.get("message") or "",
        "\n".join(dict.fromkeys([*sources, *columns])),
        "What to do: `docs/add-a-dataset.md` says how a definition follows its source.",
    ]
    return "\n\n".join(line for line in lines if line) + "\n"


def run(folder: Path) -> int:
    """Run the pipeline and write its answer and the report; returns 1 when the command did not answer."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [str(Path(sys.executable).with_name("catalunya")), "run", "--json"]
    env = {"ENVIRONMENT": "development", **os.environ, "CATALUNYA_LAKE": str((folder / "lake").resolve())}
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=False)
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        print(f"`catalunya run` ended with {done.returncode} and without an answer", file=sys.stderr)
        return 1
    (folder / "run.json").write_text(done.stdout, "utf-8")
    found = report(done.returncode, answer)
    (folder / "report.md").write_text(found, "utf-8")
    print(found or "The portals are as the definitions say.")
    return 0


def open_issue(folder: Path) -> int:
    """Open an issue with the report, or add it to the open one; does nothing without a report."""
    file = folder / "report.md"
    if not file.is_file() or not file.stat().st_size:
        print("nothing to report")
        return 0
    search = ["issue", "list", "--state", "open", "--label", LABEL, "--search", f'"{TITLE}" in:title']
    listed = subprocess.run(
        ["gh", *search, "--json", "number"], stdout=subprocess.PIPE, text=True, check=True
    )
    numbers = [issue["number"] for issue in json.loads(listed.stdout)]
    action = ["comment", str(numbers[0])] if numbers else ["create", "--title", TITLE, "--label", LABEL]
    return subprocess.run(["gh", "issue", *action, "--body-file", str(file)], check=False).returncode


def main() -> int:
    """Run, or open an issue."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--issue", action="store_true")
    options = parser.parse_args()
    return open_issue(FOLDER) if options.issue else run(FOLDER)


if __name__ == "__main__":
    sys.exit(main())
