"""What ds01d remembers of a container, a slot, and the host, as documents."""

from __future__ import annotations

from collections.abc import Iterable

from ds01d.cli.ctl.explain_sections import Section
from ds01d.cli.output.blocks import Document
from ds01d.cli.output.text import DisplayTime
from ds01d.decide.engine_identity import describe_engine
from ds01d.decide.gate import anchor_freeze
from ds01d.decide.gate import is_in_force as still
from ds01d.decide.update_checkpoint import is_ahead_of_clock
from ds01d.model.checkpoint import Checkpoint, DriftFirstSeen, Freeze
from ds01d.model.containers import Container
from ds01d.model.primitives import Boot, ContainerName, Now, SlotId


def container_checkpoint(
    name: ContainerName, there: Container | None, memory: Checkpoint, now: Now
) -> Section:
    """Identity, first sights, deadlines and back-off of a container."""

    def when(moment: Boot | None) -> DisplayTime | None:
        return None if moment is None else DisplayTime.of(moment, now)

    identity = memory.identities.get(name)
    appeared, gone = memory.appeared.get(name), memory.destroyed.get(name)
    meant = memory.resolved.get(there.id) if there is not None else None
    return {
        "container_id": identity.id if identity is not None else None,
        "last_alive": when(identity.alive_at) if identity is not None else None,
        "devices_meant_at_start": sorted(meant.devices)
        if meant is not None and meant.devices is not None
        else None,
        "booking_appeared": when(appeared.at) if appeared is not None else None,
        "booked_before_ds01d": appeared.inherited if appeared is not None else None,
        "absent_since": when(memory.absent.get(name)),
        "destroyed": when(gone[1]) if gone is not None else None,
        "unlabelled_last_seen": when(memory.unlabelled.get(name)),
        "starts": [
            {"of": key.partition("|")[0], "as_written": start.anchor, "at": when(start.at)}
            for key, start in memory.starts.items()
            if key.partition("|")[2] == name
        ],
        **_repair_section(name, memory, now),
    }


def slot_checkpoint(slot: SlotId, memory: Checkpoint, now: Now) -> Section:
    """The device behind a slot, and what was seen and repaired of it."""
    return {"device": memory.slots.get(slot), **_repair_section(slot, memory, now)}


def host_checkpoint(memory: Checkpoint, now: Now) -> Section:
    """What holds for every wait: since when it counts, and which engine is trusted."""
    return {
        "waits_count_since": None if memory.since is None else DisplayTime.of(memory.since, now),
        "engine": None if memory.engine is None else describe_engine(memory.engine),
        "other_engine": None if memory.stranger is None else describe_engine(memory.stranger),
        "inventory_changed": None
        if memory.inventory_changed is None
        else DisplayTime.of(memory.inventory_changed, now),
    }


def freezes_on(subjects: Iterable[str], memory: Checkpoint, now: Now) -> tuple[Freeze, ...]:
    """The freezes in force on any of the subjects, that on everything included."""
    wanted = {"*", *subjects}
    return tuple(one for one in freezes_in_force(memory, now) if one.subject in wanted)


def freezes_in_force(memory: Checkpoint, now: Now) -> tuple[Freeze, ...]:
    """Every freeze that has not ended."""
    same_clock = memory.boot_id == now.boot_id and not is_ahead_of_clock(memory, now)
    known = (one if same_clock else anchor_freeze(one, now) for one in memory.freezes.values())
    return tuple(one for one in known if still(one, now))


def _repair_section(subject: str, memory: Checkpoint, now: Now) -> Section:
    """Sightings and repairs whose key names the subject."""
    sighted: list[tuple[str, DriftFirstSeen]] = [
        (key, one) for key, one in memory.sightings.items() if subject in key.split("|")
    ]
    repairs: list[Document] = [
        {
            "drift": key.partition("|")[0],
            "times": one.times,
            "last": DisplayTime.of(one.last, now),
            "not_before": DisplayTime.of(one.not_before, now),
        }
        for key, one in memory.repairs.items()
        if subject in key.split("|")[:3]
    ]
    return {
        "sightings": [
            {"drift": key.partition("|")[0], "first_seen": DisplayTime.of(one.first, now)}
            for key, one in sighted
        ],
        "repairs": repairs,
    }
