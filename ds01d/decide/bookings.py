"""The books with one booking more or less: lists and counters that follow. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ds01d.decide.ownership import NOBODY
from ds01d.decide.user_counters import recount_users
from ds01d.model.books import AllocatorState, BadRecord, Record, Slot
from ds01d.model.primitives import ContainerName, SlotId, UserName

Records = Mapping[ContainerName, Record | BadRecord]


def find_owners(names: Iterable[ContainerName], records: Records) -> list[UserName | None]:
    """Whose containers these are, by their records; each name once."""
    return [
        record.user if isinstance(record := records.get(name), Record) else None
        for name in dict.fromkeys(names)
    ]


def count_bookings(user: UserName, state: AllocatorState, records: Records) -> int:
    """How many bookings a user has: by the records, else by the counters of a slot.

    What counts for nobody's quota (`AllocatorState.uncharged`) is none of them.
    """
    slots = _list_concerned_slots(user, state, records)
    return sum(_count_in_slot(user, slot, state, records) for slot in slots)


def list_charged_slots(user: UserName, state: AllocatorState, records: Records) -> list[Slot]:
    """The slots in which a user has a booking that counts for their quota."""
    slots = _list_concerned_slots(user, state, records)
    return [slot for slot in slots if _count_in_slot(user, slot, state, records)]


def _list_concerned_slots(user: UserName, state: AllocatorState, records: Records) -> list[Slot]:
    """The slots with a container of the user, or with one that a record gives to nobody."""
    # Most slots are others': thousands of containers are passed over without a call for each.
    others = {
        name
        for name, record in records.items()
        if isinstance(record, Record) and record.user not in (user, None)
    }
    return [slot for slot in state.slots.values() if not others.issuperset(slot.containers)]


def describe_charged(user: UserName, state: AllocatorState, records: Records) -> str:
    """What counts for a user's quota: "alice holds 0 (train._.1001), 2 (train._.1001)"."""
    slots = list_charged_slots(user, state, records)
    holdings = [
        f"{slot.id} ({', '.join(_list_own(user, slot, state, records))})"
        for slot in slots[:_MOST_SHOWN]
    ]
    if len(slots) > _MOST_SHOWN:
        holdings.append(f"{len(slots) - _MOST_SHOWN} more")
    return f"{user} holds {', '.join(holdings) or 'nothing'}"


_MOST_SHOWN = 16


def _list_own(user: UserName, slot: Slot, state: AllocatorState, records: Records) -> list[str]:
    names = dict.fromkeys(slot.containers)
    payers = zip(names, find_payers(slot, state, records), strict=True)
    # One without a record may belong to any user of the slot.
    return [name for name, payer in payers if payer in (user, None)]


def _count_in_slot(user: UserName, slot: Slot, state: AllocatorState, records: Records) -> int:
    owners = find_payers(slot, state, records)
    # The counters say something only where a record does not, which is rare.
    if None not in owners:
        return owners.count(user)
    return recount_users(slot.users, owners).get(user, 0)


def find_payers(slot: Slot, state: AllocatorState, records: Records) -> list[UserName | None]:
    """For whose quota the containers of a slot count, each once."""
    owners = find_owners(slot.containers, records)
    if not state.uncharged:
        return owners
    # Decision 225: else anybody could fill another user's quota with a label.
    pairs = zip(dict.fromkeys(slot.containers), owners, strict=True)
    return [NOBODY if name in state.uncharged else owner for name, owner in pairs]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bookings:
    """State and metadata, both readable."""

    state: AllocatorState
    records: Records

    def with_booking(self, name: ContainerName, slot: SlotId, user: UserName) -> AllocatorState:
        """The state with `name` in `slot`, as `user`'s."""
        old = self.state.slots[slot]
        # Recounted and not only counted up, or an error in the file would stay for ever.
        before = {**old.users, user: old.users.get(user, 0) + 1}
        users = recount_users(before, [*find_owners(old.containers, self.records), user])
        new = replace(old, containers=(*old.containers, name), users=users)
        return replace(self.state, slots={**self.state.slots, slot: new})

    def without_booking(self, name: ContainerName, user: UserName | None) -> AllocatorState:
        """The state without `name`, who was `user`'s as far as that is known."""
        slots = dict(self.state.slots)
        for slot in self.state.find_slots(name):
            old = slots[slot]
            left = tuple(other for other in old.containers if other != name)
            before = dict(old.users)
            if user is not None:
                before[user] = before.get(user, 0) - 1
            users = recount_users(before, find_owners(left, self.records))
            slots[slot] = replace(old, containers=left, users=users)
        return replace(self.state, slots=slots)


def revert_change(
    written: AllocatorState, before: Bookings, after: AllocatorState
) -> AllocatorState:
    """`written` without what led from `before` to `after`; what others added to it stays."""
    slots = dict(written.slots)
    # Slots that this change did not touch stay as they are in the file: others may have written
    # them since.
    for name, current in written.slots.items():
        old, new = before.state.slots.get(name), after.slots.get(name)
        if old is None or new is None or old == new:
            continue
        slots[name] = old if current == new else _revert_slot(current, old, new, before.records)
    return replace(written, slots=slots)


def _revert_slot(current: Slot, old: Slot, new: Slot, records: Records) -> Slot:
    added = set(new.containers) - set(old.containers)
    taken = [name for name in old.containers if name not in new.containers]
    remaining = [name for name in current.containers if name not in added]
    containers = (*remaining, *(name for name in taken if name not in remaining))
    return replace(
        current,
        containers=containers,
        users=recount_users(old.users, find_owners(containers, records)),
    )
