"""Proves again, right before the write, what takes something away: by inspects and by processes.

Invariant 3: the snapshot may be seconds old, and a slot that is released while its container came
back would be given to somebody else. Before the books' lock is taken, because an inspect may take
seconds and allocations wait for that lock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ds01d.decide.decision import Decision
from ds01d.decide.drift_groups import repair_groups
from ds01d.decide.fresh_proof import find_contradiction
from ds01d.decide.index import BooksIndex
from ds01d.decide.liveness import describe_living
from ds01d.model.books import Record
from ds01d.model.containers import Container, NotFound
from ds01d.model.drift import Drift, DriftKey
from ds01d.model.holding import Free, Proof
from ds01d.model.primitives import ContainerId, ContainerName, Unknown
from ds01d.reconcile.ports import World

_Answer = tuple[Container | NotFound | Unknown, str | None]
"""What Docker answers now, and why that contradicts the decision; None if it does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """The drifts that may be repaired, and why the others may not, by key.

    `failed`: a source gave no answer; `postponed`: it contradicts what was decided. `living`: the
    containers that were looked for and have a process, with its pid.
    """

    proven: tuple[Drift, ...]
    failed: dict[DriftKey, str] = field(default_factory=dict)
    postponed: dict[DriftKey, str] = field(default_factory=dict)
    living: Mapping[ContainerId, int] | Unknown = field(default_factory=dict)


def confirm_drifts(decision: Decision, due: Sequence[Drift], world: World) -> Confirmation:
    """Ask again about the drifts that are due. One that takes nothing needs no proof."""
    failed: dict[DriftKey, str] = {}
    postponed: dict[DriftKey, str] = {}
    # Changes of one group (swapped names, a table) are confirmed together, or not at all.
    refuted: set[str] = set()
    groups = repair_groups(due)
    for drift in sorted((d for d in due if d.container and d.takes), key=lambda d: d.key):
        if groups[drift.key] in refuted:
            continue
        answer, reason = _inspect_again(drift, decision, world)
        if reason is not None:
            refuted.add(groups[drift.key])
            reasons = failed if isinstance(answer, Unknown) else postponed
            reasons |= {d.key: reason for d in due if groups[d.key] == groups[drift.key]}
    left = [d for d in due if groups[d.key] not in refuted]
    # Decision 60: Docker may call a container exited whose processes the kernel still runs; the
    # slot would be given to somebody else while its GPU is in use.
    names = {d.container for d in left if d.container and d.takes and not d.renamed_to}
    ids = decision.find_inactive_ids(names)
    living = world.processes.find_living(ids) if ids else {}
    for name in names:
        alive = describe_living(decision.find_inactive_ids({name}), living)
        if alive is not None:
            refuted |= {groups[d.key] for d in left if d.container == name}
            reasons = failed if isinstance(living, Unknown) else postponed
            reasons |= {d.key: alive for d in left if d.container == name}
    proven = tuple(d for d in due if groups[d.key] not in refuted)
    return Confirmation(proven=proven, failed=failed, postponed=postponed, living=living)


def _inspect_again(drift: Drift, decision: Decision, world: World) -> _Answer:
    """Inspect a container that is to lose a booking."""
    name, index = drift.container, decision.index
    if name is None or index is None:
        return NotFound(), None
    if drift.renamed_to is not None:
        return _inspect_renamed(name, drift.renamed_to, index, world)
    if name in index.renames.orphans:
        return _inspect_orphan(index.checkpoint.identities[name].id, world)
    verdict, before = decision.verdicts[name], index.containers.get(name)
    listed_id = before.id if before is not None else None
    known_id = verdict.known_id if isinstance(verdict, Free) else listed_id
    answer = world.engine.look_up(name, known_id)
    reason = find_contradiction(verdict, before, answer)
    if (
        reason is not None
        or not isinstance(verdict, Free)
        or verdict.proof not in (Proof.ABSENT, Proof.PROCESS_ENDED)
    ):
        return answer, reason
    return _look_for_claimants(name, index, world)


def _look_for_claimants(name: ContainerName, index: BooksIndex, world: World) -> _Answer:
    """List the containers that may claim a reservation: there must be no new one."""
    record = index.records.get(name)
    if not isinstance(record, Record) or record.booking is None:
        return NotFound(), None
    # Decision 231: what a process reserved is claimed by its device as well.
    is_by_device = bool(record.processes)
    listed = world.engine.list_claimants(None if is_by_device else record.booking)
    if isinstance(listed, Unknown):
        return listed, f"cannot be verified: {listed.reason}"
    # Decision 183: those that the snapshot has were judged with it, and rejected.
    new = sorted(listed - (index.engine.containers.keys() if index.engine is not None else set()))
    if not new:
        return NotFound(), None
    claims = "is new, and may claim" if is_by_device else "claims"
    return NotFound(), f"container {new[0][:12]} {claims} {record.booking}"


def _inspect_orphan(known_id: ContainerId, world: World) -> _Answer:
    """Inspect, by its ID alone, a container whose name another one has taken: it must be gone."""
    answer = world.engine.look_up(ContainerName(known_id), known_id)
    if isinstance(answer, Unknown):
        return answer, f"could not be confirmed: {answer.reason}"
    return answer, None if isinstance(answer, NotFound) else f"{known_id[:12]} still exists"


def _inspect_renamed(
    name: ContainerName, after: ContainerName, index: BooksIndex, world: World
) -> _Answer:
    """Inspect twice: `name` must be called `after` now, and the old name be used as decided."""
    known_id = index.checkpoint.identities[name].id
    answer = world.engine.look_up(name, known_id)
    if isinstance(answer, Unknown):
        return answer, f"could not be confirmed: {answer.reason}"
    if not isinstance(answer, Container) or (answer.id, answer.name) != (known_id, after):
        return answer, f'container {known_id[:12]} is no longer named "{after}"'
    answer = world.engine.look_up(name, None)
    successor = index.containers.get(name)
    if successor is None and not isinstance(answer, NotFound):
        return answer, f'could not be confirmed that the name "{name}" is free again'
    if successor is not None and not (isinstance(answer, Container) and answer.id == successor.id):
        return answer, f'container {successor.id[:12]} is no longer named "{name}"'
    return answer, None
