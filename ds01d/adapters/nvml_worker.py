"""The NVML process: reads one sample for each line on stdin and answers with one line of JSON.

    python -m ds01d.adapters.nvml_worker [cuda]

A process of its own, because a call into NVML can hang in the kernel for ever, and because only a
fresh process loads the library of an upgraded driver. NVML is open while a sample is read and
closed between samples: an open session blocks MIG changes. After a failure the process ends.

It must stay small: nothing but pynvml, json and what those need anyway. It keeps nothing from one
sample to the next and judges nothing; what a reading means is for `nvml_inventory` to say.

With `cuda` it tells the driver's CUDA instead of a sample: for that NVML loads libcuda, which has
no place in the daemon's process.
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

from ds01d.adapters.nvml_answer import Answer, Failure, GpuReading, MigReading, Use

# A reading that this GPU, this driver or MIG does not have, or not for us.
_NO_READING = (
    pynvml.NVML_ERROR_NOT_SUPPORTED,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    pynvml.NVML_ERROR_NO_PERMISSION,
)
# These concern one GPU; the others go on answering.
_GPU_FAILED = (pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED)
# MIG indices may have holes.
_EMPTY_INDEX = (pynvml.NVML_ERROR_NOT_FOUND, pynvml.NVML_ERROR_INVALID_ARGUMENT)
# A list of processes that fails with one of these leaves its device blind. With any other error
# something larger is wrong, and the whole sample is.
_BLINDING = (
    pynvml.NVML_ERROR_NOT_SUPPORTED,
    pynvml.NVML_ERROR_NO_PERMISSION,
    pynvml.NVML_ERROR_NOT_FOUND,
    pynvml.NVML_ERROR_INVALID_ARGUMENT,
    pynvml.NVML_ERROR_INSUFFICIENT_SIZE,
)


def main() -> None:
    """Serve until stdin ends or a sample fails."""
    read = cuda if sys.argv[1:] == ["cuda"] else sample
    # Meant for the daemon: `systemctl kill --signal=HUP` sends them to all processes of the unit.
    for number in (signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    # The daemon blocks signals in all its threads, and a child inherits that.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # NVML or its driver may print; the answers go where nothing else can write.
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    asked = threading.Semaphore(0)
    threading.Thread(target=_listen, args=(asked,), daemon=True).start()
    while asked.acquire():
        answer = read()
        print(json.dumps(asdict(answer), separators=(",", ":")), file=answers, flush=True)
        if answer.failure:
            os._exit(0)


def _listen(asked: threading.Semaphore) -> None:
    """Count the requests. The end of stdin ends the process, even while NVML hangs."""
    while chunk := os.read(0, 4096):
        for _ in range(chunk.count(b"\n")):
            asked.release()
    os._exit(0)


def sample() -> Answer:
    """Tell of every GPU."""

    def read(answer: Answer) -> None:
        answer.gpus = [_gpu(index) for index in range(pynvml.nvmlDeviceGetCount())]

    return _answer(read)


def cuda() -> Answer:
    """Tell the newest CUDA that the driver runs."""

    def read(answer: Answer) -> None:
        answer.cuda = pynvml.nvmlSystemGetCudaDriverVersion_v2()

    return _answer(read)


def _answer(read: Callable[[Answer], None]) -> Answer:
    """Open NVML, read what is to be told, close it. Whatever goes wrong is part of the answer."""
    try:
        pynvml.nvmlInit()
        answer = Answer(driver=_maybe("SystemGetDriverVersion") or "")
        read(answer)
        pynvml.nvmlShutdown()
        return answer
    except pynvml.NVMLError as error:
        return Answer(failure=Failure(call=_call(error), words=_words(error), code=error.value))
    except Exception as error:  # noqa: BLE001 - pynvml has errors that are no NVMLError
        words = f"{type(error).__name__}: {error}"
        return Answer(failure=Failure(call=_call(error), words=words))


def _gpu(index: int) -> GpuReading:
    gpu = GpuReading(index=index)
    try:
        _read(gpu)
    except pynvml.NVMLError as error:
        if error.value not in _GPU_FAILED:
            raise
        gpu.failed = _words(error)
    return gpu


def _read(gpu: GpuReading) -> None:
    """Fill in what this GPU tells: first what it is, then who uses it, then how it is."""
    handle = pynvml.nvmlDeviceGetHandleByIndex(gpu.index)
    gpu.uuid = pynvml.nvmlDeviceGetUUID(handle)
    if pci := _maybe("DeviceGetPciInfo", handle):
        gpu.pci = _text(pci.busId)
    gpu.minor = _maybe("DeviceGetMinorNumber", handle)
    gpu.name = _maybe("DeviceGetName", handle) or ""
    if mode := _maybe("DeviceGetMigMode", handle):
        gpu.mig = mode[0] == pynvml.NVML_DEVICE_MIG_ENABLE

    found = _mig_handles(handle) if gpu.mig else {}
    migs = {index: _mig(index, mig_handle) for index, mig_handle in found.items()}
    gpu.migs = list(migs.values())
    for index, mig in migs.items():
        _list_uses(mig, found[index])
    if not gpu.mig:
        _list_uses(gpu, handle)
    gpu.listed = True

    gpu.memory_used, gpu.memory_total = _memory(handle)
    if rates := _maybe("DeviceGetUtilizationRates", handle):
        gpu.utilization = rates.gpu
    gpu.temperature = _maybe("DeviceGetTemperature", handle, pynvml.NVML_TEMPERATURE_GPU)
    gpu.ecc_errors = _maybe(
        "DeviceGetTotalEccErrors",
        handle,
        pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
        pynvml.NVML_VOLATILE_ECC,
    )
    if rows := _maybe("DeviceGetRemappedRows", handle):
        gpu.remap_pending, gpu.remap_failed = bool(rows[2]), bool(rows[3])


def _mig_handles(gpu: object) -> dict[int, object]:
    """The MIG devices of a GPU by their index."""
    found = {}
    for index in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(gpu)):
        try:
            found[index] = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, index)
        except pynvml.NVMLError as error:  # noqa: PERF203 - seven indices at most
            if error.value not in _EMPTY_INDEX:
                raise
    return found


def _mig(index: int, handle: object) -> MigReading:
    mig = MigReading(index=index, uuid=pynvml.nvmlDeviceGetUUID(handle))
    mig.gi = _maybe("DeviceGetGpuInstanceId", handle)
    mig.ci = _maybe("DeviceGetComputeInstanceId", handle)
    _, _, mig.profile = (_maybe("DeviceGetName", handle) or "").partition(" MIG ")
    mig.memory_used, mig.memory_total = _memory(handle)
    return mig


def _list_uses(device: GpuReading | MigReading, handle: object) -> None:
    """Who uses the device, each process once; or why that cannot be told."""
    try:
        rows = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
        rows += _graphics(handle, in_mig=isinstance(device, MigReading))
    except pynvml.NVMLError as error:
        if error.value not in _BLINDING:
            raise
        device.blind = _words(error)
        return
    uses: dict[int, Use] = {}
    for row in rows:
        use = uses.setdefault(row.pid, Use(pid=row.pid, memory=row.usedGpuMemory))
        if use.memory is None:
            use.memory = row.usedGpuMemory
    device.uses = list(uses.values())


def _graphics(handle: object, *, in_mig: bool) -> list[Any]:
    try:
        rows: list[Any] = pynvml.nvmlDeviceGetGraphicsRunningProcesses(handle)
    except pynvml.NVMLError as error:
        # Most GPUs have no graphics under MIG at all, so there is nothing to be blind to.
        if in_mig and error.value == pynvml.NVML_ERROR_NOT_SUPPORTED:
            return []
        raise
    return rows


def _memory(handle: object) -> tuple[int | None, int | None]:
    info = _maybe("DeviceGetMemoryInfo", handle)
    return (info.used, info.total) if info else (None, None)


def _maybe(name: str, *arguments: object) -> Any:  # noqa: ANN401 - pynvml has no types
    """Take a reading that may not be had from this GPU, its driver or this pynvml: None then."""
    call: Callable[..., Any] | None = getattr(pynvml, f"nvml{name}", None)
    if call is None:
        return None
    try:
        return call(*arguments)
    except pynvml.NVMLError as error:
        if error.value not in _NO_READING:
            raise
        return None


def _call(error: BaseException) -> str:
    """Name the call of NVML's that raised the error."""
    trace = error.__traceback__
    while trace:
        name = trace.tb_frame.f_code.co_name
        if name.startswith("nvml"):
            return name
        trace = trace.tb_next
    return "pynvml"


def _words(error: Exception) -> str:
    """Give NVML's own words. Those of a code that is new to pynvml come as bytes made text."""
    return str(error).removeprefix("b'").removesuffix("'")


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


if __name__ == "__main__":
    main()
