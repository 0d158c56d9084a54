"""The processes that slots are reserved for: which one asked, and whether it still runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Final

from ds01d.adapters.host.asking_process import find_asking_process
from ds01d.adapters.host.process_entry import ProcessEntry, read_entry
from ds01d.adapters.host.processes import Processes
from ds01d.model.primitives import Source, Unknown
from ds01d.model.reservation import ProcessState, ReservingProcess
from ds01d.text import make_printable

_ATTEMPTS: Final = 3


class ReservingProcesses:
    """Finds them in the /proc of `processes`, unless that hides some."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes

    def find_asker(self, client: int, uid: int) -> ReservingProcess | Unknown | None:
        """The process that had a client of the service ask; None where that is unknown.

        Unknown: the client has ended, or what it belongs to kept changing.
        """
        if self._processes.hiding_problem or not self._boot_id:
            return None
        problem = ""
        # A parent may end while it is read, and its children get another one.
        for _ in range(_ATTEMPTS):
            try:
                asker = find_asking_process(self._processes.proc, client, uid)
            except (OSError, ValueError, IndexError) as error:  # noqa: PERF203 - three times
                problem = str(error)
            else:
                return None if asker is None else self._name_process(asker)
        return Unknown(
            source=Source.NVML, reason=f"which process asked, {client} or a parent: {problem}"
        )

    def _name_process(self, entry: ProcessEntry) -> ReservingProcess:
        command = make_printable(entry.command)
        return ReservingProcess(
            pid=entry.pid, started=entry.started, boot_id=self._boot_id, command=command
        )

    def find_states(
        self, processes: Iterable[ReservingProcess]
    ) -> Mapping[ReservingProcess, ProcessState]:
        """Whether each process runs; UNKNOWN where that cannot be seen, never "ended"."""
        if self._processes.hiding_problem or not self._boot_id:
            return dict.fromkeys(processes, ProcessState.UNKNOWN)
        return {process: self._find_state(process) for process in processes}

    def _find_state(self, process: ReservingProcess) -> ProcessState:
        # Decision 233: start times count from the boot, so those of two boots do not compare.
        if process.boot_id != self._boot_id:
            return ProcessState.ENDED
        try:
            entry = read_entry(self._processes.proc, process.pid)
        except (FileNotFoundError, ProcessLookupError):
            return ProcessState.ENDED
        except (OSError, ValueError, IndexError):
            return ProcessState.UNKNOWN
        # Another one has its pid by now.
        is_another = entry.started != process.started
        return ProcessState.ENDED if is_another or entry.has_ended else ProcessState.RUNS

    @cached_property
    def _boot_id(self) -> str:
        try:
            return (self._processes.proc / "sys/kernel/random/boot_id").read_text().strip()
        except (OSError, ValueError):
            return ""
