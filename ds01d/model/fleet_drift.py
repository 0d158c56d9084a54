"""What differs between a fleet's store and this host's books, and how this host stands to it.

Values only. A difference is repaired in the store alone: the host's books are what is right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ds01d.model.drift import Outcome, WaitReason
from ds01d.model.fleet_books import FleetEntry, QuotaUse
from ds01d.model.primitives import (
    BookingId,
    Boot,
    ContainerName,
    SlotId,
    UserName,
    Wall,
    Word,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnBooking:
    """A booking in this host's books, as the store is to have it.

    `sevenths`: what its slots count of a user's GPU-equivalents, in sevenths. A slot that two
    containers of a user share counts for the first of them.
    """

    booking: BookingId
    user: UserName
    container: ContainerName
    slots: tuple[SlotId, ...]
    sevenths: int
    since: Wall

    @property
    def use(self) -> QuotaUse:
        return len(self.slots), self.sevenths


OwnBookings = Mapping[BookingId, OwnBooking]


class FleetDriftKind(Word):
    """Differences between this host's books and its entries in the store."""

    STALE_RESERVATION = "stale-reservation"
    UNCONFIRMED_BOOKING = "unconfirmed-booking"
    UNREPORTED_BOOKING = "unreported-booking"
    WRONG_ENTRY = "wrong-entry"


class FleetAction(Word):
    """What repairs a difference, in the store."""

    WITHDRAW = "withdraw"
    """The entry, and the name of its booking."""
    WITHDRAW_KEY = "withdraw-key"
    """The entry alone: its booking lives as another user's, and has the name still."""
    FREE_NAME = "free-name"
    """A former name alone: its booking lives under another one."""
    CONFIRM = "confirm"
    REPORT = "report"


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetDrift:
    """One difference. `entry`: what the store is to have, or what is withdrawn from it.

    `is_undercounted`: the store has an entry of it, which counts less than the books.
    """

    kind: FleetDriftKind
    action: FleetAction
    entry: FleetEntry
    reason: str
    is_undercounted: bool = False

    @property
    def is_withdrawal(self) -> bool:
        """It takes something from the store, so others may reserve what this host had."""
        return self.action not in (FleetAction.CONFIRM, FleetAction.REPORT)

    @property
    def key(self) -> str:
        # With the user: a booking that changed hands is withdrawn for one and reported for another.
        key = f"{self.kind}|{self.entry.user}|{self.entry.booking}"
        # A booking has one entry for each user, and may have left any number of names.
        return f"{key}|{self.entry.container}" if self.action is FleetAction.FREE_NAME else key


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedFleetDrift:
    """A drift as the gate sorted it, or as its repair ended. `until` None: not by time alone."""

    drift: FleetDrift
    outcome: Outcome
    gate: WaitReason | None = None
    reason: str = ""
    until: Boot | None = None
    first_seen: Boot


class FleetFindingKind(Word):
    """What the store shows and no repair of this host can solve."""

    DUPLICATE_NAME = "duplicate-name"
    OVER_QUOTA = "over-quota"
    LIMITS_DIFFER = "limits-differ"
    NODE_UNKNOWN = "node-unknown"
    CLONED_NODE = "cloned-node"
    OLD_FLEET = "old-fleet"
    MALFORMED_ENTRY = "malformed-entry"


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetFinding:
    """Something to report. `subject`: a container, a user, a host, or a key of the store."""

    kind: FleetFindingKind
    subject: str
    reason: str


class MembershipState(Word):
    """How this host stands to the store."""

    JOINING = "joining"
    """Not asked yet."""
    MEMBER = "member"
    AWAY = "away"
    """The store does not answer."""
    FENCED = "fenced"
    """The store does not have this host as it was left: forgotten, restored from an image, or
    a copy. Until an admin has it rejoin, it changes nothing there."""
    RESTORED = "restored"
    """The store lacks what this host saw of it: it reports, and reserves and withdraws nothing,
    until every host has reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """Where this host stands, why, and since when."""

    state: MembershipState
    since: Wall
    reason: str = ""

    def change_state(self, state: MembershipState, reason: str, now: Wall) -> Membership:
        """What follows where the host stands like this from now on."""
        # A fence is no matter of the network, and stays until an admin ends it.
        if self.state is MembershipState.FENCED and state is MembershipState.AWAY:
            return self
        # The moment of a change is shown, and must not move while it stays.
        since = self.since if state is self.state else now
        return Membership(state=state, since=since, reason=reason)

    @property
    def may_reserve(self) -> bool:
        return self.state is MembershipState.MEMBER

    @property
    def may_report(self) -> bool:
        # A store that was put back gets to know what there is by these reports alone.
        return self.state in (MembershipState.MEMBER, MembershipState.RESTORED)
