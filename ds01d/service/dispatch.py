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
    except Exception as error:  # noqa: BLE001 - a bug must not end the worker
        request.fail(_describe_error(request.call.method, error))
    else:
        if reply is not None:
            request.finish(reply)


def _describe_error(method: str, error: Exception) -> VarlinkError:
    if isinstance(error, VarlinkError):
        return error
    if isinstance(error, Malformed):
        return rules.refused("INVALID_NAME", str(error))
    if isinstance(error, Refused):
        return rules.refused(NOT_POSSIBLE, str(error))
    if isinstance(error, Ds01Error):
        return unavailable(str(error))
    structlog.get_logger().error(
        Event.SERVICE_FAILED, reason=f"{method}: {type(error).__name__}: {error}", exc_info=error
    )
    return unavailable("internal error: see the journal of ds01d")
