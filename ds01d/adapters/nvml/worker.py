"""The NVML process: takes one sample for each line on stdin and answers with one line of JSON.

    python -m ds01d.adapters.nvml.worker [cuda]

A process of its own, because a call into NVML can hang in the kernel for ever, and because only a
new process loads the library of an upgraded driver. NVML is open while a sample is taken and closed
between samples: an open session blocks MIG changes. After a failure the process ends.

It must stay small: it imports nothing but pynvml, json and what those need. It keeps no state and
judges nothing; what a reading means is decided in `inventory`.

With `cuda` it returns the driver's CUDA version instead of a sample: for that NVML loads libcuda,
which the daemon's own process must not have.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pynvml

from ds01d.adapters.nvml.protocol import Answer, Failure, GpuReading, MigReading, Use

# These are about the driver or its library, whichever GPU was asked for: there is no sample then.
# Any other error of a call about one GPU concerns that GPU; 999 (Unknown) is the commonest answer
# of one that fell off the bus (dcgm-exporter 46, 319 and 604, k8s-device-plugin 231 and 2038).
_DRIVER_FAILED = (
    pynvml.NVML_ERROR_UNINITIALIZED,
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND,
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
)
# With these a GPU is of no use any more, whatever was asked of it.
_GPU_FAILED = (pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED)
# MIG indices may have holes.
_EMPTY_INDEX = (pynvml.NVML_ERROR_NOT_FOUND, pynvml.NVML_ERROR_INVALID_ARGUMENT)
_NO_INSTANCE = 0xFFFFFFFF  # what a row has whose process is in no GPU instance
# A GPU, or a driver, that has no MIG at all.
_NO_MIG = (pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)


def main() -> None:
    """Serve until stdin ends or a sample fails."""
    read = read_cuda if sys.argv[1:] == ["cuda"] else take_sample
    # Meant for the daemon: `systemctl kill --signal=HUP` sends them to all processes of the unit.
    for number in (signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    # The daemon blocks signals in all its threads, and a child process inherits the mask.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # NVML or its driver may print; the answers go where nothing else can write.
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    requests = threading.Semaphore(0)
    threading.Thread(target=_count_requests, args=(requests,), daemon=True).start()
    while requests.acquire():
        answer = read()
        print(json.dumps(asdict(answer), separators=(",", ":")), file=answers, flush=True)
        if answer.failure:
            os._exit(0)


def _count_requests(requests: threading.Semaphore) -> None:
    """Count the requests. The end of stdin ends the process, even while NVML hangs."""
    while chunk := os.read(0, 4096):
        for _ in range(chunk.count(b"\n")):
            requests.release()
    os._exit(0)


def take_sample() -> Answer:
    """A reading of every GPU."""

    def read(answer: Answer) -> None:
        answer.gpus = [_read_gpu(index) for index in range(pynvml.nvmlDeviceGetCount())]

    return _build_answer(read)


def read_cuda() -> Answer:
    """The newest CUDA version that the driver runs."""

    def read(answer: Answer) -> None:
        answer.cuda = pynvml.nvmlSystemGetCudaDriverVersion_v2()

    return _build_answer(read)


def _build_answer(read: Callable[[Answer], None]) -> Answer:
    """Open NVML, read, close it. Every error becomes part of the answer."""
    try:
        pynvml.nvmlInit()
        answer = Answer(driver=_query_optional(None, "SystemGetDriverVersion") or "")
        read(answer)
        pynvml.nvmlShutdown()
        return answer
    except Exception as error:  # noqa: BLE001 - pynvml has errors that are no NVMLError
        return Answer(failure=_build_failure(error))


def _read_gpu(index: int) -> GpuReading:
    gpu = GpuReading(index=index)
    try:
        _fill_reading(gpu)
    except (pynvml.NVMLError, UnicodeDecodeError) as error:
        _raise_for_driver(error)
        gpu.failure = _build_failure(error)
    return gpu


def _raise_for_driver(error: Exception) -> None:
    """Raise the error if it is about more than the GPU that was asked for."""
    if isinstance(error, pynvml.NVMLError) and error.value in _DRIVER_FAILED:
        raise error


def _fill_reading(gpu: GpuReading) -> None:
    """Fill in a reading: identity, then MIG devices and processes, then health and load."""
    # In this order: what fails later must not hide what the decisions need.
    handle = pynvml.nvmlDeviceGetHandleByIndex(gpu.index)
    if pci := _query_optional(gpu, "DeviceGetPciInfo", handle):
        gpu.pci = _decode_text(pci.busId)
    gpu.uuid = pynvml.nvmlDeviceGetUUID(handle)
    gpu.minor = _query_optional(gpu, "DeviceGetMinorNumber", handle)
    gpu.name = _query_optional(gpu, "DeviceGetName", handle) or ""
    gpu.mig = _read_mig_mode(handle)

    limit = pynvml.nvmlDeviceGetMaxMigDeviceCount(handle) if gpu.mig else 0
    if gpu.mig and not limit:  # nvml.h: zero where MIG is not supported or not enabled
        call = "nvmlDeviceGetMaxMigDeviceCount"
        gpu.failure = Failure(call=call, words="MIG is on, and there can be no MIG device")
        return
    handles = _open_mig_handles(handle, limit)
    migs = {index: _read_mig(gpu, index, mig_handle) for index, mig_handle in handles.items()}
    gpu.migs = list(migs.values())
    for index, mig in migs.items():
        _list_uses(mig, handles[index])
    if gpu.mig:
        _add_uses_of_parent(gpu, handle)
    else:
        _list_uses(gpu, handle)
    gpu.listed = True

    gpu.memory_used, gpu.memory_total = _read_memory(gpu, handle)
    if rates := _query_optional(gpu, "DeviceGetUtilizationRates", handle):
        gpu.utilization = rates.gpu
    gpu.temperature = _query_optional(
        gpu, "DeviceGetTemperature", handle, pynvml.NVML_TEMPERATURE_GPU
    )
    gpu.ecc_errors = _query_optional(
        gpu,
        "DeviceGetTotalEccErrors",
        handle,
        pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
        pynvml.NVML_VOLATILE_ECC,
    )
    if rows := _query_optional(gpu, "DeviceGetRemappedRows", handle):
        gpu.remap_pending, gpu.remap_failed = bool(rows[2]), bool(rows[3])


def _read_mig_mode(gpu: object) -> bool | None:
    """Whether MIG is on; None: this GPU has none. Not to know it would hide its MIG devices."""
    try:
        current, _ = pynvml.nvmlDeviceGetMigMode(gpu)
    except pynvml.NVMLError as error:
        if error.value not in _NO_MIG:
            raise
        return None
    return bool(current == pynvml.NVML_DEVICE_MIG_ENABLE)


def _open_mig_handles(gpu: object, limit: int) -> dict[int, object]:
    """The MIG devices of a GPU by their index; there may be `most`."""
    handles = {}
    for index in range(limit):
        try:
            handles[index] = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, index)
        except pynvml.NVMLError as error:  # noqa: PERF203 - seven indices at most
            if error.value not in _EMPTY_INDEX:
                raise
    return handles


def _read_mig(gpu: GpuReading, index: int, handle: object) -> MigReading:
    mig = MigReading(index=index, uuid=pynvml.nvmlDeviceGetUUID(handle))
    mig.gi = _query_optional(gpu, "DeviceGetGpuInstanceId", handle)
    mig.ci = _query_optional(gpu, "DeviceGetComputeInstanceId", handle)
    _, _, mig.profile = (_query_optional(gpu, "DeviceGetName", handle) or "").partition(" MIG ")
    mig.memory_used, mig.memory_total = _read_memory(gpu, handle)
    return mig


def _list_uses(device: GpuReading | MigReading, handle: object) -> None:
    """List who uses the device, each process once; or say why that failed."""
    try:
        rows = _query_rows(pynvml.nvmlDeviceGetComputeRunningProcesses, handle)
        rows += _query_graphics(handle, in_mig=isinstance(device, MigReading))
    except pynvml.NVMLError as error:
        if error.value in (*_DRIVER_FAILED, *_GPU_FAILED):
            raise
        device.blind = _build_failure(error)
        return
    device.uses = _merge_uses([], rows)
    if isinstance(device, GpuReading):
        for use, row in ((use, row) for use in device.uses for row in rows if row.pid == use.pid):
            use.gi = _get_instance(row) if use.gi is None else use.gi


def _merge_uses(uses: list[Use], rows: list[Any]) -> list[Use]:
    """Each process once, with the most memory that a row has of it: none may hide that it lies."""
    merged = {use.pid: use for use in uses}
    for row in rows:
        use = merged.setdefault(row.pid, Use(pid=row.pid))
        if row.usedGpuMemory is not None:
            use.memory = max(use.memory or 0, row.usedGpuMemory)
    return list(merged.values())


def _query_rows(function: Callable[[object], list[Any]], handle: object) -> list[Any]:
    """Ask for a process list."""
    # nvidia-ml-py takes "function not found" for a driver that does not have the call, also where
    # the call is there and answered so for this one device.
    try:
        return function(handle)
    except pynvml.NVMLLibraryMismatchError as error:
        answer = error.__context__
        if isinstance(
            answer, pynvml.NVMLError
        ) and "_nvmlGetFunctionPointer" not in _list_functions(answer):
            raise answer from None
        raise


def _add_uses_of_parent(gpu: GpuReading, handle: object) -> None:
    """Add what only the GPU lists of its MIG devices, as some drivers do, and what is on none."""
    # Their own lists are what counts: an error here does not concern them.
    try:
        rows = _query_rows(pynvml.nvmlDeviceGetComputeRunningProcesses, handle)
    except pynvml.NVMLError as error:
        _raise_for_driver(error)
        return
    for mig in gpu.migs or ():
        instance = (mig.gi, mig.ci)
        own_rows = [row for row in rows if (row.gpuInstanceId, row.computeInstanceId) == instance]
        mig.uses = _merge_uses(mig.uses, own_rows)
    placed = {(mig.gi, mig.ci) for mig in gpu.migs or ()}
    for row in rows:
        if (row.gpuInstanceId, row.computeInstanceId) not in placed:
            gpu.uses.append(Use(pid=row.pid, memory=row.usedGpuMemory, gi=_get_instance(row)))


def _get_instance(row: Any) -> int | None:  # noqa: ANN401 - pynvml has no types
    """The GPU instance that the process of a row is in, if it is in one."""
    return None if row.gpuInstanceId == _NO_INSTANCE else int(row.gpuInstanceId)


def _query_graphics(handle: object, *, in_mig: bool) -> list[Any]:
    try:
        return _query_rows(pynvml.nvmlDeviceGetGraphicsRunningProcesses, handle)
    except pynvml.NVMLError as error:
        # Most GPUs have no graphics under MIG at all, so there is nothing to be blind to.
        if in_mig and error.value == pynvml.NVML_ERROR_NOT_SUPPORTED:
            return []
        raise


def _read_memory(gpu: GpuReading, handle: object) -> tuple[int | None, int | None]:
    info = _query_optional(gpu, "DeviceGetMemoryInfo", handle)
    return (info.used, info.total) if info else (None, None)


def _query_optional(gpu: GpuReading | None, name: str, *arguments: object) -> Any:  # noqa: ANN401 - pynvml has no types
    """Take a reading that only informs: None whatever its error, also where it is not UTF-8."""
    # A GPU whose error is "lost" or "reset required" counts as failed.
    call: Callable[..., Any] | None = getattr(pynvml, f"nvml{name}", None)
    if call is None:
        return None
    try:
        return call(*arguments)
    except pynvml.NVMLError as error:
        if gpu is not None and error.value in _GPU_FAILED:
            gpu.failure = gpu.failure or _build_failure(error)
    except UnicodeDecodeError:
        pass
    return None


def _build_failure(error: Exception) -> Failure:
    if isinstance(error, pynvml.NVMLError):
        return Failure(call=_find_call(error), words=_error_text(error), code=error.value)
    return Failure(call=_find_call(error), words=f"{type(error).__name__}: {error}")


def _find_call(error: BaseException) -> str:
    """Name the call of NVML's that raised the error."""
    return next((name for name in _list_functions(error) if name.startswith("nvml")), "pynvml")


def _list_functions(error: BaseException) -> list[str]:
    """Name the functions that the error went through, the outermost first."""
    names = []
    trace = error.__traceback__
    while trace:
        names.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    return names


def _error_text(error: Exception) -> str:
    """Give NVML's own words. Those of a code that is new to pynvml come as bytes made text."""
    return str(error).removeprefix("b'").removesuffix("'")


def _decode_text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


if __name__ == "__main__":
    main()
