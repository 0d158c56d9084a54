"""Naming the differences between the books and what is right, as if everything were due. Pure.

A drift is a name with evidence for people, metrics and logs; what it changes is in its `taken` and
`given`, and the books are computed from those.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ds01d.decide.absence import decide_absent
from ds01d.decide.expected_books import Booking, count_users, render_record
from ds01d.decide.index import BooksIndex
from ds01d.model.books import BadRecord, Record, is_recordable
from ds01d.model.drift import Action, Drift, Kind
from ds01d.model.holding import Free, Holds, Proof, Undecided, Verdict, VerdictReason
from ds01d.model.primitives import ContainerName, SlotId, Source, Unknown

Verdicts = Mapping[ContainerName, Verdict]


def diff_books(view: BooksIndex, verdicts: Verdicts) -> Iterator[Drift]:
    """Every difference between the books and the verdicts."""
    yield from view.table.drifts
    for name, verdict in verdicts.items():
        move = _move_drift(name, verdict, view, verdicts)
        if move is not None:
            yield move
        if name in view.renames.orphans:
            yield from _diff_orphaned(name, view)
        if view.renames.is_displaced(name):
            continue  # once its books have followed, the rest is told
        found = tuple(_diff_bookings(name, verdict, view, verdicts))
        yield from found
        if move is None and not found and name not in view.renames.previous_names:
            yield from _diff_metadata(name, verdict, view)
    yield from _diff_counters(view, verdicts)


class _Difference(NamedTuple):
    taken: frozenset[SlotId]
    given: frozenset[SlotId]


def _diff_bookings(
    name: ContainerName, verdict: Verdict, view: BooksIndex, verdicts: Verdicts
) -> Iterator[Drift]:
    own = view.booked_slots.get(name, frozenset())
    match verdict:
        case Undecided():
            yield from _restore_merged(name, verdict, own, view)
            yield from _report_unproven(name, verdict, own, view)
        case Free(proof=Proof.RENAMED):
            return
        case Free():
            for slot in sorted(own):
                yield _release_drift(name, slot, verdict, view)
        case Holds(slots=slots) if slots == own:
            return
        case Holds():
            inherited = _inherited_slots(name, view, verdicts)
            yield from _diff_held_slots(
                name,
                verdict,
                own,
                _Difference(own - verdict.slots, verdict.slots - own - inherited),
                view,
            )


def _restore_merged(
    name: ContainerName, verdict: Undecided, own: frozenset[SlotId], view: BooksIndex
) -> Iterator[Drift]:
    """What we overwrote comes back even in doubt: then the books keep what they said."""
    for slot in sorted(view.slots_to_merge.get(name, frozenset()) - own):
        yield _booking_drift(name, slot, verdict, view)


def _report_unproven(
    name: ContainerName, verdict: Undecided, own: frozenset[SlotId], view: BooksIndex
) -> Iterator[Drift]:
    """An absence that cannot be proven for now: held, and seen to be."""
    if (
        view.engine is None
        or view.find_container(name) is not None
        or verdict.needs is not Source.NVML
    ):
        return
    for slot in sorted(own):
        yield _blocked_release(name, slot, verdict, view)


def _blocked_release(
    name: ContainerName, slot: SlotId, verdict: Undecided, view: BooksIndex
) -> Drift:
    return Drift(
        kind=Kind.STALE_ALLOCATION,
        action=Action.RELEASE,
        container=name,
        slot=slot,
        reason="booked, but there is no such container",
        evidence=_collect_evidence(name, view, verdict),
        fingerprint="unproven",
        taken=frozenset({(name, slot)}),
        blocked=verdict.reason,
    )


def _release_drift(name: ContainerName, slot: SlotId, verdict: Free, view: BooksIndex) -> Drift:
    over = verdict.proof is Proof.EXPIRED
    return Drift(
        kind=Kind.EXPIRED_HOLD if over else Kind.STALE_ALLOCATION,
        action=Action.RELEASE,
        container=name,
        slot=slot,
        reason="its hold after the stop is over"
        if over
        else "booked, but there is no such container",
        evidence=_collect_evidence(name, view, verdict),
        fingerprint=f"{verdict.proof}|{verdict.known_id}",
        earliest=verdict.due,
        sighted=None if over else verdict.since,
        taken=frozenset({(name, slot)}),
        destroyed=verdict.proof is Proof.DESTROYED,
        blocked=verdict.blocked,
    )


def _move_drift(
    name: ContainerName, verdict: Verdict, view: BooksIndex, verdicts: Verdicts
) -> Drift | None:
    """The books of `name` go where its container is now, if they have to."""
    after = view.renames.current_name.get(name)
    displaced = view.renames.is_displaced(name) and not isinstance(view.snapshot.metadata, Unknown)
    vacant = isinstance(verdict, Free) and verdict.proof is Proof.RENAMED
    if after is None or not (displaced or vacant):
        return None
    own, there = view.booked_slots.get(name, frozenset()), verdicts.get(after)
    given, blocked = _slots_to_follow(name, after, view, verdicts), None
    if not own:  # a record without a booking: where it holds something, it goes along
        if view.find_any_record(name) is None or not isinstance(there, Holds | Undecided):
            return None
        if isinstance(there, Undecided):
            blocked = there.reason
        elif not (given := there.slots - view.booked_slots.get(after, frozenset())):
            return None
    for one in (name, after) if displaced else ():
        record = view.find_any_record(one)
        if isinstance(record, BadRecord) and not record.replaceable:
            blocked = record.reason
    known = view.checkpoint.identities[name].id
    return Drift(
        kind=Kind.RENAMED_CONTAINER,
        action=Action.MOVE,
        container=name,
        slot=min(own or given, default=None),
        reason=f"its container is called {after} now; the booking follows",
        evidence=(
            *_describe_books(name, view),
            f"docker: container {known[:12]} is called {after} now",
        ),
        fingerprint=f"{known}|{after}",
        earliest=verdict.due if isinstance(verdict, Free) and vacant else None,
        taken=_pair_slots(name, own),
        given=_pair_slots(after, given),
        blocked=blocked,
        renamed_to=after,
    )


def _diff_orphaned(name: ContainerName, view: BooksIndex) -> Iterator[Drift]:
    """What is booked for a container that is gone, and whose name another one has taken.

    That one's books come here in the same change, so they wait for the proof of this absence.
    """
    own = view.booked_slots.get(name, frozenset())
    match decide_absent(name, own, view):
        case Free() as gone:
            for slot in sorted(own):
                yield _release_drift(name, slot, gone, view)
        case Undecided() as doubt:
            for slot in sorted(own):
                yield _blocked_release(name, slot, doubt, view)
        case _:
            return


def _slots_to_follow(
    before: ContainerName, after: ContainerName, view: BooksIndex, verdicts: Verdicts
) -> frozenset[SlotId]:
    """The slots that go along when `before` is called `after`."""
    own, there = view.booked_slots.get(before, frozenset()), verdicts.get(after)
    return own & there.slots if isinstance(there, Holds) else own


def _inherited_slots(
    name: ContainerName, view: BooksIndex, verdicts: Verdicts
) -> frozenset[SlotId]:
    """The slots that `name` gets with the books of the names it had before."""
    homes = (
        home
        for home in view.renames.previous_names.get(name, ())
        if home in verdicts and _move_drift(home, verdicts[home], view, verdicts) is not None
    )
    return frozenset().union(*(_slots_to_follow(home, name, view, verdicts) for home in homes))


def _diff_held_slots(
    name: ContainerName,
    verdict: Holds,
    own: frozenset[SlotId],
    difference: _Difference,
    view: BooksIndex,
) -> Iterator[Drift]:
    taken, given = difference
    evidence = _collect_evidence(name, view, verdict)
    told = f"{sorted(own)}→{sorted(verdict.slots)}"
    if taken and given:
        slot = min(given)
        yield Drift(
            kind=Kind.WRONG_SLOT,
            action=Action.MOVE,
            container=name,
            slot=slot,
            reason=f"booked in {_format_slots(own)}, but has {_format_slots(verdict.slots)}",
            evidence=evidence,
            fingerprint=told,
            taken=_pair_slots(name, taken),
            given=_pair_slots(name, given),
        )
        return
    for slot in sorted(taken):
        yield Drift(
            kind=Kind.DUPLICATE_ALLOCATION,
            action=Action.RELEASE,
            container=name,
            slot=slot,
            reason=f"booked in {_format_slots(own)}, but has {_format_slots(verdict.slots)}",
            evidence=evidence,
            fingerprint=told,
            taken=_pair_slots(name, {slot}),
        )
    for slot in sorted(given):
        yield _booking_drift(name, slot, verdict, view)


def _booking_drift(
    name: ContainerName, slot: SlotId, verdict: Holds | Undecided, view: BooksIndex
) -> Drift:
    merged = slot in view.slots_to_merge.get(name, ())
    lost = merged or view.find_any_record(name) is not None
    holds = verdict.slots if isinstance(verdict, Holds) else view.slots_to_merge[name]
    own = view.booked_slots.get(name, frozenset())
    return Drift(
        kind=Kind.LOST_ALLOCATION if lost else Kind.UNTRACKED_CONTAINER,
        action=Action.BOOK,
        container=name,
        slot=slot,
        reason="its booking was lost" if lost else "has this device, but nobody booked it",
        evidence=_collect_evidence(name, view, verdict),
        fingerprint=f"{sorted(own)}→{sorted(holds)}",
        given=_pair_slots(name, {slot}),
        urgent=merged,
    )


def _diff_metadata(name: ContainerName, verdict: Verdict, view: BooksIndex) -> Iterator[Drift]:
    """Differences of the metadata alone: the bookings of `name` are right."""
    there = view.find_any_record(name)
    if isinstance(there, BadRecord) and not there.replaceable:
        yield _record_drift(
            Kind.UNREADABLE_METADATA,
            Action.NOTHING,
            name,
            verdict,
            view,
            reason=there.reason,
            blocked=there.reason,
        )
        return
    match verdict:
        case Free() if there is not None:
            kind = Kind.ORPHANED_METADATA
            reason = (
                "its container is gone"
                if verdict.proof is not Proof.EXPIRED
                else "its hold is over"
            )
            yield _record_drift(kind, Action.REMOVE_METADATA, name, verdict, view, reason=reason)
        case Holds(why=VerdictReason.FOREIGN | VerdictReason.PINNED):
            return
        case Holds(slots=slots, why=why) if (
            not slots and why is not VerdictReason.CREATING and isinstance(there, BadRecord)
        ):
            kind = Kind.UNREADABLE_METADATA
            yield _record_drift(
                kind, Action.REMOVE_METADATA, name, verdict, view, reason=there.reason
            )
        case Holds(slots=slots) if slots and is_recordable(name):
            wanted = render_record(name, slots, view)
            if there is None:
                kind, reason = Kind.MISSING_METADATA, "booked, but has no metadata"
            elif isinstance(there, BadRecord):
                kind, reason = Kind.UNREADABLE_METADATA, there.reason
            elif wanted is not there and wanted != there:
                kind, reason = Kind.WRONG_METADATA, _describe_changes(there, wanted)
            else:
                return
            yield _record_drift(kind, Action.WRITE_METADATA, name, verdict, view, reason=reason)
        case _:
            return


def _record_drift(
    kind: Kind,
    action: Action,
    name: ContainerName,
    verdict: Verdict,
    view: BooksIndex,
    *,
    reason: str,
    blocked: str | None = None,
) -> Drift:
    free = verdict if isinstance(verdict, Free) else None
    there = view.find_any_record(name)
    return Drift(
        kind=kind,
        action=action,
        container=name,
        slot=there.gpu_id if isinstance(there, Record) else None,
        reason=reason,
        evidence=_collect_evidence(name, view, verdict),
        fingerprint=f"{there.digest if there is not None else ''}|{reason}",
        earliest=free.due if free is not None else None,
        sighted=free.since if free is not None and free.proof is not Proof.EXPIRED else None,
        destroyed=free is not None and free.proof is Proof.DESTROYED,
        blocked=blocked or (free.blocked if free is not None else None),
    )


def _describe_changes(old: Record, new: Record) -> str:
    told = [
        f"{key} is {was!r}, should be {should!r}"
        for key, was, should in (
            ("user", old.user, new.user),
            ("gpu_id", old.gpu_id, new.gpu_id),
            ("priority", old.priority, new.priority),
        )
        if was != should
    ]
    if (old.stopped_at, old.stopped_text) != (new.stopped_at, new.stopped_text):
        if new.stopped_at is None:
            told.append("stopped_at is set, but it runs")
        elif old.stopped_at is None:
            told.append("stopped_at is missing or unreadable")
        else:
            told.append("stopped_at is from an earlier stop")
    if old.allocated_at != new.allocated_at:
        told.append("allocated_at is missing or unreadable")
    return "; ".join(told)


def _diff_counters(view: BooksIndex, verdicts: Verdicts) -> Iterator[Drift]:
    """Slots whose counters or lists contradict themselves."""
    sweep = view.snapshot.names is None
    for slot in view.table.slots.values():
        if not sweep and verdicts.keys().isdisjoint(slot.containers):
            continue
        if len(set(slot.containers)) != len(slot.containers):
            doubles = sorted({c for c in slot.containers if slot.containers.count(c) > 1})
            reason = f"{', '.join(doubles)} is listed more than once"
            yield _recount_drift(Kind.DUPLICATE_ALLOCATION, slot.id, reason)
            continue
        counted = count_users(slot, slot.containers, view)
        if counted != dict(slot.users):
            reason = (
                f"users say {_format_counts(slot.users)},"
                f" the containers are of {_format_counts(counted)}"
            )
            yield _recount_drift(Kind.WRONG_COUNT, slot.id, reason)


def _recount_drift(kind: Kind, slot: SlotId, reason: str) -> Drift:
    return Drift(
        kind=kind,
        action=Action.RECOUNT,
        container=None,
        slot=slot,
        reason=reason,
        evidence=(f"state: {reason}",),
        fingerprint=reason,
    )


def _collect_evidence(name: ContainerName, view: BooksIndex, verdict: Verdict) -> tuple[str, ...]:
    return (*_describe_books(name, view), *verdict.evidence)


def _describe_books(name: ContainerName, view: BooksIndex) -> tuple[str, ...]:
    own = view.booked_slots.get(name)
    there = view.find_any_record(name)
    books = [f"state: booked in {_format_slots(own)}" if own else "state: not booked"]
    if isinstance(there, Record):
        books.append(f"metadata: {there.user} has {there.gpu_id}, allocated {there.allocated_text}")
    elif there is not None:
        books.append(f"metadata: {there.reason}")
    return tuple(books)


def _pair_slots(name: ContainerName, slots: frozenset[SlotId] | set[SlotId]) -> frozenset[Booking]:
    return frozenset((name, slot) for slot in slots)


def _format_slots(slots: frozenset[SlotId]) -> str:
    return ", ".join(sorted(slots)) or "nothing"


def _format_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{user}: {count}" for user, count in counts.items()) or "nobody"
