"""Calls etcd's JSON gateway: one member after the other, within one deadline, never for long.

It moves requests and answers; what keys and values mean is not its concern. After a call that
failed nobody knows whether what it asked for was done, or still will be: a member that was frozen
carries out what it was sent as soon as it goes on. So who asks for a change has to ask in such
a way that doing it twice, or late, does no harm.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final, TypeVar

import msgspec

from ds01d.adapters.fleet.circuit_breaker import CircuitBreaker
from ds01d.adapters.fleet.deadline_http import CallLimits
from ds01d.adapters.fleet.etcd_connections import MAX_REPLY_BYTES, EtcdConnections
from ds01d.adapters.fleet.etcd_errors import (
    MemberFailed,
    ReplyTooLarge,
    describe_status,
    is_auth_disabled,
    needs_login,
    shorten,
)
from ds01d.adapters.fleet.etcd_messages import (
    AuthReply,
    RangeReply,
    WatchReply,
    WatchResult,
    decode_reply,
    range_of,
)
from ds01d.adapters.fleet.etcd_settings import EtcdEndpoint, EtcdSettings
from ds01d.errors import StoreFailed, StoreRefused

T = TypeVar("T")

# The kernel of a frozen member goes on acknowledging, so TCP notices nothing: after this silence
# the member itself is asked (decision 303).
WATCH_IDLE_S: Final = 10.0
_RETRY_PAUSE_S: Final = 0.1
_OUT_OF_RANGE: Final = 11  # gRPC's code for a revision that was compacted


class EtcdClient:
    """Any thread may call; each call has a connection of its own. `close` is for any thread."""

    def __init__(self, settings: EtcdSettings, breaker: CircuitBreaker | None = None) -> None:
        self._settings = settings
        self.breaker = CircuitBreaker() if breaker is None else breaker
        self._connections = EtcdConnections(settings.tls)
        self._preferred = 0
        self._token = ""

    @property
    def endpoints(self) -> tuple[EtcdEndpoint, ...]:
        """The members, as they are configured."""
        return self._settings.endpoints

    def call(self, path: str, request: dict[str, Any], form: type[T]) -> T:
        """The answer to a POST of `request`, from the first member that has one.

        Raises StoreRefused if etcd refused, and StoreFailed at the latest after the time-out; then
        what was asked for may have been done. Fails at once while the breaker is open.
        """
        if not self.breaker.allows_call():
            raise StoreFailed(f"{self.breaker.reason}; not asked again yet")
        deadline = time.monotonic() + self._settings.timeout_s
        try:
            reply = self._call_members(path, msgspec.json.encode(request), form, deadline)
        except (StoreRefused, ReplyTooLarge):
            self.breaker.record_success()  # etcd is there, and answers
            raise
        except StoreFailed as error:
            self.breaker.record_failure(str(error))
            raise
        # Who was let through has to report back.
        except BaseException:
            self.breaker.record_failure("interrupted")
            raise
        self.breaker.record_success()
        return reply

    def call_member(
        self, endpoint: EtcdEndpoint, path: str, request: dict[str, Any], form: type[T]
    ) -> T:
        """The answer of this very member. Raises StoreFailed; the breaker is left alone."""
        deadline = time.monotonic() + self._settings.timeout_s
        try:
            return self._call_with_login(
                endpoint, path, msgspec.json.encode(request), form, deadline
            )
        except MemberFailed as failure:
            raise StoreFailed(str(failure)) from failure

    def find_certificate_end(self, endpoint: EtcdEndpoint) -> float | None:
        """Until when the certificate of this member is valid; None: no TLS. Raises StoreFailed."""
        try:
            deadline = time.monotonic() + self._settings.timeout_s
            return self._connections.find_certificate_end(endpoint, deadline)
        except MemberFailed as failure:
            raise StoreFailed(str(failure)) from failure

    def watch(self, key: bytes, end: bytes, start: int) -> Iterator[WatchResult]:
        """What happens to the keys from `key` up to `end`, from revision `start` on.

        Its first value says that the watch stands. Raises StoreFailed when it breaks, or when its
        member has no leader any more or is silent; StoreRefused where `start` was compacted.
        """
        failures: list[str] = []
        for endpoint in self._order_members():
            is_created = False
            try:
                for result in self._watch_member(endpoint, key, end, start):
                    is_created = is_created or result.created
                    yield result
            except MemberFailed as failure:
                failures.append(str(failure))
                self._avoid_member(endpoint)
                # What was seen already is not to be seen twice: who watches begins again.
                if is_created:
                    break
        raise StoreFailed("; ".join(failures))

    def close(self) -> None:
        """Break every connection and allow no other: whatever waits for one fails at once."""
        self._connections.close()

    def _order_members(self) -> tuple[EtcdEndpoint, ...]:
        """The one that answered last first: one that is frozen is not asked each time."""
        endpoints, first = self._settings.endpoints, self._preferred
        return (*endpoints[first:], *endpoints[:first])

    def _prefer_member(self, endpoint: EtcdEndpoint) -> None:
        self._preferred = self._settings.endpoints.index(endpoint)

    def _avoid_member(self, endpoint: EtcdEndpoint) -> None:
        """Begin with the next one, unless another thread has found one that answers."""
        failed = self._settings.endpoints.index(endpoint)
        if self._preferred == failed:
            self._preferred = (failed + 1) % len(self._settings.endpoints)

    def _call_members(self, path: str, body: bytes, form: type[T], deadline: float) -> T:
        while True:
            failures: list[MemberFailed] = []
            order = self._order_members()
            for position, endpoint in enumerate(order):
                # Each has its share of what is left, so that a frozen one does not take all of it.
                now = time.monotonic()
                share = now + (deadline - now) / (len(order) - position)
                try:
                    reply = self._call_with_login(endpoint, path, body, form, share)
                except MemberFailed as failure:
                    failures.append(failure)
                    self._avoid_member(endpoint)
                else:
                    self._prefer_member(endpoint)
                    return reply
            # Members that live and have no leader elect one within a second or two.
            has_time = deadline - time.monotonic() > 2 * _RETRY_PAUSE_S
            if not has_time or not any(failure.is_alive for failure in failures):
                raise StoreFailed("; ".join(dict.fromkeys(map(str, failures))))
            time.sleep(_RETRY_PAUSE_S)

    def _call_with_login(
        self, endpoint: EtcdEndpoint, path: str, body: bytes, form: type[T], deadline: float
    ) -> T:
        """Log in where that is needed, and once more where the token counts no longer."""
        exchange = self._connections.exchange
        token = self._find_token(endpoint, deadline)
        try:
            return exchange(endpoint, path, body, form, deadline=deadline, token=token)
        except StoreRefused as refusal:
            if not self._forget_token(refusal):
                raise
        token = self._find_token(endpoint, deadline)
        return exchange(endpoint, path, body, form, deadline=deadline, token=token)

    def _find_token(self, endpoint: EtcdEndpoint, deadline: float) -> str:
        """A token; "" where etcd has authentication switched off, so that it needs none."""
        if not self._settings.user or self._token:
            return self._token
        login = {"name": self._settings.user, "password": self._settings.read_password()}
        body = msgspec.json.encode(login)
        try:
            reply = self._connections.exchange(
                endpoint, "/auth/authenticate", body, AuthReply, deadline=deadline, token=""
            )
        except StoreRefused as refusal:
            if is_auth_disabled(refusal):
                return ""
            raise
        # It becomes a header.
        if not reply.token.isascii() or not reply.token.isprintable():
            raise MemberFailed(f"{endpoint}: invalid token")
        self._token = reply.token
        return reply.token

    def _forget_token(self, refusal: StoreRefused) -> bool:
        """Whether a new login may help."""
        if not self._settings.user or not needs_login(refusal):
            return False
        self._token = ""
        return True

    def _watch_member(
        self, endpoint: EtcdEndpoint, key: bytes, end: bytes, start: int
    ) -> Iterator[WatchResult]:
        create = {"key": key, "range_end": end, "start_revision": str(start)}
        body = msgspec.json.encode({"create_request": create})
        deadline = time.monotonic() + self._settings.timeout_s
        limits = CallLimits(deadline=deadline, bytes_left=MAX_REPLY_BYTES)
        token = self._find_token(endpoint, deadline)
        try:
            with self._connections.open_stream(endpoint, "/watch", body, limits, token) as lines:
                for line in lines:
                    result = _read_watch_result(endpoint, line)
                    if result.created:
                        self._prefer_member(endpoint)
                        # The kernel of a frozen member still acknowledges what is sent to it.
                        limits.on_idle = lambda: self._check_member(endpoint, key)
                        limits.idle_s = WATCH_IDLE_S
                    yield result
        except StoreRefused as refusal:
            if self._forget_token(refusal):
                raise MemberFailed(str(refusal)) from refusal
            raise
        raise MemberFailed(f"{endpoint}: the watch ended")

    def _check_member(self, endpoint: EtcdEndpoint, key: bytes) -> None:
        """Raises MemberFailed unless a linearizable read goes through there."""
        deadline = time.monotonic() + self._settings.timeout_s
        body = msgspec.json.encode(range_of(key, limit=1, keys_only=True))
        self._call_with_login(endpoint, "/kv/range", body, RangeReply, deadline)


def _read_watch_result(endpoint: EtcdEndpoint, line: bytes) -> WatchResult:
    reply = decode_reply(line, WatchReply)
    if reply.error is not None:
        raise describe_status(endpoint, reply.error)
    result = reply.result or WatchResult()
    if result.compact_revision:
        text = f"{endpoint}: what happened before revision {result.compact_revision} was compacted"
        raise StoreRefused(text, code=_OUT_OF_RANGE, message="compacted")
    if result.canceled:
        raise MemberFailed(f"{endpoint}: watch canceled: {shorten(result.cancel_reason)}")
    return result
