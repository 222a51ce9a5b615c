"""What each role may read, write and delete in the lake, by the keys of `catalunya.lake.layout`.

Every role but the reader's may list all names: to a role that may list only a part, S3 answers a request for a missing key
with "denied" instead of "not found", and the pipeline often requests keys that may be missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from catalunya.lake import layout

LOCKS = "locks"
"""Leases of `catalunya.lake.lock`."""
_STEP = f"{layout.RUNS}/*"
_STATE = (layout.CURRENT, f"{layout.RELEASES}/*/release.json", f"{layout.LEDGER}/*", f"{LOCKS}/*")
_COMMON = (*_STATE, _STEP)
"""What every step of a run reads first: the pointer, the records of runs, the locks, the results of other steps."""
REFUSAL = f"{layout.LANDING}/*/*/refused.json"
ACCEPTANCE = f"{layout.LANDING}/*/*/accepted.json"
MANIFEST = f"{layout.LANDING}/*/*/manifest.json"
INDEX = f"{layout.STAGING}/*/_index.json"
"""The index of a dataset's snapshots. A role that changes their state writes it by compare-and-set, which reads it."""
SNAPSHOTS = (INDEX, MANIFEST, REFUSAL, ACCEPTANCE)
"""Where the states of snapshots are read: the index, or the files beside the bytes when it is missing or not current."""
RECORD = f"{layout.LEDGER}/*.json"
"""The record of a run. The archive of a month is a `.jsonl`, which no role deletes."""
BOUNDARIES = f"{layout.STAGING}/boundaries/*/*.parquet"
LANDED = tuple(f"{layout.LANDING}/*/*/{name}" for name in ("page-*", "manifest.json", "accepted.json"))
"""What no role may delete, nor an administrator as long as the policy of the bucket stays."""

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
"""Prefix to the reason why its keys cannot be named one by one."""


@dataclass(frozen=True)
class RolePermissions:
    """What one role may do with objects of the lake; patterns as in IAM."""

    name: str
    description: str
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    """Small objects, each written by one request."""
    uploads: tuple[str, ...] = ()
    """Files that may be written in parts; an upload that fails is aborted."""
    deletes: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    """Prefixes whose names may be listed; none: all."""


def without_covered(patterns: tuple[str, ...]) -> list[str]:
    """Return the patterns without those that another of them covers."""
    given = dict.fromkeys(patterns)
    return [one for one in given if not any(fnmatchcase(one, other) for other in given if other != one)]


PROBE = f"{LOCKS}/probe.json"
"""Written by the first conditional write, to test whether a store other than AWS's own has such writes."""


def _locks(*names: str) -> tuple[str, ...]:
    return (*(f"{LOCKS}/{name}.json" for name in names), PROBE)


INGEST = RolePermissions(
    "ingest",
    "reads a portal and lands what it sent",
    # The size of an uploaded file is requested afterwards, which S3 counts as reading it.
    reads=(f"{layout.LANDING}/*/*/page-*", *SNAPSHOTS, *_COMMON),
    uploads=(f"{layout.LANDING}/*/*/page-*",),
    writes=(
        MANIFEST,
        INDEX,
        f"{_STEP}/ingest.*.json",
        *_locks("call-ingest-*", "dataset-*"),
    ),
)
STAGE = RolePermissions(
    "stage",
    "types what landed, or refuses it",
    # The size of an uploaded file is requested in the quarantine too.
    reads=(f"{layout.LANDING}/*", f"{layout.STAGING}/*", f"{layout.QUARANTINE}/*", *_COMMON),
    uploads=(f"{layout.STAGING}/*.parquet", f"{layout.QUARANTINE}/*.parquet"),
    writes=(
        INDEX,
        REFUSAL,
        f"{_STEP}/stage.*.json",
        *_locks("call-stage-*", "dataset-*"),
    ),
    # A refusal by an older definition of the dataset is not valid any more.
    deletes=(REFUSAL,),
)
BUILD = RolePermissions(
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
        *_COMMON,
    ),
    uploads=(f"{layout.CANDIDATES}/*",),
    writes=(
        REFUSAL,
        INDEX,
        *(f"{_STEP}/{name}.json" for name in ("wait", "build", "audit")),
        *_locks("run"),
    ),
    deletes=(f"{layout.CANDIDATES}/*", REFUSAL),
)
PUBLISH = RolePermissions(
    "publish",
    "shows a candidate as a release, keeps the record, and clears away",
    # A rollback moves the pointer and the published views, so this role does it. It refuses the snapshots that only the
    # abandoned release has, and lifts such refusals of the snapshots in the release that it restores.
    reads=(
        *SNAPSHOTS,
        f"{layout.CANDIDATES}/*",
        f"{layout.RELEASES}/*",
        # The borders of the site's maps, which no mart has.
        BOUNDARIES,
        f"{layout.DOCS}/*",
        f"{layout.ALERTS}/*",
        # Whether a copy for the readers of Athena is there already, and which release they see.
        f"{layout.PUBLISHED}/*",
        *_COMMON,
    ),
    uploads=(f"{layout.RELEASES}/*",),
    writes=(
        layout.CURRENT,
        REFUSAL,
        INDEX,
        f"{layout.DOCS}/*",
        f"{layout.LEDGER}/*",
        f"{layout.ALERTS}/*",
        f"{layout.PUBLISHED}/*",
        f"{_STEP}/publish.json",
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
        _STEP,
    ),
)
MONITOR = RolePermissions(
    "monitor",
    "looks whether bytes are whole and portals alive, and tells people",
    reads=(f"{layout.LANDING}/*", INDEX, f"{layout.ALERTS}/*", *_STATE),
    writes=(f"{layout.ALERTS}/*", PROBE),
    deletes=(f"{layout.ALERTS}/*",),
)
STEWARD = RolePermissions(
    "steward",
    "a person who refuses a snapshot or lifts a refusal",
    reads=(*SNAPSHOTS, *_locks("run")),
    writes=(ACCEPTANCE, REFUSAL, INDEX, *_locks("run")),
    deletes=(REFUSAL,),
)
READER = RolePermissions(
    "reader",
    "a person who queries and downloads what is published",
    reads=(layout.CURRENT, f"{layout.RELEASES}/*", f"{layout.PUBLISHED}/*", f"{layout.DOCS}/*"),
    lists=(f"{layout.RELEASES}/*", f"{layout.PUBLISHED}/*", f"{layout.DOCS}/*"),
)
ORCHESTRATOR = RolePermissions(
    "orchestrator",
    "asks the functions and takes the roles of its tasks",
    reads=(f"{_STEP}/ingest.*.json", f"{_STEP}/stage.*.json", f"{layout.ALERTS}/*", PROBE),
    writes=(f"{layout.ALERTS}/*", PROBE),
    # The result of a failed step is deleted before the function is invoked again.
    deletes=(f"{_STEP}/ingest.*.json", f"{_STEP}/stage.*.json", f"{layout.ALERTS}/*"),
)
ROLES = (ORCHESTRATOR, INGEST, STAGE, BUILD, PUBLISH, MONITOR, STEWARD, READER)
"""The orchestrator first: the others trust it."""
