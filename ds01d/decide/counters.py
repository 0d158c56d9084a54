"""The user counters of a slot, which follow from who is in it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from ds01d.model.facts import UserName


def counted(before: Mapping[str, int], owners: Iterable[UserName | None]) -> Mapping[str, int]:
    """The counters of a slot whose containers belong to `owners`; `before`: as they were.

    A container whose user nobody knows is counted for a user whom the slot counts too often
    already, if there is one: the allocator knew, when it counted.
    """
    owners = list(owners)
    counts = Counter(str(owner) for owner in owners if owner is not None)
    surplus = Counter(dict(before)) - counts
    for user, _ in zip(surplus.elements(), (o for o in owners if o is None), strict=False):
        counts[user] += 1
    ordered = [user for user in before if user in counts]
    return {user: counts[user] for user in (*ordered, *sorted(set(counts) - set(ordered)))}
