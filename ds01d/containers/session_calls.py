"""The calls with which users enter their containers, and read what those have written.

A command is started for the caller, who gets the descriptor of its stream and nothing else: from
then on Docker and the caller talk without ds01d, also while it is restarted. What is asked later
(a new size, the exit code) needs no memory of the command.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from ds01d.containers.names import check_owner
from ds01d.containers.service_call import ContainerCall
from ds01d.containers.sessions import SHELL, ContainerSessions
from ds01d.model.primitives import ContainerName
from ds01d.model.session import LogsOrder, SessionId, SessionOrder, TerminalSize
from ds01d.service.container_parameters import (
    EnterParameters,
    LogsParameters,
    ResizeParameters,
    SessionParameters,
)
from ds01d.service.requests import PendingCall
from ds01d.service.varlink import expected_more, invalid_parameter, parse_parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionCalls:
    """`require_confined` raises for a container that may do more than its owner."""

    open_call: Callable[[PendingCall], AbstractContextManager[ContainerCall]]
    require_confined: Callable[[ContainerCall, ContainerName], None]

    def start_session(self, request: PendingCall) -> object:
        wanted = parse_parameters(request.call, EnterParameters)
        # Nobody would get the stream, and the command would run on.
        if request.call.oneway:
            raise invalid_parameter("oneway")
        if (wanted.rows is None) != (wanted.columns is None):
            raise invalid_parameter("rows")
        size = None
        if wanted.rows is not None and wanted.columns is not None:
            size = TerminalSize(rows=wanted.rows, columns=wanted.columns)
        order = SessionOrder(
            command=tuple(SHELL if wanted.command is None else wanted.command),
            environment=tuple(wanted.environment or ()),
            size=size,
        )
        with self.open_call(request) as call:
            # Decision 198: a command has the rights of its container, independent of its creator.
            self.require_confined(call, call.find_own(wanted.name))
            entered = _open_sessions(call).enter_container(wanted.name, order)
        request.attach_stream(entered.stream)
        return {"name": entered.name, "session": entered.session}

    def resize_session(self, request: PendingCall) -> object:
        wanted = parse_parameters(request.call, ResizeParameters)
        size = TerminalSize(rows=wanted.rows, columns=wanted.columns)
        with self.open_call(request) as call:
            _open_sessions(call).resize_session(wanted.name, SessionId(wanted.session), size)
        return {}

    def inspect_session(self, request: PendingCall) -> object:
        wanted = parse_parameters(request.call, SessionParameters)
        with self.open_call(request) as call:
            state = _open_sessions(call).inspect_session(wanted.name, SessionId(wanted.session))
        return {"is_running": state.is_running, "exit_code": state.exit_code}

    def send_logs(self, request: PendingCall) -> object:
        wanted = parse_parameters(request.call, LogsParameters)
        if not request.call.more:
            raise expected_more()
        order = LogsOrder(
            follow=bool(wanted.follow),
            tail=wanted.tail,
            since=wanted.since,
            timestamps=bool(wanted.timestamps),
        )
        with self.open_call(request) as call:
            stream, has_frames = _open_sessions(call).open_logs(wanted.name, order)

        def encode_part(data: bytes) -> object:
            return {"data": base64.b64encode(data).decode(), "has_frames": has_frames}

        request.attach_stream(stream, encode_part)
        return encode_part(b"")


def _open_sessions(call: ContainerCall) -> ContainerSessions:
    return ContainerSessions(
        engine=call.context.engine,
        sessions=call.services.sessions,
        resolve=call.find_own,
        check_owner=lambda container: check_owner(container, call.caller),
    )
