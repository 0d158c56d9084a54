"""Labels that say otherwise than the facts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ds01d.decide.claims import find_claim_owner
from ds01d.decide.index import BooksIndex
from ds01d.decide.ownership import find_named_user, is_label_refuted, is_login, parse_uid
from ds01d.decide.verdict import find_resolved_devices
from ds01d.model.books import Record
from ds01d.model.containers import Container, GpuRequestKind
from ds01d.model.drift import Finding, FindingKind
from ds01d.model.holding import Holds, Verdict, Verdicts
from ds01d.model.primitives import BookingId, ContainerName, SlotId, Unknown

_MOST_SHOWN = 80


def label_contradiction(index: BooksIndex, verdicts: Verdicts) -> Iterator[Finding]:
    """Labels are claims: user or slot by label against booking and name; a pinned one's booking."""
    holders = {
        record.booking: name
        for name, record in index.records.items()
        if isinstance(record, Record) and record.booking is not None
    }
    for name, verdict in verdicts.items():
        container = index.containers.get(name)
        if container is None:
            continue
        booked = index.find_booked_slots(name)
        reasons = [
            _check_user(container, index),
            _check_slot(container, booked),
            _check_device(container, booked, index),
        ]
        if container.claimed_booking is not None:
            reasons.append(_check_claim(container, holders, index))
        if container.pinned:
            reasons.append(_check_pinned(container, verdict, index))
        for reason in reasons:
            if reason is not None:
                yield Finding(
                    kind=FindingKind.LABEL_CONTRADICTION,
                    container=name,
                    slot=min(booked, default=None),
                    reason=reason,
                )


def _check_user(container: Container, index: BooksIndex) -> str | None:
    """A label against the booking, else against the uid in the name, which no label can change."""
    record = index.find_record(container.name)
    claimed = container.labels.get("ds01.user") or container.labels.get("aime.mlc.USER")
    if claimed and record is not None and record.user and claimed != record.user:
        return f"label names user {claimed[:_MOST_SHOWN]}, but the booking is for {record.user}"
    passwd, logins = index.snapshot.passwd, index.snapshot.logins
    if not claimed or claimed == "root":
        return None
    if not is_label_refuted(container.name, claimed, passwd, logins):
        return None
    claim, uid = f"label names user {claimed[:_MOST_SHOWN]}", parse_uid(container.name)
    # Decision 71: no label can change the uid in the name.
    if uid is not None:
        owner = find_named_user(container.name, passwd) or "another user"
        return f"{claim}, but uid {uid} in its name is {owner}"
    why = "but the number in its name is no uid" if is_login(claimed) else "which is no login"
    return f"{claim}, {why}"


def _check_slot(container: Container, booked: frozenset[SlotId]) -> str | None:
    claimed = container.labels.get("ds01.gpu.slots") or container.labels.get("ds01.gpu.allocated")
    if not claimed or not booked or claimed in booked:
        return None
    # The allocator's label lists several slots in one text.
    slots = {part.strip() for part in claimed.split(",") if part.strip()}
    if slots & booked:
        return None
    return f"label names slot {claimed[:_MOST_SHOWN]}, booked is {', '.join(sorted(booked))}"


def _check_device(container: Container, booked: frozenset[SlotId], index: BooksIndex) -> str | None:
    """Labels that name a device by UUID, as the server's wrapper writes them; they only confirm."""
    claimed, request = container.claimed_devices, container.request
    if not claimed or isinstance(request, Unknown):
        return None
    # One device that both name is agreement: a booking may have more, of a process of its own.
    devices = {index.table.device_of[slot] for slot in booked if slot in index.table.device_of}
    if not devices.isdisjoint(claimed):
        return None
    claim = f"label names device {', '.join(claimed)[:_MOST_SHOWN]}"
    if not booked:
        # Nobody gave it anything, and it can reach nothing.
        asks_nothing = request.ask is GpuRequestKind.NONE and container.state.alive
        return f"{claim}, but the container requests no GPU" if asks_nothing else None
    if not devices:
        return None
    return f"{claim}, booked is {', '.join(sorted(booked))} ({', '.join(sorted(devices))})"


def _check_claim(
    container: Container, holders: Mapping[BookingId, ContainerName], index: BooksIndex
) -> str | None:
    """A claim of a reservation that is somebody else's, or that another container has."""
    booking = container.claimed_booking
    holder = None if booking is None else holders.get(booking)
    if holder is None:
        return None
    holder = index.renames.current_name.get(holder, holder)
    if holder == container.name:
        return None
    record, owner = index.find_record(holder), find_claim_owner(container, index.snapshot)
    claim = f"label names reservation {booking}"
    if record is not None and record.user != owner:
        return (
            f"{claim} of {record.user}, but the container belongs to {owner or 'an unknown user'}"
        )
    return f"{claim}, which {holder} has"


def _check_pinned(container: Container, verdict: Verdict, index: BooksIndex) -> str | None:
    if not container.state.alive:
        return _check_pinned_stopped(container, index)
    devices = find_resolved_devices(container, index) or frozenset()
    used_slots = {
        index.table.slot_of[device] for device in devices if device in index.table.slot_of
    }
    held_slots = verdict.slots if isinstance(verdict, Holds) else frozenset()
    if not used_slots or used_slots == held_slots:
        return None
    return (
        f"it is pinned and has {', '.join(sorted(used_slots))},"
        f" booked is {', '.join(sorted(held_slots)) or 'nothing'}"
    )


def _check_pinned_stopped(container: Container, index: BooksIndex) -> str | None:
    """A user can pin any own container; it stays booked past the end of its hold."""
    booked, stopped = (
        index.find_booked_slots(container.name),
        container.finished or container.created,
    )
    if not booked or stopped is None or isinstance(index.limits, Unknown):
        return None
    rule = index.limits.find_hold(index.find_user(container.name), container.type)
    # Anybody who can run containers can pin one: an admin should see what stays booked by it alone.
    if rule.seconds is None or index.snapshot.now.wall < stopped + rule.seconds:
        return None
    return (
        f"it is pinned and {container.state}: the hold of its user ({rule.source}) is over,"
        f" and {', '.join(sorted(booked))} stays booked"
    )
