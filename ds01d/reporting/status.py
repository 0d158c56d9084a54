"""The status that ds01d publishes for ds01ctl, the allocator and dashboards.

Times are seconds since the epoch (UTC). Keys may be added; readers ignore unknown ones.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from ds01d.model.books import SlotType
from ds01d.model.checkpoint import Freeze
from ds01d.model.containers import EngineWarning
from ds01d.model.drift import Action, DriftKey, Finding, Kind, Outcome, WaitReason, drift_key
from ds01d.model.ownership import OwnerSource
from ds01d.model.primitives import ContainerName, DeviceUuid, SlotId, Source, UserName, Wall
from ds01d.model.usage import DeviceUse
from ds01d.reporting.fleet_status import FleetStatus

# A bound for a document that others read every few seconds: after an outage a host may have
# thousands.
MOST_DRIFTS: Final = 200


class _StatusPart(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the document; a frozen value."""


class SourceStatus(_StatusPart, frozen=True):
    """One source. `reason` is "" while it answers; `since`: it has been so since then."""

    ok: bool
    since: Wall
    reason: str = ""
    last_success: Wall | None = None


class Holder(_StatusPart, frozen=True):
    """A container in a slot. `state`: Docker's, "unknown" or "absent"; `until`: end of its hold.

    `user_by`: the source of its owner. `is_guess`: that is a guess. `is_charged`: it counts for the
    quota of its user. `processes`: how many of its own NVML lists on the device of the slot, with
    `memory_used` bytes there; None: that is not known, which is not none. `idle_since`: it runs and
    has used none of its slots since then; None: not known.
    """

    container: ContainerName
    user: UserName | None
    state: str
    until: Wall | None = None
    user_by: OwnerSource | None = None
    is_guess: bool = False
    is_charged: bool = True
    processes: int | None = None
    memory_used: int | None = None
    idle_since: Wall | None = None

    @property
    def shown_user(self) -> str | None:
        """As `Owner.shown`."""
        return f"{self.user} (guess)" if self.user is not None and self.is_guess else self.user


class GpuStatus(_StatusPart, frozen=True):
    """A GPU as the last sample has it. None: NVML does not say, or does not answer now.

    Memory in bytes, `utilization` in percent, `temperature` in degrees Celsius; `mig` None: it has
    no such mode.
    """

    index: int
    uuid: DeviceUuid
    name: str = ""
    mig: bool | None = None
    memory_used: int | None = None
    memory_total: int | None = None
    utilization: int | None = None
    temperature: int | None = None
    health: tuple[str, ...] = ()


class SlotStatus(_StatusPart, frozen=True):
    """A slot, who holds it, and who else uses its device.

    `foreign`: containers that are not booked there, whose they ever are, and processes of the host.
    `foreign_holders`: those containers, with whose they are.
    `drifts`: the kind of each that is open there, with where it stands. Memory in bytes.
    `utilization`: of its device in percent; NVML has none for MIG devices. `processes`: all
    that it lists there.
    """

    id: SlotId
    type: SlotType
    uuid: DeviceUuid | None = None
    profile: str | None = None
    holders: tuple[Holder, ...] = ()
    foreign: tuple[str, ...] = ()
    foreign_holders: tuple[Holder, ...] = ()
    memory_used: int | None = None
    memory_total: int | None = None
    utilization: int | None = None
    processes: int | None = None
    drifts: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """Its MIG profile, else its type."""
        return self.profile or self.type.value

    @property
    def shown_foreign(self) -> tuple[str, ...]:
        """`foreign` for people: "web of alice (guess)" where a source names its owner."""
        users = {str(holder.container): holder.shown_user for holder in self.foreign_holders}
        return tuple(
            f"{name} of {user}" if (user := users.get(name)) else name for name in self.foreign
        )


class DriftCount(_StatusPart, frozen=True):
    """How many drifts of a kind came out alike in the last pass."""

    kind: Kind
    outcome: Outcome
    count: int


class Sweep(_StatusPart, frozen=True):
    """A pass over everything."""

    at: Wall
    duration_s: float


class PassHealth(_StatusPart, frozen=True):
    """Whether passes succeed. `failing_since` None: the last one did.

    `failures`: passes that failed since then, `reason`: why the last of them did.
    """

    last_success: Wall | None = None
    failing_since: Wall | None = None
    failures: int = 0
    reason: str = ""

    @property
    def failing(self) -> bool:
        """The last pass failed as a whole, so nothing is repaired."""
        return self.failing_since is not None


class PublishedDrift(_StatusPart, frozen=True):
    """A drift that is open: where it stands, since when it is seen, until when and why it waits.

    `difference`: what differs. `reason`: why it waits, or failed.
    """

    kind: Kind
    container: ContainerName | None
    slot: SlotId | None
    action: Action
    outcome: Outcome
    gate: WaitReason | None = None
    difference: str = ""
    reason: str = ""
    first_seen: Wall | None = None
    until: Wall | None = None

    @property
    def key(self) -> DriftKey:
        """As `Drift.key`."""
        return drift_key(self.kind, self.container, self.slot)

    @property
    def shown_reason(self) -> str:
        """What differs, and why it waits or failed; "" if neither is known."""
        return "; ".join(filter(None, (self.difference, self.reason)))


class Pace(_StatusPart, frozen=True):
    """Releases without a destroy event: how many in the window, of how many."""

    used: int
    limit: int
    window_s: float


class Status(_StatusPart, frozen=True):
    """The document. `degraded`: each reason why not all is well; empty if all is.

    `state_dir`: of whom it speaks, where it lies elsewhere. `open_drifts`: of all that `drifts`
    counts those that are not done, failed ones first, `MOST_DRIFTS` at most.
    `warnings`: what to know of the way Docker answers, though it does. `unsaved`: why what the
    daemon remembers is not in its checkpoint, which others then read in vain; "" if it is.
    `fleet`: of the store that all hosts share; None without one.

    `uses`: every device that somebody has by a request or uses, the holders of slots included;
    `without_devices`: living containers that have none (short IDs). `inventory`: fingerprint of the
    devices that are remembered, also from before a boot. For the allocator. `readings_at`: when
    NVML was asked for what GPUs, slots and holders show of it; None: it did not answer.
    """

    written_at: Wall
    pid: int
    version: str
    mode: Literal["repair", "observe"]
    ready: bool
    engine_trusted: bool
    sources: dict[Source, SourceStatus]
    pace: Pace
    last_sweep: Sweep | None = None
    next_sweep: Wall | None = None
    gpus: tuple[GpuStatus, ...] = ()
    slots: tuple[SlotStatus, ...] = ()
    uses: tuple[DeviceUse, ...] = ()
    without_devices: tuple[str, ...] = ()
    inventory: str = ""
    readings_at: Wall | None = None
    drifts: tuple[DriftCount, ...] = ()
    findings: tuple[Finding, ...] = ()
    freezes: tuple[Freeze, ...] = ()
    degraded: tuple[str, ...] = ()
    passes: PassHealth = PassHealth()
    open_drifts: tuple[PublishedDrift, ...] = ()
    state_dir: str = ""
    warnings: tuple[EngineWarning, ...] = ()
    unsaved: str = ""
    fleet: FleetStatus | None = None
