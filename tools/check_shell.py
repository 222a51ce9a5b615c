"""Find what bash 3.2, the bash of macOS, does not have: part of `make lint`.

It reads the scripts that are tracked by Git. Each entry of NEWER is a regular expression and what to write instead.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NEWER = {
    r"\b(mapfile|readarray)\b": "while read -r",
    r"\bcoproc\b": "a named pipe",
    r"\b(declare|local|typeset|readonly|export)\s+-[a-z]*[Agnlu]": "no associative array, reference, or change of case",
    r"\$\{!?\w+(\[[^]]*\])?(\^|,)": "tr, for a change of case",
    r"\$\{\w+(\[[^]]*\])?@[A-Za-z]\}": "printf %q",
    r"\$\{\w+\[-\d+\]\}": "an index from the start",
    r"\$\{\w+:[^}]*:\s*-\d": "a length that is not negative",
    r"\$\{!\w+(@|\*)\}(?=.*\bnameref\b)": "no reference",
    r"&>>": ">>FILE 2>&1",
    r"\|&": "2>&1 |",
    r";;?&": "one branch for each case",
    r"\bwait\s+-[nfp]\b": "wait PID",
    r"\[\[?\s+(!\s+)?-v\s": '[ -n "${NAME+x}" ]',
    r"\bprintf\s+.*%\([^)]*\)T": "date",
    r"\bread\s+-\w*[iN]": "read -n",
    r"\b(globstar|lastpipe|inherit_errexit|autocd|dirspell)\b": "find, or a subshell",
    r"(^|\s)\{\w+\}[<>]": "a number of a file descriptor",
    r"\$\{?(BASHPID|EPOCHSECONDS|EPOCHREALTIME|SRANDOM|BASH_ARGV0|PIPESTATUS\[-)": "date, $$ or od </dev/urandom",
    r"\$'[^']*\\[uU][0-9a-fA-F]": "the character itself",
    r"\{0\d+\.\.|\{\w+\.\.\w+\.\.": "seq",
    r"\btime\s+-p\s+\{": "a function",
    r"\$\([^()]*\bcase\b.*\bin\b": "a function: a `)` of a case ends the substitution",
}
"""Newer construct to what does the same in bash 3.2."""
EMPTY_ARRAY = re.compile(r"\b(\w+)=\(\s*\)")


def main() -> int:
    """Print every place; returns 1 when there is one."""
    found = [
        place for path in scripts() for place in places(path.relative_to(ROOT).as_posix(), path.read_text())
    ]
    for place in found:
        print(place)
    return 1 if found else 0


def scripts() -> list[Path]:
    """Return the shell scripts of the repository: by their first line."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    files = [ROOT / name for name in listed.stdout.split("\0") if name and Path(name).suffix in {"", ".sh"}]
    return [
        file for file in files if file.is_file() and re.match(rb"#!.*\b(ba)?sh\b", file.read_bytes()[:64])
    ]


def places(name: str, text: str) -> list[str]:
    """Return what bash 3.2 cannot run, one line each: file, line, what was found, what to write."""
    found = []
    empty = set(EMPTY_ARRAY.findall(text))
    for number, line in enumerate(text.splitlines(), start=1):
        code = re.sub(r"(^|\s)#.*", "", line)
        for pattern, instead in NEWER.items():
            if match := re.search(pattern, code):
                found.append(f"{name}:{number}: bash 3.2 has no `{match[0].strip()}`: write {instead}")
        for array in re.findall(r'(?<!\+)"\$\{(\w+)\[[@*]\]\}"', code):
            if array in empty:
                guarded = f'${{{array}[@]+"${{{array}[@]}}"}}'
                found.append(
                    f"{name}:{number}: `{array}` may be empty, which bash 3.2 refuses under set -u: {guarded}"
                )
    return found


if __name__ == "__main__":
    sys.exit(main())
