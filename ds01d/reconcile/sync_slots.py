"""Bringing the slot table in line with the GPUs at once, because somebody asks for it.

The daemon does the same by itself, once a change has stood for a while. Holders go with their
device's UUID; nobody loses a slot.
"""

from __future__ import annotations

from dataclasses import replace

from ds01d.config import Config
from ds01d.decide.bookings import Bookings
from ds01d.decide.boot_layout import find_partial_layout
from ds01d.decide.slot_table import SlotTable, check_plausible, follow_devices
from ds01d.errors import BooksUnreadable, Ds01Error
from ds01d.model.books import AllocatorState, Record, Unreadable
from ds01d.model.devices import Inventory
from ds01d.model.drift import Drift
from ds01d.reconcile.ports import BooksWorld
from ds01d.reconcile.transactions import MISSING, Transactions


def sync_slot_table(world: BooksWorld, config: Config) -> tuple[tuple[Drift, ...], tuple[str, ...]]:
    """What was changed in the table, and the warnings met. A new host gets its first state.

    Nothing to do where no NVML is wanted. Raises `BooksUnreadable` if NVML does not answer,
    a GPU does not say what it is or denies the MIG devices that somebody holds, or devices are not
    listed yet that were there before the boot.
    """
    if world.gpu is None:
        return (), ()
    now = world.clock.now()
    gpu = check_plausible(
        world.gpu.sample(not_before=now.boot),
        remembered=0,
        now=now,
        boot_grace_s=config.policy.boot_grace_s,
    )
    if not isinstance(gpu, Inventory):
        raise BooksUnreadable("the GPUs are not known" if gpu is None else gpu.reason)
    if gpu.incomplete:
        failed = "; ".join(f"GPU {index}: {why}" for index, why in gpu.incomplete.items())
        raise BooksUnreadable(f"not all GPUs are known: {failed}")
    inventory = gpu
    published = None if world.published is None else world.published.read_use()
    fingerprint = "" if published is None else published.inventory
    books = Transactions(world)
    _create_first_state(world, books)
    warnings: list[str] = []

    def act(ledger: Bookings) -> tuple[Drift, ...]:
        grace_s = config.policy.boot_grace_s
        partial = find_partial_layout(
            inventory, ledger.state, fingerprint, now, boot_grace_s=grace_s
        )
        if partial is not None:
            raise BooksUnreadable(partial.reason)
        if denied := _describe_denied_mig(ledger.state, inventory):
            raise BooksUnreadable(denied)
        table = follow_devices(
            ledger.state, inventory, remembered={}, whole_gpus=config.books.whole_gpus
        )
        if not table.drifts:
            return ()
        after = replace(ledger.state, slots=dict(table.slots), mig_enabled=table.mig_enabled)
        books.write_state(ledger, after, lambda: None)
        warnings.extend(_move_records(world, ledger, table))
        return table.drifts

    drifts = books.apply_change(act)
    if drifts:
        warnings += _log_change(world, f"{len(drifts)} slots follow NVML")
    return drifts, tuple(warnings)


def _describe_denied_mig(state: AllocatorState, gpu: Inventory) -> str:
    """Why a GPU that says it cannot do MIG is not believed here; "" if all are.

    A sick one may say so. What it was before is known to ds01d alone, which decides by that.
    """
    denying = {device.index for device in gpu.gpus if device.mig is None}
    present_migs = {mig.uuid for mig in gpu.migs}
    for slot in state.slots.values():
        is_missing = (
            slot.mig_index is not None and slot.containers and slot.uuid not in present_migs
        )
        if is_missing and slot.gpu_index in denying:
            names = ", ".join(slot.containers)
            return (
                f"GPU {slot.gpu_index} says that it cannot do MIG, and {names} has slot"
                f" {slot.id} of it: ds01d changes the table once that is certain"
            )
    return ""


def _create_first_state(world: BooksWorld, books: Transactions) -> None:
    """Make the first state of a new host: none was ever there, and no metadata is."""
    with world.state.lock():
        state = world.state.read()
        if isinstance(state, Unreadable) and state.digest == MISSING:
            if state.last_good is not None or books.read_records():
                raise BooksUnreadable(f"{state.reason}, and has been there: ds01d rebuilds it")
            empty = AllocatorState(slots={}, mig_enabled=False, digest=state.digest)
            world.state.write(empty, onto=state.digest)


def _move_records(world: BooksWorld, ledger: Bookings, table: SlotTable) -> list[str]:
    """Let the metadata say where the slots are now; what cannot be written ds01d mends."""
    warnings = []
    for name, record in ledger.records.items():
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
