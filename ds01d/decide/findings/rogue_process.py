"""Processes on a device that their container has not got."""

from __future__ import annotations

from collections.abc import Iterator

from ds01d.decide.index import BooksIndex
from ds01d.model.containers import Container
from ds01d.model.devices import GpuProcess
from ds01d.model.drift import Finding, FindingKind
from ds01d.model.holding import Verdicts
from ds01d.model.primitives import ContainerId, SlotId, Unknown


def rogue_process(index: BooksIndex, verdicts: Verdicts) -> Iterator[Finding]:
    """A container or a host process on a slot without a booking. Reported, never killed."""
    for slot in index.table.slots.values():
        processes = index.processes.find_processes(slot.id)
        if processes is None or isinstance(processes, Unknown):
            continue
        for process in processes:
            if isinstance(process.container, Unknown):
                # Without a holder the process cannot be a holder's.
                if not slot.containers:
                    yield _report_unknown_owner(slot.id, process, process.container)
                continue
            # The owner cannot be determined while Docker is unreachable.
            if process.container is not None and index.engine is None:
                continue
            owner = _find_owner(index, process.container)
            # The first is reported by foreign-use, the second has its booking.
            if owner is not None and (
                not index.is_managed(owner) or slot.id in index.find_booked_slots(owner.name)
            ):
                continue
            if process.container is None:
                origin = "the host"
            elif owner is None:
                origin = f"container {process.container[:12]}, which the engine does not list"
            else:
                origin = owner.name
            yield Finding(
                kind=FindingKind.ROGUE_PROCESS,
                container=owner.name if owner is not None else None,
                slot=slot.id,
                reason=f"process {process.pid} ({process.command}) of {process.user or 'unknown'},"
                f" from {origin}, uses {slot.id} without a booking",
            )


def _report_unknown_owner(slot: SlotId, process: GpuProcess, why: Unknown) -> Finding:
    command = f" ({process.command})" if process.command else ""
    return Finding(
        kind=FindingKind.ROGUE_PROCESS,
        container=None,
        slot=slot,
        reason=f"process {process.pid}{command} uses {slot}, which is not booked;"
        f" its owner is unknown: {why.reason}",
    )


def _find_owner(index: BooksIndex, container: ContainerId | None) -> Container | None:
    engine = index.engine
    return engine.containers.get(container) if engine is not None and container else None
