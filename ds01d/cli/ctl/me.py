"""`ds01ctl me`: all that a user wants to know of the GPUs in the morning, on one screen."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from pathlib import Path

import click

from ds01d.cli.base.command import CONSISTENT, ERROR, config_option, json_option
from ds01d.cli.base.context import Invocation
from ds01d.cli.base.options import watch_options
from ds01d.cli.ctl.me_view import personal_blocks
from ds01d.cli.ctl.status import collect_status
from ds01d.cli.ctl.status_document import StatusView
from ds01d.cli.ctl.status_filter import is_free
from ds01d.cli.ctl.status_view import status_warnings
from ds01d.cli.output.display import format_json, show_blocks, show_json
from ds01d.cli.output.watching import WatchedView, watch_view
from ds01d.config import Config
from ds01d.documents.notices import OwnNotice, OwnNoticeRequest, OwnNotices, merge_notices
from ds01d.documents.personal import (
    PersonalDocument,
    group_free_slots,
    is_own,
    list_own_drifts,
    list_own_slots,
)
from ds01d.documents.quota import QuotaDocument
from ds01d.documents.values import DisplayTime, display_time
from ds01d.errors import Ds01Error
from ds01d.model.creation import Caller
from ds01d.model.primitives import Wall


@click.command()
@watch_options
@json_option
@config_option
@click.pass_obj
def me(invocation: Invocation, *, watched: bool, interval: float, as_json: bool) -> int:
    """Show what you hold and when it ends, your quota, what waits, what is wrong, what is free.

    It needs no rights. Exit code: 0, or 1 if the books cannot be read; 130 after Ctrl-C.
    """
    config = invocation.config()
    caller = invocation.environment.find_caller()
    if watched:
        watch_view(
            lambda now: _watch(_look(invocation, config, caller, now)[0], now, as_json=as_json),
            interval,
            f"ds01ctl me on {platform.node()}",
        )
        return CONSISTENT
    now = Wall(time.time())
    document, view = _look(invocation, config, caller, now)
    if as_json:
        show_json("me", document)
    else:
        show_blocks(personal_blocks(document, now), now)
    return ERROR if view.books_problem else CONSISTENT


def _watch(document: PersonalDocument, now: Wall, *, as_json: bool) -> WatchedView:
    # A look is no news: its moment and the ages are left out of what is compared.
    key = [getattr(document, name) for name in document.__struct_fields__ if name != "at"]
    if as_json:
        return WatchedView(lines=[format_json("me", document, indent=None)], key=key)
    return WatchedView(blocks=[*personal_blocks(document, now)], key=key)


def _look(
    invocation: Invocation, config: Config, caller: Caller, now: Wall
) -> tuple[PersonalDocument, StatusView]:
    person = caller.person
    with invocation.environment.open_world(config) as world:
        view = collect_status(config, world, now)
    # The daemon sees root behind sudo, and would show root's.
    wanted = person.name if caller.root else None
    quota, quota_problem = _read_quota(invocation, config, wanted)
    notices, requests, notice_problems = _read_notices(invocation, config, person.name, wanted)
    daemon = view.daemon
    own_slots = list_own_slots(person.name, view.slots)
    # From the same look as the slots, so that no row of one part contradicts another.
    names = frozenset(slot.container for slot in own_slots)
    warnings = [warning.text for warning in status_warnings(view, config, now)]
    document = PersonalDocument(
        user=person.name,
        at=DisplayTime(now),
        readings_at=display_time(None if daemon is None else daemon.readings_at),
        slots=own_slots,
        quota=quota,
        drifts=list_own_drifts(names, person.uid, () if daemon is None else daemon.open_drifts),
        findings=tuple(
            finding
            for finding in (() if daemon is None else daemon.findings)
            if is_own(finding.container, names, person.uid)
        ),
        notices=notices,
        notice_requests=requests,
        free=group_free_slots([slot for slot in view.slots if is_free(slot)], quota),
        problems=(*warnings, *filter(None, (quota_problem, *notice_problems))),
    )
    return document, view


def _read_quota(
    invocation: Invocation, config: Config, wanted: str | None
) -> tuple[QuotaDocument | None, str]:
    try:
        return invocation.environment.read_quota(config, wanted), ""
    except (Ds01Error, OSError) as error:
        return None, f"the quota is not known: {error}"


def _read_notices(
    invocation: Invocation, config: Config, user: str, wanted: str | None
) -> tuple[tuple[OwnNotice, ...], tuple[OwnNoticeRequest, ...], Sequence[str]]:
    """The user's notices and requests for one, and what of them cannot be read."""
    from_service, problems = OwnNotices(), []
    # Without a target there are neither, and no call is made for them.
    if config.notify.uses_sender or config.notify.folder is not None:
        try:
            from_service = invocation.environment.read_notices(config, wanted)
        except (Ds01Error, OSError) as error:
            problems.append(f"the notices are not known: {error}")
    alerts, problem = _read_alerts(config.notify.folder, user)
    notices = merge_notices(alerts, from_service.notices)
    return notices, from_service.requests, [*problems, problem]


def _read_alerts(folder: Path | None, user: str) -> tuple[tuple[OwnNotice, ...], str]:
    if folder is None:
        return (), ""
    from ds01d.adapters.alerts_folder import AlertsFolder  # noqa: PLC0415 - few hosts have one

    try:
        # The lab's own greeting reads that file too: here is no second opinion of what is new.
        alerts = AlertsFolder(folder).read(user)
    except Ds01Error as error:
        return (), f"the notices cannot be read: {error}"
    return tuple(
        OwnNotice(type=alert.type, message=alert.message, created_at=at, container=None, slots=())
        for alert, at in alerts
    ), ""
