"""What a user may have of the GPUs, and has. Pure values."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from ds01d.model.primitives import UserName, Wall, Word


class QuotaUnit(Word):
    """What a quota counts."""

    SLOTS = "slots"
    GPUS = "gpus"


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherHostsUse:
    """What a user has on `hosts`, the others of a fleet, as its store had it `at` that time.

    `used`: in the unit of the quota; None: unknown. `problem`: why that is, or why it is old.
    """

    used: Fraction | None = None
    hosts: tuple[str, ...] = ()
    at: Wall | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaStatus:
    """A user's quota, and what counts for it. `limit`, `slots_per_container` None: any amount.

    `used`: of containers that exist, or existed; `reserved`: for containers that do not exist yet.
    `source`: which key of which file gives the limit. `other_hosts`: None without a fleet's store.
    """

    user: UserName
    group: str
    priority: int
    unit: QuotaUnit
    limit: Fraction | None
    used: Fraction
    reserved: Fraction
    slots_per_container: int | None = None
    source: str = ""
    other_hosts: OtherHostsUse | None = None

    @property
    def left(self) -> Fraction | None:
        """What is left; at most that, if what the user has on other hosts is unknown."""
        if self.limit is None:
            return None
        elsewhere = self.other_hosts.used if self.other_hosts is not None else None
        return max(Fraction(0), self.limit - self.used - self.reserved - (elsewhere or 0))
