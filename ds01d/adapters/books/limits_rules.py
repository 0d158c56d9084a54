"""What resource-limits.yaml means: everybody's hold, priority and quota. Pure.

A user's limits are `defaults` under those of the one group that names them (else `default_group`);
a user in `user_overrides` gets `defaults` and the override only. Whatever is ambiguous or invalid
never ends a hold: it affects those whose limits depend on it, and is reported with file and key. So
does a key that only looks like one of these. Everything else in the file is passed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ds01d.adapters.books.hold_durations import parse_hold
from ds01d.adapters.books.limits_layers import Layer, list_named, parse_layer, parse_section
from ds01d.adapters.books.quotas import QUOTA_KEYS, RESERVATION_KEYS, find_quota, parse_reservations
from ds01d.adapters.books.resources import RESOURCE_KEYS, find_resources
from ds01d.adapters.books.strict_yaml import describe_value, text_of
from ds01d.model.limits import HoldRule, Limits, ResourceLimits
from ds01d.model.primitives import UserName

_HOLD = "gpu_hold_after_stop"
_BUILT_IN = HoldRule(seconds=86_400.0, source="built in")
_SECTIONS = ("defaults", "default_group", "groups", "user_overrides", "gpu_allocation")
_RULES = (_HOLD, "priority", *QUOTA_KEYS, *RESOURCE_KEYS)
_OF_DEFAULTS = _RULES
_OF_GROUP = (*_RULES, "members")
_OF_USER = (*_RULES, *RESERVATION_KEYS)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Groups:
    """The groups by name, their members, and the first problem with them."""

    layers: Mapping[str, Layer]
    of_user: Mapping[str, list[str]]
    problem: str


def resolve_limits(raw: Mapping[object, object], origin: str) -> Limits:
    """Work out everybody's rule. Pure; `origin` is the file's path, for what is reported."""
    top = parse_layer(raw, "", _SECTIONS)
    defaults = parse_section(top, "defaults", _OF_DEFAULTS)
    overrides = parse_section(top, "user_overrides", ())
    if overrides.problem:
        endless = _make_endless_rule(overrides.problem, origin)
        return Limits(
            holds={},
            unknown_user=endless,
            default_resources=ResourceLimits(problem=endless.problem),
            unclear=(endless.problem,),
            passed_over=_passed_over((top, defaults), origin),
        )
    groups = _parse_groups(parse_section(top, "groups", ()))
    chains = _build_chains(overrides, groups, defaults)
    holds = {UserName(user): _find_rule(chain, origin) for user, chain in chains.items()}
    # Which of two groups counts nobody has written: neither may end a hold.
    for user, names in groups.of_user.items():
        if len(names) > 1 and user not in list_named(overrides):
            both = " and ".join(f"groups.{name}.members" for name in names)
            holds[UserName(user)] = _make_endless_rule(f"{both} both name {user}", origin)
    other_chain, unnamed, assumed = _resolve_others(top, groups, defaults, origin)
    reserved, unclear = parse_reservations(list_named(overrides), raw.get("gpu_allocation"))
    layers = (top, defaults, *groups.layers.values(), *(chain[0] for chain in chains.values()))
    return Limits(
        holds=holds,
        unnamed=unnamed,
        unknown_user=_assume_rule(unnamed, assumed, origin),
        priorities={UserName(user): _find_priority(chain) for user, chain in chains.items()},
        default_priority=_find_priority(other_chain),
        quotas={
            UserName(user): find_quota([layer.values for layer in chain])
            for user, chain in chains.items()
        },
        default_quota=find_quota([layer.values for layer in other_chain]),
        resources={
            UserName(user): _find_resources(chain, groups.of_user.get(user, ()), origin)
            for user, chain in chains.items()
        },
        default_resources=ResourceLimits(problem=f"{origin}: {groups.problem}")
        if groups.problem
        else _find_resources(other_chain, (), origin),
        reservations=reserved,
        unclear=tuple(f"{origin}: {problem}" for problem in unclear),
        passed_over=_passed_over(layers, origin),
    )


def _passed_over(layers: Iterable[Layer], origin: str) -> tuple[str, ...]:
    return tuple(
        dict.fromkeys(f"{origin}: {problem}" for layer in layers for problem in layer.list_unread())
    )


def _build_chains(
    overrides: Layer, groups: _Groups, defaults: Layer
) -> dict[str, tuple[Layer, ...]]:
    """For everybody who is named: where their limits are looked up, in this order."""
    chains: dict[str, tuple[Layer, ...]] = {
        user: (groups.layers[names[0]], defaults) for user, names in groups.of_user.items()
    }
    for user, value in list_named(overrides).items():
        chains[user] = (parse_layer(value, f"user_overrides.{user}", _OF_USER), defaults)
    return chains


def _resolve_others(
    top: Layer, groups: _Groups, defaults: Layer, origin: str
) -> tuple[tuple[Layer, ...], HoldRule, str]:
    """Where the limits of those whom nobody names are looked up, their rule, and what that is."""
    # decision 110: where there are no groups at all, a default group is one without settings: a
    # section that is null or left out is an empty one. Beside others it is a mistake, and it is
    # unknown for which user.
    default_group = top.values.get("default_group")
    name = text_of(default_group)
    layer = groups.layers.get(name) if name is not None else None
    chain = (defaults,) if layer is None else (layer, defaults)
    assumed = "the defaults are" if layer is None else f"the default group {name} is"
    empty = name is not None and not groups.layers
    problem = groups.problem or top.explain_look_alike("default_group")
    if not problem and default_group is not None and layer is None and not empty:
        problem = f"default_group: unknown group {describe_value(default_group)}"
    return (
        chain,
        _make_endless_rule(problem, origin) if problem else _find_rule(chain, origin),
        assumed,
    )


def _assume_rule(rule: HoldRule, assumed: str, origin: str) -> HoldRule:
    """The rule of those whose name is not even known."""
    problem = f"{origin}: its user is not known: {assumed} assumed"
    return rule if rule.problem else replace(rule, problem=problem)


def _find_rule(chain: tuple[Layer, ...], origin: str) -> HoldRule:
    for layer in chain:
        if layer.problem:
            return _make_endless_rule(layer.problem, origin)
        # The first layer that has the key decides, also with a value that is invalid.
        if _HOLD in layer.values:
            key = f"{layer.key}.{_HOLD}"
            duration = parse_hold(layer.values[_HOLD])
            if duration.problem:
                return _make_endless_rule(f"{key}: {duration.problem}", origin)
            return HoldRule(seconds=duration.seconds, source=key)
        # Decision 109: a key misspelt by one letter was meant, and must not fall to the defaults.
        if explain_look_alike := layer.explain_look_alike(_HOLD):
            return _make_endless_rule(explain_look_alike, origin)
    return _BUILT_IN


def _make_endless_rule(problem: str, origin: str) -> HoldRule:
    return HoldRule(
        seconds=None,
        source=problem.partition(":")[0],
        problem=f"{origin}: {problem}; until that is fixed the hold does not end",
    )


def _find_resources(chain: tuple[Layer, ...], names: Sequence[str], origin: str) -> ResourceLimits:
    problem = next((layer.problem for layer in chain if layer.problem), "")
    if len(names) > 1:
        problem = f"{' and '.join(f'groups.{name}.members' for name in names)} name the same user"
    if problem:
        return ResourceLimits(problem=f"{origin}: {problem}")
    # The section of a group is called "groups.NAME", that of a user "user_overrides.LOGIN".
    kind, _, name = chain[0].key.partition(".")
    group = {"groups": name, "user_overrides": "override"}.get(kind, "default")
    limits = find_resources([(layer.key, layer.values) for layer in chain], group)
    return replace(limits, problem=f"{origin}: {limits.problem}") if limits.problem else limits


def _find_priority(chain: tuple[Layer, ...]) -> int:
    for layer in chain:
        value = layer.values.get("priority")
        # A priority only orders: an invalid one may fall to the next layer.
        if isinstance(value, int) and not isinstance(value, bool):
            return int(value)
    return 0


def _parse_groups(section: Layer) -> _Groups:
    layers: dict[str, Layer] = {}
    of_user: dict[str, list[str]] = {}
    problems = [section.problem]
    for name, value in list_named(section).items():
        layers[name] = parse_layer(value, f"groups.{name}", _OF_GROUP)
        members, problem = _parse_members(layers[name])
        problems += [layers[name].problem, problem]
        for user in members:
            of_user.setdefault(user, []).append(name)
    return _Groups(layers=layers, of_user=of_user, problem=next(filter(None, problems), ""))


def _parse_members(layer: Layer) -> tuple[set[str], str]:
    """Who is in a group, and why that is not known of all."""
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
