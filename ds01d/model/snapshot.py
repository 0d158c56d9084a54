"""Everything observed for one pass. Each source is an answer or an Unknown; nothing in between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ds01d.model.books import AllocatorState, Attempt, BadRecord, Limits, Record, Unreadable
from ds01d.model.containers import Engine
from ds01d.model.devices import Inventory
from ds01d.model.primitives import Boot, ContainerId, ContainerName, Now, Source, Unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What the sources said, at `now`.

    `looked`: when the last one had answered, on CLOCK_BOOTTIME; None: at once.
    `names` limits the pass to some containers; None is a sweep over everything.
    `inventory` is None with `gpu.source = "none"`: the slots in the state are the inventory.
    `metadata` holds every record of the folder, also outside `names`.
    `passwd` maps the numeric uids that end DS01 names to user names, where the host knows them.
    `logins` maps user names to uids: those that labels claim where `passwd` lacks the name's uid.
    `faults` are GPU faults from the kernel's journal: PCI address → message.
    `living` has a pid for each container that has living processes, whatever Docker says; looked
    for only for those about to lose something.
    """

    now: Now
    docker: Engine | Unknown
    gpu: Inventory | Unknown | None
    state: AllocatorState | Unreadable | Unknown
    metadata: Mapping[ContainerName, Record | BadRecord] | Unknown
    operations: Mapping[ContainerName, Attempt] | Unknown
    limits: Limits | Unknown
    names: frozenset[ContainerName] | None = None
    looked: Boot | None = None
    passwd: Mapping[int, str] = field(default_factory=dict)
    logins: Mapping[str, int] = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)
    living: Mapping[ContainerId, int] | Unknown = field(default_factory=dict)

    @property
    def sighted(self) -> Boot:
        """When all that is seen here had surely happened. Waits from a first sight begin then."""
        return self.now.boot if self.looked is None else max(self.now.boot, self.looked)

    def sources(self) -> Mapping[Source, str]:
        """Each source with "ok" or the reason why it did not answer."""
        answers = {
            Source.DOCKER: self.docker,
            Source.NVML: self.gpu,
            Source.STATE: self.state,
            Source.METADATA: self.metadata,
            Source.OPERATIONS: self.operations,
            Source.LIMITS: self.limits,
        }
        return {
            source: answer.reason if isinstance(answer, Unknown | Unreadable) else "ok"
            for source, answer in answers.items()
        }
