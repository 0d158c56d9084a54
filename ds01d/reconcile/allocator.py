"""Booking slots: allocate, release, mark as stopped; each a transaction on the books.

Read, decide, write the state, then the metadata, under the books' lock, with a time-out. If the
metadata cannot be written, the state is restored. A log that cannot be written is a warning.
Failures raise a `Ds01Error`; a refusal is a return value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from ds01d.config import Config
from ds01d.decide.allocation import choose_slot
from ds01d.decide.allocation_request import build_request, validate_request
from ds01d.decide.booking_record import (
    add_reservation,
    build_record,
    find_booking,
    has_current_stop,
)
from ds01d.decide.bookings import Bookings
from ds01d.decide.user_quota import check_limits
from ds01d.errors import Malformed, Refused, WriteFailed
from ds01d.model.allocation import (
    Allocated,
    AllocationRequest,
    MarkedStopped,
    NoMetadata,
    NotAllocated,
    Refusal,
    Rejected,
    Released,
)
from ds01d.model.books import AllocatorState, BadRecord, Record, SlotType
from ds01d.model.limits import Limits
from ds01d.model.notice import NoticeRequest
from ds01d.model.primitives import (
    BookingId,
    ContainerName,
    Now,
    SlotId,
    Unknown,
    UserName,
    Wall,
)
from ds01d.model.reservation import MOST_PROCESSES, ReservingProcess
from ds01d.reconcile.booking_history import BookingHistory
from ds01d.reconcile.booking_ids import choose_booking_id, reserve_name
from ds01d.reconcile.booking_logs import BookingLogs
from ds01d.reconcile.books_ports import BooksWorld
from ds01d.reconcile.slot_pool import PoolBuilder
from ds01d.reconcile.transactions import Transactions


class Allocator:
    """Books slots in one world. Any process may have one; the lock makes them take turns.

    With `history` each change is entered there before it is made.
    """

    def __init__(
        self, world: BooksWorld, config: Config, history: BookingHistory | None = None
    ) -> None:
        self._world = world
        self._config = config
        self._history = history
        self._logs = BookingLogs(world)
        # Decision 258: only ds01d keeps a history of bookings, and makes a pass after each.
        self._transactions = Transactions(world, is_pass_next=history is not None)
        self._pools = PoolBuilder(world, config)

    def allocate(
        self,
        user: UserName,
        container: ContainerName | None,
        max_gpus: int | None = None,
        priority: int | None = None,
        slot: SlotId | None = None,
        *,
        another: bool = False,
        count: int = 1,
        profile: str | None = None,
        reason: str = "",
        process: ReservingProcess | None = None,
        log_refusal: bool = True,
        asked: Now | None = None,
        on_waiting: object = None,
        notify: bool = False,
    ) -> Allocated | Rejected:
        """Book `slot`, or the `count` best ones. `container` None: under a name that is made up.

        `max_gpus`, `priority`: None = from the user's limits. `another`: in addition to the slots
        that the container already has. `profile`: of this one only. `reason`: for history and log.
        `process`: reserve for as long as that runs, `policy.reservation_limit` at most.
        `log_refusal`: False where a refusal is one of many attempts. `asked`: when the caller began
        the sample of the GPUs. `on_waiting`, `notify`: only of ds01d's allocator; raises `Refused`.
        """
        if on_waiting is not None or notify:
            raise Refused("cannot wait for a slot without ds01d (is it running?)")
        if container is None:
            uid = self._world.passwd.find_uids(frozenset({user})).get(user)
            container = reserve_name(uid)
        validate_request(user, container, reason)
        if count < 1 or (count > 1 and slot is not None):
            raise Malformed(f"invalid count {count}: expected 1 with a slot, else 1 or more")
        asked = asked or self._pools.begin_sample()
        limits = self._world.limits.read()
        wish = build_request(user, container, max_gpus, priority, limits)
        if isinstance(wish, Rejected):
            return self._log_answer(wish, priority or 0, limits)
        wish = replace(
            wish, slot=slot, additional=another, count=count, profile=profile, process=process
        )
        answer = self._check_limit(wish) or self._book_slots(wish, limits, asked, reason)
        if isinstance(answer, Rejected) and not log_refusal:
            return answer
        return self._log_answer(answer, wish.priority, limits, reason)

    def preview_slots(
        self, user: UserName, container: ContainerName
    ) -> Mapping[SlotId | None, Allocated | Rejected]:
        """What `allocate` would answer now, by slot; None: for the best one. Books nothing."""
        limits = self._world.limits.read()
        books = self._transactions.read_books()
        slots = (None, *books.state.slots)
        wish = build_request(user, container, None, None, limits)
        if isinstance(wish, Rejected):
            return dict.fromkeys(slots, wish)
        pool, _ = self._pools.build_pool(
            books, self._pools.observe_use(self._world.clock.now()), limits
        )
        return {slot: choose_slot(replace(wish, slot=slot), pool) for slot in slots}

    def preview_requests(
        self, requests: Sequence[NoticeRequest], asked: Now
    ) -> Sequence[Allocated | Rejected]:
        """What `allocate` would answer each of them now, if it came alone. Books nothing.

        `asked`: the sample of the GPUs is not older. Raises `Ds01Error`.
        """
        limits = self._world.limits.read()
        books = self._transactions.read_books()
        pool, _ = self._pools.build_pool(books, self._pools.observe_use(asked), limits)
        # A name that no container has, or what it holds would be the answer.
        name = reserve_name(None)
        wishes = (build_request(request.user, name, None, None, limits) for request in requests)
        return [
            wish
            if isinstance(wish, Rejected)
            else choose_slot(
                replace(wish, slot=request.slot, count=request.count, profile=request.profile),
                pool,
            )
            for request, wish in zip(requests, wishes, strict=True)
        ]

    def release(
        self,
        container: ContainerName | None,
        booking: BookingId | None = None,
        *,
        if_gone: bool = False,
    ) -> Released | NotAllocated:
        """Release every slot of a container, or of an allocation, and remove its metadata.

        With both: of that allocation if the container still has it. `if_gone`: only while Docker
        has no living container of that name; raises `Refused`.
        """
        priority, left = 0, 0
        if if_gone and container is not None:
            self._pools.require_none_alive(container)

        def act(books: Bookings) -> Released | NotAllocated:
            nonlocal priority, left
            name = container
            if booking is not None:
                # Decision 373: the name may have been booked again since the caller looked.
                name = find_booking(booking, books.records, container)
            if name is None:
                return NotAllocated(container=ContainerName(booking or ""))
            record = books.records.get(name)
            slots = books.state.find_slots(name)
            if not slots:
                if record is not None:
                    with self._enter_change("release", name, books, books.state, None):
                        self._transactions.drop_record(record)
                return NotAllocated(container=name)
            _require_not_derived(name, books)
            user = record.user if isinstance(record, Record) else None
            priority = (record.priority or 0) if isinstance(record, Record) else 0
            after = books.without_booking(name, user)
            left = len(after.slots[slots[0]].containers)
            with self._enter_change("release", name, books, after, None):
                self._transactions.write_state(
                    books, after, lambda: self._transactions.drop_record(record)
                )
            return Released(container=name, user=user, slots=slots)

        names = None if container is None else frozenset({container})
        answer = self._transactions.apply_change(act, names)
        if isinstance(answer, NotAllocated):
            return answer
        warnings = self._logs.append(
            "RELEASED",
            answer.user or UserName("unknown"),
            answer.container,
            ",".join(answer.slots),
            priority=priority,
            reason=f"RELEASED (now has {left} containers)",
            operation="release",
        )
        return replace(answer, warnings=warnings)

    def mark_stopped(
        self, container: ContainerName, started: Wall | None = None
    ) -> MarkedStopped | NoMetadata:
        """Record that a container was stopped; an earlier record of the same stop stays.

        `started`: when the container last started, if known; a stop before it is overwritten.
        """
        # Decision 24: one stop for each run of a container, or a repeated call would prolong the
        # hold.
        with self._world.state.lock():
            record = self._transactions.read_records(frozenset({container})).get(container)
            if record is None:
                return NoMetadata(container=container)
            if isinstance(record, BadRecord):
                raise WriteFailed(f"{record.reason}; ds01d repairs or removes it")
            # Decision 202: without a digest it is derived, and Docker knows when it stopped.
            if has_current_stop(record, started) or not record.digest:
                return MarkedStopped(container=container, slot=record.gpu_id, already=True)
            now = self._world.clock.now().wall
            stopped = replace(record, stopped_at=now, stopped_text=None)
            with self._enter_change("mark-stopped", container, None, None, stopped):
                self._world.metadata.write(stopped, onto=record.digest)
            state = self._world.state.read()
        warnings = self._logs.append(
            "MARKED_STOPPED",
            record.user or UserName("unknown"),
            container,
            # A record names the first of several slots.
            ",".join(state.find_slots(container) if isinstance(state, AllocatorState) else ())
            or record.gpu_id
            or "",
            priority=0,  # as it always was
            reason="Container stopped, GPU hold timer started",
            operation="mark-stopped",
        )
        return MarkedStopped(container=container, slot=record.gpu_id, warnings=warnings)

    # --- allocating

    def _check_limit(self, wish: AllocationRequest) -> Rejected | None:
        """The refusal of a user at the limit, before NVML and Docker are asked."""
        # Records as last read may let somebody pass, whom the check under the lock then refuses.
        if self._refuse_at_limit(wish, frozenset()) is None:
            return None
        return self._refuse_at_limit(wish, None)

    def _refuse_at_limit(
        self, wish: AllocationRequest, names: frozenset[ContainerName] | None
    ) -> Rejected | None:
        books = self._transactions.read_books(names)
        if books.state.find_slots(wish.container) and not wish.additional:
            return None
        return check_limits(wish, books.state, books.records)

    def _book_slots(
        self, wish: AllocationRequest, limits: Limits | Unknown, asked: Now, reason: str
    ) -> Allocated | Rejected:
        # Decision 21: both may take seconds, so they are asked before the lock is taken.
        observed = self._pools.observe_use(asked)

        def act(books: Bookings) -> Allocated | Rejected:
            pool, unsure = self._pools.build_pool(books, observed, limits)
            answer = choose_slot(wish, pool)
            if isinstance(answer, Rejected) and answer.refusal is Refusal.USER_AT_LIMIT:
                # Decision 213: a record as last read refuses nobody.
                books = replace(books, records=self._transactions.read_records())
                answer = choose_slot(wish, replace(pool, records=books.records))
            if isinstance(answer, Allocated) and not answer.already:
                answer = replace(answer, warnings=(unsure,) if unsure else ())
                return self._write_allocation(answer, wish, books, reason)
            if isinstance(answer, Allocated):
                record = self._join_reservation(wish, books.records.get(wish.container))
                return self._add_reservation(answer, record)
            return answer

        return self._transactions.apply_change(act, frozenset({wish.container}))

    def _write_allocation(
        self, answer: Allocated, wish: AllocationRequest, books: Bookings, reason: str
    ) -> Allocated:
        """Book the slots, all in one write, and their record."""
        after = books.state
        for given in answer.all_slots:
            after = replace(books, state=after).with_booking(wish.container, given.slot, wish.user)
        old = books.records.get(wish.container)
        answer = replace(answer, id=self._choose_id(wish.container, books))
        now = self._world.clock.now().wall
        record = build_record(answer, old, now, is_additional=wish.additional, process=wish.process)

        def put_record() -> None:
            if record != old:
                onto = None if old is None else old.digest
                self._world.metadata.write(record, onto=onto)

        described = reason
        if wish.process is not None:
            described = "; ".join(filter(None, (reason, f"for {wish.process}")))
        with self._enter_change("allocate", wish.container, books, after, record, reason=described):
            self._transactions.write_state(books, after, put_record)
        return self._add_reservation(answer, record)

    def _choose_id(self, container: ContainerName, books: Bookings) -> BookingId:
        return choose_booking_id(container, books.records)

    def _join_reservation(
        self, wish: AllocationRequest, record: Record | BadRecord | None
    ) -> Record | BadRecord | None:
        """The record of a reservation that a further process asks for: it lasts for both."""
        # Decision 251: who came second may still pull when the first one has ended.
        if wish.process is None or not isinstance(record, Record) or not record.processes:
            return record
        if wish.process in record.processes:
            return record
        processes = (*record.processes, wish.process)[-MOST_PROCESSES:]
        joined = replace(record, processes=processes)
        described = f"for {wish.process}"
        with self._enter_change("allocate", wish.container, None, None, joined, reason=described):
            self._world.metadata.write(joined, onto=record.digest)
        return joined

    def _add_reservation(self, answer: Allocated, record: Record | BadRecord | None) -> Allocated:
        if not isinstance(record, Record):
            return answer
        return add_reservation(answer, record, self._world.clock.now().wall, self._config.policy)

    def _enter_change(
        self,
        action: str,
        container: ContainerName,
        books: Bookings | None,
        after: AllocatorState | None,
        record: Record | None,
        *,
        reason: str = "",
    ) -> AbstractContextManager[None]:
        if self._history is None:
            return nullcontext()
        return self._history.enter_change(action, container, books, after, record, reason=reason)

    def _log_answer(
        self,
        answer: Allocated | Rejected,
        priority: int,
        limits: Limits | Unknown,
        asked_for: str = "",
    ) -> Allocated | Rejected:
        """Log the answer; gives it with the warnings of limits and logs."""
        warnings = limits.unclear if isinstance(limits, Limits) else ()
        answer = replace(answer, warnings=(*answer.warnings, *warnings))
        if isinstance(answer, Rejected):
            return self._logs.append_refusal(answer, priority)
        failures: tuple[str, ...] = ()
        if not answer.already:
            failures = self._logs.append(
                "ALLOCATED",
                answer.user,
                answer.container,
                ",".join(given.slot for given in answer.all_slots),
                priority=priority,
                reason=_describe_booking(answer, asked_for),
                operation="allocate",
            )
        return replace(answer, warnings=(*answer.warnings, *failures))


def _require_not_derived(container: ContainerName, books: Bookings) -> None:
    """Raise `Refused` where the container has its slots by its request (decision 202)."""
    slots = sorted(slot for name, slot in books.state.derived if name == container)
    if slots:
        raise Refused(
            f"{container} has {', '.join(slots)} by its own request: docker rm {container}"
        )


def _describe_booking(given: Allocated, asked_for: str) -> str:
    """The log's text of a booking, as the former allocator wrote it; the rest is appended."""
    kind = SlotType.PHYSICAL if given.slot.isdecimal() else SlotType.MIG
    text = f"ALLOCATED {kind} (now has {len(given.shared_with) + 1} containers)"
    if given.shared_with:
        text += f"; no slot was free: shared with {', '.join(given.shared_with)}"
    return f"{text}; reason: {asked_for}" if asked_for else text
