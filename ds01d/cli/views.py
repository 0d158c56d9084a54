"""What ds01d prints for the commands that `front` answers by one call: as the commands do it.

Each is loaded at its first call: the daemon needs none of it before.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ds01d.errors import Refused
from ds01d.model.primitives import Wall
from ds01d.service.view_calls import View, ViewContext

if TYPE_CHECKING:
    from ds01d.cli.ctl.status_document import StatusView
    from ds01d.cli.ctl.status_output import Form


def _make_status_view(form: Form = "table", *, free: bool = False) -> View:
    def show_status(context: ViewContext) -> Iterable[str]:
        from ds01d.cli.ctl.status_filter import StatusFilter  # noqa: PLC0415
        from ds01d.cli.ctl.status_output import StatusOutput  # noqa: PLC0415

        output = StatusOutput(
            config=context.config,
            form=form,
            only=StatusFilter(user=context.user, free=free),
        )
        now = Wall(time.time())
        view = _build_view(context, now)
        # Names alone leave no place for it: the command writes it to stderr.
        if form == "name" and (doubt := output.describe_doubt(view, now)):
            raise Refused(doubt[0])
        return output.format(view, now)

    return show_status


def _build_view(context: ViewContext, now: Wall) -> StatusView:
    from ds01d.cli.ctl import status  # noqa: PLC0415

    view = status.build_view(
        context.config, context.world, context.status, context.checkpoints, now
    )
    if view.books_problem:
        raise Refused(view.books_problem)
    return view


def _show_allocator_status(context: ViewContext) -> Iterable[str]:
    from ds01d.cli.allocator import queries  # noqa: PLC0415

    return queries.show_status(context.world, context.config, as_json=False)


def _show_allocator_json(context: ViewContext) -> Iterable[str]:
    from ds01d.cli.allocator import queries  # noqa: PLC0415

    return queries.show_status(context.world, context.config, as_json=True)


def _show_user_status(context: ViewContext) -> Iterable[str]:
    from ds01d.cli.allocator import queries  # noqa: PLC0415

    return queries.show_user_status(context.world, context.config, context.user)


VIEWS: Mapping[str, View] = {
    "ds01ctl status": _make_status_view(),
    "ds01ctl status --user": _make_status_view(),
    "ds01ctl status --free": _make_status_view(free=True),
    "ds01ctl status --free -o name": _make_status_view("name", free=True),
    "ds01ctl status -o wide": _make_status_view("wide"),
    "ds01ctl status -o name": _make_status_view("name"),
    "ds01ctl status -o json": _make_status_view("json"),
    "ds01ctl status --json": _make_status_view("json"),
    "ds01-allocator status": _show_allocator_status,
    "ds01-allocator status --json": _show_allocator_json,
    "ds01-allocator user-status": _show_user_status,
}
