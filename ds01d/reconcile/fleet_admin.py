"""What an admin does about a fleet: let a host rejoin, forget one, trust a store that was put back.

Each gives what was done, and raises `Refused` where that is not to be done.
"""

from __future__ import annotations

from collections.abc import Mapping

from ds01d.decide.fleet_findings import name_hosts
from ds01d.errors import Refused
from ds01d.model.fleet_books import FleetContents, NodeId
from ds01d.model.fleet_drift import MembershipState
from ds01d.model.primitives import Unknown
from ds01d.reconcile.fleet_member import FleetMember
from ds01d.reconcile.fleet_ports import FleetBook


def rejoin_fleet(member: FleetMember, book: FleetBook, *, as_new: bool) -> str:
    """Have this host take part again after a fence."""
    if member.membership.state is not MembershipState.FENCED:
        raise Refused(f"this host is not fenced: it is {member.membership.state}")
    before = member.node
    node = member.take_again(_read_contents(book), as_new=as_new)
    return f"this host takes part again as {node}" + ("" if node == before else ", a new host")


def thaw_store(member: FleetMember, _: FleetBook) -> str:
    """Trust the store as it is, before every host has reported."""
    return f"the store of the fleet as it is (cluster {member.trust_store()})"


def forget_host(member: FleetMember, book: FleetBook, host: str) -> str:
    """Delete all that the store has of another host, which is gone for good."""
    contents = _read_contents(book)
    # Of a store that was put back or lost, some hosts are known here alone.
    node = _find_host(contents, host, {**member.remembered_hosts, **name_hosts(contents)})
    # It would go on with bookings that count for nobody.
    if node == member.node:
        raise Refused("that is this host: forget it from another one")
    # Its next pass would report all of it again.
    if node in contents.alive:
        raise Refused(f"{host} takes part right now: stop its ds01d first")
    slots = sum(entry.count for entry in contents.entries if entry.node == node)
    answer = book.forget_node(node)
    if isinstance(answer, Unknown):
        raise Refused(f"the store of the fleet did not answer: {answer.reason}")
    return f"{host} ({slots} slots)"


def _read_contents(book: FleetBook) -> FleetContents:
    contents = book.read_contents()
    if isinstance(contents, Unknown):
        raise Refused(f"cannot reach the store of the fleet: {contents.reason}")
    return contents


def _find_host(contents: FleetContents, host: str, names: Mapping[NodeId, str]) -> NodeId:
    """The ID of a host by its name or its ID. Raises `Refused`."""
    # Some may have left entries and no identity.
    left = {entry.node for entry in contents.entries} - set(names)
    matches = {node for node, name in names.items() if host in (name, node)}
    matches |= {node for node in left if node == host}
    if len(matches) == 1:
        return matches.pop()
    if matches:
        raise Refused(
            f"several hosts are called {host!r:.80}: give the ID of one,"
            f" {' or '.join(sorted(matches))}"
        )
    listed = ", ".join(sorted({*names.values(), *left})) or "none"
    raise Refused(f"no host is called {host!r:.80}; there are {listed}")
