"""Takes part in a fleet: whether the store has this host as it was left, and what follows if not.

A host whose identity is not as it left it changes nothing in the store until an admin says so; its
own books go on as ever.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace

from ds01d.decide.fleet_findings import name_hosts
from ds01d.decide.fleet_restore import (
    describe_fence,
    describe_wait,
    find_last_incarnation,
    list_unreported,
)
from ds01d.errors import Ds01Error, Refused
from ds01d.model.fleet_books import Conflict, FleetContents, NodeId, NodeIdentity, Revision
from ds01d.model.fleet_drift import Membership, MembershipState
from ds01d.model.primitives import Unknown, Wall
from ds01d.reconcile import fleet_memory
from ds01d.reconcile.fleet_memory import FleetMemory, FleetStore, HostFacts, clean_nodes
from ds01d.reconcile.fleet_ports import FleetBook


class FleetMember:
    """This host in the fleet. `membership` may be read by any thread; all else is for one.

    `read_facts`: what to show of this host.
    """

    def __init__(
        self,
        book: FleetBook,
        store: FleetStore,
        read_facts: Callable[[], HostFacts],
        read_wall: Callable[[], Wall],
    ) -> None:
        self._book, self._store = book, store
        self._read_facts, self._read_wall = read_facts, read_wall
        self._memory: FleetMemory | None = None
        self.is_retired = False  # another member of this host follows
        self._identity: NodeIdentity | None = None
        self.membership = Membership(state=MembershipState.JOINING, since=read_wall())

    @property
    def node(self) -> NodeId:
        """The ID of this host; "" before it is known."""
        return NodeId("") if self._memory is None else self._memory.node

    @property
    def identity(self) -> NodeIdentity | None:
        """As the store took it; None before that."""
        return self._identity

    @property
    def remembered_hosts(self) -> Mapping[NodeId, str]:
        """The hosts that took part, with their names, also those that the store has lost."""
        return {} if self._memory is None else self._memory.nodes

    def set_state(self, state: MembershipState, reason: str = "") -> None:
        self.membership = self.membership.change_state(state, reason, self._read_wall())

    def fence_host(self, taken: NodeIdentity | None) -> bool:
        """The store does not have this host as it was left; False if it has. For any thread."""
        self._identity = None  # the next pass looks who has it
        # Decision 343: written by this host itself. A copy makes up another nonce first.
        if taken is not None and self._memory and taken.nonce == self._memory.nonce != "":
            return False
        self.set_state(MembershipState.FENCED, describe_fence(taken))
        return True

    # --- each pass

    def observe_store(self, contents: FleetContents) -> Membership:
        """Compare the store with what is remembered of it, and take the identity if need be."""
        memory = self._load_memory()
        if memory.is_restored(contents):
            # Before anything else is changed: what follows is decided by it after a crash, too.
            at = contents.revision
            restored = replace(memory, cluster=contents.cluster, revision=at, restored_at=at)
            memory = self._keep_memory(restored, durable=True)
            self._identity = None
            self._book.expect_store(contents.cluster, contents.revision)
        if self._identity is None and self.membership.state is not MembershipState.FENCED:
            self._take_identity(memory, contents)
        elif self._identity is not None:
            self._check_identity(contents)
            self._renew_identity(contents)
        if self._identity is not None:
            self._update_state(contents)
        return self.membership

    def _take_identity(self, memory: FleetMemory, contents: FleetContents) -> None:
        taken = contents.identities.get(memory.node)
        before = memory.find_former(contents)
        if before is None:
            self.fence_host(taken)
        else:
            self._put_identity(memory, taken, before)

    def _put_identity(
        self,
        memory: FleetMemory,
        taken: NodeIdentity | None,
        before: int,
        *,
        rejoins: bool = False,
    ) -> None:
        highest = max(before, 0 if taken is None else taken.incarnation)
        # No host has started so often: somebody wrote it, and one more would be malformed.
        if problem := find_last_incarnation(highest):
            self._identity = None
            self.set_state(MembershipState.FENCED, problem)
            return
        # Decision 315: on disk before the store is asked, or a crash in between would look like a
        # copy of this host.
        memory = self._keep_memory(replace(memory, nonce=secrets.token_hex(8)), durable=True)
        extra = {} if taken is None else taken.extra
        identity = memory.make_identity(self._read_facts(), highest + 1, extra)
        expected = None if taken is None else taken.incarnation
        answer = self._book.take_identity(identity, expected, rejoins=rejoins)
        if isinstance(answer, Unknown):
            self._identity = None  # it may have been written: the next pass looks
            self.set_state(MembershipState.AWAY, answer.reason)
        elif isinstance(answer, Conflict):
            self.fence_host(answer.identity)
        else:
            self._identity = identity
            self._keep_memory(replace(memory, incarnation=identity.incarnation), durable=True)

    def _check_identity(self, contents: FleetContents) -> None:
        taken = contents.identities.get(self.node)
        ours = self._identity
        # By the nonce: two copies count up to the same incarnation.
        if ours is not None and (taken is None or taken.nonce != ours.nonce):
            self.fence_host(taken)

    def _renew_identity(self, contents: FleetContents) -> None:
        """Show what has changed of this host since it was taken: limits, a new engine."""
        ours, facts = self._identity, self._read_facts()
        if ours is not None and (ours.limits_digest, ours.engine_id) != (
            facts.limits_digest,
            facts.engine_id,
        ):
            self._put_identity(
                self._load_memory(), contents.identities.get(ours.node), ours.incarnation
            )

    def _update_state(self, contents: FleetContents) -> None:
        """Member, unless the store was put back and somebody has not reported since."""
        memory = self._load_memory()
        restored_at = memory.restored_at
        if restored_at is not None:
            missing = list_unreported(contents, memory.nodes, restored_at)
            if missing:
                self.set_state(MembershipState.RESTORED, describe_wait(missing))
                return
        self.set_state(MembershipState.MEMBER)
        self._remember_store(contents, restored_at=None)

    def _remember_store(self, contents: FleetContents, *, restored_at: int | None) -> None:
        memory = self._load_memory()
        nodes = clean_nodes(name_hosts(contents))
        is_new = (memory.nodes, memory.cluster, memory.restored_at) != (
            nodes,
            contents.cluster,
            restored_at,
        )
        # The revision alone moves with each pass, and is not synced: one that is lost costs a floor
        # that is some minutes old, while a sync would wake the disk each time.
        self._keep_memory(
            replace(
                memory,
                cluster=contents.cluster,
                revision=max(contents.revision, memory.revision),
                restored_at=restored_at,
                nodes=nodes,
            ),
            durable=is_new,
        )

    # --- what an admin asks for (`fleet_admin`)

    def take_again(self, contents: FleetContents, *, as_new: bool) -> str:
        """Take part again, by another ID if `as_new` or if the former is another host's now.

        Gives the ID. Raises `Refused`.
        """
        memory, facts = self._load_memory(), self._read_facts()
        taken = contents.identities.get(memory.node)
        # Decision 316: what runs elsewhere under this identity keeps it, and this host is another.
        is_other = taken is not None and (taken.host, taken.engine_id) != (
            facts.host,
            facts.engine_id,
        )
        memory = memory.note_losses(contents)
        if as_new or is_other:
            memory, taken = memory.become_new(NodeId(secrets.token_hex(8))), None
        # Before the identity: a host that stops in between goes on as one that waits.
        memory = self._keep_memory(memory, durable=True)
        self.set_state(MembershipState.JOINING)
        self._put_identity(memory, taken, memory.incarnation, rejoins=True)
        if self._identity is None:
            raise Refused(f"this host could not rejoin: {self.membership.reason}")
        self._update_state(contents)
        return memory.node

    def trust_store(self) -> str:
        """Take the store as it is; gives its cluster. Raises `Refused` if it is trusted already."""
        memory = self._load_memory()
        if memory.restored_at is None:
            raise Refused("the store of the fleet is trusted already")
        self._keep_memory(replace(memory, restored_at=None), durable=True)
        if self.membership.state is MembershipState.RESTORED:
            self.set_state(MembershipState.MEMBER)
        return memory.cluster

    # --- what is kept

    def _load_memory(self) -> FleetMemory:
        """What is remembered. Raises `Malformed`, `WriteFailed`."""
        if self._memory is None:
            memory = fleet_memory.load_memory(self._store, lambda: secrets.token_hex(8))
            self._keep_memory(memory, durable=True)
            if memory.cluster:
                self._book.expect_store(memory.cluster, Revision(memory.revision))
            return memory
        return self._memory

    def _keep_memory(self, memory: FleetMemory, *, durable: bool) -> FleetMemory:
        if self.is_retired:
            raise Refused("another member of this host keeps its file by now")
        if memory != self._memory:
            fleet_memory.save_memory(self._store, memory, durable=durable)
        self._memory = memory
        return memory

    def load_early(self) -> None:
        """Read what is kept, before the store is asked; a host that cannot is fenced."""
        try:
            self._load_memory()
        # Without its own ID this host could not tell its entries from those of others.
        except Ds01Error as error:
            self.set_state(MembershipState.FENCED, str(error))
