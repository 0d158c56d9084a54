"""`container-create --any-host`, `--host` and `--not-host`: the same command, on another host."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import click

from ds01d.adapters.fleet.look import MOST_CONNECTIONS
from ds01d.adapters.host.privileges import user_behind_root
from ds01d.cli.base.command import ERROR
from ds01d.cli.base.context import Invocation
from ds01d.cli.base.fleet_command import FleetRequest, run_on_fleet
from ds01d.cli.base.fleet_options import HostOptions
from ds01d.cli.containers.create_document import refusal_document, remote_document
from ds01d.cli.containers.create_options import check_options, list_options
from ds01d.cli.output.blocks import Facts, Sentence, Tone
from ds01d.cli.output.display import show_blocks, show_json
from ds01d.containers.names import full_name
from ds01d.containers.order import CreateOptions
from ds01d.decide.short_names import split_name
from ds01d.documents.values import Document
from ds01d.errors import Ds01Error, NotPermitted, RefusedByHosts
from ds01d.model.fleet import HostName
from ds01d.model.primitives import ContainerName, Wall

if TYPE_CHECKING:
    from ds01d.cli.base.fleet import Fleet

_COMMAND: Final = "container-create"
# The image decides only between hosts that are equal otherwise, which is worth no long wait.
_IMAGES_LIMIT_S: Final = 15.0


def create_on_fleet(
    invocation: Invocation, options: CreateOptions, hosts: HostOptions, *, as_json: bool
) -> int:
    """Create it on the host that is chosen, and show where; the exit code. Raises `Ds01Error`."""
    check_options(options, guided=False)
    if options.wait and hosts.only_host is None:
        raise click.UsageError("--wait needs one host: there is no queue over hosts")
    if options.slots and hosts.only_host is None:
        raise click.UsageError("--slot needs one host: --host HOST")
    # There it would be a container of root's: ssh carries a login, and no SUDO_UID.
    if user_behind_root(os.environ) is not None:
        raise NotPermitted("another host is asked as you: leave out sudo")
    fleet = invocation.environment.open_fleet(invocation.config())
    request = FleetRequest(
        command=_COMMAND,
        words=_make_words(options),
        done_key="planned" if options.dry_run else "created",
        subject=f'container "{options.name}"',
        container=full_name(options.name or "", invocation.environment.find_caller()),
        count=len(options.slots) or (1 if options.gpus is None else options.gpus),
        find_images=lambda opened, names: _find_images(opened, names, options),
    )
    try:
        name, answer = run_on_fleet(fleet, hosts, request)
    except Ds01Error as error:
        if not as_json:
            raise
        refusal = error.refusal if isinstance(error, RefusedByHosts) else None
        show_json(_COMMAND, refusal_document(str(error), refusal))
        return ERROR
    document = remote_document(name, answer)
    if as_json:
        show_json(_COMMAND, document)
    elif options.dry_run:
        _show_plan(name, document["plan"])
    else:
        _show_created(document)
    return 0


def _make_words(options: CreateOptions) -> list[str]:
    names = [word for word in (options.name, options.framework) if word is not None]
    return [_COMMAND, "--json", *list_options(options), "--", *names]


def _find_images(fleet: Fleet, names: Sequence[HostName], options: CreateOptions) -> list[HostName]:
    """Which of these hosts need not pull the image; those that do not say so do."""
    words = _make_words(replace(options, dry_run=True))

    def is_present(name: HostName) -> bool:
        result = fleet.run_command(name, words, lambda _: None, _IMAGES_LIMIT_S)
        plan = (result.document or {}).get("plan")
        return isinstance(plan, Mapping) and plan.get("image_present") is True

    with ThreadPoolExecutor(MOST_CONNECTIONS, "fleet") as threads:
        answers = [*threads.map(is_present, names)]
    return [name for name, present in zip(names, answers, strict=True) if present]


def _show_plan(host: HostName, plan: Document) -> None:
    rows = plan.items() if isinstance(plan, Mapping) else ()
    facts = Facts([(key.replace("_", " "), value) for key, value in rows])
    heading = Sentence(f"dry run, nothing is changed; would create on {host}:")
    show_blocks([heading, facts], Wall(time.time()))


def _show_created(document: Mapping[str, Document]) -> None:
    host, slots = document["host"], document["slots"]
    shown = ", ".join(map(str, slots)) if isinstance(slots, list) else ""
    gpu = f"on GPU {shown}" if shown else "without a GPU"
    state = "runs" if document["started"] else "is created, not started,"
    name = str(document["container"])
    text = f"{name} {state} {gpu} of {host}, from {document['image']}"
    short, _ = split_name(ContainerName(name))
    verb = "container-enter" if document["started"] else "container-start"
    # Quoted: the name is that host's text, and the line is there to be copied.
    hint = Sentence(f"Go on there: ssh -t {host} {verb} {shlex.quote(short)}")
    show_blocks([Sentence(text, Tone.GOOD), hint], Wall(time.time()))
