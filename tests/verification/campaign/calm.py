"""What is wrong in the books when all is calm, as if everything were due."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.verification.campaign.books import Books, Document
from tests.verification.campaign.clock import boot
from tests.verification.campaign.ground import PACE_COUNT, PACE_FRACTION, PACE_WINDOW_S, Ground
from tests.verification.campaign.plan import user_of
from tests.verification.campaign.reality import Look, Sight
from tests.verification.campaign.rights import BLIND_S, Rights

_RELEASES = ("does not exist", "its hold is over")


@dataclass(frozen=True)
class Calm:
    """Compares the books with engine and devices as they are now."""

    ground: Ground
    books: Books
    rights: Rights

    def drifts(self) -> dict[str, str]:
        """Whatever is wrong in the books now, as if everything were due."""
        document, look = self.books.document, self.rights.reality.last
        if document is None:
            return {"state": "the state makes no sense"}
        if look is None:
            return {"engine": "the engine does not answer"}
        return dict([*self._of_table(document), *self._of_containers(document, look)])

    def _of_table(self, document: Document) -> Iterator[tuple[str, str]]:
        slots = self._slots(document)
        for slot, uuid in slots.items():
            if document.uuids.get(slot) != uuid:
                yield f"slot {slot}", f"{slot} should be {uuid}, is {document.uuids.get(slot)}"
        for slot in document.uuids.keys() - slots.keys():
            if not document.listed[slot]:
                yield f"slot {slot}", f"{slot} is empty and has no device"
        for slot, listed in document.listed.items():
            if len(set(listed)) != len(listed):
                yield f"count {slot}", f"{slot} lists somebody twice: {listed}"
            records = [self.books.record(name) for name in listed]
            users = [record.get("user") if record else None for record in records]
            if None not in users and Counter(users) != Counter(document.users[slot]):
                told = f"{slot} counts {document.users[slot]}, its containers are of {users}"
                yield f"count {slot}", told

    def _of_containers(self, document: Document, look: Look) -> Iterator[tuple[str, str]]:
        slot_of = {uuid: slot for slot, uuid in self._slots(document).items()}
        there = {one.name: one for one in look.by_id.values()}
        blind = self._blind(document, look)
        for name, one in there.items():
            if name in blind:
                continue
            booked = {slot for who, slot in document.slots if who == name}
            told = self._of_container(one, booked, slot_of)
            if told is not None:
                yield name, f"{name} is {one.state}, booked on {sorted(booked)}: {told}"
        for name, slot in sorted(document.slots):
            if name not in there and name not in blind:
                yield name, f"{name} is booked on {slot} and does not exist"
        for name in self.books.records:
            if name not in there and name not in blind:
                yield name, f"{name} has metadata and does not exist"

    def _slots(self, document: Document) -> Mapping[str, str]:
        """The slots as they should be: while a GPU does not tell what is on it, as they are.

        The table changes as one, and which GPU has changed places with that one nobody can know.
        """
        return document.uuids if self.ground.gpus.sick() else self.ground.gpus.slots()

    def _blind(self, document: Document, look: Look) -> set[str]:
        """The containers that a sick GPU is about: what is on that, nobody can know.

        After a lost checkpoint any device that is listed nowhere may be on it, if it does not say
        which GPU it is.
        """
        sick = self.ground.gpus.sick()
        booked = {name for name, uuid in document.devices if uuid in sick}
        since = self.ground.gpus.sick_since
        if since is not None and any(at > since - BLIND_S for at in self.rights.faults.memory_lost):
            listed = self.ground.gpus.slots().values()
            booked |= {name for name, uuid in document.devices if uuid not in listed}
        blind = booked | {
            one.name for one in look.by_id.values() if one.devices and one.devices & sick
        }
        return blind | self._claimed_by(blind, look)

    def _claimed_by(self, names: set[str], look: Look) -> set[str]:
        """The names of reservations that these containers claim: they go together."""
        claims = {one.booking for one in look.by_id.values() if one.name in names} - {""}
        records = {name: self.books.record(name) or {} for name in list(self.books.records)}
        return {name for name, record in records.items() if record.get("booking_id") in claims}

    def _of_container(self, one: Sight, booked: set[str], slot_of: dict[str, str]) -> str | None:
        record = self.books.record(one.name)
        if booked and record is None:
            return "it has no metadata"
        if record is not None and not record:
            return "its metadata makes no sense"
        if record and record.get("user") != user_of(one.name):
            return f"its metadata says that it is of {record.get('user')}"
        if one.alive:
            if one.devices is None or one.by_index:
                return "it lost its booking" if record and not booked else None
            if one.devices <= slot_of.keys():
                wanted = {slot_of[uuid] for uuid in one.devices}
                return None if booked == wanted else f"it has {sorted(wanted)}"
            return None
        over = self.rights.held(one.name, one, boot()) is None
        if over and (booked or record is not None):
            return "its hold is over"
        if not over and record and not booked:
            return "it lost its booking"
        return None

    def paced_s(self) -> float:
        """How long the pace may make what is stale now wait, beyond the graces."""
        document = self.books.document
        if document is None:
            return PACE_WINDOW_S
        limit = max(PACE_COUNT, int(PACE_FRACTION * len(document.slots)))
        due = [told for told in self.drifts().values() if told.endswith(_RELEASES)]
        return PACE_WINDOW_S * math.ceil(len(due) / limit)

    def excused(self, subject: str) -> bool:
        """Whether ds01d has repaired it so often that it may back off before another writer."""
        kind, _, slot = subject.partition(" ")
        times = Counter(
            (entry.kind, entry.container, entry.slot, entry.reason)
            for entry in self.books.history.entries.values()
            if entry.outcome == "done" and (entry.slot == slot if slot else entry.container == kind)
        )
        return max(times.values(), default=0) >= 3
