"""The calls about a host's part in its fleet, for operators. Served in the fleet's own thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Final

import msgspec

from ds01d.errors import Ds01Error
from ds01d.reconcile.fleet_admin import forget_host, rejoin_fleet, thaw_store
from ds01d.reconcile.fleet_member import FleetMember
from ds01d.reconcile.fleet_ports import FleetBook
from ds01d.service.client import INTERFACE
from ds01d.service.dispatch import Handler
from ds01d.service.requests import PendingCall
from ds01d.service.rules import require_operator
from ds01d.service.varlink import Parameters, parse_parameters

AdminJob = Callable[[FleetMember, FleetBook], str]
AnswerJob = Callable[[str, Ds01Error | None], None]
"""Gets what was done, or why it was not."""
AskMember = Callable[[PendingCall, AdminJob], None]
"""Has something done for a call, which is answered with it later."""
_Text = Annotated[str, msgspec.Meta(max_length=256)]


class RejoinParameters(Parameters, frozen=True):
    as_new: bool | None = None


class ForgetParameters(Parameters, frozen=True):
    host: _Text


class FleetCalls:
    """`ask`: see `AskMember`."""

    def __init__(self, ask: AskMember) -> None:
        self._ask = ask
        self.handlers: Final[Mapping[str, Handler]] = {
            f"{INTERFACE}.FleetRejoin": self._rejoin_fleet,
            f"{INTERFACE}.FleetForget": self._forget_host,
            f"{INTERFACE}.FleetThaw": self._thaw_store,
        }

    # All of them change what counts for everybody: for operators alone.

    def _rejoin_fleet(self, request: PendingCall) -> None:
        require_operator(request.peer)
        as_new = bool(parse_parameters(request.call, RejoinParameters).as_new)
        self._ask(request, lambda member, book: rejoin_fleet(member, book, as_new=as_new))

    def _forget_host(self, request: PendingCall) -> None:
        require_operator(request.peer)
        # By name or by ID: two hosts may have one name.
        host = parse_parameters(request.call, ForgetParameters).host
        self._ask(request, lambda member, book: forget_host(member, book, host))

    def _thaw_store(self, request: PendingCall) -> None:
        require_operator(request.peer)
        parse_parameters(request.call, Parameters)
        self._ask(request, thaw_store)
