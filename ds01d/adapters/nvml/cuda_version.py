"""The driver's own word on CUDA, through NVML, from a process that lives for this one question."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

import msgspec

from ds01d.adapters.nvml.error_advice import explain_failure
from ds01d.adapters.nvml.protocol import Answer, Failure
from ds01d.adapters.nvml.worker_process import COMMAND, NoAnswer, NvmlProcess
from ds01d.model.cuda import Driver
from ds01d.model.primitives import Source, Unknown

_start = partial(NvmlProcess, command=(*COMMAND, "cuda"))
_NO_LIBRARY = 12


def ask_driver(*, timeout_s: float, start: Callable[[], NvmlProcess] = _start) -> Driver | Unknown:
    """The newest CUDA that the driver runs, within the deadline."""
    try:
        process = start()
    except OSError as error:
        return _make_unknown(f"cannot start the NVML process: {error}")
    no_stop = os.eventfd(0, os.EFD_CLOEXEC)
    try:
        line = process.request_sample(timeout_s=timeout_s, stop=no_stop)
    finally:
        os.close(no_stop)
        process.kill_process()
    if isinstance(line, NoAnswer):
        return _make_unknown(line.reason)
    try:
        answer = msgspec.json.decode(line, type=Answer)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        return _make_unknown(f"the NVML process gave an invalid answer: {error}")
    if answer.failure is not None:
        return _make_unknown(_explain_cuda_failure(answer.failure))
    if not answer.cuda or answer.cuda < 1000:
        return _make_unknown(f"NVML: the driver reports no CUDA version ({answer.cuda})")
    return Driver(cuda=answer.cuda, driver=answer.driver)


def _explain_cuda_failure(failure: Failure) -> str:
    """What failed. Here it is another library that may be missing than elsewhere."""
    if failure.code == _NO_LIBRARY and "Cuda" in failure.call:
        problem = f"{failure.words} ({failure.call})"
        return f"NVML: {problem}; install the driver's libcuda.so.1, which containers need too"
    return explain_failure(failure)


def _make_unknown(reason: str) -> Unknown:
    return Unknown(source=Source.NVML, reason=reason)
