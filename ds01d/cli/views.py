"""What ds01d prints for the commands that `front` answers by one call: as the commands do it.

Each is loaded at its first call: the daemon needs none of it before.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from ds01d.config import Config
from ds01d.errors import Refused
from ds01d.model.primitives import UserName, Wall
from ds01d.reconcile.ports import World
from ds01d.service.view_calls import View


def _show_status(config: Config, world: World, _: str) -> Iterable[str]:
    from ds01d.cli.ctl import status, status_view  # noqa: PLC0415
    from ds01d.cli.output.display import format_blocks  # noqa: PLC0415

    now = Wall(time.time())
    view = status.collect_status(config, world, now)
    if view.books_problem:
        raise Refused(view.books_problem)
    return format_blocks(status_view.status_blocks(view, config, now), now)


def _show_status_json(config: Config, world: World, _: str) -> Iterable[str]:
    from ds01d.cli.ctl import status, status_document  # noqa: PLC0415
    from ds01d.cli.output.display import format_json  # noqa: PLC0415

    view = status.collect_status(config, world, Wall(time.time()))
    if view.books_problem:
        raise Refused(view.books_problem)
    return [format_json(status_document.status_document(view))]


def _show_allocator_status(config: Config, world: World, _: str) -> Iterable[str]:
    from ds01d.cli.allocator import queries  # noqa: PLC0415

    return queries.show_status(world, config, as_json=False)


def _show_allocator_json(config: Config, world: World, _: str) -> Iterable[str]:
    from ds01d.cli.allocator import queries  # noqa: PLC0415

    return queries.show_status(world, config, as_json=True)


def _show_user_status(config: Config, world: World, user: str) -> Iterable[str]:
    from ds01d.cli.allocator import queries  # noqa: PLC0415

    return queries.show_user_status(world, config, UserName(user))


VIEWS: Mapping[str, View] = {
    "ds01ctl status": _show_status,
    "ds01ctl status --json": _show_status_json,
    "ds01-allocator status": _show_allocator_status,
    "ds01-allocator status --json": _show_allocator_json,
    "ds01-allocator user-status": _show_user_status,
}
