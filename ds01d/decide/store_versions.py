"""What is known to be wrong with versions of etcd, as far as a fleet is concerned. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

_NUMBERS: Final = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})\.([0-9]{1,4})")


class EtcdVersion(NamedTuple):
    """Of a member: 3.5.16."""

    major: int
    minor: int
    patch: int


OLDEST: Final = EtcdVersion(3, 5, 0)
"""Debian 12 has 3.4.23, which nobody maintains any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Flaw:
    """An advisory. `fixed`: the first version of each series without it; later series have none."""

    name: str
    fixed: tuple[EtcdVersion, ...]
    effect: str

    def concerns(self, version: EtcdVersion) -> bool:
        newest = max(self.fixed)
        if version[:2] > newest[:2]:
            return False
        # Each series has its own first version without it.
        for first in self.fixed:
            if version[:2] == first[:2]:
                return version < first
        return True  # an older series, in which nothing is fixed any more


# Each against what was published with it (osv.dev, etcd's own advisories).
_FLAWS: Final = (
    _Flaw(
        name="CVE-2026-33343",
        fixed=(EtcdVersion(3, 4, 42), EtcdVersion(3, 5, 28), EtcdVersion(3, 6, 9)),
        effect="every user reads and writes every key, with a transaction inside a transaction",
    ),
    _Flaw(
        name="CVE-2026-33413",
        fixed=(EtcdVersion(3, 4, 42), EtcdVersion(3, 5, 28), EtcdVersion(3, 6, 9)),
        effect="leases, alarms, compaction and the list of members need no user",
    ),
    _Flaw(
        name="CVE-2026-44283",
        fixed=(EtcdVersion(3, 4, 44), EtcdVersion(3, 5, 30), EtcdVersion(3, 6, 11)),
        effect="every user reads keys of others with what a transaction replaces",
    ),
    _Flaw(
        name="CVE-2026-73499",
        fixed=(EtcdVersion(3, 5, 33), EtcdVersion(3, 6, 14), EtcdVersion(3, 7, 1)),
        effect="every user watches keys of others",
    ),
)


def parse_version(text: str) -> EtcdVersion | None:
    """The numbers of a version, whatever follows them; None where there are none."""
    match = _NUMBERS.match(text)
    return None if match is None else EtcdVersion(*map(int, match.groups()))


def is_too_old(version: EtcdVersion) -> bool:
    """ds01d is not tested with it."""
    return version < OLDEST


def find_flaws(version: EtcdVersion) -> tuple[str, ...]:
    """Why users and roles of this etcd protect nothing: `CVE-…: effect`, each.

    By the number: a distribution may have fixed its own without changing it.
    """
    return tuple(f"{flaw.name}: {flaw.effect}" for flaw in _FLAWS if flaw.concerns(version))
