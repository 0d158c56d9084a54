"""What the checkpoint has about a container, a slot, and the host, as documents."""

from __future__ import annotations

from collections.abc import Iterable

from ds01d.decide.checkpoint_clock import list_freezes_in_force
from ds01d.decide.engine_identity import describe_engine
from ds01d.decide.freezes import EVERYTHING
from ds01d.documents.values import DisplayTime, Document, Section, display_boot, display_time
from ds01d.model.checkpoint import Checkpoint, Freeze
from ds01d.model.containers import Container
from ds01d.model.primitives import ContainerName, Now, SlotId


def container_checkpoint(
    name: ContainerName, container: Container | None, checkpoint: Checkpoint, now: Now
) -> Section:
    """Identity, first-seen times, deadlines and back-off of a container."""
    identity = checkpoint.identities.get(name)
    appeared, destroyed = checkpoint.appeared.get(name), checkpoint.destroyed.get(name)
    resolved = checkpoint.resolved.get(container.id) if container is not None else None
    run = checkpoint.idle.get(container.id) if container is not None else None
    return {
        "container_id": identity.id if identity is not None else None,
        "last_alive": display_boot(identity.alive_at, now) if identity is not None else None,
        "devices_meant_at_start": sorted(resolved.devices)
        if resolved is not None and resolved.devices is not None
        else None,
        "booking_appeared": display_boot(appeared.at, now) if appeared is not None else None,
        "booked_before_ds01d": appeared.inherited if appeared is not None else None,
        "idle_since": display_boot(run.since, now) if run is not None else None,
        "absent_since": display_boot(checkpoint.absent.get(name), now),
        "destroyed": display_boot(destroyed[1], now) if destroyed is not None else None,
        "unlabelled_last_seen": display_boot(checkpoint.unlabelled.get(name), now),
        "starts": [
            {
                "of": key.partition("|")[0],
                "as_written": start.anchor,
                "at": display_boot(start.at, now),
            }
            for key, start in checkpoint.starts.items()
            if key.partition("|")[2] == name
        ],
        **_repair_section(name, checkpoint, now),
    }


def slot_checkpoint(slot: SlotId, checkpoint: Checkpoint, now: Now) -> Section:
    """The device of a slot, with its drifts and repairs."""
    return {"device": checkpoint.slots.get(slot), **_repair_section(slot, checkpoint, now)}


def freeze_document(freeze: Freeze) -> Section:
    """A freeze; subject None stands for everything."""
    return {
        "subject": None if freeze.subject == EVERYTHING else freeze.subject,
        "by": freeze.by,
        "reason": freeze.reason,
        "since": DisplayTime(freeze.since),
        "until": display_time(freeze.until),
    }


def host_checkpoint(checkpoint: Checkpoint, now: Now) -> Section:
    """What applies to every wait: since when it counts, and which engine is trusted."""
    return {
        "waits_count_since": display_boot(checkpoint.since, now),
        "engine": None if checkpoint.engine is None else describe_engine(checkpoint.engine),
        "other_engine": None
        if checkpoint.untrusted_engine is None
        else describe_engine(checkpoint.untrusted_engine),
        "inventory_changed": display_boot(checkpoint.inventory_changed, now),
    }


def freezes_on(subjects: Iterable[str], checkpoint: Checkpoint, now: Now) -> tuple[Freeze, ...]:
    """The freezes in force on any of the subjects, that on everything included."""
    wanted = {EVERYTHING, *subjects}
    return tuple(
        freeze for freeze in list_freezes_in_force(checkpoint, now) if freeze.subject in wanted
    )


def _repair_section(subject: str, checkpoint: Checkpoint, now: Now) -> Section:
    """First-seen times and repairs whose key names the subject."""
    repairs: list[Document] = [
        {
            "drift": key.drift.kind,
            "times": record.times,
            "last": DisplayTime.from_boot(record.last, now),
            "not_before": DisplayTime.from_boot(record.not_before, now),
        }
        for key, record in checkpoint.repairs.items()
        if subject in key.drift
    ]
    return {
        "sightings": [
            {"drift": key.kind, "first_seen": DisplayTime.from_boot(record.first, now)}
            for key, record in checkpoint.sightings.items()
            if subject in key
        ],
        "repairs": repairs,
    }
