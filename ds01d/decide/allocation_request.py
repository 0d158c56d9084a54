"""What is asked of the allocator, completed from the limits. Pure."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from ds01d.model.allocation import AllocationRequest, Refusal, Rejected
from ds01d.model.limits import Limits
from ds01d.model.primitives import ContainerName, Unknown, UserName


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
