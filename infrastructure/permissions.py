"""Who may do what in the lake: one duty a role, by the keys of `catalunya.lake.layout`.

Every duty may list names, unbounded: S3 answers the question for a key that is not there with "denied" instead of
"not found" to a role that may list only a part, and the pipeline asks that question all the time.
"""

from __future__ import annotations

from dataclasses import dataclass

from catalunya.lake import layout

LOCKS = "locks"
"""Leases of `catalunya.lake.lock`."""
_PART = f"{layout.RUNS}/*"
_STATE = (layout.CURRENT, f"{layout.RELEASES}/*/release.json", f"{layout.LEDGER}/*", f"{LOCKS}/*")
_NOTES = (*_STATE, _PART)
"""What every part of a run reads before its own work: what is shown, what is on record, who holds what."""
REFUSAL = f"{layout.LANDING}/*/*/refused.json"
ACCEPTANCE = f"{layout.LANDING}/*/*/accepted.json"
MANIFEST = f"{layout.LANDING}/*/*/manifest.json"
INDEX = f"{layout.STAGING}/*/_index.json"
"""What is known of a dataset's snapshots. Whoever changes their state writes it by compare-and-set, which reads it."""
SNAPSHOTS = (INDEX, MANIFEST, REFUSAL, ACCEPTANCE)
"""What the states of snapshots are read from: where an index is behind or missing, from beside the bytes."""
RECORD = f"{layout.LEDGER}/*.json"
"""A run's record, but not the archive of a month, which is a `.jsonl`: nobody deletes that."""
LANDED = tuple(f"{layout.LANDING}/*/*/{name}" for name in ("page-*", "manifest.json", "accepted.json"))
"""What no role may delete, nor an administrator while the bucket's policy stands."""

WHY_PATTERNS = {
    layout.LANDING: "A snapshot's id is made of the moment and the content that it is read with.",
    layout.STAGING: "Files are named after snapshots, whose ids are made when they are read.",
    layout.QUARANTINE: "Files are named after snapshots, whose ids are made when they are read.",
    layout.CANDIDATES: "A candidate is named after its run, whose id is made when it begins.",
    layout.RELEASES: "A release's id is made of its moment and content.",
    layout.DOCS: "Documentation is named after its release, whose id is made of its moment and content.",
    layout.PUBLISHED: "Copies are named after their release, whose id is made of its moment and content.",
    layout.LEDGER: "A record is named after its run, whose id is made when it begins.",
    layout.RUNS: "A run's id is made when it begins.",
    layout.ALERTS: "The note of an alert is named after a digest of its event.",
    LOCKS: "Datasets have locks of their own; a new definition brings a new one.",
}
"""Why keys below a prefix cannot be named one by one."""


@dataclass(frozen=True)
class Duty:
    """What one role may do with objects of the lake; patterns as IAM has them."""

    name: str
    what: str
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    deletes: tuple[str, ...] = ()


PROBE = f"{LOCKS}/probe.json"
"""What a store at another address than AWS's own was asked by whoever first wrote under a condition."""


def _locks(*names: str) -> tuple[str, ...]:
    return (*(f"{LOCKS}/{name}.json" for name in names), PROBE)


INGEST = Duty(
    "ingest",
    "reads a portal and lands what it sent",
    # An uploaded file is asked for its size afterwards, which S3 counts as reading it.
    reads=(f"{layout.LANDING}/*/*/page-*", *SNAPSHOTS, *_NOTES),
    writes=(
        f"{layout.LANDING}/*/*/page-*",
        MANIFEST,
        INDEX,
        f"{_PART}/ingest.*.json",
        *_locks("call-ingest-*", "dataset-*"),
    ),
)
STAGE = Duty(
    "stage",
    "types what landed, or refuses it",
    # The quarantine too is asked for the size of what was uploaded.
    reads=(f"{layout.LANDING}/*", f"{layout.STAGING}/*", f"{layout.QUARANTINE}/*", *_NOTES),
    writes=(
        f"{layout.STAGING}/*",
        f"{layout.QUARANTINE}/*",
        REFUSAL,
        f"{_PART}/stage.*.json",
        *_locks("call-stage-*", "dataset-*"),
    ),
    # A refusal that another definition of the dataset made does not hold any more.
    deletes=(REFUSAL,),
)
BUILD = Duty(
    "build",
    "builds a candidate and judges it",
    reads=(
        MANIFEST,
        REFUSAL,
        ACCEPTANCE,
        f"{layout.STAGING}/*",
        f"{layout.QUARANTINE}/*",
        f"{layout.CANDIDATES}/*",
        # The marts of a release that did not record their figures are read to compare with.
        f"{layout.RELEASES}/*/parquet/*",
        *_NOTES,
    ),
    writes=(
        f"{layout.CANDIDATES}/*",
        REFUSAL,
        INDEX,
        *(f"{_PART}/{name}.json" for name in ("wait", "build", "audit")),
        *_locks("run"),
    ),
    deletes=(f"{layout.CANDIDATES}/*", REFUSAL),
)
PUBLISH = Duty(
    "publish",
    "shows a candidate as a release, keeps the record, and clears away",
    # A rollback moves the pointer and the published views, so it is this role's; it refuses the snapshots that came
    # with the release that is left, and lifts such a refusal of those that it goes back to.
    reads=(
        *SNAPSHOTS,
        f"{layout.CANDIDATES}/*",
        f"{layout.RELEASES}/*",
        f"{layout.DOCS}/*",
        f"{layout.ALERTS}/*",
        *_NOTES,
    ),
    writes=(
        layout.CURRENT,
        REFUSAL,
        INDEX,
        f"{layout.RELEASES}/*",
        f"{layout.DOCS}/*",
        f"{layout.LEDGER}/*",
        f"{layout.ALERTS}/*",
        f"{layout.PUBLISHED}/*",
        f"{_PART}/publish.json",
        *_locks("run"),
    ),
    deletes=(
        f"{layout.CANDIDATES}/*",
        f"{layout.RELEASES}/*",
        f"{layout.DOCS}/*",
        f"{layout.ALERTS}/*",
        f"{layout.PUBLISHED}/*",
        REFUSAL,
        RECORD,
        _PART,
    ),
)
MONITOR = Duty(
    "monitor",
    "looks whether bytes are whole and portals alive, and tells people",
    reads=(f"{layout.LANDING}/*", INDEX, f"{layout.ALERTS}/*", *_STATE),
    writes=(f"{layout.ALERTS}/*", PROBE),
    deletes=(f"{layout.ALERTS}/*",),
)
STEWARD = Duty(
    "steward",
    "a person who refuses a snapshot or lifts a refusal",
    reads=(*SNAPSHOTS, *_locks("run")),
    writes=(ACCEPTANCE, REFUSAL, INDEX, *_locks("run")),
    deletes=(REFUSAL,),
)
ORCHESTRATOR = Duty(
    "orchestrator",
    "asks the functions and takes the roles of its tasks",
    reads=(f"{_PART}/ingest.*.json", f"{_PART}/stage.*.json", f"{layout.ALERTS}/*", PROBE),
    writes=(f"{layout.ALERTS}/*", PROBE),
    # A word of failure is taken away before a function is asked again.
    deletes=(f"{_PART}/ingest.*.json", f"{_PART}/stage.*.json", f"{layout.ALERTS}/*"),
)
DUTIES = (INGEST, STAGE, BUILD, PUBLISH, MONITOR, STEWARD, ORCHESTRATOR)
