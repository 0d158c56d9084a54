"""From a pid to its container, on made-up /proc trees and on the real one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from ds01d.adapters.processes import Process, Processes
from ds01d.model.facts import ContainerId, Unknown
from simulation.engine import PrivateEngine

OUTER = ContainerId("a" * 64)
INNER = ContainerId("b" * 64)


class Proc:
    """A made-up /proc."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.add(1, "0::/init.scope", parent=0, started=1, command="systemd")

    def add(
        self,
        pid: int,
        cgroup: str,
        *,
        parent: int = 1,
        started: int = 1000,
        uid: int = 1001,
        command: str = "python",
    ) -> None:
        folder = self.root / str(pid)
        folder.mkdir(exist_ok=True)
        rest = " ".join(["S", str(parent), *["0"] * 17, str(started), *["0"] * 30])
        (folder / "stat").write_text(f"{pid} ({command}) {rest}\n")
        (folder / "status").write_text(f"Name:\t{command}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n")
        (folder / "cgroup").write_text(f"{cgroup}\n")

    def look_up(self, pid: int, *known: ContainerId) -> Process | None:
        return Processes(proc=self.root, known=known.__contains__).look_up([pid]).get(pid)


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    return Proc(tmp_path)


CGROUPS = {
    "v2, systemd driver": f"0::/system.slice/docker-{OUTER}.scope",
    "v2, cgroupfs driver": f"0::/docker/{OUTER}",
    "v1": f"12:pids:/docker/{OUTER}\n3:cpu,cpuacct:/docker/{OUTER}\n0::/system.slice/x.service",
    "v1, only one line": f"12:pids:/user.slice\n1:name=systemd:/docker/{OUTER}\n0::/",
    "below the container": f"0::/system.slice/docker-{OUTER}.scope/user.slice/session-1.scope",
    "cgroup parent": f"0::/ds01.slice/ds01-1001.slice/docker-{OUTER}.scope",
    "cgroup namespace": f"0::/../../docker/{OUTER}",
    "podman": f"0::/machine.slice/libpod-{OUTER}.scope/container",
    "podman, cgroupfs": f"0::/libpod_parent/libpod-{OUTER}",
    "nerdctl": f"0::/system.slice/nerdctl-{OUTER}.scope",
    "kubelet, systemd": "0::/kubepods.slice/kubepods-besteffort.slice/"
    f"kubepods-besteffort-pod12345678_90ab.slice/cri-containerd-{OUTER}.scope",
    "kubelet, cgroupfs": f"0::/kubepods/besteffort/pod1234-5678/{OUTER}",
    "CRI-O": f"0::/kubepods.slice/kubepods-pod1234.slice/crio-{OUTER}.scope",
    "removed": f"0::/docker/{OUTER} (deleted)",
}


@pytest.mark.parametrize("cgroup", CGROUPS.values(), ids=CGROUPS)
def test_a_container_is_found_in_any_cgroup(proc: Proc, cgroup: str) -> None:
    proc.add(50, cgroup)
    assert proc.look_up(50) == Process(container=OUTER, user="1001", command="python")


HOST = {
    "root": "0::/",
    "session": "0::/user.slice/user-1001.slice/session-3.scope",
    "docker itself": "0::/system.slice/docker.service",
    "too short": f"0::/docker/{OUTER[:-1]}",
    "too long": f"0::/docker/{OUTER}a",
    "conmon": f"0::/machine.slice/libpod-conmon-{OUTER}.scope",
    "upper case": f"0::/docker/{OUTER.upper()}",
}


@pytest.mark.parametrize("cgroup", HOST.values(), ids=HOST)
def test_everything_else_is_the_host(proc: Proc, cgroup: str) -> None:
    proc.add(50, cgroup)
    assert proc.look_up(50) == Process(container=None, user="1001", command="python")


@pytest.mark.parametrize(
    ("known", "found"),
    [
        ((), OUTER),
        ((OUTER, INNER), OUTER),
        ((OUTER,), OUTER),
        ((INNER,), INNER),
    ],
)
def test_of_nested_containers_it_is_the_outermost_that_the_engine_knows(
    proc: Proc, known: tuple[ContainerId, ...], found: ContainerId
) -> None:
    proc.add(50, f"5:pids:/\n0::/docker/{OUTER}/docker/{INNER}")
    process = proc.look_up(50, *known)
    assert process is not None
    assert process.container == found


def test_a_process_that_left_its_cgroup_belongs_to_its_parents_container(proc: Proc) -> None:
    proc.add(40, f"0::/docker/{OUTER}", started=10)
    proc.add(41, "0::/", parent=40, started=20)
    proc.add(42, "0::/user.slice", parent=41, started=30)
    process = proc.look_up(42)
    assert process is not None
    assert process.container == OUTER


def test_a_parent_younger_than_its_child_is_none(proc: Proc) -> None:
    """Its pid was given to another process; nobody knows whose child this is."""
    proc.add(40, f"0::/docker/{OUTER}", started=2000)
    proc.add(42, "0::/user.slice", parent=40, started=1000)
    process = proc.look_up(42)
    assert process is not None
    assert isinstance(process.container, Unknown)


def test_parents_in_a_circle_come_to_an_end(proc: Proc) -> None:
    proc.add(40, "0::/", parent=41)
    proc.add(41, "0::/", parent=40)
    process = proc.look_up(40)
    assert process is not None
    assert isinstance(process.container, Unknown)


def test_a_process_that_is_gone_uses_nothing(proc: Proc) -> None:
    assert proc.look_up(4711) is None


def test_with_hidepid_a_process_that_cannot_be_seen_is_unknown(proc: Proc) -> None:
    (proc.root / "1" / "cgroup").unlink()
    process = proc.look_up(4711)
    assert process is not None
    assert isinstance(process.container, Unknown)
    assert "ProtectProc" in process.container.reason
    proc.add(50, f"0::/docker/{OUTER}")
    seen = proc.look_up(50)
    assert seen is not None
    assert seen.container == OUTER


def test_a_process_that_may_not_be_read_is_unknown(proc: Proc) -> None:
    proc.add(50, "0::/")
    (proc.root / "50" / "cgroup").unlink()
    (proc.root / "50" / "cgroup").mkdir()
    process = proc.look_up(50)
    assert process is not None
    assert isinstance(process.container, Unknown)


def test_without_hidepid_there_is_no_problem(proc: Proc) -> None:
    assert not Processes(proc=proc.root).hidepid_problem


class Reusing(Processes):
    """Gives the pid to another process whenever its uid was read."""

    starts = 1000

    def _uid(self, pid: int) -> int | None:
        uid = super()._uid(pid)
        Reusing.starts += 1
        Proc(self._proc).add(pid, f"0::/docker/{OUTER}", started=Reusing.starts)
        return uid


def test_a_pid_that_is_used_again_all_the_time_is_unknown(proc: Proc) -> None:
    proc.add(50, "0::/")
    container = Reusing(proc=proc.root).look_up([50])[50].container
    assert isinstance(container, Unknown)


class ReusedOnce(Processes):
    """Gives the pid to a process of a container once."""

    done = False

    def _uid(self, pid: int) -> int | None:
        uid = super()._uid(pid)
        if not self.done:
            self.done = True
            Proc(self._proc).add(pid, f"0::/docker/{OUTER}", started=2000, uid=1002)
        return uid


def test_a_pid_that_changed_hands_belongs_to_who_has_it_now(proc: Proc) -> None:
    proc.add(50, "0::/")
    process = ReusedOnce(proc=proc.root).look_up([50])[50]
    assert process == Process(container=OUTER, user="1002", command="python")


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("my job (v2)", "my job (v2)"),
        (") R 1 (", ") R 1 ("),
        ("a\nb\x1b[2J", "a\\nb\\x1b[2J"),
        ("a\u202eb", "a\\u202eb"),
    ],
)
def test_a_command_may_hold_anything_and_moves_no_cursor(
    proc: Proc, command: str, told: str
) -> None:
    proc.add(50, "0::/", command=command)
    process = proc.look_up(50)
    assert process is not None
    assert process.command == told


def test_users_are_asked_for_all_together(proc: Proc) -> None:
    asked: list[frozenset[int]] = []

    def users(uids: frozenset[int]) -> Mapping[int, str]:
        asked.append(uids)
        return {1001: "ada\x07"}

    proc.add(50, "0::/", uid=1001)
    proc.add(51, "0::/", uid=1001)
    proc.add(52, "0::/", uid=1722830498)
    found = Processes(proc=proc.root, users=users).look_up([50, 51, 52])
    assert asked == [frozenset({1001, 1722830498})]
    assert [found[pid].user for pid in (50, 51, 52)] == ["ada\\x07", "ada\\x07", "1722830498"]


def test_a_real_process_is_found_and_a_dead_one_is_not() -> None:
    processes = Processes()
    with subprocess.Popen(["sleep", "60"]) as child:
        found = processes.look_up([child.pid, os.getpid()])
        child.kill()
    assert set(found) == {child.pid, os.getpid()}
    assert found[child.pid].user == str(os.getuid())
    assert not processes.look_up([child.pid])


@pytest.mark.docker
def test_processes_of_a_real_container_are_its_own(engine: PrivateEngine) -> None:
    container = ContainerId(engine.run("train._.1001"))
    first = engine.pid_of("train._.1001")
    enter = ["nsenter", "--target", str(first), "--all", "sleep", "60"]
    with subprocess.Popen(enter) as outsider:
        found = Processes(known=container.__eq__).look_up([first, outsider.pid, os.getpid()])
        outsider.kill()
    assert found[first].container == container
    assert found[outsider.pid].container is None, "it is in the namespaces, not in the container"
    assert found[os.getpid()].container is None
