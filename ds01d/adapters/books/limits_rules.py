"""What resource-limits.yaml means: everybody's hold, priority and quota. Pure.

A user's limits are `defaults` under those of the one group that names them (else `default_group`);
a user in `user_overrides` gets `defaults` and the override only. Whatever is ambiguous or invalid
never ends a hold: it affects those whose limits depend on it, and is reported with file and key. So
does a key that only looks like one of these. Everything else in the file is passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from ds01d.adapters.books.hold_durations import parse_hold, parse_hold_hours, parse_idle_time
from ds01d.adapters.books.limits_format import HOLD_HOURS_KEY, HOLD_KEY, IDLE_HOURS_KEY, find_format
from ds01d.adapters.books.limits_layers import Layer, Mistakes
from ds01d.adapters.books.limits_sections import (
    NO_SIDE_FILES,
    Chain,
    LimitsSections,
    SideFiles,
    find_each,
    has_key,
    name_group,
)
from ds01d.adapters.books.present_limits import PresentLimits
from ds01d.adapters.books.quotas import find_quota, find_quota_key, parse_reservations
from ds01d.adapters.books.resources import find_resources
from ds01d.adapters.books.strict_yaml import describe_value
from ds01d.model.limits import (
    BUILT_IN,
    HoldRule,
    IdleRule,
    Limits,
    ResourceLimits,
)
from ds01d.model.primitives import UserName

_BUILT_IN: Final = {
    HOLD_KEY: HoldRule(seconds=86_400.0, source=BUILT_IN),
    HOLD_HOURS_KEY: HoldRule(seconds=None, source=BUILT_IN),
}
_PRIORITY: Final = {False: 0, True: 10}  # of those to whom no section gives one
_MAX_CONTAINERS: Final = 3


def resolve_limits(
    raw: Mapping[object, object], origin: str, side: SideFiles = NO_SIDE_FILES
) -> Limits:
    """Work out everybody's rule. Pure; `origin` is the file's path, for what is reported."""
    return _Resolution(raw, origin, side).resolve()


def explain_null_section(raw: Mapping[object, object], side: SideFiles) -> str:
    """Why the file cannot be meant as it is; "" if it can.

    Decision 220: in the lab's present format a section that is null lost what stood in it.
    """
    if find_format(raw, side.overrides).counts_gpus:
        for key in ("defaults", "groups"):
            if key in raw and raw[key] is None:
                return f"{key}: is null; write what belongs there, or remove the key"
    return ""


class _Resolution:
    """One file, with those beside it."""

    def __init__(self, raw: Mapping[object, object], origin: str, side: SideFiles) -> None:
        self._raw, self._origin, self._side = raw, origin, side
        self._sections = LimitsSections(raw, origin, side)
        self._format = self._sections.format
        self._mistakes = Mistakes()

    def resolve(self) -> Limits:
        sections = self._sections
        for layer in (sections.top, sections.defaults):
            self._mistakes.add_unread(layer)
        if problem := sections.overrides.problem:
            endless = self._make_endless_rule(sections.overrides, problem)
            return Limits(
                holds={},
                unknown_user=endless,
                default_resources=ResourceLimits(problem=endless.problem),
                unclear=(endless.problem,),
                passed_over=self._mistakes.list_lines(),
            )
        chains, other_users = sections.build_chains(), sections.find_others()
        for layer in (*sections.groups.values(), *(chain[0] for chain in chains.values())):
            self._mistakes.add_unread(layer)
        others = other_users.chain
        unnamed = (
            self._make_endless_rule(sections.top, other_users.problem)
            if other_users.problem
            else self._find_rule(others)
        )
        overrides = {str(user): layer.values for user, layer in sections.list_overrides().items()}
        reserved, unclear = parse_reservations(overrides, self._raw.get("gpu_allocation"))
        limits = Limits(
            holds=self._find_holds(chains),
            unnamed=unnamed,
            unknown_user=self._assume_rule(unnamed, other_users.assumed),
            priorities=find_each(chains, self._find_priority),
            default_priority=self._find_priority(others),
            resources=self._find_all_resources(chains),
            default_resources=ResourceLimits(problem=f"{self._origin}: {sections.problem}")
            if sections.problem
            else self._find_resources(others),
            idle_rules=find_each(chains, self._find_idle_rule),
            default_idle_rule=self._find_idle_rule(others),
            groups=find_each(chains, name_group),
            default_group=other_users.group,
            reservations=reserved,
            unclear=tuple(f"{self._origin}: {problem}" for problem in unclear),
        )
        if self._format.counts_gpus:
            present = PresentLimits(sections, self._side.exemptions, self._mistakes)
            limits = present.add_to(limits, chains, others)
        else:
            limits = replace(
                limits,
                quotas=find_each(chains, _find_slots),
                default_quota=_find_slots(others),
                quota_sources=find_each(chains, _find_slots_key),
                default_quota_source=_find_slots_key(others),
            )
        return replace(limits, passed_over=(*self._mistakes.list_lines(), *self._side.problems))

    # --- their limits

    def _find_holds(self, chains: Mapping[UserName, Chain]) -> Mapping[UserName, HoldRule]:
        holds = find_each(chains, self._find_rule)
        for user, names in self._sections.list_doubles().items():
            if self._format.counts_gpus:
                both = " and ".join(names)
                problem = f"{user} is in {both}: {names[0]} counts; remove it from the other"
                self._mistakes.add(self._sections.top, "groups", problem)
            else:
                # Which of two groups counts nobody has written: neither may end a hold.
                both = " and ".join(f"groups.{name}.members" for name in names)
                problem = f"{both} both name {user}"
                holds[user] = self._make_endless_rule(self._sections.top, problem)
        return holds

    def _find_rule(self, chain: Chain) -> HoldRule:
        hold_key = self._format.hold_key
        parse = parse_hold_hours if hold_key == HOLD_HOURS_KEY else parse_hold
        for layer in chain:
            if layer.problem:
                return self._make_endless_rule(layer, layer.problem)
            # The first layer that has the key decides, also with a value that is invalid.
            if hold_key in layer.values:
                key = f"{layer.key}.{hold_key}"
                duration = parse(layer.values[hold_key])
                if duration.problem:
                    return self._make_endless_rule(layer, f"{key}: {duration.problem}")
                return HoldRule(seconds=duration.seconds, source=key)
            # Decision 109: a key misspelt by one letter was meant, and must not fall to the
            # defaults.
            if explain_look_alike := layer.explain_look_alike(hold_key):
                return self._make_endless_rule(layer, explain_look_alike)
        return _BUILT_IN[hold_key]

    def _make_endless_rule(self, layer: Layer, problem: str) -> HoldRule:
        return HoldRule(
            seconds=None,
            source=problem.partition(":")[0],
            problem=f"{layer.origin}: {problem}; until that is fixed the hold does not end",
        )

    def _assume_rule(self, rule: HoldRule, assumed: str) -> HoldRule:
        """The rule of those whose name is not even known."""
        problem = f"{self._origin}: its user is not known: {assumed} assumed"
        return rule if rule.problem else replace(rule, problem=problem)

    def _find_idle_rule(self, chain: Chain) -> IdleRule | None:
        """The first section that has the key decides; None where none has it."""
        key = self._format.idle_key
        layer = next((layer for layer in chain if key in layer.values), None)
        if layer is None:
            return None
        duration = parse_idle_time(layer.values[key], in_hours=key == IDLE_HOURS_KEY)
        self._mistakes.add(layer, key, duration.problem)
        # Nobody is reported by a value that nobody understands.
        return IdleRule(seconds=duration.seconds, source=f"{layer.key}.{key}")

    def _find_all_resources(
        self, chains: Mapping[UserName, Chain]
    ) -> Mapping[UserName, ResourceLimits]:
        resources = find_each(chains, self._find_resources)
        for user, names in self._sections.groups_of.items():
            if len(names) > 1 and not self._format.counts_gpus:
                both = " and ".join(f"groups.{name}.members" for name in names)
                problem = f"{self._origin}: {both} name the same user"
                resources[UserName(user)] = ResourceLimits(problem=problem)
        return resources

    def _find_resources(self, chain: Chain) -> ResourceLimits:
        first = next((layer for layer in chain if layer.problem), None)
        problem = "" if first is None else f"{first.origin}: {first.problem}"
        if problem:
            return ResourceLimits(problem=problem)
        sections = [(layer.key, layer.values) for layer in chain]
        limits = find_resources(sections, name_group(chain) or "default")
        if limits.problem:
            origins = {layer.key: layer.origin for layer in chain}
            section = limits.problem.partition(":")[0].rpartition(".")[0]
            origin = origins.get(section, self._origin)
            return replace(limits, problem=f"{origin}: {limits.problem}")
        if self._format.counts_gpus and not has_key(chain, "max_containers_per_user"):
            limits = replace(limits, max_containers=_MAX_CONTAINERS)
        return limits

    def _find_priority(self, chain: Chain) -> int:
        for layer in chain:
            value = layer.values.get("priority")
            # A priority only orders: an invalid one may fall to the next layer.
            if isinstance(value, int) and not isinstance(value, bool):
                return int(value)
            if value is not None and self._format.counts_gpus:
                problem = f"invalid number {describe_value(value)}: it is passed over"
                self._mistakes.add(layer, "priority", problem)
        return _PRIORITY[self._format.counts_gpus]


def _find_slots(chain: Chain) -> int | None:
    return find_quota([layer.values for layer in chain])


def _find_slots_key(chain: Chain) -> str:
    """Where it stands how many slots they may hold."""
    place = find_quota_key([layer.values for layer in chain])
    return BUILT_IN if place is None else chain[place[0]].locate(place[1])
