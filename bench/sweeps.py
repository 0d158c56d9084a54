"""A sweep, in this process and over the real adapters, taken apart.

What is waited for is timed where it is waited: each whole answer of Docker to an HTTP request, and
each of the NVML process to a sample. All the rest is ds01d's own work, what the answers' bytes mean
and both writes of the memory included.
"""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from unittest.mock import patch

import msgspec

from bench.figures import Figure, median, percentile
from bench.host import Host
from ds01d.adapters.docker.http_client import HttpClient
from ds01d.adapters.nvml.worker_process import NvmlProcess
from ds01d.bootstrap import load_config, open_parts
from ds01d.reconcile.reconciler import Reconciler

OWN_TARGET_MS: Final = 50.0
LINEAR_FROM: Final = 1_000


@dataclass(slots=True, kw_only=True)
class Sweep:
    """One sweep; seconds. `busy`: of its own work, what the processor worked."""

    total: float = 0.0
    docker: float = 0.0
    nvml: float = 0.0
    busy: float = 0.0

    @property
    def own(self) -> float:
        return self.total - self.docker - self.nvml


def sweeps(host: Host, times: int) -> tuple[list[Sweep], list[float]]:
    """Sweep so many times, with a raw list call by the SDK's client before each: the floor."""
    taken: list[Sweep] = []
    lists: list[float] = []
    config = load_config(host.config)
    # A sample may be as old as the settle time; without one each sweep takes its own, as it does
    # when sweeps are a minute apart.
    config = msgspec.structs.replace(
        config, policy=msgspec.structs.replace(config.policy, settle_s=0.0)
    )
    opened = open_parts(config)
    opened.state_dir.make()
    opened.engine.start()
    with patch.dict("os.environ", host.environment):
        try:
            makes_passes = Reconciler(opened.world, config)
            for _ in range(2):  # the first ones inspect, and see the books for the first time
                makes_passes.run()
            report = makes_passes.run()
            assert report.needed_sources_ok, report.sources
            assert not report.drifts, report.drifts[:3]
            gc.collect()
            gc.freeze()  # as the daemon does after its first sweep
            for _ in range(times):
                began = time.perf_counter()
                host.client.containers(all=True)
                lists.append(time.perf_counter() - began)
                sweep = Sweep()
                with _timed(sweep):
                    began, worked = time.perf_counter(), time.thread_time()
                    makes_passes.run()
                    sweep.total = time.perf_counter() - began
                    sweep.busy += time.thread_time() - worked
                taken.append(sweep)
        finally:
            gc.unfreeze()
            opened.close()
    return taken, lists


@contextmanager
def _timed(sweep: Sweep) -> Iterator[None]:
    def add_docker(seconds: float, busy: float) -> None:
        sweep.docker += seconds
        sweep.busy -= busy

    def add_nvml(seconds: float, busy: float) -> None:
        sweep.nvml += seconds
        sweep.busy -= busy

    with (
        patch.object(HttpClient, "get", _watched(HttpClient.get, add_docker)),
        patch.object(NvmlProcess, "request_sample", _watched(NvmlProcess.request_sample, add_nvml)),
    ):
        yield


def _watched(call: Callable[..., Any], add: Callable[[float, float], None]) -> Callable[..., Any]:
    def timed(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - as what it stands for
        began, worked = time.perf_counter(), time.thread_time()
        try:
            return call(*arguments, **named)
        finally:
            add(time.perf_counter() - began, time.thread_time() - worked)

    return timed


def figures(host: Host, taken: Sequence[Sweep], lists: Sequence[float]) -> Iterator[Figure]:
    """What came of it."""
    count = len(host.names)
    floor = 1e3 * median(lists)

    def one(name: str, values: Sequence[float], target: float | None = None) -> Figure:
        ms = 1e3 * median(values)
        return Figure(name=name, containers=count, value=ms, unit="ms", floor=floor, target=target)

    own = [sweep.own for sweep in taken]
    target = OWN_TARGET_MS * max(count, LINEAR_FROM) / LINEAR_FROM
    yield one("sweep, median", [sweep.total for sweep in taken])
    yield one("  Docker's answer", [sweep.docker for sweep in taken])
    yield one("  NVML's answer", [sweep.nvml for sweep in taken])
    yield one("  own work", own, target)
    yield one("  of it on the processor", [sweep.busy for sweep in taken])
    yield Figure(
        name="  own work, p99", containers=count, value=1e3 * percentile(own, 0.99), unit="ms"
    )
    yield Figure(
        name="  own work per container",
        containers=count,
        value=1e6 * median(own) / count,
        unit="µs",
    )
