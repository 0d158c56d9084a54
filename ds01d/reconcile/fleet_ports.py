"""What the fleet's bookkeeping needs of the store, as protocols.

Each call has a deadline of its own and gives `Unknown` where the store is away, silent or without a
leader; after a change that is `Unknown` nobody knows whether it was made. Never called under a lock
of the books, and never in the worker's thread.
"""

from __future__ import annotations

from typing import Protocol

from ds01d.model.fleet_books import (
    Absent,
    Changed,
    Conflict,
    FleetContents,
    FleetEntry,
    NodeId,
    NodeIdentity,
    Revision,
    UserEntries,
)
from ds01d.model.primitives import Unknown, UserName


class FleetBook(Protocol):
    """The store's keys, for one host: it changes its own entries and nobody else's."""

    def read_user(self, user: UserName) -> UserEntries | Unknown:
        """What a user has on all hosts, linearizable: a member that lags behind is not asked."""

    def reserve_entry(self, entry: FleetEntry, fence: Revision) -> Changed | Conflict | Unknown:
        """Put entry and name if the user's fence is unchanged and the name free; bump the fence."""

    def report_entry(self, entry: FleetEntry) -> Changed | Conflict | Unknown:
        """Put an entry of what the host has in its books already: reality is never refused.

        The fence is bumped, so that who counts meanwhile counts again. `Conflict`: the name is
        another booking's; the entry is put all the same, without the name.
        """

    def confirm_entry(self, entry: FleetEntry) -> Changed | Absent | Unknown:
        """Make the entry of this booking what `entry` says; another booking's stays as it is."""

    def withdraw_entry(self, entry: FleetEntry) -> Changed | Absent | Unknown:
        """Delete the entry of this booking, and the name if it is this booking's."""

    def read_contents(self) -> FleetContents | Unknown:
        """Everything, at one revision."""

    def take_identity(
        self, identity: NodeIdentity, expected: int | None
    ) -> Changed | Conflict | Unknown:
        """Write this host's identity if its incarnation there is `expected` (None: absent)."""

    def keep_alive(self, seconds: int) -> Unknown | None:
        """Show that this host is there, by a lease of so many seconds."""

    def publish_summary(self, summary: dict[str, object]) -> Unknown | None:
        """Replace what this host has to show."""

    def forget_node(self, node: NodeId) -> Changed | Unknown:
        """Delete everything of another host: only an admin asks for that."""
