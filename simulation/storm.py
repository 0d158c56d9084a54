"""A storm of events over a fake engine's containers, at a steady rate.

Random containers start, end, pause and go on; now and then one is removed. Every event is one that
a watcher of containers subscribes to. `rate` counts those events, a second.
"""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from simulation.fake_containers import FakeContainer, FakeContainers


@dataclass(slots=True, kw_only=True)
class Storm:
    """One storm. `events` that were emitted so far; `removed`: names of containers, in order."""

    containers: FakeContainers
    rate: float
    seconds: float
    removals: int
    seed: int = 1
    events: int = 0
    removed: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Begin, in a thread of its own."""
        threading.Thread(target=self._blow, name="storm", daemon=True).start()

    def _blow(self) -> None:
        chance = random.Random(self.seed)  # noqa: S311 - to be the same again, no secret
        keys = [one.id for one in self.containers.all()]
        chance.shuffle(keys)
        doomed = [keys.pop() for _ in range(min(self.removals, len(keys) - 1))]
        began = time.monotonic()
        while (passed := time.monotonic() - began) < self.seconds:
            share = passed / self.seconds
            while len(self.removed) < share * self.removals and doomed:
                self._remove(doomed.pop())
            while self.events < passed * self.rate:
                self._change(chance.choice(keys))
            time.sleep(0.005)
        while doomed:
            self._remove(doomed.pop())
        self.over.set()

    def _change(self, key: str) -> None:
        one = self.containers.get(key)
        steps: dict[str, Callable[[str], None]] = {
            "running": self.containers.pause if self.events % 3 else self.containers.die,
            "paused": self.containers.unpause,
        }
        steps.get(one.status, self.containers.start)(key)
        self.events += 1

    def _remove(self, key: str) -> None:
        one: FakeContainer = self.containers.get(key)
        self.events += 2 if one.pid else 1  # it dies first
        self.removed.append(one.name)
        self.containers.remove(key)
