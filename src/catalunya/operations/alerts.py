"""Alerts: one message for each event, to topics of Amazon SNS and to addresses that Apprise knows."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import apprise
from pydantic import BaseModel, ConfigDict

from catalunya.errors import CatalunyaError
from catalunya.lake import layout
from catalunya.lake.storage import KeyExists, Storage
from catalunya.log import get_logger, keep_addresses_out_of_logs
from catalunya.quality.findings import Finding
from catalunya.runs.record import RunRecord
from catalunya.settings import spare_loopback

log = get_logger(__name__)

Kind = Literal["failed", "refused", "unreadable", "unusual", "silent", "late"]

_TITLES: dict[Kind, str] = {
    "failed": "failed",
    "refused": "was refused",
    "unreadable": "could not be read",
    "unusual": "changed in an unusual way",
    "silent": "has been silent for longer than its cadence",
    "late": "is later than its deadline",
}
_HINTS: dict[Kind, str] = {
    "failed": "Look at the log. The next run recovers automatically; the last release stays.",
    "refused": "The last release stays. `catalunya status` names the snapshot and how to accept it.",
    "unreadable": "The last snapshot is used. See whether the portal is up; the next run reads it again.",
    "unusual": "A release made of it says so among its warnings. Compare with the source before citing it.",
    "silent": "See whether the publisher has moved or stopped the dataset; correct its definition if it has.",
    "late": "Look at what the run is doing; `catalunya status` names the run that has locked the lake.",
}


class Alert(BaseModel):
    """One event that somebody must know of."""

    model_config = ConfigDict(frozen=True)

    kind: Kind
    subject: str
    """The dataset, stage or run that it is about."""
    reason: str
    event: str
    """Identifies the event: only one alert of it is sent."""
    link: str | None = None
    """Address of the log."""

    @property
    def title(self) -> str:
        """One line: what happened to what."""
        return f"Catalunya Data Pipeline: {self.subject} {_TITLES[self.kind]}"

    @property
    def body(self) -> str:
        """The reason, what to do, and the address of the log."""
        lines = [self.reason, _HINTS[self.kind], f"Log: {self.link}" if self.link else ""]
        return "\n".join(line for line in lines if line)


_KINDS: dict[str, Kind] = {"freshness": "silent", "stale": "unreadable"}
"""Gate to the kind of its alerts; the alerts of all others are `unusual`."""
_OF_THE_MARTS = {"dbt", "marts"}


def of_findings(record: RunRecord, link: str | None = None) -> list[Alert]:
    """Return alerts of unusual changes and silent portals, which an audit warned of, and of snapshots refused alone.

    All that is unusual in one snapshot is one alert. Warnings of the tests and figures of the marts are no alerts:
    they are in the release.
    """
    groups: dict[tuple[Kind, str | None, str | None], list[Finding]] = {}
    for finding in record.findings:
        if (
            finding.severity == "warn"
            and finding.gate not in _OF_THE_MARTS
            and not _is_refused(finding, record)
        ):
            kind = _KINDS.get(finding.gate, "unusual")
            groups.setdefault((kind, finding.dataset_id, finding.snapshot_id), []).append(finding)
    alerts = [
        Alert(
            kind=kind,
            subject=dataset_id or "the release",
            reason="\n".join(finding.message for finding in findings),
            event=_event(findings, record),
            link=link,
        )
        for (kind, dataset_id, _), findings in groups.items()
    ]
    # A run that was refused as a whole is an alert of its own.
    return alerts + (of_refused(record.refused, link) if record.status in {"released", "unchanged"} else [])


def of_silence(
    dataset_id: str, snapshot_id: str, age_days: int, cadence_days: int, link: str | None
) -> Alert:
    """Return the alert of a source that was silent for longer than its cadence, one event for its last snapshot."""
    return Alert(
        kind="silent",
        subject=dataset_id,
        reason=f"{dataset_id}: nothing new for {age_days} days (snapshot {snapshot_id}); its cadence is {cadence_days} days",
        event=f"freshness {dataset_id} {snapshot_id}",
        link=link,
    )


def of_refused(snapshots: Mapping[str, str], link: str | None = None) -> list[Alert]:
    """Return an alert of each refused snapshot (id to reason); each is one event, whichever run refuses it."""
    return [
        Alert(kind="refused", subject=f"snapshot {name}", reason=reason, event=f"refused {name}", link=link)
        for name, reason in snapshots.items()
    ]


def of_run(record: RunRecord) -> list[Alert]:
    """Return the alerts of a run in one process; that of a run which was refused names its snapshots."""
    alerts = of_findings(record)
    if record.exit_code:
        kind: Kind = "refused" if record.status == "refused" else "failed"
        reason = f"{record.message}\nRelease shown: {record.release_id or 'none'}. Lake: {record.lake}"
        run = f"run {record.run_id}"
        alerts.append(Alert(kind=kind, subject=run, reason=reason, event=run))
    return alerts


_SUBJECT_CHARACTERS = 99
_MESSAGE_BYTES = 250_000
"""Amazon SNS takes less than 100 characters and at most 256 KiB."""


@dataclass(frozen=True)
class Topic:
    """A topic of Amazon SNS; messages are published with the credentials that this process has."""

    arn: str

    def notify(self, title: str, body: str) -> bool:
        """Publish one message; returns whether the topic took it, and logs the reason when it did not."""
        message = f"{title}\n\n{body}".encode()[:_MESSAGE_BYTES].decode(errors="ignore")
        try:
            boto3, config = importlib.import_module("boto3"), importlib.import_module("botocore.config")
            faults = importlib.import_module("botocore.exceptions")
        except ImportError:
            log.warning("boto3 is not installed: an alert cannot be published", topic=self.arn)
            return False
        options = config.Config(connect_timeout=10, read_timeout=30, retries={"total_max_attempts": 3})
        subject = title.encode("ascii", "replace").decode()[:_SUBJECT_CHARACTERS]
        try:
            client = boto3.Session().client("sns", region_name=self.arn.split(":")[3], config=options)
            client.publish(TopicArn=self.arn, Subject=subject, Message=message)
        except (faults.BotoCoreError, faults.ClientError) as error:
            log.warning("the topic did not take an alert", topic=self.arn, reason=str(error))
            return False
        return True


@dataclass(frozen=True)
class _ByApprise:
    channel: apprise.NotifyBase

    def notify(self, title: str, body: str) -> bool:
        sender = apprise.Apprise()
        sender.add(self.channel)
        return bool(sender.notify(title=title, body=body))


Channel = Topic | _ByApprise


def channels(addresses: tuple[str, ...]) -> dict[str, Channel | None]:
    """Return each address with its channel; None where it is neither the ARN of a topic nor known to Apprise."""
    keep_addresses_out_of_logs()
    return {address: _channel(address) for address in addresses}


def _channel(address: str) -> Channel | None:
    if re.fullmatch(r"arn:aws[a-z-]*:sns:[a-z0-9-]+:\d{12}:[\w-]+", address):
        return Topic(address)
    # Not `Apprise.add`, which would split an address at its commas.
    found = apprise.Apprise.instantiate(address, suppress_exceptions=True)
    return _ByApprise(found) if found is not None else None


def deliver(storage: Storage | None, addresses: tuple[str, ...], alerts: Iterable[Alert]) -> bool:
    """Send alerts that were not sent before; returns whether every address took every message.

    What was sent to an address is stored in the lake, for each address alone: an alert that one address did not take is
    sent to it again by the next run that meets the event, and not to the others. A failure is logged and fails no run.
    Without a `storage`, as when the lake cannot be opened, every alert is sent.
    """
    spare_loopback()
    found = channels(addresses)
    unknown = sum(channel is None for channel in found.values())
    if unknown:
        log.warning("addresses for alerts that are not known", addresses=len(found), unknown=unknown)
    delivered = not unknown
    for alert in alerts:
        for number, (address, channel) in enumerate(found.items(), 1):
            if channel is not None and not _send(storage, alert, address, channel):
                # Never the address itself: it may hold a password.
                log.warning(
                    "an alert was not delivered", alert=alert.event, address=f"{number} of {len(found)}"
                )
                delivered = False
    return delivered


def _send(storage: Storage | None, alert: Alert, address: str, channel: Channel) -> bool:
    """Send an alert to one address unless it was sent there before; returns whether the address has it."""
    key = layout.alert(hashlib.sha256(f"{alert.event}\n{address}".encode()).hexdigest()[:32])
    try:
        if storage is not None:
            storage.put(key, alert.model_dump_json(indent=1).encode(), create=True)
    except KeyExists:
        return True
    except (CatalunyaError, OSError) as error:
        # Better sent twice than never: the lake itself may be what failed.
        log.warning("could not store the sent marker", alert=alert.event, reason=str(error))
    sent = False
    try:
        sent = channel.notify(alert.title, alert.body)
    finally:
        if not sent and storage is not None:
            with contextlib.suppress(CatalunyaError, OSError):
                storage.delete(key)
    return sent


def unreadable_event(dataset_id: str, run_id: str) -> str:
    """Return the event of a run that could use nothing new of a dataset."""
    return f"unreadable {dataset_id} {run_id}"


def _is_refused(finding: Finding, record: RunRecord) -> bool:
    """Return True when the source could be read but its snapshot is refused: the run that refused it sent the alert."""
    if finding.gate != "stale" or finding.dataset_id is None:
        return False
    return record.datasets[finding.dataset_id].outcome != "unreadable"


def _event(findings: list[Finding], record: RunRecord) -> str:
    """Return the event of findings: of a portal that is down one for each run, of all else one for each snapshot."""
    first = findings[0]
    if first.gate == "stale" and first.dataset_id:
        return unreadable_event(first.dataset_id, record.run_id)
    gates = "+".join(sorted({finding.gate for finding in findings}))
    return f"{gates} {first.dataset_id} {first.snapshot_id}"
