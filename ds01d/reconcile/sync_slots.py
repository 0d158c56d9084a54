"""Updates the slot table to the GPUs at once, for `ds01-allocator sync`.

The daemon does the same after the settle time. Bookings follow the UUID of their device; no booking
is lost.
"""

from __future__ import annotations

from dataclasses import replace

from ds01d.config import Config
from ds01d.decide.bookings import Bookings
from ds01d.decide.boot_layout import find_partial_layout
from ds01d.decide.plausibility import check_plausible
from ds01d.decide.slot_table import SlotTable, follow_devices
from ds01d.errors import BooksUnreadable, Ds01Error
from ds01d.model.books import MISSING, AllocatorState, Record, Unreadable
from ds01d.model.devices import Inventory
from ds01d.model.drift import Drift
from ds01d.model.primitives import Now
from ds01d.reconcile.books_ports import BooksWorld, GpuPort
from ds01d.reconcile.transactions import Transactions


def sync_slot_table(world: BooksWorld, config: Config) -> tuple[tuple[Drift, ...], tuple[str, ...]]:
    """The drifts of the table that were repaired, and warnings. A new host gets its first state.

    Nothing without NVML. Raises `BooksUnreadable` if NVML fails, if a GPU is incomplete or denies
    MIG devices that are booked, or if devices from before the boot are not listed yet.
    """
    # Decision 202: with Docker as the books, the slots are NVML's at each reading.
    if world.gpu is None or config.books.kind == "docker":
        return (), ()
    now, grace_s = world.clock.now(), config.policy.boot_grace_s
    inventory = _take_inventory(world.gpu, now, grace_s)
    published = None if world.published is None else world.published.read_use()
    fingerprint = "" if published is None else published.inventory
    books = Transactions(world)
    _create_first_state(world, books)
    warnings: list[str] = []

    def follow(before: Bookings) -> tuple[Drift, ...]:
        # Decision 133: soon after a boot a table made of half a layout would strand the holders of
        # the rest.
        partial = find_partial_layout(
            inventory, before.state, fingerprint, now, boot_grace_s=grace_s
        )
        denied = _describe_denied_mig(before.state, inventory)
        if partial is not None or denied:
            raise BooksUnreadable(denied if partial is None else partial.reason)
        # Nothing is remembered outside the daemon: a slot without a UUID means its place.
        table = follow_devices(
            before.state, inventory, remembered={}, whole_gpus=config.books.whole_gpus
        )
        if not table.drifts:
            return ()
        after = replace(before.state, slots=dict(table.slots), mig_enabled=table.mig_enabled)
        books.write_state(before, after, lambda: None)
        # The state decides; a record that could not be moved is found as wrong-metadata.
        warnings.extend(_move_records(world, before, table))
        return table.drifts

    drifts = books.apply_change(follow)
    if drifts:
        warnings += _log_change(world, f"{len(drifts)} slots follow NVML")
    return drifts, tuple(warnings)


def _take_inventory(gpu: GpuPort, now: Now, boot_grace_s: float) -> Inventory:
    """A whole and plausible sample. Raises `BooksUnreadable`."""
    sample = check_plausible(
        gpu.sample(not_before=now.boot), remembered=0, now=now, boot_grace_s=boot_grace_s
    )
    if not isinstance(sample, Inventory):
        raise BooksUnreadable("the GPUs are not known" if sample is None else sample.reason)
    if sample.incomplete:
        failed = "; ".join(f"GPU {index}: {why}" for index, why in sample.incomplete.items())
        raise BooksUnreadable(f"not all GPUs are known: {failed}")
    return sample


def _describe_denied_mig(state: AllocatorState, gpu: Inventory) -> str:
    """Why a GPU that reports no MIG mode is not trusted; "" if all are."""
    # Decision 149: a failing GPU reports this, too. Only the daemon's checkpoint has its former
    # mode, so a slot that is booked stays until the daemon decides.
    denying = {device.index for device in gpu.gpus if device.mig is None}
    present_migs = {mig.uuid for mig in gpu.migs}
    for slot in state.slots.values():
        is_missing = (
            slot.mig_index is not None and slot.containers and slot.uuid not in present_migs
        )
        if is_missing and slot.gpu_index in denying:
            names = ", ".join(slot.containers)
            return (
                f"GPU {slot.gpu_index} reports that it cannot do MIG, and {names} has slot"
                f" {slot.id} of it: ds01d changes the table once that is certain"
            )
    return ""


def _create_first_state(world: BooksWorld, books: Transactions) -> None:
    """Create the state file of a new host."""
    # Where a copy of an earlier state or any metadata exists, the file is lost, not new.
    with world.state.lock():
        state = world.state.read()
        if isinstance(state, Unreadable) and state.digest == MISSING:
            if state.last_good is not None or books.read_records():
                raise BooksUnreadable(f"{state.reason}, and has been there: ds01d rebuilds it")
            empty = AllocatorState(slots={}, mig_enabled=False, digest=state.digest)
            world.state.write(empty, onto=state.digest)


def _move_records(world: BooksWorld, before: Bookings, table: SlotTable) -> list[str]:
    """Update the metadata to the moved slots; gives the failures, which ds01d repairs later."""
    warnings = []
    for name, record in before.records.items():
        home = (
            table.moved.get(record.gpu_id) if isinstance(record, Record) and record.gpu_id else None
        )
        if isinstance(record, Record) and home is not None:
            try:
                world.metadata.write(replace(record, gpu_id=home), onto=record.digest)
            except Ds01Error as error:
                warnings.append(f"{name}: {error}")
    return warnings


def _log_change(world: BooksWorld, reason: str) -> list[str]:
    try:
        world.allocations.append(
            at=world.clock.now().wall,
            event="CONFIG_CHANGE",
            user="system",
            container="ds01-allocator",
            gpu="",
            priority=0,
            reason=reason,
        )
    except Ds01Error as error:
        return [str(error)]
    return []
