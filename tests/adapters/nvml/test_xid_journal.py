"""XIDs: what the kernel says of GPUs, and a real journal that says it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from ds01d.adapters.nvml.xid_journal import (
    ALL_GPUS,
    HARMLESS,
    KernelFaults,
    parse_recovery,
    parse_xid,
    pci_address,
)

JOURNALD = Path("/lib/systemd/systemd-journald")


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        (
            "NVRM: Xid (PCI:0000:3b:00): 79, pid=1234, name=python, GPU has fallen off the bus.",
            ("0000:3b:00", "XID 79: pid=1234, name=python, GPU has fallen off the bus."),
        ),
        (
            "NVRM: Xid (PCI:0000:C1:00.0 GPU-I:05 GPU-CI:00): 94, Contained: SM",
            ("0000:c1:00", "XID 94: Contained: SM"),
        ),
        ("NVRM: Xid (0001:03:00): 48", ("0001:03:00", "XID 48")),
        ("NVRM: Xid (PCI:0000:3b:00): 62, a\nb\x1b[2J", ("0000:3b:00", r"XID 62: a\nb\x1b[2J")),
        ("NVRM: Xid (PCI:0000:3b:00): 43, pid=1, Ch 00000008", None),
        ("NVRM: GPU 0000:3b:00.0: RmInitAdapter failed!", None),
        ("nvidia-modeset: Xid", None),
        ("NVRM: Xid (PCI:::): 79", None),
        (
            (
                "NVRM: The NVIDIA GPU 0000:b3:00.0 (PCI ID: 10de:2330)\nNVRM: installed in this"
                " system has fallen off the bus and is not responding to commands."
            ),
            ("0000:b3:00", "it has fallen off the bus"),
        ),
        (
            "NVRM: GPU at PCI:0000:3B:00: has fallen off the bus",
            ("0000:3b:00", "it has fallen off the bus"),
        ),
        (
            "NVRM: GPU 0000:3b:00.0: GPU has fallen off the bus.",
            ("0000:3b:00", "it has fallen off the bus"),
        ),
        (
            (
                "NVRM: Xid (PCI:0000:3b:00): 154, GPU recovery action changed from 0x0 (None)"
                " to 0x1 (GPU Reset Required)"
            ),
            (
                "0000:3b:00",
                "XID 154: GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)",
            ),
        ),
        (
            (
                "NVRM: Xid (PCI:0000:3b:00): 154, GPU recovery action changed from 0x1 (GPU Reset"
                " Required) to 0x0 (None)"
            ),
            None,
        ),
        ("NVRM: Xid (PCI:0000:c5:00): 145, RLW_SRC_TRACK Nonfatal XC1 i0 Link 17 (0x0)", None),
        (
            "NVRM: Xid (PCI:0000:c5:00): 149, NETIR_LINK_EVT  Fatal   XC0 i0 Link 09",
            ("0000:c5:00", "XID 149: NETIR_LINK_EVT  Fatal   XC0 i0 Link 09"),
        ),
        (
            "NVRM: Xid (PCI:0000:3b:00): 79, pid=1, name=is nonfatal, GPU has fallen off the bus.",
            ("0000:3b:00", "XID 79: pid=1, name=is nonfatal, GPU has fallen off the bus."),
        ),
        ("", None),
    ],
)
def test_a_fault_is_told_by_its_xid(message: str, fault: tuple[str, str] | None) -> None:
    assert parse_xid(message) == fault


RECOVERED = (
    "NVRM: Xid (PCI:0000:3b:00): 154, GPU recovery action changed from 0x1 (GPU Reset Required)"
    " to 0x0 (None)"
)
LOADING = "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  535.183.01"


@pytest.mark.parametrize(
    ("message", "over"),
    [
        (RECOVERED, "0000:3b:00"),
        (RECOVERED.replace("0x0 (None)", "0x2 (Node Reboot Required)"), None),
        (RECOVERED.replace("154,", "79,"), None),
        (RECOVERED.replace("0000:3b:00", "::"), None),
        (LOADING, ALL_GPUS),
        ("NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  570.86.15", ALL_GPUS),
        ("nvidia: loading out-of-tree module taints kernel.", ALL_GPUS),
        ("usb: nvidia: loading of something", None),
        ("", None),
    ],
)
def test_a_fault_is_over_by_recovery_or_a_new_driver(message: str, over: str | None) -> None:
    assert parse_recovery(message) == over


@pytest.mark.parametrize("xid", sorted(HARMLESS))
def test_what_a_program_causes_is_no_fault_of_the_gpu(xid: int) -> None:
    assert parse_xid(f"NVRM: Xid (PCI:0000:3b:00): {xid}, pid=1") is None


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("00000000:3B:00.0", "0000:3b:00"),
        ("0000:3b:00", "0000:3b:00"),
        ("3b:00", "0000:3b:00"),
        ("00010000:3B:00.0", "10000:3b:00"),
        ("", ""),
        ("GPU-1", ""),
    ],
)
def test_nvml_and_the_kernel_name_a_gpu_alike(text: str, address: str) -> None:
    assert pci_address(text) == address


def test_no_journal_is_a_problem_and_no_fault(tmp_path: Path) -> None:
    missing = KernelFaults(directory=tmp_path / "none", wait_s=10)
    assert missing.read() == {}
    assert "cannot be read" in missing.problem
    empty = KernelFaults(directory=tmp_path, wait_s=10)
    assert empty.read() == {}
    assert "not seen" in empty.problem


class Slow(KernelFaults):
    """A journal so large that reading it takes for ever."""

    def __init__(self, *, wait_s: float, every_s: float) -> None:
        super().__init__(wait_s=wait_s, every_s=every_s)
        self.readings = 0
        self.go_on = threading.Event()

    def _follow(self) -> None:
        self.readings += 1
        self._faults["0000:3b:00"] = "XID 79"
        self.go_on.wait(30)
        self._faults["0000:5e:00"] = "XID 48"


def test_a_huge_journal_delays_nobody_and_is_read_to_its_end() -> None:
    faults = Slow(wait_s=0.02, every_s=0)
    begin = time.monotonic()
    for _ in range(5):
        assert faults.read() == {"0000:3b:00": "XID 79"}
    assert time.monotonic() - begin < 20, "not for as long as the reading takes"
    assert faults.readings == 1, "one reading at a time"
    faults.go_on.set()
    deadline = time.monotonic() + 60
    while len(faults.read()) < 2:
        assert time.monotonic() < deadline


def test_the_journal_is_not_opened_more_often_than_it_should() -> None:
    now = [0.0]
    faults = Slow(wait_s=10, every_s=30)
    faults._clock = lambda: now[0]
    faults.go_on.set()
    for now[0] in (0, 1, 29, 31, 32):
        faults.read()
    assert faults.readings == 2


# --- a real journal ---------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Journal:
    """A private journald. It marks what it is sent as of transport "journal"."""

    socket: Path
    folder: Path

    def write(self, message: str) -> None:
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as sender:
            sender.sendto(f"MESSAGE={message}\n".encode(), str(self.socket))

    def faults(self) -> KernelFaults:
        return KernelFaults(directory=self.folder, transport="journal", wait_s=10, every_s=0)


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[Journal]:
    if os.geteuid() != 0 or not JOURNALD.exists() or not shutil.which("unshare"):
        pytest.skip("needs root, unshare and systemd-journald")
    files, sockets = tmp_path / "journal", tmp_path / "sockets"
    files.mkdir()
    sockets.mkdir()
    script = f"""
        mount -t tmpfs tmpfs /run
        mkdir -p /run/log/journal /run/systemd/journal
        mount --bind {files} /run/log/journal
        mount --bind {sockets} /run/systemd/journal
        exec {JOURNALD}
    """
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 20
            while not ((sockets / "socket").exists() and list(files.glob("*/system.journal"))):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.01)
            yield Journal(socket=sockets / "socket", folder=next(files.iterdir()))
        finally:
            process.terminate()


def read_until(faults: KernelFaults, count: int) -> dict[str, str]:
    deadline = time.monotonic() + 20
    while len(found := dict(faults.read())) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


@pytest.mark.machine
def test_faults_are_followed_through_a_real_journal(journald: Journal) -> None:
    faults = journald.faults()
    journald.write("NVRM: Xid (PCI:0000:3b:00): 31, pid=7, an application's fault")
    journald.write("NVRM: Xid (PCI:0000:3b:00): 48, first")
    assert read_until(faults, 1) == {"0000:3b:00": "XID 48: first"}
    assert not faults.problem
    assert faults.read() == {"0000:3b:00": "XID 48: first"}, "nothing new"
    journald.write("NVRM: Xid (PCI:0000:5e:00): 79, second")
    assert read_until(faults, 2)["0000:5e:00"] == "XID 79: second"
    journald.write("NVRM: Xid (PCI:0000:3b:00): 95, worse")
    journald.write("NVRM: Xid (PCI:0000:86:00): 62, third")
    found = read_until(faults, 3)
    assert found["0000:3b:00"] == "XID 95: worse", "the newest of each GPU"
    assert read_until(journald.faults(), 3) == found, "a reader that starts late sees the same"


@pytest.mark.machine
def test_faults_that_are_over_are_left_out(journald: Journal) -> None:
    faults = journald.faults()
    journald.write("NVRM: Xid (PCI:0000:3b:00): 79, first")
    journald.write("NVRM: Xid (PCI:0000:5e:00): 48, second")
    assert read_until(faults, 2).keys() == {"0000:3b:00", "0000:5e:00"}
    journald.write(RECOVERED)
    journald.write("NVRM: The NVIDIA GPU 0000:b3:00.0 (PCI ID: 10de:0) has fallen off the bus")
    wait_for(faults, {"0000:5e:00", "0000:b3:00"})
    journald.write(LOADING)
    journald.write("NVRM: Xid (PCI:0000:86:00): 62, after it")
    wait_for(faults, {"0000:86:00"})
    wait_for(journald.faults(), {"0000:86:00"})


def wait_for(faults: KernelFaults, addresses: set[str]) -> None:
    deadline = time.monotonic() + 20
    while faults.read().keys() != addresses:
        assert time.monotonic() < deadline, faults.read()
        time.sleep(0.01)


@pytest.mark.machine
def test_who_is_not_the_kernel_reports_no_fault(journald: Journal) -> None:
    journald.write("NVRM: Xid (PCI:0000:3b:00): 79, says a user")
    read_until(journald.faults(), 1)
    assert KernelFaults(directory=journald.folder, wait_s=10).read() == {}
