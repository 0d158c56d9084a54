"""All hosts, for the live view: asked over ssh while somebody looks at them, and never before.

In a thread of its own, since the hosts have five seconds and the keys have to work meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from ds01d.cli.ctl.fleet_view import host_blocks
from ds01d.cli.output.blocks import Block, Cell, Sentence, Table, Title, Tone, Toned
from ds01d.errors import Ds01Error
from ds01d.model.fleet import FleetHost
from ds01d.model.primitives import Wall
from ds01d.text import format_span

ASK_EVERY_S: Final = 30.0
"""How often hosts are asked while they are shown."""


class HostPoller:
    """Asks all hosts by `look`, at most every `every_s` seconds, and keeps what they said.

    All methods are for the thread of the screen and never wait.
    """

    def __init__(
        self,
        look: Callable[[], Sequence[FleetHost]],
        *,
        every_s: float = ASK_EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look, self._every_s, self._clock = look, every_s, clock
        self._asked_at: float | None = None
        self._thread: threading.Thread | None = None
        # Replaced as a whole, so that the screen never sees a part of an answer.
        self._answer: tuple[Sequence[FleetHost], Wall] | None = None
        self._problem = ""

    def refresh(self) -> None:
        """Begin to ask, unless that is under way or was done lately."""
        if self._thread is not None and self._thread.is_alive():
            return
        now = self._clock()
        if self._asked_at is not None and now - self._asked_at < self._every_s:
            return
        self._asked_at = now
        self._thread = threading.Thread(target=self._ask, name="hosts", daemon=True)
        self._thread.start()

    def show(self) -> Iterator[Block]:
        """What to draw now; that somebody looks is why they are asked."""
        self.refresh()
        # Not the moment of the state, which stands still while the view is paused.
        return self.list_blocks(Wall(time.time()))

    def list_blocks(self, now: Wall) -> Iterator[Block]:
        """What they said last, and how long ago that was."""
        if self._problem:
            yield Sentence(self._problem, Tone.BAD)
        answer = self._answer
        if answer is None:
            if not self._problem:
                yield Sentence("asking all hosts …", Tone.FAINT)
            return
        hosts, asked_at = answer
        yield Sentence(f"asked {format_span(max(0.0, now - asked_at))} ago", Tone.FAINT)
        yield from host_blocks(hosts, now)
        rows = list(_holder_rows(hosts))
        if rows:
            yield Title("who is where")
            yield Table(("host", "slot", "type", "container", "user", "state"), rows)

    def _ask(self) -> None:
        try:
            hosts = tuple(self._look())
        # Above what they said before, as where this host cannot be read.
        except (Ds01Error, OSError) as error:
            self._problem = f"cannot ask the hosts: {error}"
            return
        self._answer = (hosts, Wall(time.time()))
        self._problem = ""


def _holder_rows(hosts: Sequence[FleetHost]) -> Iterator[Sequence[Cell]]:
    """A row for each who is in a slot of a host that is known."""
    for host in hosts:
        for slot in host.slots:
            for holder in slot.holders:
                place = (host.name, slot.id, slot.kind)
                yield [*place, holder.container, holder.user, holder.state]
            for name in slot.foreign:
                yield [host.name, slot.id, slot.kind, name, None, Toned("not booked", Tone.WARN)]
