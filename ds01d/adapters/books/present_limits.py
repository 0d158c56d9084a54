"""The GPU quotas and life cycles of users, which only the lab's present format has. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from ds01d.adapters.books.gpu_quotas import AGGREGATE_KEY, find_gpu_quota
from ds01d.adapters.books.lifecycles import find_lifecycle, parse_exemptions, parse_types
from ds01d.adapters.books.limits_layers import Layer, Mistakes, parse_section
from ds01d.adapters.books.limits_sections import (
    OVERRIDE,
    Chain,
    LimitsSections,
    find_each,
    has_key,
    name_group,
)
from ds01d.model.container_labels import ContainerType
from ds01d.model.limits import GpuQuota, Limits
from ds01d.model.primitives import UserName

# What a service for jobs or a command that deploys has stopped has done its work.
FREED_TYPES: Final = frozenset({ContainerType.API, ContainerType.ORCHESTRATION})


class PresentLimits:
    """What such a file adds to the limits; what is wrong in it is noted in `mistakes`."""

    def __init__(self, sections: LimitsSections, exemptions: Layer, mistakes: Mistakes) -> None:
        self._sections, self._exemptions, self._mistakes = sections, exemptions, mistakes

    def add_to(self, limits: Limits, chains: Mapping[UserName, Chain], others: Chain) -> Limits:
        mistakes = self._mistakes
        quotas = find_each(chains, self._find_gpu_quota)
        default_quota = find_gpu_quota(others, others, mistakes)
        for user, chain in chains.items():
            self._note_aggregate(user, chain, quotas[user], default_quota)
        self._sections.note_assignments(mistakes)
        for part in (
            *(*limits.holds.values(), limits.unnamed),
            *(*limits.resources.values(), limits.default_resources),
        ):
            if part is not None and part.problem:
                mistakes.add_line(part.problem)
        return replace(
            limits,
            default_quota=None,
            gpu_quotas=quotas,
            default_gpu_quota=default_quota,
            lifecycles=find_each(chains, partial(find_lifecycle, mistakes=mistakes)),
            default_lifecycle=find_lifecycle(others, mistakes),
            ranks=self._sections.rank_names(chains),
            types=parse_types(parse_section(self._sections.top, "container_types", ()), mistakes),
            freed_types=FREED_TYPES,
            exemptions=parse_exemptions(self._exemptions, mistakes),
        )

    def _find_gpu_quota(self, chain: Chain) -> GpuQuota:
        if name_group(chain) != OVERRIDE:
            return find_gpu_quota(chain, chain, self._mistakes)
        sections, user = self._sections, chain[0].key.partition(".")[2]
        # Decision 223: an override without an aggregate has that of the group that counts.
        groups = [sections.groups[name] for name in sections.list_groups(user)[:1]]
        return find_gpu_quota(chain, (chain[0], *groups, *chain[1:]), self._mistakes)

    def _note_aggregate(
        self, user: UserName, chain: Chain, quota: GpuQuota, default: GpuQuota
    ) -> None:
        """Decision 223: an override gets its own aggregate, else that of the user's group."""
        if name_group(chain) != OVERRIDE or self._sections.list_groups(user):
            return
        limit = default.aggregate
        is_missing = not has_key(chain, AGGREGATE_KEY)
        if limit is not None and is_missing and (quota.gpus is None or quota.gpus > limit):
            given = "null" if quota.gpus is None else f"{float(quota.gpus):g}"
            problem = (
                f"missing, so the lab's scripts hold {user} to gpu_limit {float(limit):g} of the"
                f" default group: write gpu_limit: {given}"
            )
            self._mistakes.add(chain[0], AGGREGATE_KEY, problem)
