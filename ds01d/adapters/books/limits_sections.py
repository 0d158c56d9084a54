"""Whose limits stand in which section of resource-limits.yaml and the files beside it. Pure.

An override comes before every group. In the lab's present format the first group in the file that
names a login, or its sanitized form, counts; in the older one nobody may be in two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from ds01d.adapters.books.limits_format import LimitsFormat, find_format
from ds01d.adapters.books.limits_layers import (
    Layer,
    Mistakes,
    list_named,
    parse_layer,
    parse_section,
)
from ds01d.adapters.books.quotas import RESERVATION_KEYS
from ds01d.adapters.books.strict_yaml import describe_value, text_of
from ds01d.model.primitives import UserName
from ds01d.model.sanitized_logins import sanitize_login

T = TypeVar("T")

OVERRIDE: Final = "override"
_SECTIONS: Final = (
    *("defaults", "default_group", "groups", "user_overrides", "gpu_allocation"),
    *("container_types", "policies"),
)
_DEFAULT_GROUP: Final = "student"  # for the lab's scripts, where the file names none

Chain = tuple[Layer, ...]
"""The sections in which a user's limits are looked up, in this order."""


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
class OtherUsers:
    """Where the limits of those whom nobody names are looked up.

    `group`: its name, "" without one; `assumed`: in words, what that is; `problem`: why it is not
    known.
    """

    chain: Chain
    group: str
    assumed: str
    problem: str


class LimitsSections:
    """The sections of one file, with those beside it. `overrides`: those in the file itself."""

    def __init__(self, raw: Mapping[object, object], origin: str, side: SideFiles) -> None:
        self.format: LimitsFormat = find_format(raw, side.overrides)
        self.top = parse_layer(raw, "", _SECTIONS, origin)
        self.defaults = parse_section(self.top, "defaults", self.format.keys)
        self.overrides = parse_section(self.top, "user_overrides", ())
        self.groups: dict[str, Layer] = {}
        self.groups_of: dict[str, list[str]] = {}
        self._side = side
        self.problem = self._parse_groups(parse_section(self.top, "groups", ()))

    def _parse_groups(self, section: Layer) -> str:
        """Read the groups and their members; the first problem with them, or ""."""
        readable = (*self.format.keys, "members")
        problems = [section.problem]
        for name, value in list_named(section).items():
            layer = parse_layer(value, f"groups.{name}", readable, section.origin)
            self.groups[name] = layer
            members, problem = _parse_members(layer)
            problems += [layer.problem, problem]
            for user in dict.fromkeys((*members, *self._side.members.get(name, ()))):
                self.groups_of.setdefault(user, []).append(name)
        return next(filter(None, problems), "")

    def build_chains(self) -> dict[UserName, Chain]:
        """For everybody who is named: where their limits are looked up."""
        # One chain for a whole group: `find_each` recognizes it, and works it out once.
        of_group: dict[str, Chain] = {
            name: (layer, self.defaults) for name, layer in self.groups.items()
        }
        chains = {UserName(user): of_group[names[0]] for user, names in self.groups_of.items()}
        for user, layer in self.list_overrides().items():
            chains[user] = (layer, self.defaults)
        return chains

    def list_overrides(self) -> dict[UserName, Layer]:
        """The overrides of all users; those of the file beside come before."""
        readable = (*self.format.keys, *RESERVATION_KEYS)
        beside = parse_layer(self._side.overrides, "", (), self._side.overrides_path)
        return {
            UserName(user): parse_layer(value, f"user_overrides.{user}", readable, section.origin)
            for section in (self.overrides, beside)
            for user, value in list_named(section).items()
        }

    def list_groups(self, user: str) -> list[str]:
        """The groups that name a login or its sanitized form, the one that counts first."""
        forms = (user, *sanitize_login(user))
        named = {name for form in forms for name in self.groups_of.get(form, ())}
        return [name for name in self.groups if name in named]

    def list_doubles(self) -> dict[UserName, list[str]]:
        """Who is in several groups, and has no override."""
        overrides = self.list_overrides()
        return {
            UserName(user): names
            for user, names in self.groups_of.items()
            if len(names) > 1 and user not in overrides
        }

    def find_others(self) -> OtherUsers:
        # decision 110: where there are no groups at all, a default group is one without settings: a
        # section that is null or left out is an empty one. Beside others it is a mistake, and it is
        # unknown for which user.
        default_group = self.top.values.get("default_group")
        name = text_of(default_group)
        if default_group is None and self.format.counts_gpus:
            name = _DEFAULT_GROUP
        layer = self.groups.get(name) if name is not None else None
        is_empty = name is not None and not self.groups
        problem = self.problem or self.top.explain_look_alike("default_group")
        if not problem and default_group is not None and layer is None and not is_empty:
            problem = f"default_group: unknown group {describe_value(default_group)}"
        return OtherUsers(
            chain=(self.defaults,) if layer is None else (layer, self.defaults),
            group=name or "",
            assumed="the defaults are" if layer is None else f"the default group {name} is",
            problem=problem,
        )

    def rank_names(self, chains: Mapping[UserName, Chain]) -> dict[UserName, int]:
        """Which name counts where a login and its sanitized form are both there: the lowest."""
        places = {name: place for place, name in enumerate(self.groups)}
        return find_each(chains, lambda chain: places.get(name_group(chain), -1))

    def note_assignments(self, mistakes: Mistakes) -> None:
        """Note which assignment of a group-overrides.txt is not that of the `.members` files."""
        # Decision 223: that file is for the script that fills the others.
        beside = Layer(key="", values={}, origin=self._side.assignments_path)
        for user, group in self._side.assignments.items():
            names = self.list_groups(user)
            if group not in self.groups:
                mistakes.add(beside, user, f"unknown group {group!r:.60}")
            elif names[:1] != [group]:
                counts = f"group {names[0]}" if names else "the default group"
                problem = f"{group} is assigned, and {counts} counts; correct the .members files"
                mistakes.add(beside, user, problem)


def find_each(chains: Mapping[UserName, Chain], find: Callable[[Chain], T]) -> dict[UserName, T]:
    """What `find` gives for each user's chain: once for each chain, since groups are large."""
    results: dict[int, T] = {}
    for chain in chains.values():
        if id(chain) not in results:
            results[id(chain)] = find(chain)
    return {user: results[id(chain)] for user, chain in chains.items()}


def name_group(chain: Chain) -> str:
    """The group whose section comes first; "" for the defaults."""
    # The section of a group is called "groups.NAME", that of a user "user_overrides.LOGIN".
    kind, _, name = chain[0].key.partition(".")
    return {"groups": name, "user_overrides": OVERRIDE}.get(kind, "")


def has_key(chain: Chain, key: str) -> bool:
    """Whether one of the sections has a key."""
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
