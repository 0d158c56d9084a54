"""The rows of the live view: a row for each holder and for each free slot, in groups. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from ds01d.cli.ctl.status_document import StatusView
from ds01d.cli.dashboard.problems import Problem, ProblemIndex
from ds01d.reporting.status import GpuStatus, Holder, SlotStatus

FREE, IN_USE = "free", "in use"


class RowKey(NamedTuple):
    """What a row is about, whatever its place: a GPU, a user, a slot, or a holder of a slot."""

    kind: str
    subject: str
    container: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotRow:
    """A holder of a slot, or the slot itself where nobody holds it.

    `is_seen`: ds01d runs, so it is known who uses the slot without a booking.
    """

    slot: SlotStatus
    holder: Holder | None
    problems: tuple[Problem, ...] = ()
    is_seen: bool = True

    @property
    def key(self) -> RowKey:
        return RowKey("slot", self.slot.id, self.holder.container if self.holder else "")

    @property
    def state(self) -> str:
        """Docker's state of the holder; of a slot without one, whether somebody uses it."""
        if self.holder is not None:
            return self.holder.state
        return IN_USE if self.slot.foreign else FREE

    @property
    def is_free(self) -> bool:
        """Nobody holds or uses it, and nothing is wrong there."""
        return self.state == FREE and not self.problems

    @property
    def memory_used(self) -> int | None:
        """Bytes on the slot's device; of the holder alone where it shares that with others."""
        slot, holder = self.slot, self.holder
        # The device's is known more often: the driver may hide processes, and so a holder's share.
        if holder is None or (len(slot.holders) == 1 and not slot.foreign):
            return slot.memory_used
        return holder.memory_used

    @property
    def memory_share(self) -> float | None:
        """The same as a part of the device's memory, 0 to 1; None: not known."""
        return share_of(self.memory_used, self.slot.memory_total)

    @property
    def processes(self) -> int | None:
        """How many NVML lists on the device, of the holder where there is one; None: not known."""
        return self.slot.processes if self.holder is None else self.holder.processes


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuHeading:
    """Stands above the slots of a GPU. `gpu` None: the daemon does not run, or has no sample."""

    index: str
    gpu: GpuStatus | None
    slots: int
    free: int
    is_seen: bool = True

    @property
    def key(self) -> RowKey:
        return RowKey("gpu", self.index)


@dataclass(frozen=True, slots=True, kw_only=True)
class UserHeading:
    """Stands above what a user holds. "" is for slots that nobody holds."""

    user: str
    slots: int
    containers: int

    @property
    def key(self) -> RowKey:
        return RowKey("user", self.user)


Row: TypeAlias = GpuHeading | UserHeading | SlotRow


def list_rows(view: StatusView, problems: Iterable[Problem]) -> tuple[SlotRow, ...]:
    """All rows, in the order of the slots."""
    index = ProblemIndex(problems)
    return tuple(
        SlotRow(
            slot=slot,
            holder=holder,
            problems=tuple(index.find_at(slot, holder)),
            is_seen=view.daemon is not None,
        )
        for slot in view.slots
        for holder in (slot.holders or (None,))
    )


def row_text(row: SlotRow) -> str:
    """What the filter looks at, in small letters: all that can be read in the row."""
    slot, holder = row.slot, row.holder
    # Only what can be read on the screen: a match that nobody sees looks like a mistake.
    parts = [slot.id, slot.kind, row.state, *slot.shown_foreign]
    if holder is not None:
        parts += [holder.container, holder.shown_user or "unknown"]
        parts += [] if holder.idle_since is None else ["idle"]
    parts += [f"{problem.kind} {problem.standing}" for problem in row.problems]
    return "\n".join(parts).lower()


def gpu_index(slot: SlotStatus) -> str:
    """The index of the GPU that a slot is, or is a part of."""
    return slot.id.partition(".")[0]


def share_of(used: int | None, total: int | None) -> float | None:
    """A share from 0 to 1; None where a part of it is not known."""
    # A device without memory is a reading that failed, and no full device.
    if used is None or not total:
        return None
    return min(1.0, max(0.0, used / total))
