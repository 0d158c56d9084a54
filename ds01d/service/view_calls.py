"""Show: the whole output of a command that only looks, so that its client has to load nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import msgspec

from ds01d.config import Config
from ds01d.model.primitives import UserName
from ds01d.reconcile.checkpoint_store import CheckpointStore
from ds01d.reconcile.ports import World
from ds01d.reporting.status import Status
from ds01d.service.client import INTERFACE
from ds01d.service.dispatch import Handler
from ds01d.service.requests import PendingCall
from ds01d.service.rules import unavailable
from ds01d.service.varlink import invalid_parameter, parse_parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewContext:
    """What is shown from. `status`: as it was published last."""

    config: Config
    world: World
    checkpoints: CheckpointStore
    status: Status
    user: UserName


View = Callable[[ViewContext], Iterable[str]]
"""The lines of a command. Raises `Ds01Error` where the command itself has to print."""


class ShowParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    command: Annotated[str, msgspec.Meta(max_length=256)]
    config: Annotated[str, msgspec.Meta(max_length=4096)]
    user: Annotated[str, msgspec.Meta(max_length=256)] | None = None


class ViewCalls:
    """Serves them for the configuration in `file`; None: for none.

    `find_context`: for a user, at each call.
    """

    def __init__(
        self,
        find_context: Callable[[UserName], ViewContext],
        views: Mapping[str, View],
        file: Path | None,
    ) -> None:
        self._find_context, self._views = find_context, views
        self._file = None if file is None else file.absolute()
        self.handlers: Final[Mapping[str, Handler]] = {f"{INTERFACE}.Show": self._show_view}

    def _show_view(self, request: PendingCall) -> object:
        wanted = parse_parameters(request.call, ShowParameters)
        view = self._views.get(wanted.command)
        if view is None:
            raise invalid_parameter("command")
        # Decision 190: a private configuration shows its own books, not those of this ds01d.
        if self._file is None or wanted.config != str(self._file):
            raise unavailable(f"ds01d goes by another configuration: {self._file}")
        lines = view(self._find_context(UserName(wanted.user or "")))
        return {"output": "".join(f"{line}\n" for line in lines)}
