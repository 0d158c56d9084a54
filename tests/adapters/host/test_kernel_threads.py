"""Threads of the kernel are told from everything that may be in a container."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ds01d.adapters.host.kernel_threads import KernelThreads
from ds01d.adapters.host.process_entry import read_entry
from ds01d.adapters.host.processes import Processes
from tests.support.made_up_proc import OUTER, Proc

OF_KERNEL = 0x00200000 | 0x40
NAMED = f"0::/docker/{OUTER}"


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    """One where each child of pid 2 is in a container, so that it shows who is looked at."""
    made = Proc(tmp_path)
    made.add(2, "0::/", parent=0, started=1, command="kthreadd", flags=OF_KERNEL)
    (tmp_path / "2" / "task" / "2").mkdir(parents=True)
    return made


def set_children(proc: Proc, *pids: int) -> None:
    children = proc.root / "2" / "task" / "2" / "children"
    children.write_text("".join(f"{pid} " for pid in pids))


def living(proc: Proc) -> object:
    return Processes(proc=proc.root).find_living(frozenset({OUTER}))


def test_threads_of_the_kernel_are_not_looked_at(proc: Proc) -> None:
    proc.add(50, NAMED, parent=2, flags=OF_KERNEL)
    set_children(proc, 50)
    assert living(proc) == {}


def test_a_program_that_the_kernel_started_is(proc: Proc) -> None:
    """It is a child of kthreadd, and a process like others."""
    proc.add(50, NAMED, parent=2)
    set_children(proc, 50)
    assert living(proc) == {OUTER: 50}


def test_in_another_pid_namespace_pid_2_is_of_anybody(proc: Proc) -> None:
    proc.add(2, "0::/", command="kthreadd")
    proc.add(50, NAMED, parent=2, flags=OF_KERNEL)
    set_children(proc, 50)
    assert living(proc) == {OUTER: 50}


def test_without_a_list_of_children_everybody_is_looked_at(proc: Proc) -> None:
    """A kernel without CONFIG_PROC_CHILDREN."""
    proc.add(50, NAMED, parent=2, flags=OF_KERNEL)
    assert living(proc) == {OUTER: 50}


def test_one_that_is_no_child_any_more_is_looked_at(proc: Proc) -> None:
    """Its pid is somebody else's by now."""
    proc.add(50, "0::/", parent=2, flags=OF_KERNEL)
    set_children(proc, 50, 51)
    threads = KernelThreads(proc.root)
    assert threads.list_pids() == {"50"}
    set_children(proc, 51)
    assert threads.list_pids() == set()


def test_of_thousands_some_are_checked_with_each_look(proc: Proc) -> None:
    for pid in range(100, 350):
        proc.add(pid, "0::/", parent=2, flags=OF_KERNEL)
    set_children(proc, *range(100, 350))
    threads = KernelThreads(proc.root)
    assert len(threads.list_pids()) == 200
    assert len(threads.list_pids()) == 250


def test_on_this_host_they_are_what_the_kernel_says() -> None:
    pids = KernelThreads(Path("/proc")).list_pids()
    assert str(os.getpid()) not in pids
    assert "1" not in pids
    for pid in sorted(pids, key=int)[:20]:
        try:
            entry = read_entry(Path("/proc"), int(pid))
        except (FileNotFoundError, ProcessLookupError):
            continue  # a worker that has ended
        assert entry.parent == 2
        assert entry.flags & 0x00200000
