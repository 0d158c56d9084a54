"""Whether the containers of a change are still those that it was made for. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from ds01d.decide.engine_identity import same_engine
from ds01d.decide.undo_choice import UndoContext, UndoRefusal, UndoRefusedError
from ds01d.decide.undo_guard import fingerprint_container
from ds01d.decide.undo_states import Change
from ds01d.model.containers import Engine
from ds01d.model.history import ContainerFingerprint
from ds01d.model.primitives import ContainerName, Unknown


def check_containers(
    change: Change, context: UndoContext
) -> Mapping[ContainerName, ContainerFingerprint]:
    """The containers of the change as they are now; refuses if one was recreated since."""
    if not change.names:
        return {}
    engine = context.snapshot.docker
    if isinstance(engine, Unknown):
        reason = f"whether its containers are the same is not known: {engine.reason}"
        # Decision 35: a source whose word could contradict an undo has to answer.
        raise UndoRefusedError(UndoRefusal.SOURCE_SILENT, reason)
    same_boot = context.checkpoint.boot_id == context.snapshot.now.boot_id
    trusted = context.checkpoint.engine
    if trusted is not None and not same_engine(trusted, engine.identity, same_boot=same_boot):
        raise UndoRefusedError(
            UndoRefusal.OTHER_ENGINE,
            "Docker engine is not the trusted one; fix, if intended: ds01ctl thaw --engine",
        )
    before = {n: recorded for e in change.entries for n, recorded in e.containers.items()}
    now: dict[ContainerName, ContainerFingerprint] = {}
    for name in sorted(change.names):
        recorded = before.get(name, ContainerFingerprint())
        now[name] = _check_container(name, recorded, engine, change)
    return now


def _check_container(
    name: ContainerName, recorded: ContainerFingerprint, engine: Engine, change: Change
) -> ContainerFingerprint:
    current = engine.by_name.get(name)
    gives = any(name == who for who, _ in change.given)
    takes = any(name == who for who, _ in change.taken)
    if current is None:
        renamed = engine.containers.get(recorded.id) if recorded.id else None  # type: ignore[call-overload]
        if recorded.state and gives:
            now = f"was renamed to {renamed.name}" if renamed is not None else "is gone"
            raise UndoRefusedError(
                UndoRefusal.CONTAINER_CHANGED, f"container {name} {now}: it needs no booking"
            )
        return ContainerFingerprint(id=recorded.id)
    if current.id != recorded.id:
        event = "was recreated" if recorded.id else "exists now, but did not exist then"
        raise UndoRefusedError(
            UndoRefusal.CONTAINER_CHANGED, f"container {name} {event} ({current.id[:12]})"
        )
    # It was stopped when it was booked and runs now: taking the booking away would free a GPU
    # in use.
    if takes and current.state.alive and not recorded.alive:
        raise UndoRefusedError(
            UndoRefusal.CONTAINER_CHANGED,
            f"container {name} lives now, which it did not then: its booking stays",
        )
    return fingerprint_container(current)
