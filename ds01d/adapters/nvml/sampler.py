"""GPUs as NVML reports them: samples taken by a process of its own, with a deadline.

At most one NVML process ever: one that does not end when killed, because the kernel holds it in a
call, is waited for by nobody and replaced by nobody; until it is gone every sample is Unknown at
once. `inventory` interprets a sample; this module decides when one is taken.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path

from ds01d.adapters.host.processes import PID_MAX_LIMIT, Process
from ds01d.adapters.nvml.inventory import DRIVER_LIST, Interpreter
from ds01d.adapters.nvml.worker_process import NoAnswer, NvmlProcess
from ds01d.model.devices import Inventory
from ds01d.model.primitives import Boot, Source, Unknown

_CLOSE_S = 2.0


class NvmlSampler:
    """NVML, for one pass after the other. Any thread may call it; a sample is taken for all.

    `boot_clock` is CLOCK_BOOTTIME. `find_processes` maps pids to what is known of them; those that
    /proc does not have are missing; `look_ahead` reads what it can before, while NVML is waited
    for. `pid_max` gives the largest pid that the kernel gives. `faults` gives what the kernel
    reported of GPUs.
    """

    def __init__(
        self,
        *,
        timeout_s: float,
        boot_clock: Callable[[], Boot],
        find_processes: Callable[[Iterable[int]], Mapping[int, Process]],
        look_ahead: Callable[[], None] = lambda: None,
        faults: Callable[[], Mapping[str, str]] = dict,
        start: Callable[[], NvmlProcess] = NvmlProcess,
        pid_max: Callable[[], int] = lambda: PID_MAX_LIMIT,
        driver_list: Path = DRIVER_LIST,
    ) -> None:
        self._timeout_s = timeout_s
        self._boot_clock = boot_clock
        self._interpreter = Interpreter(
            find_processes=find_processes, pid_max=pid_max, driver_list=driver_list
        )
        self._faults, self._look_ahead = faults, look_ahead
        self._start = start
        self._state = threading.Condition()
        self._sampling = False
        self._closed = False
        self._last: tuple[Boot, Inventory | Unknown] | None = None
        self._process: NvmlProcess | None = None
        self._hanging_since = ""
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def sample(self, *, not_before: Boot) -> Inventory | Unknown:
        """A sample begun at `not_before` or later: the last one if it is, else a new one.

        Returns within the deadline, or within two if a sample that began too early has to end
        first. A sample that failed is a sample too: it is not repeated for the same moment.
        """
        with self._state:
            # One sample at a time: a later caller takes the result of the one that runs.
            while not self._closed:
                if self._last is not None and self._last[0] >= not_before:
                    return self._last[1]
                if not self._sampling:
                    self._sampling = True
                    break
                self._state.wait()
            else:
                return _unknown("ds01d is stopping")
        return self._take_sample()

    def prefetch(self) -> None:
        """Begin a new sample in the background, unless one is being taken; returns at once."""
        with self._state:
            if self._closed or self._sampling:
                return
            self._sampling = True
        try:
            threading.Thread(target=self._take_sample, name="nvml-prefetch", daemon=True).start()
        except RuntimeError:  # no more threads: then the pass will take its sample itself
            self._finish_sampling()

    def read_faults(self) -> Mapping[str, str]:
        """GPU faults (XID) that the kernel reported since boot: PCI address → message."""
        return self._faults()

    def close(self) -> None:
        """End the NVML process and whatever waits for it; from now on every sample is Unknown."""
        with self._state:
            if self._closed:
                return
            self._closed = True
            # Wakes the thread that waits for the process; a lock could not, while NVML hangs.
            os.eventfd_write(self._stop, 1)
            self._state.notify_all()
            self._state.wait_for(lambda: not self._sampling, timeout=_CLOSE_S)
            if self._process is not None and not self._hanging_since:
                self._process.kill_process()
            if not self._sampling:
                os.close(self._stop)

    def _take_sample(self) -> Inventory | Unknown:
        """Take a sample. The caller has set `_sampling`, so there is one at a time."""
        try:
            # Taken before: what happens during the sample may be missing from it (decision 48).
            begun = self._boot_clock()
            answer = self._request_sample(begun)
            self._last = begun, answer
            return answer
        finally:
            self._finish_sampling()

    def _finish_sampling(self) -> None:
        with self._state:
            self._sampling = False
            self._state.notify_all()

    def _request_sample(self, begun: Boot) -> Inventory | Unknown:
        process = self._ensure_process()
        if isinstance(process, Unknown):
            return process
        started = time.monotonic()
        inventory = self._read_answer(process, begun, self._timeout_s)
        left = started + self._timeout_s - time.monotonic()
        # A process that /proc does not have: it has ended, unless NVML lists it once more. Where
        # there is no time to ask, it counts as unknown.
        in_time = left > self._timeout_s / 2
        if isinstance(inventory, Inventory) and self._interpreter.unconfirmed and in_time:
            again = self._read_answer(process, begun, left)
            inventory = again if isinstance(again, Inventory) else inventory
        return inventory

    def _read_answer(
        self, process: NvmlProcess, begun: Boot, timeout_s: float
    ) -> Inventory | Unknown:
        try:
            line = process.request_sample(
                timeout_s=timeout_s, stop=self._stop, meanwhile=self._look_ahead
            )
        except BaseException:  # Ctrl-C: what it answers now must not pass for the next sample
            self._end_process(process)
            raise
        if isinstance(line, NoAnswer):
            self._end_process(process)
            return _unknown(line.reason)
        inventory = self._interpreter.read(line, begun=begun)
        if isinstance(inventory, Unknown):
            self._end_process(process)
        return inventory

    def _ensure_process(self) -> NvmlProcess | Unknown:
        """The NVML process, started if there is none."""
        if self._process is not None and self._process.has_ended:
            self._process.close_pipes()
            self._process, self._hanging_since = None, ""
        if self._process is not None and self._hanging_since:
            return _unknown(
                f"NVML has been hanging since {self._hanging_since}: its process "
                f"{self._process.pid} does not end; see the kernel's log for NVRM, and reboot"
            )
        if self._process is None:
            try:
                self._process = self._start()
            except OSError as error:
                return _unknown(f"cannot start the NVML process: {error}")
        return self._process

    def _end_process(self, process: NvmlProcess) -> None:
        """End the process, so that the next sample starts a fresh one; or note that it hangs."""
        # Invariant 14: a process that the kernel holds is kept, never joined by a second one.
        if process.kill_process():
            self._process = None
        else:
            self._hanging_since = datetime.now().astimezone().isoformat(timespec="seconds")


def _unknown(reason: str) -> Unknown:
    return Unknown(source=Source.NVML, reason=reason)
