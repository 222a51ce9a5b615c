"""The stages of one run, in order.

One long module: the steps of a run in several processes are these stages, too, and each reads what the one before recorded.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import partial

from catalunya import publish
from catalunya.audit import Audit, Stale
from catalunya.build import Candidate, discard_candidates, inputs
from catalunya.datasets.model import Dataset
from catalunya.demo.environment import is_unknown, portals
from catalunya.errors import HistoryUnreadable, LakeCorrupt, Refused, SourceUnreadable
from catalunya.ingest import Ingested, ingest
from catalunya.lake import index, layout, pointer, snapshot
from catalunya.lake.snapshot import DEFINITION_GATES, Manifest
from catalunya.log import bound
from catalunya.release import Release, discard_unpublished_releases, unknown_entries
from catalunya.runs.auditing import audit_candidate
from catalunya.runs.reading import check_clock, read_sources
from catalunya.runs.record import STAGED_COUNTS, DatasetRecord, SourceState
from catalunya.runs.state import RunState
from catalunya.settings import Settings
from catalunya.sources import Progress, Stop
from catalunya.stage import forget_lost_files, stage
from catalunya.warehouse.code import code_digest


class Run(RunState):
    """One run over a lake that it has locked. Each stage can be called alone; `all_stages` calls them in order."""

    def all_stages(self, *, force: bool = False, rebuild: bool = False, only: tuple[str, ...] = ()) -> None:
        """Run every stage once.

        `force` reads every source again, `rebuild` stages every kept snapshot again; both publish although
        nothing is new. `only` are the datasets whose sources are read, all by default.
        """
        self.clean_up()
        self.ingest(force=force, only=only)
        self.reopen_refusals()
        self.stage(force=rebuild)
        self.require_snapshots()
        if not force and not rebuild and self.nothing_new():
            self.skip("build", "audit", "publish")
            self.raise_refusals()
        else:
            self.restore_staged()
            self.publish(self.audit_or_rebuild(self.build()))
            discard_candidates(self.storage.guarded(self.lock), self.engine)

    def clean_up(self) -> None:
        """Delete the unfinished files of killed runs; readers never saw them."""
        self.storage.clean_scratch()
        for name in unknown_entries(self.storage):
            self.record.warn(f"{self.storage.uri(layout.release(name))} is no release; it was left alone")
        discard_unpublished_releases(self.storage, self.lock)
        discard_candidates(self.storage.guarded(self.lock), self.engine)
        publish.publish_views(self.storage, self.engine)

    def ingest(self, *, force: bool = False, only: tuple[str, ...] = ()) -> None:
        """Read every source; one that cannot be read does not stop the others."""
        check_clock(self.storage, self.datasets, self.settings, self.now)
        with self.timed("ingest"), portals(self.settings) as settings:
            selected = self.select(only)
            results = read_sources(
                selected.values(), partial(self._read, settings=settings, force=force), self.reporter
            )
            for dataset_id, result in zip(selected, results, strict=True):
                self._record_reading(dataset_id, result, settings)

    def _record_reading(self, dataset_id: str, result: Ingested, settings: Settings) -> None:
        if result.outcome == "unreadable" and not result.snapshot_id and is_unknown(settings, dataset_id):
            message = f"{dataset_id}: the demo portal does not have it; its tables stay empty here"
            result = replace(result, outcome="unknown", message=message)
        self.reporter.step("ingest", f"{dataset_id}: {result.outcome}")
        self.record.datasets[dataset_id] = DatasetRecord(
            snapshot_id=result.snapshot_id,
            outcome=result.outcome,
            message=result.message,
            rows_in=result.rows,
            requests=result.requests,
            bytes=result.bytes,
        )
        if result.outcome == "drifted":
            self.refusals.append(result.message)
        if result.snapshot_id:
            self.record.seen[dataset_id] = SourceState(
                snapshot_id=result.snapshot_id, validators=result.validators
            )
        if result.message:
            self.record.warn(result.message)

    def _read(
        self,
        dataset: Dataset,
        progress: Progress,
        stopped: Stop,
        *,
        settings: Settings,
        force: bool,
    ) -> Ingested:
        try:
            newest = snapshot.latest(self.storage, dataset.id, self.now)
            state = self.record.seen.get(dataset.id)
            is_current = state is not None and newest is not None and state.snapshot_id == newest.snapshot_id
            with bound(dataset=dataset.id):
                return ingest(
                    self.storage,
                    dataset,
                    settings,
                    run_id=self.record.run_id,
                    now=self.now,
                    previous_validators=state.validators if state and is_current else None,
                    force=force or not self._is_settled(dataset.id, newest),
                    progress=progress,
                    stopped=stopped,
                )
        except LakeCorrupt as error:
            return Ingested(dataset.id, "unreadable", None, {}, 0, 0, str(error))

    def _is_settled(self, dataset_id: str, newest: Manifest | None) -> bool:
        """Return whether the source need not be read again while it says that nothing changed since its newest snapshot.

        A portal that sent a part of its rows can send all of them later with the same date: a snapshot that no release
        contains, or that a person refused, is read again.
        """
        if newest is None:
            return True
        refused = snapshot.refused(self.storage, dataset_id)
        return newest.snapshot_id in self._released(dataset_id) and newest.snapshot_id not in refused

    def _released(self, dataset_id: str) -> tuple[str, ...]:
        """Return the snapshots of a dataset that the last release contains."""
        return self.last.snapshots.get(dataset_id, ()) if self.last else ()

    def reopen_refusals(self) -> None:
        """Lift refusals that other code made: their snapshots are judged again."""
        code = ""
        for dataset_id in self.datasets:
            for snapshot_id, refusal in snapshot.refused(self.storage, dataset_id).items():
                if refusal.gate in DEFINITION_GATES or not refusal.judged_with:
                    continue
                code = code or code_digest(self.settings.home)
                if refusal.is_void(code):
                    snapshot.lift(self.storage, dataset_id, snapshot_id)
                    self.record.warn(
                        f"{dataset_id}: {snapshot_id} is judged again: the code that refused it has changed"
                    )

    def stage(
        self, *, force: bool = False, damaged: Collection[str] = (), only: tuple[str, ...] = ()
    ) -> None:
        """Stage what landed, with `force` every kept snapshot, and in any case those whose staged file is `damaged`.

        All are tried; refusals are kept in `refusals`. Raises `HistoryUnreadable` when a snapshot of the release can no
        longer be staged.
        """
        unreadable: list[str] = []
        with self.timed("stage"):
            for dataset_id, dataset in self.select(only).items():
                self.dataset_record(dataset_id)
                try:
                    with bound(dataset=dataset_id):
                        done = stage(
                            self.storage,
                            dataset,
                            run_id=self.record.run_id,
                            now=self.now,
                            force=force,
                            damaged=damaged,
                            accepted=self._released(dataset_id),
                        )
                except HistoryUnreadable as error:
                    unreadable.append(str(error))
                except Refused as refusal:
                    self.refuse(refusal)
                except LakeCorrupt as error:
                    self.refuse(Refused(str(error)))
                else:
                    for staged in done:
                        rows = f"{staged.rows_staged} of {staged.rows_in} rows"
                        self.reporter.step("stage", f"{dataset_id}: {rows}")
                        for warning in staged.warnings:
                            self.record.warn(warning)
            if not only:
                self.count_datasets()
            if unreadable:
                raise HistoryUnreadable("; ".join(unreadable))

    def restore_staged(self, *, only: tuple[str, ...] = ()) -> None:
        """Stage again the snapshots whose staged file is missing or damaged although the index has it."""
        for dataset_id in self.select(only):
            lost = forget_lost_files(self.storage, dataset_id)
            if lost:
                self.record.warn(
                    f"{dataset_id}: the staged files of {', '.join(lost)} are missing or damaged; they are made again"
                )
                self.stage(damaged=lost, only=(dataset_id,))

    def raise_refusals(self) -> None:
        """Raise `Refused` with what was refused so far, if anything was."""
        if self.refusals:
            raise Refused("; ".join(self.refusals), dict(self.record.refused))

    def count_datasets(self) -> None:
        """Record the counts of the snapshots in use, and the datasets that are stale."""
        self.record.stale = []
        for dataset_id in self.datasets:
            self.count_dataset(dataset_id)

    def count_dataset(self, dataset_id: str) -> None:
        """Record the counts of the snapshot of one dataset that is in use, and its age when it is stale."""
        record = self.dataset_record(dataset_id)
        snapshots = index.load(self.storage, dataset_id)
        if not snapshots.usable:
            return
        newest, used = snapshots.complete[-1], snapshots.usable[-1]
        held_back = newest != used and snapshots.gate(newest) != snapshot.BY_HAND
        if newest != used:
            self.record.warn(
                f"{dataset_id}: snapshot {newest} is refused, {used} is used instead; "
                f"`catalunya status` says why, `catalunya accept {newest} --why …` lifts it"
            )
        record.snapshot_id = used
        if record.outcome in {"unreadable", "drifted"} or held_back:
            hours = round((self.now - layout.moment_of(used)).total_seconds() / 3600, 2)
            self.record.stale.append(
                Stale(dataset_id=dataset_id, snapshot_id=used, age_hours=max(hours, 0.0))
            )
        staged = snapshots.staged(used)
        if staged is not None:
            for name in STAGED_COUNTS:
                setattr(record, name, getattr(staged, name))

    def require_snapshots(self) -> None:
        """Raise when a dataset has no snapshot at all: there is no release without it."""
        for dataset_id in self.datasets:
            if snapshot.usable(self.storage, dataset_id):
                continue
            record = self.dataset_record(dataset_id)
            if record.outcome == "unknown":
                continue
            refused = snapshot.refused(self.storage, dataset_id)
            if refused:
                name, refusal = list(refused.items())[-1]
                raise Refused(
                    f"{dataset_id}: its only snapshot {name} is refused ({refusal.reason}); without one there "
                    f"is no release. Correct datasets/{dataset_id}.yml, or `catalunya accept {name} --why …`",
                    dict(self.record.refused),
                )
            why = record.message or "it was never read"
            raise SourceUnreadable(f"{dataset_id}: no snapshot yet, so there is no release: {why}")

    def nothing_new(self) -> bool:
        """Return True when readers see a release of what is kept and of this code; the record then says so."""
        wanted = inputs(self.storage, self.datasets, self.settings.home)
        found = pointer.read(self.storage)
        withdrawn = found[0].withdrawn if found is not None else ()
        if self.shown is not None and self.shown.inputs_sha256 == wanted.fingerprint:
            self._warn_of_rollback()
            self._end_unchanged("nothing new")
            return True
        if {wanted.fingerprint, wanted.code} & set(withdrawn):
            what = "the code is that" if wanted.code in withdrawn else "the sources and the code are those"
            self.record.warn(
                f"{what} of a release that was rolled back; it is not published again: wait for new data, correct the "
                "code, or `catalunya run --force`"
            )
            self._end_unchanged("nothing new since the rollback")
            return True
        return False

    def _warn_of_rollback(self) -> None:
        """Name the snapshots that a rollback took out of use."""
        for dataset_id in self.datasets:
            for snapshot_id, refusal in snapshot.refused(self.storage, dataset_id).items():
                if refusal.gate == snapshot.ROLLBACK:
                    self.record.warn(
                        f"{dataset_id}: {snapshot_id} came with a release that was rolled back and is not used; "
                        f"`catalunya accept {snapshot_id} --why …` lifts that"
                    )

    def _end_unchanged(self, why: str) -> None:
        outcomes = {name: self.dataset_record(name).outcome for name in sorted(self.datasets)}
        unreadable = ", ".join(name for name, outcome in outcomes.items() if outcome == "unreadable")
        self.record.status = "unchanged"
        self.record.exit_code = SourceUnreadable.exit_code if unreadable else 0
        not_read = f", and {unreadable} could not be read" if unreadable else ""
        self.record.message = f"{why}{not_read}; the last release stays"

    def build(self) -> Candidate:
        """Build a candidate from all staged snapshots that are not refused."""
        with self.timed("build"):
            return self.build_candidate(
                self.record.run_id, on_node=lambda line: self.reporter.step("build", line)
            )

    def audit(self, candidate: Candidate) -> Audit:
        """Judge a candidate; marks the snapshots at fault and raises `Refused` when it fails."""
        with self.timed("audit"):
            return audit_candidate(self, candidate)

    def audit_or_rebuild(self, candidate: Candidate | None) -> Candidate:
        """Judge a candidate; when snapshots are refused, build from the others and judge again, as long as any is new.

        The candidate is built first when there is none, or only one that lacks snapshots because an audit was killed
        while it looked for the fault. Returns the candidate that passed. Raises `Refused` when nothing else is new, or
        when the code is at fault.
        """
        if candidate is None or candidate.left_out:
            candidate = self.build()
        while True:
            try:
                self.audit(candidate)
            except Refused as refusal:
                self.refuse(refusal)
                self.count_datasets()
                self.require_snapshots()
                left = inputs(self.storage, self.datasets, self.settings.home)
                if not refusal.snapshots or (self.last and self.last.inputs_sha256 == left.fingerprint):
                    raise
                candidate = self.build()
            else:
                return candidate

    def publish(self, candidate: Candidate) -> Release:
        """Publish an audited candidate and swap the pointer."""
        with self.timed("publish"):
            release = publish.publish(
                self.storage,
                self.datasets,
                self.engine,
                candidate,
                self.lock,
                run_id=self.record.run_id,
                now=self.now,
                stale=self.stale,
                warnings=(*(self.earlier.warnings if self.earlier else ()), *self.record.warnings),
                code_revision=self.record.code_revision,
                versions=self.record.versions,
                keep=self.settings.keep_releases,
                signing_key=self.settings.signing_key,
                require_signature=self.settings.require_signature,
            )
        self.record_release(release)
        return release

    def record_release(self, release: Release) -> None:
        """Record a release as this run's own."""
        self.record.status = "released"
        self.record.exit_code = 0
        self.record.release_id = release.release_id
        self.record.message = f"released {release.release_id}"
