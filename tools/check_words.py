"""Find words that have a standard term: part of `make lint`.

Each entry of WORDS is a regular expression and the term to use. A file that must name such a word, such as the changelog, is
in EXEMPT.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXEMPT = ("CHANGELOG.md", "tools/check_words.py")
SUFFIXES = {".py", ".sql", ".md", ".yml", ".yaml", ".toml", ".sh", ".cfg"}
WORDS = {
    # runs
    r"\b(Relay|relay(s|ed)?)\b": "StepwiseRun, run in steps",
    r"\bretract(ed|s)?\b": "delete_result",
    r"\bis_well\b|\bdef judged\b": "succeeded, parse_result",
    r"\b_Silent\b": "NullReporter",
    r"\bclass Order\b": "Invocation",
    r"\bclass Seen\b": "SourceState",
    r"\btidy\b|\btidied\b": "clean_up",
    r"\bPATIENCE(_S)?\b": "LOCK_TIMEOUT_S",
    r"\bgive_up\b": "deadline",
    r"\bwho_holds\b": "lock_owner",
    # data
    r"\b(dataset )?cards?\b": "dataset definition",
    r"\bclass (Words|Party|Mistake)\b": "LocalizedText, Organization, ValidationIssue",
    r"\bremed(y|ies)\b": "hint",
    r"\bdoubled\b": "duplicate",
    r"\bset(s|ting)? aside\b": "quarantine",
    r"\bpapers\b": "release metadata",
    # HTTP
    r"\b(Unfit|_Moved|_Bucket|_Watch)\b": "InvalidResponse, SourceChanged, RateLimiter, Deadline",
    r"\bdef _?(ask|judge|follow)\b": "request, raise_for_status, redirect",
    r"\bclass _?Box\b": "Chunk",
    # engines
    r"\b(class Shown|forget_table)\b": "publish_views, drop_table",
    r"\bdef show\b": "publish_views",
    r"\bdef _?(foot|feet|word)\b": "footer, sql_identifier",
    # Airflow
    r"\bwiring\b|\bpreload\b": "dag_parts, warm_up",
    r"\b(AskFunction|WordLeft|ReadingsEnded|AlreadyTold)\b": "InvokeLambdaOperator, StepResultTrigger, …",
    # AWS
    r"\bdut(y|ies)\b": "permissions",
    r"\bstand-?ins?\b": "Athena emulator",
    r"\binsists?\b": "enforced, requires",
    # demo
    r"\bborrow(s|ed|ing)?\b": "environment",
    r"\b(disorder|distort|misbehave)s?\b": "faults",
    # dbt
    r"\bwithin_range\b|\bunique_combination\b(?!_of)": "accepted_range, unique_combination_of_columns",
    # `read_back` is a published value of the column `difference_reason`.
    r"\bunbroken(_runs)?\b|\bwordings?\b|\brivals?\b": "islands, distinct_states, candidate_count",
    # tests
    r"\b(saboteur|Ear)\b": "kill_plugin, webhook_sink",
    # sentences
    r"\b(told of|tell of|tells of|nothing to tell)\b": "alert, report",
    r"\b(left|leaves|left no|leaves no) word\b|\bno word\b": "reported no result",
    r"\bbroken off\b|\bbreak off\b": "stopped",
    r"\bwhat (became|came|becomes) of\b": "result of",
    r"\bgives? no sign\b|\bgave no sign\b": "heartbeat timed out",
    r"\bbehind (our|its|their) backs?\b": "say what happens",
    r"\bmend(s|ed|ing)?\b": "correct, repair",
    r"\bas if nothing\b": "recovers automatically",
    r"\bmore hands\b": "to add workers",
    r"\bask(s|ed)? for nothing\b": "no-op query",
    r"\bput(s|ting)? right\b": "correct",
}


def findings() -> list[str]:
    """One line for each place: file, line, the word and the term to use."""
    names = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()
    rules = [
        (re.compile(pattern, re.IGNORECASE if " " in pattern else 0), term) for pattern, term in WORDS.items()
    ]
    return [
        f'{name}:{number}: "{found[0]}": {term}'
        for name in names
        if Path(name).suffix in SUFFIXES and name not in EXEMPT and (ROOT / name).is_file()
        for number, line in enumerate((ROOT / name).read_text("utf-8").splitlines(), 1)
        for rule, term in rules
        for found in rule.finditer(line)
    ]


if __name__ == "__main__":
    lines = findings()
    print("\n".join(lines))
    sys.exit(bool(lines))
