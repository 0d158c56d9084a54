"""Docker as the books, for commands that only look: as published, with the reservations since."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping

from ds01d.config import Config
from ds01d.decide.ownership import NOBODY
from ds01d.model.books import AllocatorState, BadRecord, Record, Slot, SlotType, Unreadable
from ds01d.model.limits import Limits
from ds01d.model.primitives import ContainerName, Digest, Source, Unknown, Wall
from ds01d.reporting.published_status import read_published_status
from ds01d.reporting.status import SlotStatus

Records = Mapping[ContainerName, Record | BadRecord]


def read_published_books(
    config: Config,
    stored: AllocatorState | Unreadable | Unknown,
    records: Records | Unknown,
    limits: Limits | Unknown,
) -> tuple[AllocatorState | Unknown, Records]:
    """The slots that ds01d published with their holders, and a record for each holder.

    `stored`, `records`: the reservations.
    """
    last, outdated = read_published_status(config, Wall(time.time()))
    if last is None or outdated:
        reason = f"ds01d does not run, which reads the books from Docker: {outdated}"
        return Unknown(source=Source.STATE, reason=reason), {}
    # A reservation made since the last publication counts at once, or its slot would look free.
    reserved = {} if isinstance(records, Unknown) else records
    slots = stored.slots if isinstance(stored, AllocatorState) else {}
    users = {name: r.user for name, r in reserved.items() if isinstance(r, Record)}
    published: dict[ContainerName, Record | BadRecord] = {}
    for slot in last.slots:
        for holder in slot.holders:
            # The record of a reservation comes first: the published status is older.
            users.setdefault(holder.container, holder.user)
            priority = limits.find_priority(holder.user) if isinstance(limits, Limits) else 0
            published.setdefault(
                holder.container,
                Record(
                    container=holder.container,
                    user=holder.user or NOBODY,
                    gpu_id=slot.id,
                    priority=priority,
                ),
            )
    state = AllocatorState(
        slots={slot.id: _make_slot(slot, slots.get(slot.id), users) for slot in last.slots},
        mig_enabled=any(slot.type is SlotType.MIG for slot in last.slots),
        digest=stored.digest if isinstance(stored, AllocatorState) else Digest(""),
        # Decisions 225, 226: what fills no quota for the daemon fills none for its clients.
        uncharged=frozenset(
            holder.container
            for slot in last.slots
            for holder in slot.holders
            if not holder.is_charged and holder.container not in reserved
        ),
    )
    return state, {**published, **reserved}


def _make_slot(
    published: SlotStatus, stored: Slot | None, users: Mapping[ContainerName, str | None]
) -> Slot:
    index, _, mig = published.id.partition(".")
    holders = [holder.container for holder in published.holders]
    reserved = stored.containers if stored is not None else ()
    names = tuple(dict.fromkeys((*reserved, *holders)))
    return Slot(
        id=published.id,
        type=published.type,
        gpu_index=int(index),
        mig_index=int(mig) if mig else None,
        containers=names,
        users=dict(Counter(user for name in names if (user := users.get(name)) is not None)),
        uuid=published.uuid,
        profile=published.profile,
    )
