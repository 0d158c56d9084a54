"""What an ended process left reserved under a name, when somebody asks for that name again."""

from __future__ import annotations

from ds01d.config import Config
from ds01d.decide.booking_record import identify_booking
from ds01d.model.books import Record
from ds01d.model.holding import Free, Proof
from ds01d.model.primitives import ContainerName
from ds01d.model.reservation import ProcessState
from ds01d.reconcile.allocator import Allocator
from ds01d.reconcile.confirm import confirm_drifts
from ds01d.reconcile.ports import World
from ds01d.reconcile.reconciler import Reconciler
from ds01d.reconcile.transactions import Transactions
from ds01d.service.rules import unavailable


def release_abandoned(
    name: ContainerName, allocator: Allocator, world: World, config: Config
) -> None:
    """Release what is reserved for processes that have ended, if no container has claimed it.

    Raises `VarlinkError` where one has, or may have: ds01d's next pass finds out.
    """
    record = Transactions(world).read_records(frozenset({name})).get(name)
    processes = record.processes if isinstance(record, Record) else ()
    states = world.reserving.find_states(processes).values()
    # Decision 231: or their end would take away what this caller is given.
    if not processes or any(state is not ProcessState.ENDED for state in states):
        return
    if reason := _find_doubt(name, world, config):
        raise unavailable(f"{name} was reserved by a process that has ended: {reason}; try again")
    allocator.release(name, identify_booking(name, record))


def _find_doubt(name: ContainerName, world: World, config: Config) -> str:
    """Why a pass would not release what is booked under a name; "" if it would."""
    decision = Reconciler(world, config).plan(frozenset({name})).decision
    verdict = decision.verdicts.get(name)
    drifts = [gated.drift for gated in decision.gated if gated.drift.container == name]
    is_over = isinstance(verdict, Free) and verdict.proof is Proof.PROCESS_ENDED
    if not is_over or any(drift.renamed_to is not None for drift in drifts):
        return "a container may have it"
    confirmation = confirm_drifts(decision, [drift for drift in drifts if drift.takes], world)
    return next(iter((*confirmation.failed.values(), *confirmation.postponed.values())), "")
