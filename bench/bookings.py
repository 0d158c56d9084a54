"""The commands that scripts call: a process each, from start to end, beside a running ds01d.

`allocate` waits for a sample of NVML, which the daemon's NVML process takes; how long that takes is
measured by itself and taken off. The floor is an interpreter that does nothing. A booking in the
service is one call of the socket, without a process.
"""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from bench.daemon import ROOT, cpu_s
from bench.figures import Figure, median, percentile
from bench.host import Host
from ds01d.adapters.nvml.worker_process import NvmlProcess
from ds01d.model.allocation import Allocated
from ds01d.model.primitives import ContainerName, UserName
from ds01d.service.allocator_client import RemoteAllocator

LOOK_RATIO: Final = 3.0
BOOK_RATIO: Final = 6.0
"""So many times the floor at most."""
SERVICE_TARGET_MS: Final = 10.0
_PAUSE_S: Final = 0.5
"""The pass over the container that was booked is no part of the next command."""
_NAME: Final = "bench._.1"
_ALLOCATE: Final = ("ds01-allocator", "allocate", "bench", _NAME, "99", "1")


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one call, in seconds. `busy`: processor time of what it started, or of ds01d."""

    taken: float
    busy: float


Timed = Sequence[Cost]


def figures(host: Host, daemon: int, times: int) -> Iterator[Figure]:
    """Call each command so many times, in turn. `daemon`: the pid of ds01d."""
    looks = {
        "ds01-allocator status": ("ds01-allocator", "status"),
        "ds01-allocator user-status": ("ds01-allocator", "user-status", "user1"),
        "ds01ctl status": ("ds01ctl", "status"),
    }
    bare: list[Cost] = []
    taken: dict[str, list[Cost]] = {name: [] for name in (*looks, "allocate", "release")}
    samples: list[Cost] = []
    served: list[Cost] = []
    service = RemoteAllocator(host.socket)
    with _nvml(host.environment) as sample:
        for _ in range(times):
            bare.append(_timed(lambda: _run([sys.executable, "-I", "-c", "pass"], {})))
            for name, words in looks.items():
                taken[name].append(_timed(lambda: _call(host, *words)))  # noqa: B023 - called at once
            samples.append(_timed(sample))
            time.sleep(_PAUSE_S)
            taken["allocate"].append(_timed(lambda: _call(host, *_ALLOCATE)))
            time.sleep(_PAUSE_S)
            taken["release"].append(_timed(lambda: _call(host, "ds01-allocator", "release", _NAME)))
            time.sleep(_PAUSE_S)
            served.append(_timed(lambda: _book(service), partial(cpu_s, daemon)))
            service.release(ContainerName(_NAME))
            time.sleep(_PAUSE_S)
    nvml = median([sample.taken for sample in samples])
    for name in looks:
        yield from _command(host, name, taken[name], bare, LOOK_RATIO)
    yield from _command(host, "ds01-allocator allocate", taken["allocate"], bare, BOOK_RATIO)
    yield from _command(host, "ds01-allocator release", taken["release"], bare, BOOK_RATIO)
    yield _figure(host, "booking in the service", [cost.taken for cost in served])
    yield _figure(host, "  NVML's answer", [sample.taken for sample in samples])
    own = [max(0.0, cost.taken - nvml) for cost in served]
    yield _figure(host, "  without it", own, target=SERVICE_TARGET_MS)
    yield Figure(
        name="  ds01d's processor time, least",
        containers=len(host.names),
        value=1e3 * min(cost.busy for cost in served),
        unit="ms",
    )


def _command(host: Host, name: str, values: Timed, floor: Timed, ratio: float) -> Iterator[Figure]:
    """How long it takes, and what it takes of the processor: that is the same on a busy machine."""
    walls, bare = [cost.taken for cost in values], [cost.taken for cost in floor]
    yield _figure(host, name, walls, bare, ratio * 1e3 * median(bare))
    yield Figure(
        name="  of it on the processor, least",
        containers=len(host.names),
        value=1e3 * min(cost.busy for cost in values),
        unit="ms",
        floor=1e3 * min(cost.busy for cost in floor),
        target=ratio * 1e3 * min(cost.busy for cost in floor),
    )


def _figure(
    host: Host,
    name: str,
    values: Sequence[float],
    floor: Sequence[float] = (),
    target: float | None = None,
) -> Figure:
    return Figure(
        name=name,
        containers=len(host.names),
        value=1e3 * median(values),
        unit="ms",
        floor=1e3 * median(floor) if floor else None,
        target=target,
        note=f"the slowest of ten: {1e3 * percentile(values, 0.9):.0f} ms",
    )


def _timed(act: Callable[[], object], read_busy: Callable[[], float] | None = None) -> Cost:
    read_busy = read_busy or _read_childrens_cpu
    began, before = time.perf_counter(), read_busy()
    act()
    return Cost(taken=time.perf_counter() - began, busy=read_busy() - before)


def _read_childrens_cpu() -> float:
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime


def _call(host: Host, name: str, *words: str) -> None:
    """Run a command as it is installed."""
    script = str(Path(sys.executable).with_name(name))
    environment = host.environment | {"DS01D_CONFIG": str(host.config)}
    printed = _run([sys.executable, "-I", script, *words], environment)
    assert words[0] != "allocate" or "✓ Allocated" in printed, printed


def _run(command: Sequence[str], environment: Mapping[str, str]) -> str:
    done = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


def _book(service: RemoteAllocator) -> None:
    answer = service.allocate(UserName("bench"), ContainerName(_NAME), 99, 1)
    assert isinstance(answer, Allocated), answer


@contextmanager
def _nvml(environment: Mapping[str, str]) -> Iterator[Callable[[], None]]:
    """A sample by a process that runs, as that of the daemon does."""
    stop = os.eventfd(0)
    process = NvmlProcess(environment=environment)

    def sample() -> None:
        answer = process.request_sample(timeout_s=60, stop=stop)
        assert isinstance(answer, bytes), answer

    try:
        sample()
        yield sample
    finally:
        process.kill_process()
        os.close(stop)
