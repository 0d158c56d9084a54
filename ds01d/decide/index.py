"""A snapshot with its indices: who is booked where, which container and record belong to a name.

Answers questions; decides nothing. Slot ids are those of the table it was made with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ds01d.config import Config, Policy
from ds01d.decide.ownership import choose_owner, find_named_user, is_label_refuted, parse_uid
from ds01d.decide.renames import NO_RENAMES, Renames, find_renames
from ds01d.decide.slot_table import SlotTable
from ds01d.model.books import AllocatorState, Attempt, BadRecord, Limits, Record
from ds01d.model.checkpoint import Checkpoint
from ds01d.model.containers import Container, Engine
from ds01d.model.devices import GpuProcess, Inventory
from ds01d.model.primitives import (
    Boot,
    ContainerName,
    DeviceUuid,
    SlotId,
    Source,
    Unknown,
    UserName,
)
from ds01d.model.snapshot import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class BooksIndex:
    """What the verdicts look at. Made by `build_index`, once per table.

    `containers` and `records` are those of the snapshot by name, empty where it has no answer.

    Asked for a name, everything answers for the container that has this name now; only
    `booked_slots` and `find_any_record` give what the books have under it (see `renames`).
    """

    snapshot: Snapshot
    checkpoint: Checkpoint
    config: Config
    table: SlotTable
    containers: Mapping[ContainerName, Container]
    records: Mapping[ContainerName, Record | BadRecord]
    booked_slots: Mapping[ContainerName, frozenset[SlotId]]
    slots_to_merge: Mapping[ContainerName, frozenset[SlotId]]
    renames: Renames
    processes_by_device: Mapping[DeviceUuid, tuple[GpuProcess, ...]]
    passwd: Mapping[int, str] = field(default_factory=dict)
    logins: Mapping[str, int] = field(default_factory=dict)
    _users: dict[ContainerName, UserName | None] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    @property
    def engine(self) -> Engine | None:
        return self.snapshot.docker if isinstance(self.snapshot.docker, Engine) else None

    @property
    def policy(self) -> Policy:
        return self.config.policy

    @property
    def limits(self) -> Limits | Unknown:
        return self.snapshot.limits

    @property
    def limits_settled(self) -> Boot:
        """From when on the limits may end a hold; before, somebody may still be writing them."""
        return self.checkpoint.limits.settled if self.checkpoint.limits is not None else Boot(0.0)

    def find_container(self, name: ContainerName) -> Container | None:
        return self.containers.get(name)

    def name_in_books(self, name: ContainerName) -> ContainerName:
        """The name under which the container is remembered: its own until it was renamed."""
        return self.renames.name_in_books(name)

    def find_booked_slots(self, name: ContainerName) -> frozenset[SlotId]:
        """The slots booked for the container that is called `name` now, whatever it was called.

        Also those that another writer booked in a file which we had just replaced.
        """
        if not self.slots_to_merge and not self.renames.previous_names:  # as nearly always
            return self.booked_slots.get(name, frozenset())
        recorded_names = self.renames.previous_names.get(name, ())
        names = recorded_names if self.renames.is_displaced(name) else (*recorded_names, name)
        return frozenset().union(
            *(
                self.booked_slots.get(name_then, frozenset())
                | self.slots_to_merge.get(name_then, frozenset())
                for name_then in names
            )
        )

    def find_any_record(self, name: ContainerName) -> Record | BadRecord | None:
        return self.records.get(name)

    def find_record(self, name: ContainerName) -> Record | None:
        """The readable metadata of the container that is called `name` now."""
        recorded_names = self.renames.previous_names.get(name, ())
        names = recorded_names if self.renames.is_displaced(name) else (*recorded_names, name)
        records = (self.records.get(name_then) for name_then in names)
        return next((record for record in records if isinstance(record, Record)), None)

    def find_attempt(self, name: ContainerName) -> Attempt | Unknown:
        if isinstance(self.snapshot.operations, Unknown):
            return self.snapshot.operations
        return self.snapshot.operations.get(self.name_in_books(name), Attempt())

    def find_processes(self, slot: SlotId) -> tuple[GpuProcess, ...] | Unknown | None:
        """Processes on a slot's device; Unknown where they cannot be listed.

        None where nothing can run there: there is no such device, or no NVML is wanted.
        """
        gpu = self.snapshot.gpu
        if gpu is None:
            return None
        if isinstance(gpu, Unknown):
            return gpu
        device = self.table.device_of.get(slot)
        # A GPU that failed may own the device of this slot; an empty list here would prove that
        # nobody uses it.
        if gpu.incomplete and device not in self._list_devices(gpu):
            failed = "; ".join(f"GPU {index}: {why}" for index, why in gpu.incomplete.items())
            return Unknown(source=Source.NVML, reason=f"the device of {slot} may be on {failed}")
        if device is None:
            return None
        processes: list[GpuProcess] = []
        for part in list_parts(gpu, device):
            # Invariant 1: a process list that cannot be read is unknown, not empty.
            if part in gpu.blind:
                return Unknown(source=Source.NVML, reason=f"processes on {part}: {gpu.blind[part]}")
            processes.extend(self.processes_by_device.get(part, ()))
        return tuple(processes)

    def has_process_list(self, slot: SlotId) -> bool:
        """Whether `processes` can show that nobody uses a slot; with no NVML wanted it has to do.

        A device that NVML does not list any more (a MIG device in use cannot be destroyed, so it
        fell off together with its GPU) has no processes to be shown, and may have some.
        """
        gpu = self.snapshot.gpu
        return not isinstance(gpu, Inventory) or self.table.device_of.get(
            slot
        ) in self._list_devices(gpu)

    @staticmethod
    def _list_devices(gpu: Inventory) -> frozenset[DeviceUuid]:
        return frozenset(g.uuid for g in gpu.gpus) | frozenset(m.uuid for m in gpu.migs)

    def find_computing_devices(self, container: Container) -> frozenset[DeviceUuid]:
        """The devices that a container's processes use, booked for it or not."""
        return frozenset(
            device
            for device, processes in self.processes_by_device.items()
            if any(process.container == container.id for process in processes)
        )

    def find_user(self, name: ContainerName) -> UserName | None:
        """Whose container this is: its booking's own record, else the uid in its name, else labels.

        `root` is believed only of containers whose name ends in 0: sudo leaves it behind. A label
        is a claim of its creator: it counts only where the name has no uid.
        """
        if name not in self._users:  # asked for several times by each sweep
            self._users[name] = self._find_user(name)
        return self._users[name]

    def user_by_uid(self, name: ContainerName) -> UserName | None:
        """The user whose uid ends `name`; None where there is no uid, or no user known for it."""
        return find_named_user(name, self.passwd)

    def is_label_refuted(self, name: ContainerName, claimed: str) -> bool:
        """Whether a label claims a user of another uid than the one in the name, or no user."""
        return is_label_refuted(name, claimed, self.passwd, self.logins)

    def find_booker(self, name: ContainerName) -> UserName | None:
        """Whose booking the books have under `name`, wherever its container lives now."""
        if name in self.renames.orphans:
            record = self.records.get(name)
            return self._choose_user(name, record if isinstance(record, Record) else None, {})
        has_moved = self.renames.is_displaced(name) or name not in self.containers
        return self.find_user(self.renames.current_name.get(name, name) if has_moved else name)

    def _find_user(self, name: ContainerName) -> UserName | None:
        container = self.find_container(name)
        labels = {} if container is None or container.is_unnamed else container.labels
        return self._choose_user(name, self.find_record(name), labels)

    def _choose_user(
        self, name: ContainerName, record: Record | None, labels: Mapping[str, str]
    ) -> UserName | None:
        return choose_owner(name, record, labels, self.passwd, self.logins)

    def is_managed(self, container: Container) -> bool:
        """A DS01 container: labelled, named as one, or booked."""
        return (
            container.labelled
            or parse_uid(container.name) is not None
            or bool(self.find_booked_slots(container.name))
        )


def list_parts(gpu: Inventory, device: DeviceUuid) -> tuple[DeviceUuid, ...]:
    """A device and, for a GPU that is cut into MIG devices, those."""
    return (device, *(mig.uuid for mig in gpu.migs if mig.gpu == device))


def build_index(
    snapshot: Snapshot, checkpoint: Checkpoint, config: Config, table: SlotTable
) -> BooksIndex:
    """Index a snapshot for the verdicts."""
    booked_slots: dict[ContainerName, frozenset[SlotId]] = {}
    for slot in table.slots.values():
        this_slot = frozenset((slot.id,))
        for name in slot.containers:
            booked_slots[name] = (
                booked_slots[name] | this_slot if name in booked_slots else this_slot
            )
    slots_to_merge: dict[ContainerName, set[SlotId]] = {}
    for name, old_id in snapshot.state.merge if isinstance(snapshot.state, AllocatorState) else ():
        if (slot_id := table.moved.get(old_id, old_id)) in table.slots:
            slots_to_merge.setdefault(name, set()).add(slot_id)
    records = {} if isinstance(snapshot.metadata, Unknown) else snapshot.metadata
    renames = NO_RENAMES
    if isinstance(snapshot.docker, Engine):
        renames = find_renames(checkpoint, snapshot.docker, booked_slots, records)
    processes_by_device: dict[DeviceUuid, tuple[GpuProcess, ...]] = {}
    if isinstance(snapshot.gpu, Inventory):
        for process in snapshot.gpu.processes:
            processes_by_device[process.device] = (
                *processes_by_device.get(process.device, ()),
                process,
            )
    return BooksIndex(
        snapshot=snapshot,
        checkpoint=checkpoint,
        config=config,
        table=table,
        containers=snapshot.docker.by_name if isinstance(snapshot.docker, Engine) else {},
        records=records,
        booked_slots=booked_slots,
        slots_to_merge={name: frozenset(slots) for name, slots in slots_to_merge.items()},
        renames=renames,
        processes_by_device=processes_by_device,
        passwd=snapshot.passwd,
        logins=snapshot.logins,
    )
