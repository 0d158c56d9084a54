"""resource-limits.yaml, resolved: what each user may book, use and keep, and how long. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Final

from ds01d.model.container_labels import ContainerType
from ds01d.model.primitives import UserName, Wall
from ds01d.model.sanitized_logins import sanitize_login


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldRule:
    """How long a user's stopped container keeps its slot.

    `seconds` None: for ever. `problem`: the key of the limits that is invalid (then the retention
    never ends), or what was assumed for an unknown user; "" without one.
    """

    seconds: float | None
    source: str
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleRule:
    """After which time a user's idle container is reported. `seconds` None: never."""

    seconds: float | None
    source: str


BUILT_IN: Final = "built in"
"""The source of a limit that no file gives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuQuota:
    """How much of the GPUs a user may hold, in GPU-equivalents. None: any amount.

    `gpus`: in all; `aggregate`: the same by `aggregate.gpu_limit`; `slots_per_container`: slots of
    one container; `whole_gpus`: whether a GPU that is not divided may be theirs.
    """

    # Decision 224: exact, since seven sevenths have to be a whole GPU.
    gpus: Fraction | None = None
    aggregate: Fraction | None = None
    slots_per_container: int | None = None
    whole_gpus: bool = True
    source: str = ""
    aggregate_source: str = ""

    @property
    def limit(self) -> Fraction | None:
        """The lower of the two limits; None: any amount."""
        limits = [limit for limit in (self.gpus, self.aggregate) if limit is not None]
        return min(limits, default=None)

    @property
    def limit_source(self) -> str:
        """Where `limit` stands."""
        return self.source if self.limit == self.gpus else self.aggregate_source


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifecycle:
    """When the lab's scripts stop and remove a container, in seconds; None: never.

    ds01d stops and removes nothing: it only shows them.
    """

    idle_timeout_s: float | None = None
    max_runtime_s: float | None = None
    removal_after_stop_s: float | None = None


IDLE_TIMEOUT: Final = "idle_timeout_h"
MAX_RUNTIME: Final = "max_runtime_h"
EXEMPTION_KEYS: Final = (IDLE_TIMEOUT, MAX_RUNTIME)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exemption:
    """A user whose containers one of the lab's scripts leaves alone, until `expires` (None: ever).

    `key`: of `EXEMPTION_KEYS`, of what they are exempt.
    """

    user: UserName
    key: str
    expires: Wall | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """GPUs reserved for a user from `start` to `end`; None: unbounded.

    `gpus` as slot ids; a GPU's index stands for all of it, MIG devices included.
    """

    user: UserName
    gpus: frozenset[str]
    start: Wall | None = None
    end: Wall | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceLimits:
    """What each container of a user may use of the host. None, and `slice` "": no limit.

    `memory_swap`: memory and swap together; -1: any swap. `slice`: the cgroup of its containers.
    `problem`: a limit that is invalid, so that no container may be created.
    """

    cpus: float | None = None
    memory: int | None = None
    memory_swap: int | None = None
    shm_bytes: int | None = None
    pids: int | None = None
    slice: str = ""
    max_containers: int | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """resource-limits.yaml with the files beside it, resolved for every user they name.

    `unnamed`: the rule for users without one; `unknown_user`: for containers whose user is not
    known. `quotas`: how many slots a user may hold; None: any number. `ranks`: whom an override
    (-1) or a group, by its place in the file, names by their login or its sanitized form; empty:
    only logins count. `groups`: the group of each. `types`: lifecycles by the type of a container.
    `freed_types`: which are free as soon as they stop. `idle_rules`: when idle containers are
    reported. `unclear`: invalid keys of reservations;
    `passed_over`: unread keys that look like one that is read (decision 109), and values that are
    not what they look like (decision 221). `version` and `size` (bytes) of the files; `is_part`:
    one is the beginning of what stood there before (decision 129). `problem`: why the files cannot
    be read now; then these are the last good limits, and end no hold (decision 220).
    """

    holds: Mapping[UserName, HoldRule]
    unknown_user: HoldRule
    unnamed: HoldRule | None = None
    priorities: Mapping[UserName, int] = field(default_factory=dict)
    default_priority: int = 0
    quotas: Mapping[UserName, int | None] = field(default_factory=dict)
    default_quota: int | None = 1
    quota_sources: Mapping[UserName, str] = field(default_factory=dict)
    default_quota_source: str = BUILT_IN
    gpu_quotas: Mapping[UserName, GpuQuota] = field(default_factory=dict)
    default_gpu_quota: GpuQuota | None = None
    resources: Mapping[UserName, ResourceLimits] = field(default_factory=dict)
    default_resources: ResourceLimits = field(default_factory=ResourceLimits)
    lifecycles: Mapping[UserName, Lifecycle] = field(default_factory=dict)
    default_lifecycle: Lifecycle = field(default_factory=Lifecycle)
    idle_rules: Mapping[UserName, IdleRule | None] = field(default_factory=dict)
    default_idle_rule: IdleRule | None = None
    groups: Mapping[UserName, str] = field(default_factory=dict)
    default_group: str = ""
    ranks: Mapping[UserName, int] = field(default_factory=dict)
    types: Mapping[ContainerType, Lifecycle] = field(default_factory=dict)
    freed_types: frozenset[ContainerType] = frozenset()
    exemptions: tuple[Exemption, ...] = ()
    reservations: tuple[Reservation, ...] = ()
    unclear: tuple[str, ...] = ()
    # Decision 109: the key that somebody believes to be read has another value.
    passed_over: tuple[str, ...] = ()
    version: str = ""
    size: int = 0
    # Decision 129: within one process the bytes show that a file was cut short.
    is_part: bool = False
    problem: str = ""

    def find_hold(self, user: UserName | None, type_: ContainerType | None = None) -> HoldRule:
        """How long a stopped container of a user keeps its slots."""
        # Decision 220: what the broken files were to say may be a longer hold.
        if self.problem:
            return HoldRule(seconds=None, source="last good limits", problem=self.problem)
        # Decision 226: the next job must not wait for the hold of the last one.
        if type_ in self.freed_types:
            return HoldRule(seconds=0.0, source=f"containers of type {type_}")
        if user is None:
            return self.unknown_user
        return self.holds.get(self.find_entry(user)) or self.unnamed or self.unknown_user

    @property
    def has_idle_rules(self) -> bool:
        """Somebody's idle containers are reported by these limits."""
        rules = (self.default_idle_rule, *self.idle_rules.values())
        return any(rule is not None and rule.seconds is not None for rule in rules)

    def find_idle_rule(self, user: UserName | None) -> IdleRule | None:
        """When an idle container of a user is reported; None: these limits do not say."""
        if user is None:
            return self.default_idle_rule
        return self.idle_rules.get(self.find_entry(user), self.default_idle_rule)

    def find_priority(self, user: UserName | None) -> int:
        if user is None:
            return self.default_priority
        return self.priorities.get(self.find_entry(user), self.default_priority)

    def find_quota(self, user: UserName) -> int | None:
        """How many slots they may hold; None = any number."""
        return self.quotas.get(self.find_entry(user), self.default_quota)

    def find_quota_source(self, user: UserName) -> str:
        """The file and the key that say so."""
        return self.quota_sources.get(self.find_entry(user), self.default_quota_source)

    def find_gpu_quota(self, user: UserName) -> GpuQuota | None:
        """How much of the GPUs they may hold; None: the limits count slots."""
        return self.gpu_quotas.get(self.find_entry(user), self.default_gpu_quota)

    def find_resources(self, user: UserName) -> ResourceLimits:
        """What each of their containers may use."""
        limits = self.resources.get(self.find_entry(user), self.default_resources)
        return replace(limits, slice=limits.slice.replace("{user}", sanitize_login(user)[0]))

    def find_lifecycle(self, user: UserName, type_: ContainerType | None = None) -> Lifecycle:
        """When the lab's scripts stop and remove a container of theirs."""
        of_user = self.lifecycles.get(self.find_entry(user), self.default_lifecycle)
        of_type = None if type_ is None else self.types.get(type_)
        if of_type is None:
            return of_user
        return replace(of_type, removal_after_stop_s=of_user.removal_after_stop_s)

    def find_group(self, user: UserName) -> str:
        """The group whose limits are theirs; "override" for an override."""
        return self.groups.get(self.find_entry(user), self.default_group)

    def find_exemption(self, user: UserName, key: str, now: Wall) -> Exemption | None:
        """Why one of the lab's scripts leaves their containers alone; None if it does not."""
        for exemption in self.exemptions:
            if (exemption.user, exemption.key) == (user, key) and (
                exemption.expires is None or now < exemption.expires
            ):
                return exemption
        return None

    def find_entry(self, user: UserName) -> UserName:
        """The name under which the files list a user: the login, or its sanitized form."""
        if not self.ranks:
            return user
        names = [name for name in (user, *sanitize_login(user)) if name in self.ranks]
        return min(names, key=self.ranks.__getitem__, default=user)
