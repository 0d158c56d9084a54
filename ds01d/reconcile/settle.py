"""Settling what is due: prove again, lock, read again, record, write once, verify.

Killed at any instant it leaves the books as they were, or with the state written and the metadata
not yet: the next pass finds the rest as drift.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ds01d.config import Config
from ds01d.decide.absence import still_so
from ds01d.decide.books import Books, RecordChange
from ds01d.decide.decision import Decision, decide
from ds01d.decide.gate import repair_key
from ds01d.errors import BooksChanged, Ds01Error
from ds01d.model.drift import Action, Drift, Kind
from ds01d.model.facts import AllocatorState, ContainerName, Digest, Unknown, Unreadable
from ds01d.model.holding import Free
from ds01d.model.memory import Memory
from ds01d.reconcile import history
from ds01d.reconcile.ports import World

ATTEMPTS = 5  # other writers may change the file under us this often before we give up for now


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What became of the drifts that were due. `postponed`: no longer so when looked at again."""

    done: tuple[Drift, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    postponed: Mapping[str, str] = field(default_factory=dict)
    state: AllocatorState | None = None


def settle(decision: Decision, memory: Memory, world: World, config: Config) -> Settled:
    """Make the books true as far as `decision.due` goes.

    Never raises for a failed write: that is an outcome.
    """
    failed: dict[str, str] = {}
    postponed: dict[str, str] = {}
    proven = _prove(decision, world, failed, postponed)
    if not proven:
        return Settled(failed=failed, postponed=postponed)
    try:
        with world.state.lock():
            done, state = _write(decision, proven, memory, world, config, failed, postponed)
    except Ds01Error as error:
        failed |= {drift.key: str(error) for drift in proven if drift.key not in failed}
        return Settled(failed=failed, postponed=postponed)
    return Settled(done=done, failed=failed, postponed=postponed, state=state)


def _prove(
    decision: Decision, world: World, failed: dict[str, str], postponed: dict[str, str]
) -> tuple[Drift, ...]:
    """The due drifts that a fresh inspect bears out. What takes nothing needs no proof."""
    refuted: set[ContainerName] = set()
    for name in sorted({d.container for d in decision.due if d.container and _takes(d)}):
        verdict = decision.verdicts[name]
        before = decision.view.container(name) if decision.view is not None else None
        living = before.id if before is not None else None
        known = verdict.known_id if isinstance(verdict, Free) else living
        answer = world.engine.look_up(name, known)
        reason = still_so(verdict, before, answer)
        if reason is not None:
            refuted.add(name)
            told = failed if isinstance(answer, Unknown) else postponed
            told |= {d.key: reason for d in decision.due if d.container == name}
    return tuple(d for d in decision.due if d.container not in refuted)


def _takes(drift: Drift) -> bool:
    return bool(drift.taken) or drift.action is Action.REMOVE_METADATA


def _write(
    decision: Decision,
    proven: Sequence[Drift],
    memory: Memory,
    world: World,
    config: Config,
    failed: dict[str, str],
    postponed: dict[str, str],
) -> tuple[tuple[Drift, ...], AllocatorState | None]:
    for _ in range(ATTEMPTS):
        decision, due = _again(decision, proven, memory, world, config)
        postponed |= _missing(proven, due)
        if not due:
            return (), None
        books = decision.books(due)
        ids = history.begin(world.own, decision.seen, due, books, world.metadata)
        outcomes: dict[str, str | None] = {}
        try:
            state = _write_state(decision, books, world)
        except BooksChanged as changed:
            history.close(world.own, world.clock.now(), dict.fromkeys(ids, str(changed)))
            continue
        except Ds01Error as error:
            history.close(world.own, world.clock.now(), dict.fromkeys(ids, str(error)))
            raise
        broken = _write_records(books, world)
        for entry, drift in zip(ids, due, strict=True):
            wrong = next((broken[n] for n in _names(drift) if n in broken), None)
            outcomes[entry] = wrong or _unsettled(drift, state)
        for entry, drift in zip(ids, due, strict=True):
            if (why := outcomes[entry]) is not None:
                failed[drift.key] = why
        history.close(world.own, world.clock.now(), outcomes)
        return tuple(drift for drift in due if drift.key not in failed), state
    raise BooksChanged(
        f"another writer changed the state {ATTEMPTS} times while it was to be written"
    )


def _again(
    decision: Decision, proven: Sequence[Drift], memory: Memory, world: World, config: Config
) -> tuple[Decision, tuple[Drift, ...]]:
    """Read the books again; if they changed, decide afresh and keep only what was proven."""
    state, metadata = world.state.read(), world.metadata.read(decision.seen.names)
    if _digest(state) != _digest(decision.seen.state) or metadata != decision.seen.metadata:
        fresh = replace(decision.seen, state=state, metadata=metadata)
        decision = decide(fresh, memory, config)
    allowed = {repair_key(drift) for drift in proven}
    return decision, tuple(d for d in decision.due if repair_key(d) in allowed)


def _digest(state: AllocatorState | Unreadable | Unknown) -> tuple[str, object]:
    if isinstance(state, Unknown):
        return ("unknown", state.reason)
    return (state.digest, state.merge if isinstance(state, AllocatorState) else None)


def _missing(proven: Iterable[Drift], due: Iterable[Drift]) -> dict[str, str]:
    there = {drift.key for drift in due}
    return {d.key: "the books changed meanwhile" for d in proven if d.key not in there}


def _write_state(decision: Decision, books: Books, world: World) -> AllocatorState | None:
    seen = decision.seen.state
    if books.state is None or isinstance(seen, Unknown):
        return seen if isinstance(seen, AllocatorState) else None
    return world.state.write(books.state, onto=Digest(seen.digest))


def _write_records(books: Books, world: World) -> dict[ContainerName, str]:
    """Write and remove metadata; one that fails harms no other. Gives what failed, and why."""
    outcomes = {change.name: _write_record(change, world) for change in books.records}
    return {name: why for name, why in outcomes.items() if why is not None}


def _write_record(change: RecordChange, world: World) -> str | None:
    try:
        if change.record is not None:
            world.metadata.write(change.record, onto=change.onto)
        elif change.onto is not None:
            world.metadata.remove(change.name, onto=change.onto)
    except Ds01Error as error:
        return str(error)
    return None


def _names(drift: Drift) -> frozenset[ContainerName]:
    names = {name for name, _ in drift.taken | drift.given}
    return frozenset(names if drift.container is None else names | {drift.container})


def _unsettled(drift: Drift, state: AllocatorState | None) -> str | None:
    """Why the file does not say what it should after the write; None if it does."""
    if state is None or drift.kind is Kind.UNREADABLE_STATE:
        return None
    there = {(name, slot.id) for slot in state.slots.values() for name in slot.containers}
    if drift.taken & there - drift.given:
        return "another writer put the booking back at once"
    if drift.given - there:
        return "another writer removed the booking at once"
    return None
