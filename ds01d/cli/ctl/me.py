"""`ds01ctl me`: all that a user wants to know of the GPUs in the morning, on one screen."""

from __future__ import annotations

import platform
import time

import click
from msgspec.structs import replace

from ds01d.cli.base.command import CONSISTENT, ERROR, config_option, json_option
from ds01d.cli.base.context import Invocation
from ds01d.cli.base.options import watch_options
from ds01d.cli.ctl.me_sources import PersonalAnswers, PersonalSources
from ds01d.cli.ctl.me_view import personal_blocks
from ds01d.cli.ctl.status import collect_status
from ds01d.cli.ctl.status_document import StatusView
from ds01d.cli.ctl.status_filter import is_free
from ds01d.cli.ctl.status_view import status_warnings
from ds01d.cli.output.display import format_json, show_blocks, show_json
from ds01d.cli.output.watching import WatchedView, watch_view
from ds01d.config import Config
from ds01d.documents.personal import (
    PersonalDocument,
    group_free_slots,
    is_own,
    list_own_drifts,
    list_own_slots,
)
from ds01d.documents.values import DisplayTime, display_time
from ds01d.model.creation import Person
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
    sources = PersonalSources(invocation.environment, config, caller)

    def look(now: Wall) -> tuple[PersonalDocument, StatusView]:
        with invocation.environment.open_world(config) as world:
            view = collect_status(config, world, now)
        return _build_document(view, sources.read_answers(), config, caller.person, now), view

    if watched:
        watch_view(
            lambda now: _watch(look(now)[0], now, as_json=as_json),
            interval,
            f"ds01ctl me on {platform.node()}",
        )
        return CONSISTENT
    now = Wall(time.time())
    document, view = look(now)
    if as_json:
        show_json("me", document)
    else:
        show_blocks(personal_blocks(document, now), now)
    return ERROR if view.books_problem else CONSISTENT


def _watch(document: PersonalDocument, now: Wall, *, as_json: bool) -> WatchedView:
    # A look is no news: its moment and the ages are left out of what is compared.
    quota = document.quota
    if quota is not None and quota.other_hosts is not None:
        other_hosts = replace(quota.other_hosts, at=None)
        quota = replace(quota, other_hosts=other_hosts)
    compared = replace(document, quota=quota)
    key = [getattr(compared, name) for name in document.__struct_fields__ if name != "at"]
    if as_json:
        return WatchedView(lines=[format_json("me", document, indent=None)], key=key)
    return WatchedView(blocks=[*personal_blocks(document, now)], key=key)


def _build_document(
    view: StatusView, answers: PersonalAnswers, config: Config, person: Person, now: Wall
) -> PersonalDocument:
    daemon = view.daemon
    own_slots = list_own_slots(person.name, view.slots)
    # From the same look as the slots, so that no row of one part contradicts another.
    names = frozenset(slot.container for slot in own_slots)
    warnings = [warning.text for warning in status_warnings(view, config, now)]
    return PersonalDocument(
        user=person.name,
        at=DisplayTime(now),
        readings_at=display_time(None if daemon is None else daemon.readings_at),
        slots=own_slots,
        quota=answers.quota,
        drifts=list_own_drifts(names, person.uid, () if daemon is None else daemon.open_drifts),
        findings=tuple(
            finding
            for finding in (() if daemon is None else daemon.findings)
            if is_own(finding.container, names, person.uid)
        ),
        notices=answers.notices.notices,
        notice_requests=answers.notices.requests,
        free=group_free_slots([slot for slot in view.slots if is_free(slot)], answers.quota),
        problems=(*warnings, *answers.problems),
    )
