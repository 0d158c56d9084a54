"""What is in use, as the daemon published it and as Docker lists it now. Pure."""

from __future__ import annotations

from dataclasses import replace

from ds01d.config import Config
from ds01d.decide.device_resolution import DeviceIndex
from ds01d.decide.usage import SHORT, container_use
from ds01d.model.primitives import Unknown, Wall
from ds01d.model.usage import DeviceUse, PublishedUse, Running


def join_uses(
    published: PublishedUse | None,
    running: Running | Unknown | None,
    device_index: DeviceIndex | None,
    config: Config,
    now: Wall,
) -> tuple[tuple[DeviceUse, ...], str]:
    """What is in use, from the daemon's published status and Docker's list now.

    With the reason why that may be incomplete ("" if it is not). Docker is newer: a container that
    it does not list uses nothing. While it is unreachable, the last published status counts,
    however old.
    `running` None: nobody asks Docker here.
    """
    uses = published.uses if published is not None else ()
    outdated = "ds01d has published nothing" if published is None else published.outdated
    if running is None:
        return uses, ""
    if isinstance(running, Unknown):
        # Decision 75: what ds01d published is complete while it is fresh; and on a host with
        # neither Docker nor ds01d there is nobody to ask.
        if not outdated or (published is None and running.missing):
            return uses, ""  # or there is neither Docker nor ds01d on this host
        return (
            uses,
            f"whether containers use GPUs is not known for sure: {running.reason}; {outdated}",
        )
    current = [
        use if use.user == name == use.container else replace(use, container=name, user=name)
        for use in uses
        if use.id is not None and (name := running.names.get(use.id)) is not None
    ]
    # Host processes come only from NVML, which the allocator does not ask; an old list of them
    # would refuse free GPUs for ever.
    if not outdated:
        current += [use for use in uses if use.id is None]
    asked_uses = (
        container_use(container, device_index, config, now) for container in running.containers
    )
    return (*current, *(use for use in asked_uses if use is not None)), running.problem


def known_requests(published: PublishedUse | None) -> frozenset[str]:
    """The containers that need no inspect: a request never changes, so what is published counts.

    Short IDs. One whose devices were not known for sure has to be asked again, and so has everyone
    with devices where what is published is old: it may have been restarted since.
    """
    if published is None:
        return frozenset()
    uses = () if published.outdated else published.uses
    exact = {use.id[:SHORT] for use in uses if use.id is not None and use.exact}
    return published.without_devices | exact
