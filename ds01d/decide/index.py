"""A snapshot with its indices: who is booked where, which container and record belong to a name.

Answers questions; decides nothing. Slot ids are those of the table it was made with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ds01d.config import Config, Policy
from ds01d.decide.owner_guess import identify_owner, refine_owner
from ds01d.decide.ownership import find_owner, has_user, parse_uid
from ds01d.decide.renames import Renames, find_renames
from ds01d.decide.slot_processes import SlotProcesses, index_processes
from ds01d.decide.slot_table import SlotTable
from ds01d.model.books import AllocatorState, BadRecord, Record
from ds01d.model.checkpoint import Checkpoint
from ds01d.model.containers import Container, Engine
from ds01d.model.limits import Limits
from ds01d.model.ownership import Owner
from ds01d.model.primitives import BookingId, Boot, ContainerName, SlotId, Unknown, UserName
from ds01d.model.snapshot import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class BooksIndex:
    """What the verdicts look at. Made by `build_index`, once per table.

    `containers` and `records` are those of the snapshot by name, empty where it has no answer.

    Asked for a name, everything answers for the container that has this name now; only
    `booked_slots` and `records` have what the books have under it (see `renames`).
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
    processes: SlotProcesses
    derived: frozenset[tuple[ContainerName, SlotId]] = frozenset()
    # Each is asked for a dozen times for each container.
    engine: Engine | None = field(init=False, compare=False, repr=False)
    policy: Policy = field(init=False, compare=False, repr=False)
    limits: Limits | Unknown = field(init=False, compare=False, repr=False)
    # A cache: verdicts, drifts and status ask for the same names again and again.
    _owners: dict[ContainerName, Owner | None] = field(
        init=False, default_factory=dict, compare=False, repr=False
    )

    def __post_init__(self) -> None:
        docker = self.snapshot.docker
        object.__setattr__(self, "engine", docker if isinstance(docker, Engine) else None)
        object.__setattr__(self, "policy", self.config.policy)
        object.__setattr__(self, "limits", self.snapshot.limits)

    @property
    def limits_settled(self) -> Boot:
        """From when on the limits may end a hold; before, somebody may still be writing them."""
        return self.checkpoint.limits.settled if self.checkpoint.limits is not None else Boot(0.0)

    def find_booked_slots(self, name: ContainerName) -> frozenset[SlotId]:
        """The slots booked for the container that is called `name` now, whatever it was called.

        Also those that another writer booked in a file which we had just replaced.
        """
        if not self.slots_to_merge and not self.renames.previous_names:  # as nearly always
            return self.booked_slots.get(name, frozenset())
        return frozenset().union(
            *(
                self.booked_slots.get(name_then, frozenset())
                | self.slots_to_merge.get(name_then, frozenset())
                for name_then in self._list_recorded_names(name)
            )
        )

    def is_derived(self, name: ContainerName) -> bool:
        """All that is booked under a name, its container has by its request (decision 202)."""
        booked = self.booked_slots.get(name) if self.derived else None
        return bool(booked) and all((name, slot) in self.derived for slot in booked or ())

    def needs_record(self, name: ContainerName) -> bool:
        """Only a record names the owner of a container."""
        record, container = self.find_record(name), self.containers.get(name)
        if record is None or not record.digest:
            return False
        owner = identify_owner(name, None, container, self.snapshot)
        return has_user(record) and (owner is None or owner.is_guess or owner.user != record.user)

    def count_bookings(self) -> int:
        return sum(map(len, self.booked_slots.values()))

    def find_record(self, name: ContainerName) -> Record | None:
        """The readable metadata of the container that is called `name` now."""
        if not self.renames.previous_names:  # as nearly always
            record = self.records.get(name)
            return record if isinstance(record, Record) else None
        for name_then in self._list_recorded_names(name):
            record = self.records.get(name_then)
            if isinstance(record, Record):
                return record
        return None

    def find_booking_id(self, name: ContainerName | None) -> BookingId | None:
        """The ID of the allocation that the books have under `name`."""
        record = None if name is None else self.records.get(name)
        return record.booking if isinstance(record, Record) else None

    def _list_recorded_names(self, name: ContainerName) -> tuple[ContainerName, ...]:
        """The names under which the books have the container that is called `name` now."""
        # Decision 67: until the books have followed a rename they have the container under the
        # names of before. Decision 69: what was booked again under its present name is its too,
        # unless that belongs to another one.
        previous_names = self.renames.previous_names.get(name)
        if previous_names is None:
            return (name,)
        return previous_names if self.renames.is_displaced(name) else (*previous_names, name)

    def find_user(self, name: ContainerName) -> UserName | None:
        """Whose container this is: its booking's own record, else the uid in its name, else labels.

        `root` is believed only of containers whose name ends in 0: sudo leaves it behind. A label
        is a claim of its creator: it counts only where the name has no uid.
        """
        owner = self._find_owner(name)
        return None if owner is None else owner.user

    def find_owner(self, name: ContainerName) -> Owner | None:
        """As `find_user`, with its source, and a guess where nothing else is known."""
        record, container = self.find_record(name), self.containers.get(name)
        # A record without a digest is derived, and no source of its own.
        if record is not None and not record.digest:
            return identify_owner(name, record, container, self.snapshot)
        return refine_owner(self._find_owner(name), container, self.snapshot)

    def _find_owner(self, name: ContainerName) -> Owner | None:
        """The owner by booking, name and labels."""
        if name not in self._owners:
            container = self.containers.get(name)
            # Decision 134: its name may have ended in any uid, so no label names its user.
            labels = {} if container is None or container.is_unnamed else container.labels
            self._owners[name] = self._choose_owner(name, self.find_record(name), labels)
        return self._owners[name]

    def find_booker(self, name: ContainerName) -> UserName | None:
        """Whose booking the books have under `name`, wherever its container lives now."""
        if name in self.renames.orphans:
            record = self.records.get(name)
            owner = self._choose_owner(name, record if isinstance(record, Record) else None, {})
            return None if owner is None else owner.user
        # Counters count users of bookings, and a booking goes where its container went.
        has_moved = self.renames.is_displaced(name) or name not in self.containers
        return self.find_user(self.renames.current_name.get(name, name) if has_moved else name)

    def _choose_owner(
        self, name: ContainerName, record: Record | None, labels: Mapping[str, str]
    ) -> Owner | None:
        return find_owner(name, record, labels, self.snapshot.passwd, self.snapshot.logins)

    def is_managed(self, container: Container) -> bool:
        """A DS01 container: labelled, named as one, or booked."""
        return (
            container.labelled
            or parse_uid(container.name) is not None
            or bool(self.find_booked_slots(container.name))
        )


def build_index(
    snapshot: Snapshot, checkpoint: Checkpoint, config: Config, table: SlotTable
) -> BooksIndex:
    """Index a snapshot for the verdicts."""
    booked_slots: dict[ContainerName, frozenset[SlotId]] = {}
    for slot in table.slots.values():
        # Nearly every container has one slot: no union for those, a sweep makes a thousand of them.
        this_slot = frozenset((slot.id,))
        for name in slot.containers:
            booked_slots[name] = (
                booked_slots[name] | this_slot if name in booked_slots else this_slot
            )
    slots_to_merge: dict[ContainerName, set[SlotId]] = {}
    for name, old_id in snapshot.state.merge if isinstance(snapshot.state, AllocatorState) else ():
        # The booking was written into a file of before: it goes along where its slot has moved
        # since.
        if (slot_id := table.moved.get(old_id, old_id)) in table.slots:
            slots_to_merge.setdefault(name, set()).add(slot_id)
    records = {} if isinstance(snapshot.metadata, Unknown) else snapshot.metadata
    return BooksIndex(
        snapshot=snapshot,
        checkpoint=checkpoint,
        config=config,
        table=table,
        containers=snapshot.docker.by_name if isinstance(snapshot.docker, Engine) else {},
        records=records,
        booked_slots=booked_slots,
        slots_to_merge={name: frozenset(slots) for name, slots in slots_to_merge.items()},
        renames=find_renames(checkpoint, snapshot, booked_slots),
        processes=index_processes(snapshot.gpu, table),
        derived=snapshot.state.derived
        if isinstance(snapshot.state, AllocatorState)
        else frozenset(),
    )
