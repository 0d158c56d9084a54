"""Processes that are looked up again are as those that are looked up for the first time."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ds01d.adapters.host import followed_processes
from ds01d.adapters.host.followed_processes import FollowedProcesses, OpenProcess
from ds01d.adapters.host.processes import Process
from tests.support.made_up_proc import INNER, OUTER, Proc


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    return Proc(tmp_path)


class Counting(FollowedProcesses):
    """Counts how often a uid is read."""

    uids_read = 0

    def _read_uid(self, pid: int) -> int | None:
        self.uids_read += 1
        return super()._read_uid(pid)


def test_a_process_that_was_seen_before_is_read_again_where_it_may_have_changed(
    proc: Proc,
) -> None:
    proc.add(50, f"0::/docker/{OUTER}", command="sh")
    processes = Counting(proc=proc.root)
    assert processes.look_up([50])[50] == Process(container=OUTER, user="1001", command="sh")
    proc.add(50, f"0::/docker/{INNER}", command="python")
    assert processes.look_up([50])[50] == Process(container=INNER, user="1001", command="python")
    assert processes.uids_read == 1
    proc.add(50, "0::/user.slice")  # it left its cgroup: then its parents count
    assert processes.look_up([50])[50].container is None
    proc.add(50, f"0::/docker/{OUTER}", started=2000, uid=1002)
    assert processes.look_up([50])[50] == Process(container=OUTER, user="1002", command="python")


def test_a_process_of_another_user_than_before_is_read_whole(
    proc: Proc, monkeypatch: pytest.MonkeyPatch
) -> None:
    """setuid(2) changes the owner of its folder."""
    proc.add(50, f"0::/docker/{OUTER}", uid=0)
    processes = Counting(proc=proc.root)
    monkeypatch.setattr(followed_processes, "read_owner", lambda *_: 0)
    assert processes.look_up([50])[50].user == "0"
    proc.add(50, f"0::/docker/{OUTER}", uid=1002)
    assert processes.look_up([50])[50].user == "0", "as long as the owner is the same"
    monkeypatch.setattr(followed_processes, "read_owner", lambda *_: 1002)
    assert processes.look_up([50])[50].user == "1002"


def test_what_was_read_ahead_counts_for_the_very_process(proc: Proc) -> None:
    """It is read once, however long ago, unless the pid is another process's by now."""
    proc.add(50, f"0::/docker/{INNER}")
    processes = FollowedProcesses(proc=proc.root)
    processes.look_up([50])
    processes.look_ahead()
    proc.add(50, f"0::/docker/{OUTER}", started=2000, uid=1002)
    assert processes.look_up([50])[50].container == OUTER
    processes.look_ahead()
    proc.add(50, f"0::/docker/{INNER}", started=2000, uid=1002)
    assert processes.look_up([50])[50].container == OUTER, "as it was a moment ago"
    assert processes.look_up([50])[50].container == INNER
    processes.look_ahead()
    for file in (proc.root / "50").iterdir():
        file.unlink()
    assert processes.look_up([50]) == {}
    processes.look_ahead()


class ReusedBetween(FollowedProcesses):
    """Gives the pid to another process between two reads."""

    armed = False

    def _read_text(self, pid: int, name: str) -> str:
        text = super()._read_text(pid, name)
        if self.armed and name == "cgroup":
            self.armed = False
            Proc(self.proc).add(pid, f"0::/docker/{OUTER}", started=2000, uid=1002)
        return text


def test_a_pid_that_was_seen_before_and_changes_hands_is_who_has_it_now(proc: Proc) -> None:
    proc.add(50, f"0::/docker/{INNER}")
    processes = ReusedBetween(proc=proc.root)
    assert processes.look_up([50])[50].container == INNER
    processes.armed = True
    process = processes.look_up([50])[50]
    assert process == Process(container=OUTER, user="1002", command="python")


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def test_the_open_files_of_a_process_are_never_those_of_another(
    child: subprocess.Popen[bytes],
) -> None:
    """That they end with it, at the latest when its pid can be another's, is the kernel's word."""
    files = OpenProcess(child.pid)
    assert files.read_command() == Path(f"/proc/{child.pid}/comm").read_text().strip()
    assert files.read_cgroup() == Path(f"/proc/{child.pid}/cgroup").read_text()
    child.kill()
    child.wait()
    with pytest.raises(ProcessLookupError):
        files.read_command()
    with pytest.raises(ProcessLookupError):
        files.read_cgroup()
    with pytest.raises(ProcessLookupError):
        OpenProcess(child.pid)
    assert len(list_open(child.pid)) == 2
    del files
    assert list_open(child.pid) == []


@pytest.mark.parametrize("most", [0, 128])
def test_a_real_process_is_as_by_the_first_look_however_it_is_followed(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(followed_processes, "MOST_OPEN", most)
    # No container is needed for what is read of one.
    monkeypatch.setattr(followed_processes, "find_container", lambda *_: OUTER)
    processes = Counting()
    whole = processes.look_up([child.pid, os.getpid()])
    for _ in range(3):
        processes.look_ahead()
        again = processes.look_up([child.pid])[child.pid]
        assert again == dataclasses.replace(whole[child.pid], container=OUTER)
    assert processes.uids_read == 2, "each once"
    assert len(list_open(child.pid)) == 2 * (most > 0)
    processes.look_ahead()  # what was read of it then is of nobody any more
    child.kill()
    child.wait()
    assert processes.look_up([child.pid]) == {}
    assert list_open(child.pid) == []
    processes.look_ahead()


def list_open(pid: int) -> list[str]:
    """The files of a process that this one has open."""
    targets = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            targets.append(str(descriptor.readlink()))
    return [target for target in targets if target.startswith(f"/proc/{pid}/")]
