"""What a user may have of the GPUs, and has. Pure values."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from ds01d.model.primitives import UserName, Word


class QuotaUnit(Word):
    """What a quota counts."""

    SLOTS = "slots"
    GPUS = "gpus"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaStatus:
    """A user's quota, and what counts for it. `limit`, `slots_per_container` None: any amount.

    `used`: of containers that exist, or existed; `reserved`: for containers that do not exist yet.
    `source`: which key of which file gives the limit.
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

    @property
    def left(self) -> Fraction | None:
        if self.limit is None:
            return None
        return max(Fraction(0), self.limit - self.used - self.reserved)
