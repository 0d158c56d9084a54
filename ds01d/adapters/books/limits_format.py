"""Which of the two formats of resource-limits.yaml a file has: the keys say it. Pure.

The older one counts slots and writes durations with units; the lab's present one counts
GPU-equivalents and has hours in keys that end in `_h`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from ds01d.adapters.books.gpu_quotas import (
    AGGREGATE_KEY,
    CONTAINER_KEYS,
    EQUIVALENTS_KEYS,
    WHOLE_GPUS_KEY,
)
from ds01d.adapters.books.lifecycles import LIFECYCLE_KEYS
from ds01d.adapters.books.quotas import QUOTA_KEYS
from ds01d.adapters.books.resources import RESOURCE_KEYS

HOLD_KEY: Final = "gpu_hold_after_stop"
HOLD_HOURS_KEY: Final = "gpu_hold_after_stop_h"
IDLE_KEY: Final = "gpu_idle_report_after"
IDLE_HOURS_KEY: Final = "gpu_idle_report_after_h"

# Not the older names of these: between the two formats there was one that counted slots by them.
_PRESENT: Final = frozenset(
    {
        *(HOLD_HOURS_KEY, *LIFECYCLE_KEYS),
        *("max_gpu_equivalents", "max_gpu_slots", "max_gpu_slots_per_container"),
    }
)
# Read by the lab's scripts alone; without them here they would look like misspelt ones.
_OF_SCRIPTS: Final = ("max_tasks", "policies", "cpus", "gpu_memory")


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsFormat:
    """`hold_key`: the key of the hold; `counts_gpus`: quotas are in GPU-equivalents."""

    hold_key: str
    counts_gpus: bool

    @property
    def idle_key(self) -> str:
        """The key of the time after which an idle container is reported; as that of the hold."""
        return IDLE_KEY if self.hold_key == HOLD_KEY else IDLE_HOURS_KEY

    @property
    def keys(self) -> tuple[str, ...]:
        """What is read of a section in which a user's limits are looked up."""
        if not self.counts_gpus:
            return (self.hold_key, self.idle_key, "priority", *QUOTA_KEYS, *RESOURCE_KEYS)
        return (
            *(self.hold_key, self.idle_key, "priority", *EQUIVALENTS_KEYS, *CONTAINER_KEYS),
            *(WHOLE_GPUS_KEY, AGGREGATE_KEY, *LIFECYCLE_KEYS, *RESOURCE_KEYS, *_OF_SCRIPTS),
        )


def find_format(raw: Mapping[object, object], overrides: Mapping[object, object]) -> LimitsFormat:
    """The format of the file `raw`, with the overrides beside it."""
    keys = {key for section in _list_sections(raw, overrides) for key in section}
    counts_gpus = bool(keys & _PRESENT)
    # Decision 221: quotas and holds are recognized apart: a file may have each in another format.
    has_units = HOLD_KEY in keys and HOLD_HOURS_KEY not in keys
    is_older = not counts_gpus or has_units
    return LimitsFormat(hold_key=HOLD_KEY if is_older else HOLD_HOURS_KEY, counts_gpus=counts_gpus)


def _list_sections(
    raw: Mapping[object, object], overrides: Mapping[object, object]
) -> Iterator[Mapping[object, object]]:
    for section in (
        raw.get("defaults"),
        *_list_values(raw.get("groups")),
        *_list_values(raw.get("user_overrides")),
        *overrides.values(),
    ):
        if isinstance(section, dict):
            yield section


def _list_values(section: object) -> list[object]:
    return list(section.values()) if isinstance(section, dict) else []
