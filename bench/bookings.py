"""The commands that scripts call: a process each, from start to end, beside a running ds01d.

`allocate` waits for a sample of NVML, which the daemon's NVML process takes; how long that takes is
measured by itself and taken off. The floor is an interpreter that does nothing. A booking in the
service is one call of the socket, without a process.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.daemon import ROOT
from bench.figures import Figure, median, percentile
from bench.host import Host
from ds01d.adapters.nvml.worker_process import NvmlProcess
from ds01d.model.allocation import Allocated
from ds01d.model.primitives import ContainerName, UserName
from ds01d.service.client import RemoteAllocator

LOOK_RATIO: Final = 3.0
BOOK_RATIO: Final = 6.0
"""So many times the floor at most."""
SERVICE_TARGET_MS: Final = 10.0
_NAME: Final = "bench._.1"
_ALLOCATE: Final = ("ds01-allocator", "allocate", "bench", _NAME, "99", "1")

Timed = Sequence[float]


def figures(host: Host, times: int) -> Iterator[Figure]:
    """Call each command so many times, in turn."""
    looks = {
        "ds01-allocator status": ("ds01-allocator", "status"),
        "ds01-allocator user-status": ("ds01-allocator", "user-status", "user1"),
        "ds01ctl status": ("ds01ctl", "status"),
    }
    bare: list[float] = []
    taken: dict[str, list[float]] = {name: [] for name in (*looks, "allocate", "release")}
    samples: list[float] = []
    served: list[float] = []
    service = RemoteAllocator(host.socket)
    with _nvml(host.environment) as sample:
        for _ in range(times):
            bare.append(_timed(lambda: _run([sys.executable, "-I", "-c", "pass"], {})))
            for name, words in looks.items():
                taken[name].append(_timed(lambda: _call(host, *words)))  # noqa: B023 - called at once
            samples.append(_timed(sample))
            taken["allocate"].append(_timed(lambda: _call(host, *_ALLOCATE)))
            taken["release"].append(_timed(lambda: _call(host, "ds01-allocator", "release", _NAME)))
            served.append(_timed(lambda: _book(service)))
            service.release(ContainerName(_NAME))
    nvml = median(samples)
    for name in looks:
        yield _figure(host, name, taken[name], bare, LOOK_RATIO * 1e3 * median(bare))
    yield _figure(host, "ds01-allocator allocate", taken["allocate"], bare)
    yield _figure(host, "  NVML's answer", samples)
    own = [seconds - nvml for seconds in taken["allocate"]]
    yield _figure(host, "  without it", own, bare, BOOK_RATIO * 1e3 * median(bare))
    target = BOOK_RATIO * 1e3 * median(bare)
    yield _figure(host, "ds01-allocator release", taken["release"], bare, target)
    yield _figure(host, "booking in the service", served)
    own = [max(0.0, seconds - nvml) for seconds in served]
    yield _figure(host, "  without NVML's answer", own, target=SERVICE_TARGET_MS)


def _figure(
    host: Host, name: str, values: Timed, floor: Timed = (), target: float | None = None
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


def _timed(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


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
