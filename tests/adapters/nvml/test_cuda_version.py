"""The driver's word on CUDA: real pynvml over the simulated library, in a process of its own."""

from __future__ import annotations

import dataclasses
import sys
from functools import partial

import pytest

from ds01d.adapters.nvml.cuda_version import ask_driver
from ds01d.adapters.nvml.worker_process import COMMAND, NvmlProcess
from ds01d.model.cuda import Driver
from ds01d.model.primitives import Source, Unknown
from simulation.nvml import World, prod4
from tests.support.fixtures import NvmlWorld


def ask(nvml_world: NvmlWorld, *, timeout_s: float = 20.0) -> Driver | Unknown:
    start = partial(NvmlProcess, command=(*COMMAND, "cuda"), environment=nvml_world.env)
    return ask_driver(timeout_s=timeout_s, start=start)


def test_the_driver_says_it(nvml_world: NvmlWorld) -> None:
    assert ask(nvml_world) == Driver(cuda=12020, driver="535.183.01")
    nvml_world.set(dataclasses.replace(prod4(), cuda=12080, driver="570.1"))
    assert ask(nvml_world) == Driver(cuda=12080, driver="570.1")
    assert nvml_world.sessions().opened == 2


def test_a_lost_gpu_does_not_matter(nvml_world: NvmlWorld) -> None:
    nvml_world.set(prod4().with_fault("nvmlDeviceGetUUID", 15))
    assert isinstance(ask(nvml_world), Driver)


CALL = "nvmlSystemGetCudaDriverVersion"


@pytest.mark.parametrize(
    ("world", "words"),
    [
        (prod4().with_fault("nvmlInit", 9), "modprobe nvidia"),
        (prod4().with_fault("nvmlInit", 18), "the driver was upgraded"),
        (prod4().with_fault(CALL, 12), "install the driver's libcuda.so.1"),
        (prod4().with_fault(CALL, 13), "too old"),
        (prod4().with_fault(CALL, 999), f"({CALL}_v2)"),
        (dataclasses.replace(prod4(), cuda=0), "the driver reports no CUDA version (0)"),
    ],
)
def test_why_it_does_not(nvml_world: NvmlWorld, world: World, words: str) -> None:
    nvml_world.set(world)
    answer = ask(nvml_world)
    assert isinstance(answer, Unknown)
    assert answer.source is Source.NVML
    assert words in answer.reason


def test_a_driver_that_hangs_is_left_alone(nvml_world: NvmlWorld) -> None:
    nvml_world.set(prod4().with_fault(CALL, hang=True))
    answer = ask(nvml_world, timeout_s=1.0)
    assert isinstance(answer, Unknown)
    assert answer.reason == "NVML timed out after 1 s"


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("print('[]')", "gave an invalid answer"),
        ('print(\'{"cuda": "x"}\')', "gave an invalid answer"),
        ("raise SystemExit(3)", "ended with status 3"),
    ],
)
def test_a_process_that_goes_wrong(program: str, words: str) -> None:
    start = partial(NvmlProcess, command=(sys.executable, "-c", f"{program}; input()"))
    answer = ask_driver(timeout_s=20.0, start=start)
    assert isinstance(answer, Unknown)
    assert words in answer.reason


def test_a_process_that_does_not_start() -> None:
    answer = ask_driver(timeout_s=1.0, start=partial(NvmlProcess, command=("/nonexistent/python",)))
    assert isinstance(answer, Unknown)
    assert answer.reason.startswith("cannot start the NVML process")
