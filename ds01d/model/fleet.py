"""What is known of the hosts of a fleet: what each published, or why that is not known.

Values only. A host that cannot be asked is unknown, which is neither free nor empty; its last
report is kept beside that, for people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NewType

from ds01d.model.primitives import ContainerName, DeviceUuid, SlotId, UserName, Wall, Word

HostName = NewType("HostName", str)
HOSTS_UNIT: Final = "ds01d-hosts.service"
"""Asks all hosts for processes that cannot (`FleetView`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetHolder:
    """A container that is booked in a slot. `state`: Docker's, "unknown" or "absent"."""

    container: ContainerName
    user: UserName | None
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSlot:
    """A slot of a host. `foreign`: who uses its device without a booking.

    `foreign_holders`: the containers among them, with whose they are.
    """

    id: SlotId
    type: str
    uuid: DeviceUuid | None = None
    profile: str | None = None
    # Kept apart, as on the host: who has booked, and who only uses it.
    holders: tuple[FleetHolder, ...] = ()
    foreign: tuple[str, ...] = ()
    foreign_holders: tuple[FleetHolder, ...] = ()

    @property
    def is_free(self) -> bool:
        """Nobody is booked there, and nobody uses its device as far as its ds01d knows."""
        return not self.holders and not self.foreign

    @property
    def kind(self) -> str:
        """What `--profile` names: its MIG profile, else its type."""
        return self.profile or self.type


@dataclass(frozen=True, slots=True, kw_only=True)
class HostStatus:
    """What ds01d published on a host.

    `published_at`, `next_at` (its next sweep) are times of that host's clock. `doubt`: why its
    slots may be others than these, "" if nothing speaks against them.
    """

    published_at: Wall
    next_at: Wall | None
    version: str
    slots: tuple[FleetSlot, ...]
    doubt: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostAnswer:
    """A host answered. `clock`: what its own clock showed in the same call."""

    # In one call: the clocks of two hosts may differ by minutes, an age must not.
    status: HostStatus
    clock: Wall


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFailure:
    """A host did not answer, or not with a status."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LastWord:
    """What a user's earlier calls kept of a host. For display, never for a decision.

    `answered_at`: by the clock of this host, when it last answered with a status that counted.
    `unknown_since`: when a call first failed after that; None: the last one did not.
    """

    answered_at: Wall | None
    unknown_since: Wall | None
    status: HostStatus | None


class HostState(Word):
    """Whether what a host says counts."""

    OK = "ok"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetHost:
    """A host as it is shown.

    OK: `status` is `age_s` seconds old by that host's own clock, and `reason` is "". UNKNOWN, for
    `reason`, since `unknown_since`: `status` is its last known status, if there ever was one,
    received at `answered_at`.
    """

    name: HostName
    state: HostState
    status: HostStatus | None
    age_s: float | None = None
    reason: str = ""
    unknown_since: Wall | None = None
    answered_at: Wall | None = None

    @property
    def slots(self) -> Sequence[FleetSlot]:
        """Its slots as they are now; none where that is not known."""
        # Never those of the last known status: a script that counts free slots would book by them.
        return self.status.slots if self.status is not None and self.state is HostState.OK else ()

    @property
    def free(self) -> Sequence[FleetSlot]:
        """The slots that are known to be free."""
        return [slot for slot in self.slots if slot.is_free]


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetView:
    """All hosts as one process saw them at `viewed_at`, which it does every `every_s` seconds.

    For processes that cannot ask hosts themselves. Both times are of this host's clock.
    """

    viewed_at: Wall
    every_s: float
    hosts: tuple[FleetHost, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Occurrence:
    """Somebody in a slot of a host: booked as `holder`, or, None, using it as `foreign`."""

    host: FleetHost
    slot: FleetSlot
    holder: FleetHolder | None
    foreign: str = ""

    @property
    def container(self) -> str | None:
        """Who is there; None: the slot is free."""
        return self.foreign or (None if self.holder is None else self.holder.container)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostWish:
    """Which hosts may be asked: `only` these (empty: all), and none of `without`."""

    only: tuple[HostName, ...] = ()
    without: tuple[HostName, ...] = ()


class RemoteEnd(Word):
    """How a command on another host ended, as far as that is known here."""

    NOT_STARTED = "not-started"
    """The host could not be reached, and the command was never begun."""
    FINISHED = "finished"
    # Distinct from a failure: what may have been created must not be tried elsewhere.
    UNCERTAIN = "uncertain"
    """It was begun, and the connection was lost before its result came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteResult:
    """How a command on another host ended.

    `status`: its exit status, where it finished. `document`: the JSON object that it printed, None
    if it printed none. `reason`: the text of a failure.
    """

    end: RemoteEnd
    status: int = 0
    document: Mapping[str, object] | None = None
    reason: str = ""
