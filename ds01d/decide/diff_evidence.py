"""What drifts are made of: bookings, and what the books have of a container as evidence. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from ds01d.decide.index import BooksIndex
from ds01d.model.books import Booking, Record
from ds01d.model.holding import Verdict
from ds01d.model.primitives import ContainerName, SlotId


def collect_evidence(name: ContainerName, index: BooksIndex, verdict: Verdict) -> tuple[str, ...]:
    return (*describe_books(name, index), *verdict.evidence)


def describe_books(name: ContainerName, index: BooksIndex) -> tuple[str, ...]:
    booked = index.booked_slots.get(name)
    record = index.records.get(name)
    books = [f"state: booked in {format_slots(booked)}" if booked else "state: not booked"]
    if isinstance(record, Record):
        books.append(
            f"metadata: {record.user} has {record.gpu_id}, allocated {record.allocated_text}"
        )
    elif record is not None:
        books.append(f"metadata: {record.reason}")
    return tuple(books)


def format_slots(slots: frozenset[SlotId]) -> str:
    return ", ".join(sorted(slots)) or "nothing"


def pair_slots(name: ContainerName, slots: Iterable[SlotId]) -> frozenset[Booking]:
    return frozenset((name, slot) for slot in slots)
