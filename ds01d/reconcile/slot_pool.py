"""Gathers what the choice of slots needs: the GPUs, who uses them, limits and books.

Docker and NVML are asked apart from the books, whose lock must not wait for them.
"""

from __future__ import annotations

from dataclasses import dataclass

from ds01d.config import Config
from ds01d.decide.bookings import Bookings
from ds01d.decide.boot_layout import find_partial_layout
from ds01d.decide.device_resolution import index_devices
from ds01d.decide.plausibility import check_plausible
from ds01d.decide.published_use import join_uses, known_requests
from ds01d.decide.slot_offers import Pool
from ds01d.decide.usage import slot_devices, users_by_slot
from ds01d.errors import BooksUnreadable, Refused
from ds01d.model.devices import Inventory
from ds01d.model.limits import Limits
from ds01d.model.primitives import ContainerName, Now, Unknown
from ds01d.model.usage import PublishedUse, Running
from ds01d.reconcile.books_ports import BooksWorld


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedUse:
    """Who uses which devices, by the published status and by Docker (None: not asked)."""

    published: PublishedUse | None
    running: Running | Unknown | None
    gpu: Inventory | Unknown | None


class PoolBuilder:
    """Builds the pool of slots of one world."""

    def __init__(self, world: BooksWorld, config: Config) -> None:
        self._world, self._config = world, config

    def begin_sample(self) -> Now:
        """Have NVML sampled while other things are read; the moment for `observe_use`."""
        # Decision 219: NVML takes longest, and the rest is read meanwhile.
        asked = self._world.clock.now()
        if self._world.gpu is not None:
            self._world.gpu.prefetch()
        return asked

    def observe_use(self, asked: Now) -> ObservedUse:
        """Ask Docker and NVML; the sample of the GPUs is not older than `asked`."""
        # Decision 75: a device that a living container requests is taken, booked or not.
        published, running = self._read_running()
        # Decision 202: a container may be younger than the derived books, and nobody booked it.
        doubt = running.reason if isinstance(running, Unknown) else running and running.problem
        if doubt and self._config.books.kind == "docker":
            raise BooksUnreadable(doubt)
        return ObservedUse(published=published, running=running, gpu=self._sample_gpus(asked))

    def require_none_alive(self, name: ContainerName) -> None:
        """Raise `Refused` if a container of that name lives, or Docker does not say so."""
        _, running = self._read_running()
        # Where no Docker listens, nobody can have made a container since the booking.
        if isinstance(running, Unknown) and not running.missing:
            raise Refused(f"cannot see whether {name} exists: {running.reason}")
        if isinstance(running, Running) and name in running.names.values():
            raise Refused(f"a container with the name {name} exists")

    def _read_running(self) -> tuple[PublishedUse | None, Running | Unknown | None]:
        """What ds01d published, and what Docker says now of the containers that live."""
        world = self._world
        published = None if world.published is None else world.published.read_use()
        running = None if world.running is None else world.running.read(known_requests(published))
        return published, running

    def build_pool(
        self, books: Bookings, observed: ObservedUse, limits: Limits | Unknown
    ) -> tuple[Pool, str]:
        """What `choose_slot` needs, and why the use of GPUs may be incomplete ("" if it is not)."""
        now, gpu, published = self._world.clock.now(), observed.gpu, observed.published
        index = index_devices(gpu, books.state)
        uses, unsure = join_uses(published, observed.running, index, self._config, now.wall)
        pool = Pool(
            state=books.state,
            records=books.records,
            gpu=gpu,
            limits=limits,
            now=now.wall,
            foreign_users=users_by_slot(uses, slot_devices(books.state, gpu), gpu),
            sharing=self._config.allocator.sharing,
            whole_gpus=self._config.books.whole_gpus,
            partial=find_partial_layout(
                gpu,
                books.state,
                published.inventory if published is not None else "",
                now,
                boot_grace_s=self._config.policy.boot_grace_s,
            ),
        )
        return pool, unsure

    def _sample_gpus(self, asked: Now) -> Inventory | Unknown | None:
        """A sample of the GPUs begun at `asked` or later; an implausible one is `Unknown`."""
        if self._world.gpu is None:
            return None
        gpu = self._world.gpu.sample(not_before=asked.boot)
        grace = self._config.policy.boot_grace_s
        # Decision 133: fewer devices than before the boot are plausible here; `find_partial_layout`
        # decides what may be handed out of them.
        return check_plausible(gpu, remembered=0, now=asked, boot_grace_s=grace)
