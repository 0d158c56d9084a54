"""GPU faults that the kernel reported since boot: NVIDIA's XIDs, from the kernel's journal.

NVML's own events would need an open session, which blocks MIG changes. Reading never delays a pass
by more than a moment: it happens in the background, and what it has not found yet it finds the
next time. A fault only ever becomes a finding; without a journal there are none.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ds01d.text import make_printable

# Those that an application causes, or that only say that something was recovered.
HARMLESS = frozenset({13, 31, 43, 45, 68, 109})
ALL_GPUS = "*"

_XID = re.compile(r"NVRM: Xid \((?:PCI:)?([0-9a-fA-F:.]+)[^)]*\): (\d+)(?:, *(.*))?", re.DOTALL)
# Printed beside XID 79, and by some drivers instead of it.
_OFF_THE_BUS = re.compile(
    r"^NVRM: (?:The NVIDIA )?GPU (?:at )?(?:PCI:)?([0-9a-fA-F:.]+).*has fallen off the bus",
    re.DOTALL,
)
# The second word of an NVLink XID (144 to 150) is its severity.
_NONFATAL = re.compile(r"\w+\s+non-?fatal\b", re.IGNORECASE)
_RECOVERY_CHANGED = 154
_RECOVERED = re.compile(r"recovery action changed from .* to 0x0+\b", re.DOTALL)
_LOADING = re.compile(r"(?:NVRM: loading NVIDIA|nvidia: loading) ")
_PCI = re.compile(r"(?:([0-9a-f]+):)?([0-9a-f]{2}):([0-9a-f]{2})(?:\.[0-9a-f])?")
_UNREADABLE = (
    "the journal holds no kernel message of this boot that could be read: "
    "GPU faults (XID) are not seen (be root or in group systemd-journal)"
)


def pci_address(text: str) -> str:
    """Bring a PCI address to the one form "0000:3b:00"; "" if it is none."""
    match = _PCI.fullmatch(text.strip().lower())
    return f"{int(match[1] or '0', 16):04x}:{match[2]}:{match[3]}" if match else ""


def parse_xid(message: str) -> tuple[str, str] | None:
    """Parse a message of the kernel: PCI address and words of a fault of the GPU's own."""
    if match := _XID.search(message):
        xid, words = int(match[2]), make_printable((match[3] or "").strip())
        if xid in HARMLESS or _NONFATAL.match(words) or _is_recovered(xid, words):
            return None
        fault = f"XID {xid}: {words}".rstrip(": ")
    elif match := _OFF_THE_BUS.search(message):
        fault = "it has fallen off the bus"
    else:
        return None
    address = pci_address(match[1].rstrip(":"))
    return (address, fault) if address else None


def parse_recovery(message: str) -> str | None:
    """The PCI address of a GPU whose fault is over by this message; `ALL_GPUS` for all of them."""
    if _LOADING.match(message):
        return ALL_GPUS
    match = _XID.search(message)
    if match and _is_recovered(int(match[2]), match[3] or ""):
        return pci_address(match[1]) or None
    return None


def _is_recovered(xid: int, words: str) -> bool:
    return xid == _RECOVERY_CHANGED and _RECOVERED.search(words) is not None


class KernelFaults:
    """Reads the journal, on from where it stopped. Faults that are over are left out.

    `wait_s`: how long a caller waits for the reading at most. `every_s`: no oftener than that.
    `directory` and `transport` select another journal. `problem`: why nothing is to be seen, or "".
    """

    def __init__(
        self,
        *,
        wait_s: float = 0.1,
        every_s: float = 30.0,
        directory: Path | None = None,
        transport: str = "kernel",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wait_s = wait_s
        self._every_s = every_s
        self._directory = directory
        self._transport = transport
        self._clock = clock
        self._thread: threading.Thread | None = None
        self._next = float("-inf")
        self._cursor = ""
        self._faults: dict[str, str] = {}
        self.problem = ""

    def read(self) -> Mapping[str, str]:
        """PCI address → the newest fault of each GPU, as far as the journal has been read."""
        if self._thread is None and self._clock() >= self._next:
            self._next = self._clock() + self._every_s
            # One thread opens, uses and closes it: libsystemd asks for that. And an open journal
            # would keep its pages in our memory.
            self._thread = threading.Thread(target=self._follow, name="kernel-faults", daemon=True)
            self._thread.start()
        if self._thread is not None:
            self._thread.join(self._wait_s)
            if not self._thread.is_alive():
                self._thread = None
        return dict(self._faults)

    def _follow(self) -> None:
        """Read all that is new."""
        path = str(self._directory) if self._directory else None
        try:
            from systemd import journal  # noqa: PLC0415 - others need only the address

            with journal.Reader(path=path) as reader:
                reader.this_boot()
                reader.add_match(_TRANSPORT=self._transport)
                if self._cursor:
                    reader.seek_cursor(self._cursor)
                for entry in reader:
                    self._read_entry(entry)
            self.problem = "" if self._cursor else _UNREADABLE
        except OSError as error:
            self.problem = f"the journal cannot be read: {error.strerror or error}"

    def _read_entry(self, entry: Mapping[str, object]) -> None:
        cursor, message = str(entry["__CURSOR"]), entry.get("MESSAGE")
        # Seeking a cursor finds the entry it was taken from first.
        if cursor != self._cursor and isinstance(message, str):
            self._update_faults(message)
        self._cursor = cursor

    def _update_faults(self, message: str) -> None:
        if fault := parse_xid(message):
            address, words = fault
            self._faults[address] = words
        elif (recovered := parse_recovery(message)) == ALL_GPUS:
            self._faults.clear()
        elif recovered:
            self._faults.pop(recovered, None)
