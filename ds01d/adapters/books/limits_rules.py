"""What resource-limits.yaml means: everybody's hold, priority and quota. Pure.

A user's limits are `defaults` under those of the one group that names them (else `default_group`);
a user in `user_overrides` gets `defaults` and the override only. Whatever is ambiguous or invalid
never ends a hold: it affects those whose limits depend on it, and is reported with file and key. So
does a key that only looks like one of these. Everything else in the file is passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from ds01d.adapters.books.gpu_quotas import AGGREGATE_KEY, find_gpu_quota
from ds01d.adapters.books.hold_durations import parse_hold, parse_hold_hours
from ds01d.adapters.books.lifecycles import find_lifecycle, parse_exemptions, parse_types
from ds01d.adapters.books.limits_format import (
    HOLD_HOURS_KEY,
    HOLD_KEY,
    LimitsFormat,
    find_format,
)
from ds01d.adapters.books.limits_layers import (
    Layer,
    Mistakes,
    list_named,
    parse_layer,
    parse_section,
)
from ds01d.adapters.books.quotas import RESERVATION_KEYS, find_quota, parse_reservations
from ds01d.adapters.books.resources import find_resources
from ds01d.adapters.books.strict_yaml import describe_value, text_of
from ds01d.model.containers import ContainerType
from ds01d.model.limits import (
    GpuQuota,
    HoldRule,
    Limits,
    ResourceLimits,
    sanitize_login,
)
from ds01d.model.primitives import UserName

_BUILT_IN: Final = {
    HOLD_KEY: HoldRule(seconds=86_400.0, source="built in"),
    HOLD_HOURS_KEY: HoldRule(seconds=None, source="built in"),
}
_SECTIONS: Final = (
    *("defaults", "default_group", "groups", "user_overrides", "gpu_allocation"),
    *("container_types", "policies"),
)
_OVERRIDE: Final = "override"
_DEFAULT_GROUP: Final = "student"  # for the lab's scripts, where the file names none
_PRIORITY: Final = {False: 0, True: 10}  # of those to whom no section gives one
_MAX_CONTAINERS: Final = 3

Chain = tuple[Layer, ...]
"""The sections in which a user's limits are looked up, in this order."""

# What a service for jobs or a command that deploys has stopped has done its work.
FREED_TYPES: Final = frozenset({ContainerType.API, ContainerType.ORCHESTRATION})


@dataclass(frozen=True, slots=True, kw_only=True)
class SideFiles:
    """What lies beside resource-limits.yaml, parsed.

    `members`: the logins of each group's file; `assignments`: the group that group-overrides.txt
    gives a login; `problems`: what is wrong in them, a line each.
    """

    members: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    overrides: Mapping[object, object] = field(default_factory=dict)
    overrides_path: str = ""
    assignments: Mapping[str, str] = field(default_factory=dict)
    assignments_path: str = ""
    exemptions: Layer = field(default_factory=lambda: Layer(key="", values={}))
    problems: tuple[str, ...] = ()


NO_SIDE_FILES: Final = SideFiles()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Groups:
    """The groups by name, their members, and the first problem with them."""

    layers: Mapping[str, Layer]
    of_user: Mapping[str, list[str]]
    problem: str


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
        self._format: LimitsFormat = find_format(raw, side.overrides)
        self._mistakes = Mistakes()
        self._top = parse_layer(raw, "", _SECTIONS, origin)
        self._defaults = parse_section(self._top, "defaults", self._format.keys)
        self._overrides = parse_section(self._top, "user_overrides", ())
        self._groups = self._parse_groups(parse_section(self._top, "groups", ()))

    def resolve(self) -> Limits:
        for layer in (self._top, self._defaults):
            self._mistakes.add_unread(layer)
        if self._overrides.problem:
            endless = self._make_endless_rule(self._overrides, self._overrides.problem)
            return Limits(
                holds={},
                unknown_user=endless,
                default_resources=ResourceLimits(problem=endless.problem),
                unclear=(endless.problem,),
                passed_over=self._mistakes.list_lines(),
            )
        chains = self._build_chains()
        for layer in (*self._groups.layers.values(), *(chain[0] for chain in chains.values())):
            self._mistakes.add_unread(layer)
        others, unnamed, assumed = self._resolve_others()
        inline = list_named(self._overrides)
        reserved, unclear = parse_reservations(inline, self._raw.get("gpu_allocation"))
        limits = Limits(
            holds=self._find_holds(chains),
            unnamed=unnamed,
            unknown_user=self._assume_rule(unnamed, assumed),
            priorities={user: self._find_priority(chain) for user, chain in chains.items()},
            default_priority=self._find_priority(others),
            resources={user: self._find_resources(user, chain) for user, chain in chains.items()},
            default_resources=ResourceLimits(problem=f"{self._origin}: {self._groups.problem}")
            if self._groups.problem
            else self._find_resources(None, others),
            groups={user: _name_group(chain) for user, chain in chains.items()},
            default_group=_name_group(others),
            reservations=reserved,
            unclear=tuple(f"{self._origin}: {problem}" for problem in unclear),
        )
        if self._format.counts_gpus:
            limits = self._add_present(limits, chains, others)
        else:
            limits = replace(
                limits,
                quotas={user: _find_slots(chain) for user, chain in chains.items()},
                default_quota=_find_slots(others),
            )
        return replace(limits, passed_over=(*self._mistakes.list_lines(), *self._side.problems))

    # --- who is named

    def _parse_groups(self, section: Layer) -> _Groups:
        layers: dict[str, Layer] = {}
        of_user: dict[str, list[str]] = {}
        problems = [section.problem]
        for name, value in list_named(section).items():
            layer = parse_layer(
                value, f"groups.{name}", (*self._format.keys, "members"), self._origin
            )
            layers[name] = layer
            members, problem = _parse_members(layer)
            problems += [layer.problem, problem]
            for user in dict.fromkeys((*members, *self._side.members.get(name, ()))):
                of_user.setdefault(user, []).append(name)
        return _Groups(layers=layers, of_user=of_user, problem=next(filter(None, problems), ""))

    def _build_chains(self) -> dict[UserName, Chain]:
        """For everybody who is named: where their limits are looked up, in this order."""
        chains: dict[UserName, Chain] = {
            UserName(user): (self._groups.layers[names[0]], self._defaults)
            for user, names in self._groups.of_user.items()
        }
        readable = (*self._format.keys, *RESERVATION_KEYS)
        beside = parse_layer(self._side.overrides, "", (), self._side.overrides_path)
        for section in (self._overrides, beside):
            for user, value in list_named(section).items():
                layer = parse_layer(value, f"user_overrides.{user}", readable, section.origin)
                chains[UserName(user)] = (layer, self._defaults)
        return chains

    def _list_groups(self, user: str) -> list[str]:
        """The groups that name a login or its sanitized form, the one that counts first."""
        named = {
            name for form in (user, *sanitize_login(user))
            for name in self._groups.of_user.get(form, ())
        }  # fmt: skip
        return [name for name in self._groups.layers if name in named]

    def _resolve_others(self) -> tuple[Chain, HoldRule, str]:
        """Where the limits of those whom nobody names are looked up, their rule, and what it is."""
        # decision 110: where there are no groups at all, a default group is one without settings: a
        # section that is null or left out is an empty one. Beside others it is a mistake, and it is
        # unknown for which user.
        default_group = self._top.values.get("default_group")
        name = text_of(default_group)
        if default_group is None and self._format.counts_gpus:
            name = _DEFAULT_GROUP
        layer = self._groups.layers.get(name) if name is not None else None
        chain = (self._defaults,) if layer is None else (layer, self._defaults)
        assumed = "the defaults are" if layer is None else f"the default group {name} is"
        empty = name is not None and not self._groups.layers
        problem = self._groups.problem or self._top.explain_look_alike("default_group")
        if not problem and default_group is not None and layer is None and not empty:
            problem = f"default_group: unknown group {describe_value(default_group)}"
        rule = self._make_endless_rule(self._top, problem) if problem else self._find_rule(chain)
        return chain, rule, assumed

    # --- their limits

    def _find_holds(self, chains: Mapping[UserName, Chain]) -> Mapping[UserName, HoldRule]:
        holds = {user: self._find_rule(chain) for user, chain in chains.items()}
        for user, names in self._groups.of_user.items():
            if len(names) == 1 or _name_group(chains[UserName(user)]) == _OVERRIDE:
                continue
            if self._format.counts_gpus:
                both = " and ".join(names)
                problem = f"{user} is in {both}: {names[0]} counts; remove it from the other"
                self._mistakes.add(self._top, "groups", problem)
            else:
                # Which of two groups counts nobody has written: neither may end a hold.
                both = " and ".join(f"groups.{name}.members" for name in names)
                problem = f"{both} both name {user}"
                holds[UserName(user)] = self._make_endless_rule(self._top, problem)
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

    def _find_resources(self, user: UserName | None, chain: Chain) -> ResourceLimits:
        first = next((layer for layer in chain if layer.problem), None)
        problem = "" if first is None else f"{first.origin}: {first.problem}"
        names = self._groups.of_user.get(user, ()) if user is not None else ()
        if len(names) > 1 and not self._format.counts_gpus:
            both = " and ".join(f"groups.{name}.members" for name in names)
            problem = f"{self._origin}: {both} name the same user"
        if problem:
            return ResourceLimits(problem=problem)
        sections = [(layer.key, layer.values) for layer in chain]
        limits = find_resources(sections, _name_group(chain) or "default")
        if limits.problem:
            origins = {layer.key: layer.origin for layer in chain}
            section = limits.problem.partition(":")[0].rpartition(".")[0]
            origin = origins.get(section, self._origin)
            return replace(limits, problem=f"{origin}: {limits.problem}")
        if self._format.counts_gpus and not _has_key(chain, "max_containers_per_user"):
            limits = replace(limits, max_containers=_MAX_CONTAINERS)
        return limits

    def _find_priority(self, chain: Chain) -> int:
        for layer in chain:
            value = layer.values.get("priority")
            # A priority only orders: an invalid one may fall to the next layer.
            if isinstance(value, int) and not isinstance(value, bool):
                return int(value)
        return _PRIORITY[self._format.counts_gpus]

    # --- what only the lab's present format has

    def _add_present(
        self, limits: Limits, chains: Mapping[UserName, Chain], others: Chain
    ) -> Limits:
        mistakes = self._mistakes
        quotas = {user: self._find_gpu_quota(user, chain) for user, chain in chains.items()}
        default_quota = find_gpu_quota(others, others, mistakes)
        for user, chain in chains.items():
            self._note_aggregate(user, chain, quotas[user], default_quota)
        self._note_assignments()
        for rule in (*limits.holds.values(), limits.unnamed):
            if rule is not None and rule.problem:
                mistakes.add_line(rule.problem)
        return replace(
            limits,
            default_quota=None,
            gpu_quotas=quotas,
            default_gpu_quota=default_quota,
            lifecycles={user: find_lifecycle(chain, mistakes) for user, chain in chains.items()},
            default_lifecycle=find_lifecycle(others, mistakes),
            ranks=self._rank_names(chains),
            types=parse_types(parse_section(self._top, "container_types", ()), mistakes),
            freed_types=FREED_TYPES,
            exemptions=parse_exemptions(self._side.exemptions, mistakes),
        )

    def _find_gpu_quota(self, user: UserName, chain: Chain) -> GpuQuota:
        groups = [self._groups.layers[name] for name in self._list_groups(user)[:1]]
        return find_gpu_quota(chain, (chain[0], *groups, *chain[1:]), self._mistakes)

    def _note_aggregate(
        self, user: UserName, chain: Chain, quota: GpuQuota, default: GpuQuota
    ) -> None:
        """Decision 223: an override gets its own aggregate, else that of the user's group."""
        if _name_group(chain) != _OVERRIDE or self._list_groups(user):
            return
        limit = default.aggregate
        is_missing = not _has_key(chain, AGGREGATE_KEY)
        if limit is not None and is_missing and (quota.gpus is None or quota.gpus > limit):
            given = "null" if quota.gpus is None else f"{float(quota.gpus):g}"
            problem = (
                f"missing, so the lab's scripts hold {user} to gpu_limit {float(limit):g} of the"
                f" default group: write gpu_limit: {given}"
            )
            self._mistakes.add(chain[0], AGGREGATE_KEY, problem)

    def _note_assignments(self) -> None:
        """Decision 224: group-overrides.txt is for the script that fills the `.members` files."""
        beside = Layer(key="", values={}, origin=self._side.assignments_path)
        for user, group in self._side.assignments.items():
            names = self._list_groups(user)
            if group not in self._groups.layers:
                self._mistakes.add(beside, user, f"unknown group {group!r:.60}")
            elif names[:1] != [group]:
                counts = f"group {names[0]}" if names else "the default group"
                problem = f"{group} is assigned, and {counts} counts; correct the .members files"
                self._mistakes.add(beside, user, problem)

    def _rank_names(self, chains: Mapping[UserName, Chain]) -> Mapping[UserName, int]:
        places = {name: place for place, name in enumerate(self._groups.layers)}
        return {user: places.get(_name_group(chain), -1) for user, chain in chains.items()}


def _name_group(chain: Chain) -> str:
    """The group whose section comes first; "" for the defaults."""
    # The section of a group is called "groups.NAME", that of a user "user_overrides.LOGIN".
    kind, _, name = chain[0].key.partition(".")
    return {"groups": name, "user_overrides": _OVERRIDE}.get(kind, "")


def _find_slots(chain: Chain) -> int | None:
    return find_quota([layer.values for layer in chain])


def _has_key(chain: Chain, key: str) -> bool:
    return any(key in layer.values for layer in chain)


def _parse_members(layer: Layer) -> tuple[set[str], str]:
    """Who is in a group by its own key, and why that is not known of all."""
    raw = layer.values.get("members")
    if raw is None:
        return set(), layer.explain_look_alike("members")
    key = f"{layer.key}.members"
    if not isinstance(raw, list):
        return set(), f"{key}: expected a list, got {describe_value(raw)}"
    names = [(item, text_of(item)) for item in raw if item is not None]
    unclear = [
        f"{key}: invalid user name {describe_value(item)}; quote it"
        for item, name in names
        if not name
    ]
    return {str(name) for _, name in names if name}, "".join(unclear[:1])
