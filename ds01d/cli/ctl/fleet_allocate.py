"""`ds01ctl allocate --any-host`, `--host` and `--not-host`: the same command, on another host."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import click

from ds01d.cli.base.command import CONSISTENT, print_error
from ds01d.cli.base.fleet_command import FleetRequest, run_on_fleet
from ds01d.cli.base.fleet_options import HostOptions
from ds01d.cli.output.blocks import Sentence, Tone
from ds01d.cli.output.display import show_blocks, show_json
from ds01d.documents.values import Document
from ds01d.errors import Refused
from ds01d.model.primitives import ContainerName, Wall

if TYPE_CHECKING:
    from ds01d.cli.base.fleet import Fleet

_COMMAND: Final = "ds01ctl"
_REFUSED: Final = 3
_TEXTS: Final = ("container", "user", "slot", "docker_id", "id", "until")


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteBooking:
    """The arguments of `ds01ctl allocate` as given."""

    user: str
    container: str | None
    max_slots: int | None
    priority: int | None
    slot: str | None
    count: int
    profile: str | None
    reason: str
    wait: bool

    def make_words(self) -> list[str]:
        """The same command, for another host."""
        words = ["ds01ctl", "allocate", "--json", "--count", str(self.count)]
        options = {
            "--max": self.max_slots,
            "--priority": self.priority,
            "--slot": self.slot,
            "--profile": self.profile,
            "--reason": self.reason or None,
        }
        for option, value in options.items():
            words += [] if value is None else [f"{option}={value}"]
        words += ["--wait"] if self.wait else []
        return [*words, "--", self.user, *([] if self.container is None else [self.container])]


def allocate_on_fleet(
    fleet: Fleet, booking: RemoteBooking, hosts: HostOptions, *, as_json: bool
) -> int:
    """Book on the host that is chosen, and show where; the exit code. Raises `Ds01Error`."""
    if booking.wait and hosts.only_host is None:
        raise click.UsageError("--wait needs one host: there is no queue over hosts")
    if booking.slot is not None and hosts.only_host is None:
        raise click.UsageError("--slot needs one host: --host HOST")
    request = FleetRequest(
        command=_COMMAND,
        words=booking.make_words(),
        done_key="allocated",
        subject=f"a booking for {booking.container or booking.user}",
        container=ContainerName(booking.container or ""),
        count=booking.count,
        profile=booking.profile,
    )
    try:
        name, document = run_on_fleet(fleet, hosts, request)
    except Refused as refusal:
        print_error(_COMMAND, str(refusal))
        return _REFUSED
    answer = _read_document(document)
    if as_json:
        show_json({"host": name, **answer})
        return CONSISTENT
    slots = answer["slots"]
    shown = ", ".join(map(str, slots)) if isinstance(slots, list) else ""
    verb = "already holds" if answer["already"] else "holds"
    text = f"{answer['container']} {verb} {shown} of {name} as {answer['user']}"
    show_blocks([Sentence(text, Tone.GOOD)], Wall(time.time()))
    return CONSISTENT


def _read_document(document: Mapping[str, object]) -> dict[str, Document]:
    """The keys that are known, with values that can be shown."""
    texts = {key: document.get(key) for key in _TEXTS}
    slots = document.get("slots")
    return {
        "allocated": document.get("allocated") is True,
        "already": document.get("already") is True,
        **{key: value if isinstance(value, str) else None for key, value in texts.items()},
        "slots": [str(given.get("slot")) for given in slots if isinstance(given, Mapping)]
        if isinstance(slots, list)
        else [],
    }
