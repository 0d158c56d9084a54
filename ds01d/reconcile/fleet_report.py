"""What a pass over a fleet's store goes by, and what it saw and did. Frozen values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from ds01d.decide.fleet_drifts import find_released
from ds01d.decide.fleet_elsewhere import UseElsewhere
from ds01d.model.fleet_books import NodeId
from ds01d.model.fleet_drift import FleetFinding, GatedFleetDrift, Membership, OwnBookings
from ds01d.model.primitives import BookingId, Boot, ContainerName, Unknown, Wall

_MOST_RELEASED: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnView:
    """The books of this host as its last pass or booking left them.

    `bookings` Unknown: they cannot be read, and nothing of them is withdrawn or reported.
    `released`: what this ds01d itself took from them. `sweep_began`: see `FleetGate`.
    """

    # Unknown is not empty: an empty one would withdraw everything.
    bookings: OwnBookings | Unknown
    released: frozenset[BookingId] = frozenset()
    sweep_began: Boot | None = None
    frozen: str = ""

    def show_books(
        self,
        bookings: OwnBookings | Unknown,
        released: frozenset[ContainerName],
        sweep_began: Boot | None,
        frozen: str,
    ) -> OwnView:
        """The next view. `released`: the containers whose bookings ds01d may have taken."""
        proven = self.released
        if not isinstance(bookings, Unknown):
            if not isinstance(self.bookings, Unknown):
                new = find_released(self.bookings, bookings, released)
                # All that a host ever released would be kept; a sweep proves the same, later.
                proven = proven | new if len(proven) + len(new) <= _MOST_RELEASED else new or proven
            # Booked again under the same ID: its end is not proven any more.
            proven -= set(bookings)
        return OwnView(
            bookings=bookings,
            released=proven,
            sweep_began=self.sweep_began if sweep_began is None else sweep_began,
            frozen=frozen,
        )

    def forget_release(self, booking: BookingId) -> OwnView:
        """The view where this ID is to be booked again: that it was released proves nothing."""
        return replace(self, released=self.released - {booking})


@dataclass(frozen=True, slots=True, kw_only=True)
class HostView:
    """Another host, as the store has it.

    `unseen_since`: without a heartbeat; None: it is there. `slots`: what it has there.
    """

    node: NodeId
    host: str
    version: str
    slots: int
    unseen_since: Wall | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetReport:
    """What a pass over the store saw and did. `failure`: why the store is unknown; "": it is not.

    `hosts`: all that take part, this one included. `entries`: how many there are. `elsewhere`:
    what users have on other hosts; None: the store was never read.
    """

    at: Wall
    membership: Membership
    node: NodeId
    failure: str = ""
    cluster: str = ""
    revision: int = 0
    entries: int = 0
    drifts: tuple[GatedFleetDrift, ...] = ()
    findings: tuple[FleetFinding, ...] = ()
    hosts: tuple[HostView, ...] = ()
    elsewhere: UseElsewhere | None = None
    warnings: tuple[str, ...] = ()
