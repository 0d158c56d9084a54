"""The mixes of operations and faults that there are: everything, and one for each planted bug."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tests.verification.campaign.plan import EVERYTHING, SICK, Mix

_LIFE = {"create": 12, "start": 8, "stop": 8, "remove": 6}


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """`slow_allocator`: a slow disk slows `ds01-allocator` too, not ds01d alone."""

    mix: Mix
    slow_allocator: bool = False


PROFILES: Mapping[str, Profile] = {
    "everything": Profile(mix=EVERYTHING),
    "old lists": Profile(
        mix=Mix(
            operations={"create": 12, "stop": 3, "start": 3, "remove": 3},
            faults={"docker-old-list": 1},
            fault_rate=0.3,
            old_s=(7.0, 12.0),
        )
    ),
    "errors": Profile(
        mix=Mix(
            operations=_LIFE,
            faults={"docker-answers": 1},
            forms={"docker-answers": ("ERROR",)},
            for_s=(3.0, 5.0),
            fault_rate=0.3,
        )
    ),
    "creations": Profile(
        mix=Mix(
            operations={"create-mlc": 10, "book-only": 10, "remove": 5},
            faults={"kill": 1},
            fault_rate=0.1,
        )
    ),
    "writers": Profile(
        mix=Mix(
            operations={**_LIFE, "legacy-touch": 10, "legacy-stopped": 5},
            faults={"kill": 2, "metadata": 1},
            fault_rate=0.3,
        )
    ),
    "locks": Profile(
        mix=Mix(
            operations={"create": 20, "remove": 16, "ours-release": 6, "book-only": 6},
            faults={"disk-slow": 1},
            bookings=("ours",),
            forms={"disk-slow": ("rename",)},
            for_s=(4.0,),
            fault_rate=0.5,
        ),
        slow_allocator=True,
    ),
    "claims": Profile(
        mix=Mix(
            operations={"claim": 20, "remove": 8, "rename": 4, "stop": 4, "book-only": 3},
            faults={"kill": 3, "docker-cut": 1, "clock": 1},
            fault_rate=0.3,
        )
    ),
    "labels": Profile(
        mix=Mix(operations={**_LIFE, "again": 8}, faults={"kill": 1}, fault_rate=0.1, lies=0.6)
    ),
    "pauses": Profile(
        mix=Mix(
            operations={**_LIFE, "pause": 12, "unpause": 2, "remove": 3},
            # Whoever is alive is booked again, where a booking was lost.
            faults={"kill": 1, "state": 4},
            forms={"state": ("go back",)},
            fault_rate=0.3,
            users=("henry", "hana"),
        )
    ),
    "layouts": Profile(
        mix=Mix(
            operations={**_LIFE, "remove": 3},
            faults={"mig": 1},
            forms={"mig": ("renumber", "reorder")},
            fault_rate=0.3,
            users=("alice", "bob"),
        )
    ),
    "renames": Profile(
        mix=Mix(
            operations={**_LIFE, "rename": 20}, faults={"kill": 1, "docker-cut": 1}, fault_rate=0.2
        )
    ),
    "clocks": Profile(
        mix=Mix(
            operations={**_LIFE, "create-mlc": 6, "book-only": 6},
            faults={"clock": 4, "zone": 1},
            fault_rate=0.4,
            users=("henry", "hana"),
        )
    ),
    "pids": Profile(
        mix=Mix(
            operations={**_LIFE, "sprawl": 14},
            faults={"pids": 1},
            fault_rate=0.3,
            for_s=(1.5, 3.0),
            lies=0.0,
        )
    ),
    "cgroups": Profile(
        mix=Mix(operations={**_LIFE, "sprawl": 14}, faults={"kill": 1}, fault_rate=0.1, lies=0.0)
    ),
    "sick": Profile(
        mix=Mix(
            operations=_LIFE, faults={"sick": 1}, forms={"sick": SICK}, fault_rate=0.1, lies=0.0
        )
    ),
    "links": Profile(
        mix=Mix(
            operations=_LIFE,
            faults={"hostile-link": 1},
            for_s=(2.0, 4.0),
            fault_rate=0.15,
            lies=0.0,
        )
    ),
    "cuts": Profile(
        mix=Mix(
            operations=_LIFE,
            faults={"idle-cut": 1},
            forms={"idle-cut": (0.7, 1.5)},
            fault_rate=0.1,
        )
    ),
}
