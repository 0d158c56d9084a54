"""What the sources have of one container name, gathered once for its verdict. Decides nothing."""

from __future__ import annotations

from typing import NamedTuple

from ds01d.decide.device_resolution import index_devices, is_lasting, resolve_devices
from ds01d.decide.index import BooksIndex
from ds01d.model.books import Attempt, Record
from ds01d.model.checkpoint import Identity
from ds01d.model.containers import Container
from ds01d.model.holding import Free, Holds, Proof, VerdictReason
from ds01d.model.primitives import Boot, ContainerId, ContainerName, SlotId, Unknown, UserName, Wall


class Subject(NamedTuple):
    """A container name, with what Docker, the books and the checkpoint have of it.

    `books_name`: its name in books and checkpoint; after a rename the old one, until they follow.
    `booked`: its slots in the state. `slots`: those, or else the slot in its metadata. `former`:
    the containers that had the name before it, and are gone.
    """

    # A tuple is made in two thirds of the time of a dataclass, and a sweep makes one for each name.

    name: ContainerName
    books_name: ContainerName
    container: Container | None
    record: Record | None
    booked: frozenset[SlotId]
    slots: frozenset[SlotId]
    user: UserName | None
    identity: Identity | None
    former: frozenset[ContainerId]
    attempt: Attempt | Unknown

    @property
    def allocated_at(self) -> Wall | None:
        return None if self.record is None else self.record.allocated_at

    def make_holds(
        self,
        slots: frozenset[SlotId],
        why: VerdictReason,
        *evidence: str,
        until: Boot | None = None,
    ) -> Holds:
        return Holds(slots=slots, user=self.user, why=why, evidence=evidence, until=until)

    def find_inactive_ids(self, free: Free) -> frozenset[ContainerId]:
        """The IDs, as far as known, of the containers that are gone or stopped by `free`."""
        # Its container lives, under another name.
        if free.proof is Proof.RENAMED:
            return frozenset()
        # A verdict on a stopped container names its ID itself; the identity may be that of its
        # predecessor.
        identity = self.identity if free.why is VerdictReason.ABSENT else None
        ids = (free.known_id, identity.id if identity is not None else None)
        return self.former | {container_id for container_id in ids if container_id is not None}


def gather_subject(name: ContainerName, index: BooksIndex) -> Subject:
    """What is known of the container that is called `name` now, if there is one."""
    books_name, record = index.renames.name_in_books(name), index.find_record(name)
    booked, identity = index.find_booked_slots(name), index.checkpoint.identities.get(books_name)
    operations = index.snapshot.operations
    return Subject(
        name=name,
        books_name=books_name,
        container=index.containers.get(name),
        record=record,
        booked=booked,
        slots=booked or _find_recorded_slots(record, index.containers.get(name), index),
        user=index.find_user(name),
        identity=identity,
        former=_find_former(identity, index),
        attempt=operations
        if isinstance(operations, Unknown)
        else operations.get(books_name, _NO_ATTEMPT),
    )


def gather_orphan(name: ContainerName, index: BooksIndex) -> Subject:
    """What is known of the container that the books call `name`: another one has the name now."""
    record, identity = index.records.get(name), index.checkpoint.identities.get(name)
    booked = index.booked_slots.get(name, frozenset())
    return Subject(
        name=name,
        books_name=name,
        container=None,
        record=record if isinstance(record, Record) else None,
        booked=booked,
        slots=booked,
        user=index.find_booker(name),
        identity=identity,
        former=_find_former(identity, index),
        attempt=_NO_ATTEMPT,
    )


_NO_ATTEMPT = Attempt()


def _find_recorded_slots(
    record: Record | None, container: Container | None, index: BooksIndex
) -> frozenset[SlotId]:
    """The slot in the metadata, if the table has it, with the others that its container requests.

    A record names the first of several slots only.
    """
    if record is None or record.gpu_id is None:
        return frozenset()
    slot = index.table.moved.get(record.gpu_id, record.gpu_id)
    if slot not in index.table.slots:
        return frozenset()
    requested = _find_requested_slots(container, index)
    return requested if slot in requested else frozenset((slot,))


def _find_requested_slots(container: Container | None, index: BooksIndex) -> frozenset[SlotId]:
    """The slots of a request that means the same devices for good, if each has one."""
    request = None if container is None else container.request
    if request is None or isinstance(request, Unknown) or not is_lasting(request):
        return frozenset()
    # An index may mean another device today, so only what is lasting counts.
    devices, _ = resolve_devices(request, index_devices(index.snapshot.gpu, index.snapshot.state))
    slots = [index.table.slot_of.get(device) for device in devices or ()]
    return (
        frozenset(slot for slot in slots if slot is not None) if None not in slots else frozenset()
    )


def _find_former(identity: Identity | None, index: BooksIndex) -> frozenset[ContainerId]:
    # Nearly always: most names have had one container only.
    if identity is None or not identity.former:
        return frozenset()
    # Decision 153: one that Docker still lists, under whatever name, is no former one.
    listed = index.engine.containers if index.engine is not None else {}
    return frozenset(container_id for container_id in identity.former if container_id not in listed)
