"""Who has or uses GPUs, booked or not: living containers, and processes. Pure values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ds01d.model.containers import Container
from ds01d.model.primitives import ContainerId, ContainerName, DeviceUuid


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceUse:
    """Devices that somebody has, by a request or by using them.

    `user`: for people, the container's name or "process 7 (python)". `container` and `id` None:
    processes that belong to no container which the engine lists. `devices`: UUIDs, sorted; of a
    request by index whose meaning at the start is not known, those that it means today.
    `exact`: what its request meant when it started is known.
    """

    user: str
    devices: tuple[DeviceUuid, ...]
    container: ContainerName | None = None
    id: ContainerId | None = None
    exact: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedUse:
    """What the daemon published of the use of GPUs.

    `without_devices`: living containers whose request gives them no device of their own, the first
    12 characters of each ID. `outdated`: why it may not be so any more; "" if it is fresh.
    `inventory`: fingerprint of the devices that are remembered, also from before a boot; "" = none.
    """

    uses: tuple[DeviceUse, ...] = ()
    without_devices: frozenset[str] = frozenset()
    outdated: str = ""
    inventory: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What Docker answers when asked which containers live or are about to.

    `names` of all of them; `containers`: those that were inspected, because nothing was known of
    their requests. `problem`: which could not be ("" if all could).
    """

    names: Mapping[ContainerId, ContainerName]
    containers: tuple[Container, ...] = ()
    problem: str = ""
