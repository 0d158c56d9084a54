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
from ds01d.errors import RefusedByHosts
from ds01d.model.fleet import HostName
from ds01d.model.primitives import ContainerName, Wall

if TYPE_CHECKING:
    from ds01d.cli.base.fleet import Fleet

_COMMAND: Final = "ds01ctl"
# As `ds01ctl allocate` ends where this host refuses.
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
        # Each as one word, so that a value that begins with a dash is no option there.
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
    # The ID of a slot means another GPU on each host.
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
        name, answer = run_on_fleet(fleet, hosts, request)
    except RefusedByHosts as refusal:
        if as_json:
            show_json("allocate", _make_refusal(booking, refusal))
        else:
            print_error(_COMMAND, str(refusal))
        return _REFUSED
    document = _read_answer(name, answer)
    if as_json:
        show_json("allocate", document)
        return CONSISTENT
    shown = ", ".join(given["slot"] for given in _read_slots(answer))
    verb = "already holds" if document["already"] else "holds"
    text = f"{document['container']} {verb} {shown} of {name} as {document['user']}"
    show_blocks([Sentence(text, Tone.GOOD)], Wall(time.time()))
    return CONSISTENT


def _make_refusal(booking: RemoteBooking, refusal: RefusedByHosts) -> dict[str, Document]:
    return {
        "allocated": False,
        "already": False,
        **dict.fromkeys(_TEXTS),
        "container": booking.container,
        "user": booking.user,
        "shared_with": [],
        "slots": [],
        "host": None,
        "refusal": refusal.refusal,
        "reason": str(refusal),
        "notify_until": None,
    }


def _read_answer(host: HostName, answer: Mapping[str, object]) -> dict[str, Document]:
    """The keys that are known, with values of their types."""
    # Of another version of ds01d, or not of ds01d at all: nothing of it is trusted to fit.
    texts = {key: answer.get(key) for key in _TEXTS}
    shared = answer.get("shared_with")
    return {
        "allocated": True,
        "already": answer.get("already") is True,
        **{key: value if isinstance(value, str) else None for key, value in texts.items()},
        "user": str(answer.get("user")),
        "shared_with": [*map(str, shared)] if isinstance(shared, list) else [],
        "slots": _read_slots(answer),
        "host": host,
        "refusal": None,
        "reason": "",
        "notify_until": None,
    }


def _read_slots(answer: Mapping[str, object]) -> list[dict[str, str]]:
    slots = answer.get("slots")
    return [
        {"slot": str(given.get("slot")), "docker_id": str(given.get("docker_id"))}
        for given in (slots if isinstance(slots, list) else ())
        if isinstance(given, Mapping)
    ]
