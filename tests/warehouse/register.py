"""The days of the register that the fixture `history` has, and its services that are in quarantine on some of them."""

from __future__ import annotations

from .warehouse import service

DAYS = [f"2026-{month:02}-10" for month in range(1, 9)]


UNREAD = {
    DAYS[0]: [service("UNREAD"), service("UNREAD-LAST"), service("UNREAD-THEN-GONE")],
    DAYS[1]: [service("UNREAD-FIRST")],
    DAYS[2]: [service("UNREAD", places=11), service("UNREAD-FIRST"), service("UNREAD-NEW")],
    **{
        day: [service("UNREAD", places=11), service("UNREAD-FIRST"), service("UNREAD-NEW")]
        for day in DAYS[3:]
    },
}
"""Services that are in quarantine on some days, on the days on which they are not."""
UNUSABLE = {
    DAYS[0]: ["UNREAD-FIRST", "STAYS"],
    DAYS[1]: ["UNREAD", "UNREAD-LAST", "UNREAD-NEW", "UNREAD-THEN-GONE"],
    DAYS[2]: ["UNREAD-LAST", "UNREAD-NEVER"],
    DAYS[-1]: ["UNREAD-LAST"],
}
"""Keys in quarantine by day, on the other days those of the last."""
