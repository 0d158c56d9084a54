"""What is asked of the allocator, completed from the limits. Pure."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction

from ds01d.errors import Malformed
from ds01d.model.allocation import AllocationRequest, Refusal, Rejected
from ds01d.model.limits import Limits
from ds01d.model.primitives import ContainerName, Unknown, UserName

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.#-]*")
# With the suffix of its record it is the name of a file, of which file systems take 255 bytes.
_MAX_NAME_LENGTH = 250
_MAX_REASON_LENGTH = 200


def validate_request(user: str, container: str, reason: str) -> None:
    """Raise `Malformed` for what books and logs cannot hold."""
    if _NAME.fullmatch(container) is None or len(container) > _MAX_NAME_LENGTH:
        raise Malformed(f"invalid container name {container!r:.80}")
    if not user or not user.isprintable():
        raise Malformed(f"invalid user name {user!r:.80}")
    if len(reason) > _MAX_REASON_LENGTH or not reason.isprintable():
        raise Malformed(f"invalid reason {reason!r:.80}: expected a line of at most 200 characters")


def build_request(
    user: UserName,
    container: ContainerName,
    most: int | None,
    priority: int | None,
    limits: Limits | Unknown,
) -> AllocationRequest | Rejected:
    """The request, completed from the limits; a refusal where they are needed and unreadable."""
    # Decision 23: limits that are missing restrict nothing, limits that are broken refuse.
    quota = None
    if isinstance(limits, Limits):
        quota = limits.find_gpu_quota(user)
        if quota is not None and most is not None:
            quota, most = replace(quota, gpus=Fraction(most)), None
        most = limits.find_quota(user) if most is None else most
        priority = limits.find_priority(user) if priority is None else priority
    elif most is None:
        return Rejected(
            container=container,
            user=user,
            refusal=Refusal.LIMITS_UNREADABLE,
            detail=limits.reason,
        )
    return AllocationRequest(
        container=container, user=user, max_slots=most, quota=quota, priority=priority or 0
    )
