"""What was taken back is not done again, until an admin thaws it or its subject changes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from ds01d.decide.index import BooksIndex
from ds01d.model.checkpoint import Checkpoint, Undone
from ds01d.model.containers import Container, Engine
from ds01d.model.devices import Inventory
from ds01d.model.drift import Drift
from ds01d.model.history import ContainerFingerprint
from ds01d.model.primitives import ContainerName, Digest, Unknown


def fingerprint_name(
    name: ContainerName, engine: Engine, memory: Checkpoint
) -> ContainerFingerprint:
    """What the engine says of a name; of one that is gone, the id that is remembered."""
    container = engine.by_name.get(name)
    if container is None:
        identity = memory.identities.get(name)
        return ContainerFingerprint(id="" if identity is None else identity.id)
    return fingerprint_container(container)


def fingerprint_container(container: Container) -> ContainerFingerprint:
    """A container, as far as it is to stay the same. Living states may change into each other."""
    alive = container.state.alive
    return ContainerFingerprint(
        id=container.id,
        state="alive" if alive else container.state.value,
        since=container.started if alive else container.finished,
    )


def find_contradiction(drift: Drift, undone: Mapping[str, Undone]) -> tuple[str, Undone] | None:
    """What was taken back and would be done again by `drift`, with the id of the undoing entry."""
    for entry, one in undone.items():
        again = (
            bool(drift.taken & one.taken)
            or bool(drift.given & one.given)
            or (drift.of_metadata and drift.container in one.records)
            or one.drifts.get(drift.key) == drift.fingerprint
        )
        if again:
            return entry, one
    return None


def keep_unchanged(view: BooksIndex) -> Mapping[str, Undone]:
    """Of what was taken back, that whose containers, bookings and records are as they were left.

    What cannot be known now counts as unchanged.
    """
    kept: dict[str, Undone] = {}
    for entry, one in view.checkpoint.undone.items():
        if _is_unchanged(one, view):
            kept[entry] = _fill_digests(one, view)
    return kept


def _is_unchanged(one: Undone, view: BooksIndex) -> bool:
    booked = {(name, slot) for name, slots in view.booked_slots.items() for slot in slots}
    if not one.taken <= booked or one.given & booked:
        return False
    engine = view.engine
    if engine is not None:
        for name, before in one.containers.items():
            now = engine.by_name.get(name)
            if (
                ContainerFingerprint(id=before.id) if now is None else fingerprint_container(now)
            ) != before:
                return False
    if isinstance(view.snapshot.metadata, Unknown):
        return True
    return all(left in ("", _find_digest(name, view)) for name, left in one.records.items())


def _fill_digests(one: Undone, view: BooksIndex) -> Undone:
    """With the digests that a process which was killed could not note any more."""
    if "" not in one.records.values() or isinstance(view.snapshot.metadata, Unknown):
        return one
    records = {
        name: _find_digest(name, view) if left == "" else left for name, left in one.records.items()
    }
    return replace(one, records=records)


def _find_digest(name: ContainerName, view: BooksIndex) -> Digest | None:
    there = view.find_any_record(name)
    return there.digest if there is not None else None


def drop_obsolete(
    undone: Mapping[str, Undone], drifts: Iterable[Drift], view: BooksIndex
) -> Mapping[str, Undone]:
    """Without those that were about a slot or the whole state, and would not be done again.

    Only where a sweep with all that it needs found none of their drifts: then the subject changed.
    """
    whole = view.snapshot.names is None and (view.snapshot.gpu is None or _is_sampled(view))
    there = {drift.key: drift.fingerprint for drift in drifts}
    return {
        entry: one
        for entry, one in undone.items()
        if not (whole and one.drifts) or any(there.get(k) == f for k, f in one.drifts.items())
    }


def _is_sampled(view: BooksIndex) -> bool:
    return isinstance(view.snapshot.gpu, Inventory) and not view.snapshot.gpu.incomplete
