"""The user counters of a slot, which follow from who is in it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice

from ds01d.model.primitives import UserName


def recount_users(
    before: Mapping[str, int],
    owners: Iterable[UserName | None],
    unclaimed: Counter[str] | None = None,
) -> Mapping[str, int]:
    """The counters of a slot whose containers belong to `owners`; `before`: as they were.

    A container whose user nobody knows is counted for whom the slot counts without a container
    that is known to be theirs (`unclaimed`): the allocator knew, when it counted. Where several
    may be meant it is counted for nobody.
    """
    owners = list(owners)
    counts = Counter(str(owner) for owner in owners if owner is not None)
    unknown = owners.count(None)
    if unknown:
        if unclaimed is None:
            unclaimed = Counter(dict(before)) - counts
        # Unambiguous only if every unclaimed count can be explained by a container of unknown
        # owner, or if one user is left.
        if unclaimed.total() <= unknown or len(unclaimed) == 1:
            few = Counter({user: min(count, unknown) for user, count in unclaimed.items()})
            counts.update(islice(few.elements(), unknown))
    # The order of the file is kept, so that a recount changes no more of it than it has to.
    ordered = [user for user in before if user in counts]
    return {user: counts[user] for user in (*ordered, *sorted(set(counts) - set(ordered)))}
