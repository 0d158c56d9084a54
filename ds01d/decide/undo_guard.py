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
    name: ContainerName, engine: Engine, checkpoint: Checkpoint
) -> ContainerFingerprint:
    """The fingerprint of a name in the engine; for one that is gone, its remembered ID."""
    container = engine.by_name.get(name)
    if container is None:
        identity = checkpoint.identities.get(name)
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


def find_repeated_change(drift: Drift, undone: Mapping[str, Undone]) -> tuple[str, Undone] | None:
    """What was taken back and would be done again by `drift`, with the id of the undoing entry."""
    for entry, undone_change in undone.items():
        # By effect, not by kind: the same booking could be taken by another kind of drift in the
        # next pass.
        is_repeated = (
            bool(drift.taken & undone_change.taken)
            or bool(drift.given & undone_change.given)
            or (drift.of_metadata and drift.container in undone_change.records)
            or undone_change.drifts.get(drift.key) == drift.fingerprint
        )
        if is_repeated:
            return entry, undone_change
    return None


def keep_unchanged(index: BooksIndex) -> Mapping[str, Undone]:
    """Of what was taken back, that whose containers, bookings and records are as they were left.

    What cannot be known now counts as unchanged.
    """
    unchanged: dict[str, Undone] = {}
    for entry, undone_change in index.checkpoint.undone.items():
        if _is_unchanged(undone_change, index):
            unchanged[entry] = _fill_digests(undone_change, index)
    return unchanged


def _is_unchanged(undone_change: Undone, index: BooksIndex) -> bool:
    booked = {(name, slot) for name, slots in index.booked_slots.items() for slot in slots}
    if not undone_change.taken <= booked or undone_change.given & booked:
        return False
    engine = index.engine
    if engine is not None:
        for name, before in undone_change.containers.items():
            now = engine.by_name.get(name)
            if (
                ContainerFingerprint(id=before.id) if now is None else fingerprint_container(now)
            ) != before:
                return False
    # What cannot be read now counts as unchanged: otherwise one failed read would repeat what an
    # admin took back.
    if isinstance(index.snapshot.metadata, Unknown):
        return True
    return all(
        digest in ("", _find_digest(name, index)) for name, digest in undone_change.records.items()
    )


def _fill_digests(undone_change: Undone, index: BooksIndex) -> Undone:
    """With the digests that a process which was killed could not note any more."""
    if "" not in undone_change.records.values() or isinstance(index.snapshot.metadata, Unknown):
        return undone_change
    records = {
        name: _find_digest(name, index) if digest == "" else digest
        for name, digest in undone_change.records.items()
    }
    return replace(undone_change, records=records)


def _find_digest(name: ContainerName, index: BooksIndex) -> Digest | None:
    record = index.records.get(name)
    return record.digest if record is not None else None


def drop_obsolete(
    undone: Mapping[str, Undone], drifts: Iterable[Drift], index: BooksIndex
) -> Mapping[str, Undone]:
    """Without those that were about a slot or the whole state, and would not be done again.

    Only where a sweep with all that it needs found none of their drifts: then the subject changed.
    """
    # Only a sweep with every source can show that a drift is gone; a partial pass merely did not
    # look.
    is_complete = index.snapshot.names is None and (
        index.snapshot.gpu is None or _is_sampled(index)
    )
    fingerprints = {drift.key: drift.fingerprint for drift in drifts}
    return {
        entry: undone_change
        for entry, undone_change in undone.items()
        if not (is_complete and undone_change.drifts)
        or any(fingerprints.get(k) == f for k, f in undone_change.drifts.items())
    }


def _is_sampled(index: BooksIndex) -> bool:
    return isinstance(index.snapshot.gpu, Inventory) and not index.snapshot.gpu.incomplete
