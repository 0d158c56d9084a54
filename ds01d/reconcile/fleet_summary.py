"""Publishes in a fleet's store what a host has to show, and whether it has reported all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from ds01d.decide.fleet_restore import SYNCED
from ds01d.model.drift import Outcome
from ds01d.model.fleet_books import FleetContents
from ds01d.model.fleet_drift import FleetDriftKind, GatedFleetDrift, MembershipState
from ds01d.model.primitives import Now
from ds01d.reconcile.fleet_member import FleetMember
from ds01d.reconcile.fleet_ports import FleetBook

PUBLISH_EVERY_S: Final = 10.0
_PUBLISH_AWAITED_S: Final = 1.0
# Without news as well: a summary that somebody deleted comes back.
_PUBLISH_ANYHOW_S: Final = 600.0
_UNREPORTED: Final = (FleetDriftKind.UNREPORTED_BOOKING, FleetDriftKind.WRONG_ENTRY)


@dataclass(slots=True, kw_only=True)
class SummaryPublisher:
    """`read_summary`: what this host shows of itself."""

    book: FleetBook
    member: FleetMember
    read_summary: Callable[[], dict[str, object]]
    _published: dict[str, object] = field(default_factory=dict)
    # The first one is not early, however short the host is up.
    _published_at: float = -PUBLISH_EVERY_S

    def publish_if_new(
        self,
        contents: FleetContents,
        drifts: Iterable[GatedFleetDrift],
        now: Now,
        *,
        is_idle: bool,
    ) -> None:
        """Publish if there is anything new. `is_idle`: no booking is in flight."""
        state = self.member.membership.state
        if not self.member.membership.may_report:
            return
        # Only what is new is written: each write is one for every member of the store.
        summary: dict[str, object] = {**self.read_summary(), "state": str(state)}
        # Hosts that wait for the others need a report that is newer than the restore.
        is_awaited = state is MembershipState.RESTORED or any(
            other.get("state") == str(MembershipState.RESTORED)
            for other in contents.summaries.values()
        )
        elapsed_s = now.boot - self._published_at
        is_early = elapsed_s < (_PUBLISH_AWAITED_S if is_awaited else PUBLISH_EVERY_S)
        is_new = summary != self._published or is_awaited or elapsed_s > _PUBLISH_ANYHOW_S
        if is_early or not is_new:
            return
        # Decision 314: what is in flight is not in the books yet, and was not reported.
        is_synced = is_idle and not any(
            gated.outcome is not Outcome.DONE and gated.drift.kind in _UNREPORTED
            for gated in drifts
        )
        synced = {"cluster": contents.cluster, "revision": contents.revision}
        answer = self.book.publish_summary({**summary, SYNCED: synced if is_synced else None})
        if answer is None:
            # Only what is there counts as published: one that failed is tried in the next pass.
            self._published, self._published_at = summary, now.boot
