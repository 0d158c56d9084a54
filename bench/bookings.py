"""The allocator as scripts call it: a process each, from its start to its end.

`allocate` takes a sample of the GPUs in NVML's own process; what that takes (its start, NVML, its
answer) is measured by itself and taken off. The floor is an interpreter that does nothing.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from bench.daemon import ROOT
from bench.figures import Figure, median, percentile
from bench.host import Host
from ds01d.adapters.nvml.worker_process import NvmlProcess

STATUS_TARGET_MS: Final = 150.0
ALLOCATE_TARGET_MS: Final = 200.0
PROMISED: Final = 100
"""So many allocations are what the targets are for."""

Timed = Sequence[float]


def figures(host: Host, times: int) -> Iterator[Figure]:
    """Call each command so many times, in turn."""
    bare: list[float] = []
    taken: dict[str, list[float]] = {"status": [], "user-status": [], "allocate": [], "release": []}
    samples: list[float] = []
    _call(host, "allocate", "bench", "bench._.1", "99", "1")  # the lock and the logs are there then
    _call(host, "release", "bench._.1")
    for _ in range(times):
        bare.append(_timed(lambda: _run([sys.executable, "-c", "pass"], host.environment)))
        taken["status"].append(_timed(lambda: _call(host, "status")))
        taken["user-status"].append(_timed(lambda: _call(host, "user-status", "user1")))
        samples.append(_timed(lambda: _sample(host.environment)))
        words = ("allocate", "bench", "bench._.1", "99", "1")
        taken["allocate"].append(_timed(lambda: _call(host, *words)))  # noqa: B023 - called at once
        taken["release"].append(_timed(lambda: _call(host, "release", "bench._.1")))
    nvml = median(samples)
    own = [seconds - nvml for seconds in taken["allocate"]]
    yield _figure(host, "ds01-allocator status", taken["status"], bare, STATUS_TARGET_MS)
    yield _figure(host, "ds01-allocator user-status", taken["user-status"], bare)
    yield _figure(host, "ds01-allocator allocate", taken["allocate"], bare)
    yield _figure(host, "  a sample of NVML", samples)
    yield _figure(host, "  without it", own, bare, ALLOCATE_TARGET_MS)
    yield _figure(host, "ds01-allocator release", taken["release"], bare)


def _figure(
    host: Host, name: str, values: Timed, floor: Timed = (), target: float | None = None
) -> Figure:
    return Figure(
        name=name,
        containers=len(host.names),
        value=1e3 * median(values),
        unit="ms",
        floor=1e3 * median(floor) if floor else None,
        target=target if len(host.names) <= PROMISED else None,
        note=f"the slowest of ten: {1e3 * percentile(values, 0.9):.0f} ms",
    )


def _timed(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def _call(host: Host, *words: str) -> None:
    command = [
        sys.executable,
        "-m",
        "ds01d.cli.allocator.main",
        "--config",
        str(host.config),
        *words,
    ]
    printed = _run(command, host.environment)
    assert words[0] != "allocate" or "✓ Allocated" in printed, printed


def _run(command: Sequence[str], environment: Mapping[str, str]) -> str:
    done = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


def _sample(environment: Mapping[str, str]) -> None:
    """What `allocate` waits for: NVML's process from its start to its answer."""
    stop = os.eventfd(0)
    process = NvmlProcess(environment=environment)
    try:
        answer = process.request_sample(timeout_s=60, stop=stop)
        assert isinstance(answer, bytes), answer
    finally:
        process.kill_process()
        os.close(stop)
