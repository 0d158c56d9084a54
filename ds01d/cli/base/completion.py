"""Shell completion: slots, names, history entries, own containers, images.

Reads with short timeouts and never prints errors: a source that fails offers nothing. Words with
shell syntax are never offered: shells insert a word as it is, and names in the books are written by
other users.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import click

from ds01d.cli.base.context import Invocation
from ds01d.config import Config
from ds01d.errors import Ds01Error

if TYPE_CHECKING:
    from ds01d.model.books import Slot
    from ds01d.model.primitives import SlotId

_PATIENCE_S = 2.0
_PLAIN = re.compile(r"[\w.:@%+,=/][\w.:@%+,=/#-]*")
_ALIVE = frozenset({"running", "paused", "restarting"})

_Completer = Callable[[click.Context, click.Parameter, str], list[str]]


def _make_completer(look: Callable[[Invocation, Config], Iterable[str]]) -> _Completer:
    """Make a completer of what gives every possible word."""

    def complete(context: click.Context, _: click.Parameter, begun: str) -> list[str]:
        # None where the shell completes before the options have been read.
        invocation = context.find_object(Invocation)
        try:
            words = [] if invocation is None else sorted({*look(invocation, invocation.config())})
        # An error printed here would garble the command line being typed.
        except (Ds01Error, OSError, ValueError):
            return []
        # The shell inserts a word unquoted, and names in the books are written by other users.
        return [word for word in words if word.startswith(begun) and _PLAIN.fullmatch(word)]

    return complete


def _read_slots(config: Config) -> Mapping[SlotId, Slot]:
    """The slots in the books; none if they cannot be read."""
    from ds01d.bootstrap_books import open_books  # noqa: PLC0415 - only where Tab is pressed
    from ds01d.model.books import AllocatorState  # noqa: PLC0415

    with open_books(config) as world:
        state = world.state.read()
    return state.slots if isinstance(state, AllocatorState) else {}


def _list_slots(_: Invocation, config: Config) -> Iterable[str]:
    return _read_slots(config)


def _list_profiles(_: Invocation, config: Config) -> Iterable[str]:
    return (slot.profile or slot.type.value for slot in _read_slots(config).values())


def _list_containers(_: Invocation, config: Config) -> Iterable[str]:
    for slot in _read_slots(config).values():
        yield from slot.containers
    yield from (file.stem for file in config.books.metadata.glob("*.json"))


def _list_subjects(invocation: Invocation, config: Config) -> Iterable[str]:
    yield from _read_slots(config)
    yield from _list_containers(invocation, config)


def _list_users(_: Invocation, config: Config) -> Iterable[str]:
    for slot in _read_slots(config).values():
        yield from slot.users


def _list_entries(invocation: Invocation, config: Config) -> Iterable[str]:
    from ds01d.decide.history_outcomes import join_entries  # noqa: PLC0415 - heavy
    from ds01d.reconcile.history import read_entries  # noqa: PLC0415

    return (
        entry.entry.id
        for entry in join_entries(read_entries(invocation.environment.read_history(config)))
    )


def _list_frameworks(_: Invocation, config: Config) -> Iterable[str]:
    from ds01d.adapters.host.image_catalogue import find_catalogue, read_catalogue  # noqa: PLC0415 - as above

    for image in read_catalogue(find_catalogue(config.containers.frameworks)).images:
        yield from (image.framework, image.title)


def _list_hosts(_: Invocation, config: Config) -> Iterable[str]:
    from ds01d.adapters.fleet.hosts_file import list_hosts  # noqa: PLC0415 - as above

    return list_hosts(config.fleet)


def _complete_own(accepts: Callable[[str], bool]) -> _Completer:
    """Own containers in such a state of Docker's, by their short names; for root anybody's."""

    def list_own(invocation: Invocation, config: Config) -> Iterable[str]:
        from ds01d.adapters.docker.http_client import HttpClient  # noqa: PLC0415 - heavy
        from ds01d.decide.short_names import split_name  # noqa: PLC0415
        from ds01d.model.primitives import ContainerName  # noqa: PLC0415

        caller = invocation.environment.find_caller()
        # Straight from Docker with a short timeout: Tab must not hang while a pass would retry.
        listed = HttpClient(config.docker.url, _PATIENCE_S).get("/containers/json", {"all": "1"})
        for container in json.loads(listed):
            full = ContainerName(str(container["Names"][0]).removeprefix("/"))
            short, uid = split_name(full)
            if uid is not None and accepts(container["State"]):
                if uid == caller.person.uid:
                    yield short
                elif caller.root:
                    yield full

    return _make_completer(list_own)


slots = _make_completer(_list_slots)
profiles = _make_completer(_list_profiles)
names = _make_completer(_list_containers)
subjects = _make_completer(_list_subjects)
users = _make_completer(_list_users)
entries = _make_completer(_list_entries)
frameworks = _make_completer(_list_frameworks)
hosts = _make_completer(_list_hosts)
own_containers = _complete_own(lambda _: True)
own_running = _complete_own(lambda state: state in _ALIVE)
own_stopped = _complete_own(lambda state: state not in _ALIVE)
