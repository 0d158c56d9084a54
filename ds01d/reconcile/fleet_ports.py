"""What the fleet's bookkeeping needs of the store, as protocols.

Each call has a deadline of its own and gives `Unknown` where the store is away, silent or without a
leader; after a change that is `Unknown` nobody knows whether it was made. Never called under a lock
of the books, and never in the worker's thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from ds01d.model.fleet_books import (
    Absent,
    Changed,
    Conflict,
    EntryChange,
    FleetContents,
    FleetEntry,
    NodeId,
    NodeIdentity,
    Revision,
    UserEntries,
)
from ds01d.model.primitives import Unknown, UserName


class FleetBook(Protocol):
    """The store's keys, for one host: it changes its own entries and nobody else's.

    Once the host's identity was taken, each change of an entry is made only if nobody else changed
    that identity since; else it is `Conflict` with `ConflictKind.INCARNATION`.
    """

    def expect_store(self, cluster: str, revision: Revision) -> None:
        """From now on entries are read and changed in this cluster only, at `revision` or later.

        A store that was restored from a backup, or is another one, gives `Unknown` meanwhile.
        """

    def read_user(self, user: UserName) -> UserEntries | Unknown:
        """What a user has on all hosts, linearizable: a member that lags behind is not asked."""

    def reserve_entry(self, entry: FleetEntry, fence: Revision) -> Changed | Conflict | Unknown:
        """Put entry and name if the user's fence is unchanged and the name free; bump the fence."""

    def report_entry(self, entry: FleetEntry) -> Changed | Conflict | Unknown:
        """Put an entry of what the host has in its books already: reality is never refused.

        The fence is bumped, so that who counts meanwhile counts again. `Conflict`: the name is
        another booking's; the entry is put all the same, without the name.
        """

    def confirm_entry(self, entry: FleetEntry) -> Changed | Absent | Conflict | Unknown:
        """Make the entry of this booking what `entry` says; another booking's stays as it is.

        The fence is bumped where the entry counts more or less than before.
        """

    def withdraw_entry(
        self, entry: FleetEntry, *, keeps_names: bool = False
    ) -> Changed | Absent | Conflict | Unknown:
        """Delete the entry of this booking, and the name if it is this booking's.

        `keeps_names`: delete the entry alone, where the booking lives as another user's. Where
        there is none, the fence is bumped: a reservation that is still under way, in a member that
        was frozen, comes too late then.
        """

    def free_name(self, entry: FleetEntry) -> Changed | Absent | Conflict | Unknown:
        """Delete the name of `entry` if it is this booking's, and its entry has another one.

        The entry stays as it is: the booking lives.
        """

    def read_contents(self) -> FleetContents | Unknown:
        """Everything, at one revision."""

    def take_identity(
        self, identity: NodeIdentity, expected: int | None, *, rejoins: bool = False
    ) -> Changed | Conflict | Unknown:
        """Write this host's identity if its incarnation there is `expected` (None: absent).

        `rejoins`: also if it was forgotten, which it is not any more then; else that is a conflict.

        `Changed` also where it is there already, with the same incarnation and nonce.
        """

    def keep_alive(self, seconds: int) -> Unknown | None:
        """Show that this host is there, by a lease of so many seconds."""

    def publish_summary(self, summary: dict[str, object]) -> Unknown | None:
        """Replace what this host has to show."""

    def forget_node(self, node: NodeId) -> Changed | Unknown:
        """Delete everything of another host, and mark it as forgotten: only an admin asks for that.

        The identity goes first, so that a host that lives after all is fenced. After `Unknown` part
        of it may be left: ask again.
        """

    def watch_entries(self, after: Revision) -> Iterator[EntryChange | Unknown]:
        """What happens to entries and names after a revision, until the watch breaks.

        The last value is `Unknown`, and says why; what was missed then has to be read.
        """
