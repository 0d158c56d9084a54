"""resource-limits.yaml, resolved: what each user may book, use and keep, and how long. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from ds01d.model.primitives import UserName, Wall


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
    """resource-limits.yaml, resolved: one rule, priority and quota for every user it names.

    `unnamed`: the rule for users without one; `unknown_user`: for containers whose user is not
    known. `quotas`: how many slots a user may hold; None: any number. `unclear`: invalid keys of
    reservations; `passed_over`: unread keys that look like one that is read (decision 109).
    `version` and `size` (bytes) of the file; `is_part`: the file is the beginning of the one before
    (decision 129).
    """

    holds: Mapping[UserName, HoldRule]
    unknown_user: HoldRule
    unnamed: HoldRule | None = None
    priorities: Mapping[UserName, int] = field(default_factory=dict)
    default_priority: int = 0
    quotas: Mapping[UserName, int | None] = field(default_factory=dict)
    default_quota: int | None = 1
    resources: Mapping[UserName, ResourceLimits] = field(default_factory=dict)
    default_resources: ResourceLimits = field(default_factory=ResourceLimits)
    reservations: tuple[Reservation, ...] = ()
    unclear: tuple[str, ...] = ()
    # Decision 109: the key that somebody believes to be read has another value.
    passed_over: tuple[str, ...] = ()
    version: str = ""
    size: int = 0
    # Decision 129: within one process the bytes show that a file was cut short.
    is_part: bool = False

    def find_hold(self, user: UserName | None) -> HoldRule:
        if user is None:
            return self.unknown_user
        return self.holds.get(user) or self.unnamed or self.unknown_user

    def find_priority(self, user: UserName | None) -> int:
        return (
            self.default_priority
            if user is None
            else self.priorities.get(user, self.default_priority)
        )

    def find_quota(self, user: UserName) -> int | None:
        """How many slots they may hold; None = any number."""
        return self.quotas.get(user, self.default_quota)

    def find_resources(self, user: UserName) -> ResourceLimits:
        """What each of their containers may use."""
        limits = self.resources.get(user, self.default_resources)
        return replace(limits, slice=limits.slice.replace("{user}", _sanitize_login(user)))


_MAX_SLICE_LOGIN: Final = 32


def _sanitize_login(login: str) -> str:
    """A login as a part of a slice's name, as the server's other tools write it."""
    plain = re.sub(r"_+", "_", re.sub(r"[^A-Za-z0-9_-]", "_", login.partition("@")[0]))
    if len(plain) <= _MAX_SLICE_LOGIN:
        return plain
    digest = hashlib.md5(login.encode(), usedforsecurity=False).hexdigest()
    return f"{plain[:27]}_{digest[:4]}"
