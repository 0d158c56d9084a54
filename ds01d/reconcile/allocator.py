"""Booking slots: allocate, release, mark as stopped; each a transaction on the books.

Read, decide, write the state, then the metadata, under the books' lock, with a time-out. If the
metadata cannot be written, the state is restored. A log that cannot be written is a warning.
Failures raise a `Ds01Error`; a refusal is a return value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from ds01d.config import Config
from ds01d.decide.allocation import AllocationRequest, choose_slot
from ds01d.decide.bookings import Bookings, count_bookings
from ds01d.decide.boot_layout import find_partial_layout
from ds01d.decide.device_resolution import index_devices
from ds01d.decide.ownership import has_user
from ds01d.decide.plausibility import check_plausible
from ds01d.decide.slot_offers import Pool
from ds01d.decide.usage import join_uses, known_requests, slot_devices, users_by_slot
from ds01d.errors import Malformed, Refused, WriteFailed
from ds01d.model.allocation import (
    Allocated,
    MarkedStopped,
    NoMetadata,
    NotAllocated,
    Refusal,
    Rejected,
    Released,
)
from ds01d.model.books import AllocatorState, BadRecord, Limits, Record, SlotType
from ds01d.model.devices import Inventory
from ds01d.model.primitives import ContainerName, Now, SlotId, Unknown, UserName, Wall
from ds01d.model.usage import PublishedUse, Running
from ds01d.reconcile.booking_history import BookingHistory
from ds01d.reconcile.booking_logs import BookingLogs
from ds01d.reconcile.books_ports import BooksWorld
from ds01d.reconcile.transactions import Transactions

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.#-]*")
_MAX_NAME_LENGTH = 250


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
        self._transactions = Transactions(world)

    def allocate(
        self,
        user: UserName,
        container: ContainerName,
        max_gpus: int | None = None,
        priority: int | None = None,
        slot: SlotId | None = None,
        *,
        another: bool = False,
        log_refusal: bool = True,
        on_waiting: object = None,
    ) -> Allocated | Rejected:
        """Book `slot`, or the best one. `max_gpus`, `priority`: None = from the user's limits.

        `another`: in addition to the slots that the container already has. `log_refusal`: False
        where a refusal is one of many attempts. `on_waiting`: only ds01d's allocator can wait;
        raises `Refused`.
        """
        if on_waiting is not None:
            raise Refused("cannot wait for a slot without ds01d (is it running?)")
        _validate_names(user, container)
        asked = self._world.clock.now()
        if self._world.gpu is not None:
            self._world.gpu.prefetch()  # NVML works while the limits are read
        limits = self._world.limits.read()
        wish = _build_request(user, container, max_gpus, priority, limits)
        if isinstance(wish, Rejected):
            return self._log_answer(wish, priority or 0, limits)
        wish = replace(wish, slot=slot, additional=another)
        answer = self._check_limit(wish) or self._book_slot(wish, limits, asked)
        if isinstance(answer, Rejected) and not log_refusal:
            return answer
        return self._log_answer(answer, wish.priority, limits)

    def preview_slots(
        self, user: UserName, container: ContainerName
    ) -> Mapping[SlotId | None, Allocated | Rejected]:
        """What `allocate` would answer now, by slot; None: for the best one. Books nothing."""
        limits = self._world.limits.read()
        books = self._transactions.read_books()
        slots = (None, *books.state.slots)
        wish = _build_request(user, container, None, None, limits)
        if isinstance(wish, Rejected):
            return dict.fromkeys(slots, wish)
        pool, _ = self._build_pool(
            books, self._sample_gpus(self._world.clock.now()), limits, self._read_usage()
        )
        return {slot: choose_slot(replace(wish, slot=slot), pool) for slot in slots}

    def release(self, container: ContainerName) -> Released | NotAllocated:
        """Release every slot of a container, and remove its metadata."""
        priority, left = 0, 0

        def act(books: Bookings) -> Released | NotAllocated:
            nonlocal priority, left
            record = books.records.get(container)
            slots = books.state.find_slots(container)
            if not slots:
                if record is not None:
                    with self._enter_change("release", container, books, books.state, None):
                        self._transactions.drop_record(record)
                return NotAllocated(container=container)
            user = record.user if isinstance(record, Record) else None
            priority = (record.priority or 0) if isinstance(record, Record) else 0
            after = books.without_booking(container, user)
            left = len(after.slots[slots[0]].containers)
            with self._enter_change("release", container, books, after, None):
                self._transactions.write_state(
                    books, after, lambda: self._transactions.drop_record(record)
                )
            return Released(container=container, user=user, slots=slots)

        answer = self._transactions.apply_change(act)
        if isinstance(answer, NotAllocated):
            return answer
        warnings = self._logs.append(
            "RELEASED",
            answer.user or UserName("unknown"),
            container,
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
            record = self._transactions.read_records().get(container)
            if record is None:
                return NoMetadata(container=container)
            if isinstance(record, BadRecord):
                raise WriteFailed(f"{record.reason}; ds01d repairs or removes it")
            if _has_current_stop(record, started):
                return MarkedStopped(container=container, slot=record.gpu_id, already=True)
            now = self._world.clock.now().wall
            stopped = replace(record, stopped_at=now, stopped_text=None)
            with self._enter_change("mark-stopped", container, None, None, stopped):
                self._world.metadata.write(stopped, onto=record.digest)
        warnings = self._logs.append(
            "MARKED_STOPPED",
            record.user or UserName("unknown"),
            container,
            record.gpu_id or "",
            priority=0,  # as it always was
            reason="Container stopped, GPU hold timer started",
            operation="mark-stopped",
        )
        return MarkedStopped(container=container, slot=record.gpu_id, warnings=warnings)

    # --- allocating

    def _check_limit(self, wish: AllocationRequest) -> Rejected | None:
        """The refusal of a user at the limit, before NVML and Docker are asked."""
        books = self._transactions.read_books()
        if wish.max_slots is None or (
            books.state.find_slots(wish.container) and not wish.additional
        ):
            return None
        booked = count_bookings(wish.user, books.state, books.records)
        if booked < wish.max_slots:
            return None
        return Rejected(
            container=wish.container,
            user=wish.user,
            refusal=Refusal.USER_AT_LIMIT,
            detail=f"{booked}/{wish.max_slots}",
        )

    def _book_slot(
        self, wish: AllocationRequest, limits: Limits | Unknown, asked: Now
    ) -> Allocated | Rejected:
        # Decision 21: both may take seconds, so they are asked before the lock is taken.
        use, gpu = self._read_usage(), self._sample_gpus(asked)

        def act(books: Bookings) -> Allocated | Rejected:
            pool, unsure = self._build_pool(books, gpu, limits, use)
            answer = choose_slot(wish, pool)
            if isinstance(answer, Allocated) and not answer.already:
                after = books.with_booking(wish.container, answer.slot, wish.user)
                old = books.records.get(wish.container)
                if wish.additional and isinstance(old, Record):
                    # The record of a container with several slots names the first one. One without
                    # a user would count for nobody's limit.
                    record = old if has_user(old) else replace(old, user=wish.user)
                else:
                    record = _build_record(answer, old, pool.now)

                def put_record() -> None:
                    if record != old:
                        onto = None if old is None else old.digest
                        self._world.metadata.write(record, onto=onto)

                with self._enter_change("allocate", wish.container, books, after, record):
                    self._transactions.write_state(books, after, put_record)
                return replace(answer, warnings=(unsure,)) if unsure else answer
            return answer

        return self._transactions.apply_change(act)

    def _read_usage(self) -> tuple[PublishedUse | None, Running | Unknown | None]:
        """Who uses which devices, by the published status and by Docker (None: no Docker)."""
        # Decision 75: a device that a living container requests is taken, booked or not.
        world = self._world
        published = None if world.published is None else world.published.read_use()
        if world.running is None:
            return published, None
        return published, world.running.read(known_requests(published))

    def _build_pool(
        self,
        books: Bookings,
        gpu: Inventory | Unknown | None,
        limits: Limits | Unknown,
        use: tuple[PublishedUse | None, Running | Unknown | None],
    ) -> tuple[Pool, str]:
        """What `choose_slot` needs, and why the use of GPUs may be incomplete ("" if it is not)."""
        now, index = self._world.clock.now(), index_devices(gpu, books.state)
        uses, unsure = join_uses(*use, index, self._config, now.wall)
        pool = Pool(
            state=books.state,
            records=books.records,
            gpu=gpu,
            limits=limits,
            now=now.wall,
            foreign_users=users_by_slot(uses, slot_devices(books.state, gpu), gpu),
            sharing=self._config.allocator.sharing,
            whole_gpus=self._config.books.whole_gpus,
            partial=find_partial_layout(
                gpu,
                books.state,
                use[0].inventory if use[0] is not None else "",
                now,
                boot_grace_s=self._config.policy.boot_grace_s,
            ),
        )
        return pool, unsure

    def _sample_gpus(self, now: Now) -> Inventory | Unknown | None:
        """A sample of the GPUs begun at `now` or later; an implausible one is `Unknown`."""
        if self._world.gpu is None:
            return None
        gpu = self._world.gpu.sample(not_before=now.boot)
        grace = self._config.policy.boot_grace_s
        # Decision 133: fewer devices than before the boot are plausible here; `find_partial_layout`
        # decides what may be handed out of them.
        return check_plausible(gpu, remembered=0, now=now, boot_grace_s=grace)

    def _enter_change(
        self,
        action: str,
        container: ContainerName,
        books: Bookings | None,
        after: AllocatorState | None,
        record: Record | None,
    ) -> AbstractContextManager[None]:
        if self._history is None:
            return nullcontext()
        return self._history.enter_change(action, container, books, after, record)

    def _log_answer(
        self, answer: Allocated | Rejected, priority: int, limits: Limits | Unknown
    ) -> Allocated | Rejected:
        """Log the answer; gives it with the warnings of limits and logs."""
        warnings = limits.unclear if isinstance(limits, Limits) else ()
        event, slot, reason = "REJECTED", "", ""
        if isinstance(answer, Rejected):
            reason = answer.reason
        elif not answer.already:
            event, slot, reason = "ALLOCATED", answer.slot, _describe_booking(answer)
        log: tuple[str, ...] = ()
        if reason:
            who, container = answer.user, answer.container
            log = self._logs.append(
                event, who, container, slot, priority=priority, reason=reason, operation="allocate"
            )
        return replace(answer, warnings=(*answer.warnings, *warnings, *log))


def _build_request(
    user: UserName,
    container: ContainerName,
    most: int | None,
    priority: int | None,
    limits: Limits | Unknown,
) -> AllocationRequest | Rejected:
    """The request, completed from the limits; a refusal where they are needed and unreadable."""
    # Decision 23: limits that are missing restrict nothing, limits that are broken refuse.
    if isinstance(limits, Limits):
        most = limits.find_quota(user) if most is None else most
        priority = limits.find_priority(user) if priority is None else priority
    elif most is None:
        return Rejected(
            container=container,
            user=user,
            refusal=Refusal.LIMITS_UNREADABLE,
            detail=limits.reason,
        )
    return AllocationRequest(container=container, user=user, max_slots=most, priority=priority or 0)


def _build_record(given: Allocated, old: Record | BadRecord | None, now: Wall) -> Record:
    """The metadata of a new booking. Raises `WriteFailed` where a broken record has to stay."""
    if isinstance(old, BadRecord) and not old.replaceable:
        raise WriteFailed(old.reason)
    base = (
        old
        if isinstance(old, Record)
        else Record(container=given.container, user=None, gpu_id=None)
    )
    return replace(
        base,
        user=given.user,
        gpu_id=given.slot,
        priority=given.priority,
        allocated_at=now,
        allocated_text=None,
        stopped_at=None,
        stopped_text=None,
    )


def _describe_booking(given: Allocated) -> str:
    """The log's text of a booking, as the former allocator wrote it; sharing is appended."""
    kind = SlotType.PHYSICAL if given.slot.isdecimal() else SlotType.MIG
    text = f"ALLOCATED {kind} (now has {len(given.shared_with) + 1} containers)"
    if given.shared_with:
        text += f"; no slot was free: shared with {', '.join(given.shared_with)}"
    return text


def _validate_names(user: str, container: str) -> None:
    """Raise `Malformed` for names that the books cannot hold."""
    if _NAME.fullmatch(container) is None or len(container) > _MAX_NAME_LENGTH:
        raise Malformed(f"invalid container name {container!r:.80}")
    if not user or not user.isprintable():
        raise Malformed(f"invalid user name {user!r:.80}")


def _has_current_stop(record: Record, started: Wall | None) -> bool:
    """Whether the record has the stop of the current run, not of an earlier one."""
    if record.stopped_at is None:
        return False
    begins = [at for at in (record.allocated_at, started) if at is not None]
    return all(record.stopped_at >= at for at in begins)
