"""Which function serves a call, and what an error of it is to the caller."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog

from ds01d.errors import Ds01Error, Malformed, Refused
from ds01d.reporting.message_ids import Event
from ds01d.service import rules
from ds01d.service.client import NOT_POSSIBLE
from ds01d.service.requests import PendingCall
from ds01d.service.rules import unavailable
from ds01d.service.varlink import VarlinkError, method_not_found

Handler = Callable[[PendingCall], object | None]
"""Gives the reply; None: it comes later. Raises `VarlinkError` or another `Ds01Error`."""


def serve_call(request: PendingCall, handlers: Mapping[str, Handler]) -> None:
    """Answer one call. Never raises."""
    handler = handlers.get(request.call.method)
    if handler is None:
        request.fail(method_not_found(request.call.method))
    else:
        answer_call(request, handler)


def answer_call(request: PendingCall, handler: Handler) -> None:
    """Send what a handler gives, or its error; nothing yet if it gives None."""
    try:
        reply = handler(request)
    except Ds01Error as error:
        request.fail(describe_error(error))
    except Exception as error:  # noqa: BLE001 - a bug must not end the worker
        fail_unexpectedly(request, error, describe_error)
    else:
        if reply is not None:
            request.finish(reply)


def fail_unexpectedly(
    request: PendingCall, error: Exception, describe_error: Callable[[Ds01Error], VarlinkError]
) -> None:
    """Answer a call whose handler failed with what it should not raise, and log that."""
    reason = "internal error: see the journal of ds01d"
    if isinstance(error, OSError):  # of the machine: too many open files, no memory, a full disk
        reason = f"ds01d: {error.strerror}"
    # The answer first: what ended the handler may end the logging as well.
    request.fail(describe_error(unavailable(reason)))
    structlog.get_logger().error(
        Event.SERVICE_FAILED,
        reason=f"{request.call.method}: {type(error).__name__}: {error}",
        exc_info=error,
    )


def describe_error(error: Ds01Error) -> VarlinkError:
    """The error reply for what a method raised."""
    if isinstance(error, VarlinkError):
        return error
    if isinstance(error, Malformed):
        return rules.refused("INVALID_NAME", str(error))
    if isinstance(error, Refused):
        return rules.refused(NOT_POSSIBLE, str(error))
    return unavailable(str(error))
