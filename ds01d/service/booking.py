"""The calls of io.github.ds01.Booking, served in the worker's thread."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from ds01d.config import Config
from ds01d.decide.booking_record import find_booking
from ds01d.errors import Ds01Error
from ds01d.model.allocation import Allocated, NoMetadata, NotAllocated, Refusal, Rejected
from ds01d.model.books import AllocatorState, Record
from ds01d.model.containers import Container, NotFound
from ds01d.model.limits import Limits
from ds01d.model.primitives import BookingId, ContainerName, SlotId, Unknown, UserName
from ds01d.model.reservation import ReservingProcess, parse_booking_id
from ds01d.reconcile.allocator import Allocator
from ds01d.reconcile.booking_history import BookingHistory, fingerprint_answer
from ds01d.reconcile.booking_ids import reserve_name
from ds01d.reconcile.booking_logs import BookingLogs
from ds01d.reconcile.ports import World
from ds01d.reconcile.slot_pool import PoolBuilder
from ds01d.reconcile.transactions import Transactions
from ds01d.reporting.status import Status
from ds01d.service import rules
from ds01d.service.abandoned import release_abandoned
from ds01d.service.booking_messages import (
    AllocateParameters,
    ContainerParameters,
    ReleaseParameters,
    encode_booking,
)
from ds01d.service.client import INTERFACE, NO_METADATA, NOT_ALLOCATED, NOT_POSSIBLE
from ds01d.service.dispatch import Handler, answer_call
from ds01d.service.notice_requests import NoticeRequests
from ds01d.service.requests import PendingCall
from ds01d.service.rules import Peer, unavailable
from ds01d.service.varlink import VarlinkError, invalid_parameter, parse_parameters
from ds01d.service.waiting import RETRY_EVERY_S, WORTH_WAITING, Waiter, WaitingQueue

if TYPE_CHECKING:  # off unless configured, and then not imported
    from ds01d.reconcile.fleet_allocation import AllocationPlan
    from ds01d.service.fleet_bookings import FleetBookings
    from ds01d.service.fleet_ports import PendingBooking

ReadStatus = Callable[[], Status]
"""The status document as it is now."""


class NoteAnswer(Protocol):
    """What gets the answers; `has_waited`: the caller was in the queue."""

    def __call__(self, answer: Allocated | Rejected, /, *, has_waited: bool) -> None: ...


class BookingService:
    """Serves calls on the books of one configuration. `queue` outlives it."""

    def __init__(
        self,
        config: Config,
        world: World,
        read_status: ReadStatus,
        queue: WaitingQueue,
        note_answer: NoteAnswer | None = None,
        *,
        notice_requests: NoticeRequests | None = None,
        fleet: FleetBookings | None = None,
    ) -> None:
        """`note_answer`: gets what came of an allocation, but not of one that still waits.

        `notice_requests`: None where no notice is given. `fleet`: reserves each booking first; None
        where this host has none.
        """
        self._config, self._world, self._read_status = config, world, read_status
        self._notice_requests = notice_requests
        self._queue, self._note_answer, self._fleet = queue, note_answer, fleet
        self._transactions = Transactions(world)
        # inf: nothing has changed since those who wait were served.
        self._retry_at, self._tried_at = time.monotonic(), -math.inf
        self._changed: set[ContainerName] = set()
        self.handlers: Final[Mapping[str, Handler]] = {
            f"{INTERFACE}.Allocate": self._allocate,
            f"{INTERFACE}.Release": self._release,
            f"{INTERFACE}.MarkStopped": self._mark_stopped,
        }

    def wait_s(self) -> float:
        """Seconds until those who wait are to be served again."""
        return max(0.0, self._retry_at - time.monotonic()) if self._queue else math.inf

    def note_change(self) -> None:
        """Something has changed that may have freed a slot: serve those who wait, soon."""
        # Each attempt samples NVML, and a busy host has several passes in a second.
        earliest = max(time.monotonic(), self._tried_at + RETRY_EVERY_S)
        self._retry_at = min(self._retry_at, earliest)

    def serve_waiting_if_due(self) -> None:
        """Serve those who wait, in their order, if something has changed."""
        if self._queue and time.monotonic() >= self._retry_at:
            self._serve_waiting()

    def _serve_waiting(self) -> None:
        self._retry_at, self._tried_at = math.inf, time.monotonic()
        self._queue.drop_closed()
        if not self._queue:
            return
        without_slot: dict[str | None, str] = {}  # by the profile that is asked for; None: any
        for waiter in self._queue:
            if waiter.rests_until > self._tried_at:
                continue
            waiter.rests_until = 0.0
            if waiter.is_reserving:
                # Who comes after it gets what it leaves: the store answers in order.
                reason = waiter.reason or "being reserved in the store of the fleet"
                without_slot.setdefault(waiter.profile, reason)
                continue
            # Who would take any slot gets none if somebody before them just got none, or too few:
            # a request for several would never be served, if those after it took each free slot.
            no_gpu = without_slot.get(waiter.profile) or without_slot.get(None)
            if no_gpu and waiter.slot is None:
                waiter.reason = no_gpu
                continue
            attempt = partial(self.try_allocation, waiter)
            answer_call(waiter.request, partial(self.keep_place, waiter, attempt))
            if not waiter.request.is_open:
                self._queue.remove_waiter(waiter)
            elif waiter.reason.startswith(Refusal.NO_GPU_AVAILABLE):
                without_slot.setdefault(waiter.profile, waiter.reason)
            elif waiter.has_failed:
                break  # the source that failed would cost each of the others its timeout, too
        if self._queue:
            self._retry_at = min(self._retry_at, self._queue.find_rest_end())
            self._queue.send_places(self._find_next_hold_end())

    def take_changed_names(self) -> frozenset[ContainerName]:
        """The containers whose books were changed since the last call: they need a pass."""
        names, self._changed = frozenset(self._changed), set()
        return names

    # --- the methods

    def _allocate(self, request: PendingCall) -> object | None:
        wanted = parse_parameters(request.call, AllocateParameters)
        user = rules.choose_user(request.peer, wanted.user)
        if wanted.notify:
            self._require_notices(wanted)
        waiter = Waiter(
            request=request,
            user=user,
            container=ContainerName(wanted.container)
            if wanted.container is not None
            else self._make_name(request.peer, user),
            slot=None if wanted.slot is None else SlotId(wanted.slot),
            most=wanted.most,
            priority=wanted.priority,
            another=bool(wanted.another),
            count=wanted.count or 1,
            profile=wanted.profile,
            reason_given=wanted.reason or "",
            process=self._find_process(request.peer) if wanted.process else None,
            notify=bool(wanted.notify),
        )
        self._serve_waiting()  # they came first
        reply = self.try_allocation(waiter, is_waiting=bool(wanted.wait), log_refusal=True)
        if reply is None and not waiter.is_reserving:
            self.add_waiter(waiter)
        return reply

    def add_waiter(self, waiter: Waiter) -> None:
        self._queue.add_waiter(waiter)
        self._queue.send_places(self._find_next_hold_end())

    def _require_notices(self, wanted: AllocateParameters) -> None:
        if wanted.wait or wanted.another:
            raise invalid_parameter("notify")
        # Before anything is booked: who relies on a notice has to know that none will come.
        if self._notice_requests is None:
            raise rules.refused(NOT_POSSIBLE, "no notices on this host: [notify] names no target")

    def _find_process(self, peer: Peer) -> ReservingProcess | None:
        """For whom a reservation is; None where that is unknown: then time ends it."""
        process = self._world.reserving.find_asker(peer.pid, peer.uid)
        if isinstance(process, Unknown):
            raise unavailable(process.reason)
        return process

    def _make_name(self, peer: Peer, user: UserName) -> ContainerName:
        """The name of a reservation without a container."""
        if user == peer.login:
            return reserve_name(peer.uid)
        return reserve_name(self._world.passwd.find_uids(frozenset({user})).get(user))

    def keep_place(
        self, waiter: Waiter, attempt: Callable[[], object | None], _: PendingCall
    ) -> object | None:
        waiter.has_failed = False
        try:
            return attempt()
        except Ds01Error as error:
            # A failure of Docker, NVML or the books passes: nobody loses their place by it.
            if isinstance(error, VarlinkError) and not rules.is_failure(error):
                raise
            waiter.has_failed, waiter.reason = True, str(error)
            return None

    def try_allocation(
        self,
        waiter: Waiter,
        *,
        is_waiting: bool = True,
        log_refusal: bool = False,
        permit: AllocationPlan | None = None,
    ) -> object | None:
        """Book; None if it is refused for a reason that waiting can end, or is reserved first.

        `permit`: what was reserved for it.
        """
        # Decision 219: the slowest of all that a booking waits for begins first.
        asked = PoolBuilder(self._world, self._config).begin_sample()
        peer, limits = waiter.request.peer, self._world.limits.read()
        most, priority = rules.lower_limits(peer, waiter.user, waiter.most, waiter.priority, limits)
        kind = Allocator if self._fleet is None else self._fleet.choose_allocator(permit)
        with self._open_allocator(peer, waiter.container, kind) as (allocator, container):
            if isinstance(container, NotFound):
                release_abandoned(waiter.container, allocator, self._world, self._config)
            answer = allocator.allocate(
                waiter.user,
                waiter.container,
                most,
                priority,
                waiter.slot,
                another=waiter.another,
                count=waiter.count,
                profile=waiter.profile,
                reason=waiter.reason_given,
                process=waiter.process,
                log_refusal=log_refusal,
                asked=asked,
            )
        if self._fleet is not None and self._fleet.begin_reserving(
            allocator, waiter, is_waiting=is_waiting, log_refusal=log_refusal
        ):
            return None
        if (log_refusal or isinstance(answer, Allocated)) and self._note_answer is not None:
            self._note_answer(answer, has_waited=not log_refusal)
        if isinstance(answer, Rejected):
            self._keep_waiting(waiter, answer, limits, priority, is_waiting=is_waiting)
            return None
        if isinstance(container, Container):
            # There is a container for it, so it is a booking and no reservation that ends.
            answer = replace(answer, until=None)
        if not answer.already:
            self._changed.add(answer.container)
        if self._notice_requests is not None:
            self._notice_requests.remove_fulfilled(waiter.wish)
        return {"booking": encode_booking(answer), "waiting": None}

    def _keep_waiting(
        self,
        waiter: Waiter,
        answer: Rejected,
        limits: Limits | Unknown,
        priority: int | None,
        *,
        is_waiting: bool,
    ) -> None:
        """Note why the waiter has no slot yet. Raises `VarlinkError` where waiting cannot help."""
        can_end = answer.refusal in WORTH_WAITING and not answer.is_lasting
        if not is_waiting or not can_end:
            until, warnings = None, answer.warnings
            if waiter.notify and self._notice_requests is not None:
                until, more = self._notice_requests.add_refused(waiter.wish, can_end=can_end)
                warnings = (*warnings, *more)
            raise rules.refused(answer.refusal, answer.detail, warnings, answer.holdings, until)
        rank = limits.find_priority(waiter.user) if isinstance(limits, Limits) else 0
        waiter.rank = rank if priority is None else priority
        waiter.reason = answer.reason

    # --- what the store of a fleet answers

    @property
    def has_reserved(self) -> bool:
        """Whether something was reserved that can be booked now."""
        return self._fleet is not None and self._fleet.has_answers

    def serve_reserved(self) -> None:
        """Book what was reserved in the store of the fleet since the last call."""
        if self._fleet is not None and self._fleet.serve_answers(self, self._queue):
            self.note_change()

    def note_rejection(self, pending: PendingBooking, answer: Rejected) -> None:
        """What another host has is in the way. Raises `VarlinkError` where waiting cannot help."""
        waiter, limits = pending.waiter, self._world.limits.read()
        if pending.log_refusal:
            logs = BookingLogs(replace(self._world, actor=waiter.request.peer.actor))
            answer = logs.append_refusal(answer, pending.plan.question.request.priority)
            if self._note_answer is not None:
                self._note_answer(answer, has_waited=False)
        self._keep_waiting(waiter, answer, limits, waiter.priority, is_waiting=pending.is_waiting)

    def fail_reserving(self, reason: str) -> None:
        """End the calls that are being reserved; those of the queue keep their places."""
        if self._fleet is not None:
            self._fleet.fail_all(unavailable(reason))

    def _find_next_hold_end(self) -> float | None:
        """When the next hold after stop ends, in seconds since the epoch."""
        holders = (holder for slot in self._read_status().slots for holder in slot.holders)
        return min((holder.until for holder in holders if holder.until is not None), default=None)

    def _release(self, request: PendingCall) -> object:
        wanted = parse_parameters(request.call, ReleaseParameters)
        name, booking = self._find_booked(wanted)
        with self._open_allocator(request.peer, name) as (allocator, container):
            check = rules.require_gone if wanted.if_gone else rules.require_no_use
            check(request.peer, name, container)
            answer = allocator.release(name, booking)
        if isinstance(answer, NotAllocated):
            raise rules.refused(NOT_ALLOCATED, f"{name} holds no slot", answer.warnings)
        self._changed.add(name)
        return {
            "container": answer.container,
            "slots": list(answer.slots),
            "user": answer.user,
            "warnings": list(answer.warnings),
        }

    def _find_booked(self, wanted: ReleaseParameters) -> tuple[ContainerName, BookingId | None]:
        """What is to be released: by its name, or its ID and the name it has now, or both."""
        if wanted.container is not None:
            return ContainerName(wanted.container), wanted.id
        if wanted.id is None:
            raise invalid_parameter("container")
        booking = parse_booking_id(wanted.id)
        name = None
        if booking is not None:
            name = find_booking(booking, self._transactions.read_records())
        if name is None:
            raise rules.refused(NOT_ALLOCATED, f"no booking has the ID {wanted.id!r:.40}")
        return name, booking

    def _mark_stopped(self, request: PendingCall) -> object:
        name = ContainerName(parse_parameters(request.call, ContainerParameters).container)
        with self._open_allocator(request.peer, name) as (allocator, container):
            started = container.started if isinstance(container, Container) else None
            answer = allocator.mark_stopped(name, started)
        if isinstance(answer, NoMetadata):
            raise rules.refused(NO_METADATA, f"there is no metadata of {name}")
        self._changed.add(name)
        return {
            "slot": answer.slot,
            "already": answer.already,
            "warnings": list(answer.warnings),
        }

    @contextmanager
    def _open_allocator(
        self, peer: Peer, name: ContainerName, kind: Callable[..., Allocator] = Allocator
    ) -> Iterator[tuple[Allocator, Container | NotFound | Unknown]]:
        """The allocator for a container that the caller may change, and the container.

        Raises `VarlinkError`.
        """
        if self._config.daemon.mode == "observe":  # decision 179
            raise unavailable('daemon.mode is "observe": ds01d books nothing')
        answer = self._world.engine.look_up(name, None)
        world = replace(self._world, actor=peer.actor)
        changes = BookingHistory(world, fingerprint_answer(name, answer))
        # A command that root runs may make a pass meanwhile, or give the container to another user.
        with self._world.state_dir.lock():
            self._require_own(peer, name, answer)
            yield kind(world, self._config, changes), answer

    def _require_own(
        self, peer: Peer, name: ContainerName, answer: Container | NotFound | Unknown
    ) -> None:
        # Its own alone: the allocation reads all of them.
        record = self._transactions.read_records(frozenset({name})).get(name)
        is_booked = record is not None or (
            isinstance(state := self._world.state.read(), AllocatorState)
            and bool(state.find_slots(name))
        )
        if isinstance(answer, Unknown) and not (peer.is_operator or isinstance(record, Record)):
            raise unavailable(f"cannot see whose container {name} is: {answer.reason}")
        container = answer if isinstance(answer, Container) else None
        rules.require_own(peer, name, record, container, is_booked=is_booked)
