"""Quota: what a user may have, has, and has left. Served in the worker's thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Final

import msgspec

from ds01d.decide.bookings import count_bookings
from ds01d.decide.quota_status import find_quota_status
from ds01d.decide.user_quota import measure_booked, weigh_by_books
from ds01d.documents.quota import WaitingRequest, build_quota_document
from ds01d.documents.values import DisplayTime
from ds01d.model.limits import Limits
from ds01d.model.primitives import ContainerName, Unknown, UserName
from ds01d.model.quota import OtherHostsUse, QuotaUnit
from ds01d.reconcile.ports import World
from ds01d.reconcile.transactions import Transactions
from ds01d.reporting.status import Status
from ds01d.service import rules
from ds01d.service.client import INTERFACE
from ds01d.service.dispatch import Handler
from ds01d.service.requests import PendingCall
from ds01d.service.varlink import Parameters, parse_parameters
from ds01d.service.waiting import Waiter, WaitingQueue


class UserParameters(Parameters, frozen=True):
    user: str | None = None


class QuotaCalls:
    """Serves them for one configuration. `queue`: who waits for a slot.

    `find_elsewhere`: what a user has on other hosts, from memory; None without a fleet's store.
    """

    def __init__(
        self,
        world: World,
        read_status: Callable[[], Status],
        queue: WaitingQueue,
        find_elsewhere: Callable[[UserName, QuotaUnit], OtherHostsUse] | None = None,
    ) -> None:
        self._world, self._read_status, self._queue = world, read_status, queue
        self._find_elsewhere = find_elsewhere
        self._transactions = Transactions(world)
        self.handlers: Final[Mapping[str, Handler]] = {f"{INTERFACE}.Quota": self._describe_quota}

    def _describe_quota(self, request: PendingCall) -> object:
        wanted = parse_parameters(request.call, UserParameters)
        user = rules.choose_user(request.peer, wanted.user)
        limits = self._world.limits.read()
        if isinstance(limits, Unknown):
            raise rules.refused("LIMITS_UNREADABLE", limits.reason)
        books = self._transactions.read_books()
        gpus, max_gpus = self.find_quota(user)
        counts_gpus = limits.find_gpu_quota(user) is not None
        states = _list_states(self._read_status())
        status = find_quota_status(user, limits, books.state, books.records, states)
        if self._find_elsewhere is not None:
            status = replace(status, other_hosts=self._find_elsewhere(user, status.unit))
        # Or callers who are gone would count as waiting.
        self._queue.drop_closed()
        requests = tuple(
            _describe_request(waiter, position)
            for position, waiter in enumerate(self._queue, 1)
            if waiter.user == user
        )
        document = build_quota_document(
            status,
            waiting=len(requests),
            requests=requests,
            # As `WaitingQueue.add_waiter` has it: of equal priority who came first is served first.
            ahead=sum(
                waiter.user != user and waiter.rank >= status.priority for waiter in self._queue
            ),
        )
        return {
            "quota": {
                "max_slots": limits.find_quota(user),
                "booked": count_bookings(user, books.state, books.records),
                "gpus": float(gpus) if counts_gpus else None,
                "max_gpus": float(max_gpus) if counts_gpus and max_gpus is not None else None,
                **msgspec.to_builtins(document),
            }
        }

    def find_quota(self, user: UserName) -> tuple[int | Fraction, int | Fraction | None]:
        """How much a user holds, and may hold at most; None: any amount, or that is unknown.

        In GPU-equivalents, or in slots where the limits count these.
        """
        limits, books = self._world.limits.read(), self._transactions.read_books()
        quota = limits.find_gpu_quota(user) if isinstance(limits, Limits) else None
        if quota is not None:
            return measure_booked(user, books.state, books.records, weigh_by_books), quota.limit
        slots = limits.find_quota(user) if isinstance(limits, Limits) else None
        return count_bookings(user, books.state, books.records), slots


def _describe_request(waiter: Waiter, position: int) -> WaitingRequest:
    return WaitingRequest(
        container=waiter.container,
        position=position,
        since=DisplayTime(waiter.since),
        count=waiter.count,
        slot=waiter.slot,
        profile=waiter.profile,
        reason=waiter.reason,
    )


def _list_states(status: Status) -> dict[ContainerName, str]:
    """The state of each container that holds a slot."""
    return {holder.container: holder.state for slot in status.slots for holder in slot.holders}
