"""The running service: what it holds of memory and takes of the processor while nothing happens.

The daemon as a process, left alone for minutes with its sweeps each 60 s. Whatever grows or wakes
up now and then is in it, which a look at one moment or between two sweeps would miss.
"""

import time
from collections.abc import Iterator
from typing import Final, NamedTuple

from bench.daemon import Bare, Daemon, cpu_s, memory
from bench.figures import Figure
from bench.host import Host

CONTAINERS: Final = 200
RSS_TARGET_MIB: Final = 64.0
CORE_TARGET_PERCENT: Final = 0.2
_LOOK_EVERY_S: Final = 5.0


def figures(host: Host, lasting_s: float, floor: Bare) -> Iterator[Figure]:
    """Run it for so long, from the end of its second sweep on."""
    with Daemon(host) as daemon:
        daemon.sweep()
        use = measure(daemon, lasting_s)
    yield from describe_use(f"service for {lasting_s / 60:g} min", host, use, floor)


class ServiceUse(NamedTuple):
    """Of the daemon: the highest RSS in bytes, and with its NVML process the share of a core."""

    rss: int
    core: float


def measure(daemon: Daemon, lasting_s: float) -> ServiceUse:
    """Leave it alone for so long."""
    before, began = _spent(daemon), time.monotonic()
    most = 0
    while time.monotonic() < began + lasting_s:
        time.sleep(_LOOK_EVERY_S)
        most = max(most, memory(daemon.pid).rss)
    used, lasted = _spent(daemon) - before, time.monotonic() - began
    return ServiceUse(rss=most, core=used / lasted)


def describe_use(what: str, host: Host, use: ServiceUse, floor: Bare) -> Iterator[Figure]:
    yield Figure(
        name=f"{what}, highest RSS",
        containers=len(host.names),
        value=use.rss / (1 << 20),
        unit="MiB",
        floor=floor.rss / (1 << 20),
        target=RSS_TARGET_MIB,
    )
    yield Figure(
        name=f"{what}, processor",
        containers=len(host.names),
        value=100 * use.core,
        unit="% core",
        floor=100 * floor.idle,
        target=CORE_TARGET_PERCENT,
    )


def _spent(daemon: Daemon) -> float:
    return cpu_s(daemon.pid) + cpu_s(daemon.worker)
