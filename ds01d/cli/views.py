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


def _show_status(context: ViewContext) -> Iterable[str]:
    from ds01d.cli.ctl import status_view  # noqa: PLC0415
    from ds01d.cli.output.display import format_blocks  # noqa: PLC0415

    now = Wall(time.time())
    return format_blocks(
        status_view.status_blocks(_build_view(context, now), context.config, now), now
    )


def _show_status_json(context: ViewContext) -> Iterable[str]:
    from ds01d.cli.ctl import status_document  # noqa: PLC0415
    from ds01d.cli.output.display import format_json  # noqa: PLC0415

    return [format_json(status_document.status_document(_build_view(context, Wall(time.time()))))]


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
    "ds01ctl status": _show_status,
    "ds01ctl status --json": _show_status_json,
    "ds01-allocator status": _show_allocator_status,
    "ds01-allocator status --json": _show_allocator_json,
    "ds01-allocator user-status": _show_user_status,
}
