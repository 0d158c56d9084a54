"""From a pid to its container, on made-up /proc trees and on the real one."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from ds01d.adapters.host.processes import Process, Processes
from ds01d.bootstrap import may_be_rootless
from ds01d.model.primitives import ContainerId, Unknown
from simulation.engine import PrivateEngine
from tests.support.made_up_proc import INNER, OUTER, Proc


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
    "systemd's form under cgroupfs": f"0::/system.slice:docker:{OUTER}",
    "the same in a user's slice": f"0::/user.slice/user-1001.slice:docker:{OUTER}",
    "the same without a slice": f"0::/:docker:{OUTER}",
    "the same of containerd": "0::/system.slice/containerd.service/"
    f"kubepods-burstable-pod1234.slice:cri-containerd:{OUTER}",
    "podman, split cgroups": f"0::/machine.slice/libpod-payload-{OUTER}",
    "podman's monitor": f"0::/machine.slice/libpod-conmon-{OUTER}.scope",
    "podman, in a pod": f"0::/machine.slice/machine-libpod_pod_{INNER}.slice/libpod-{OUTER}.scope",
    "CRI-O's monitor": f"0::/system.slice/crio-conmon-{OUTER}.scope",
    "Kata": f"0::/system.slice/kata_{OUTER}",
    "Kata, its overhead": f"0::/kata_overhead/{OUTER}",
    "rootless": f"0::/user.slice/user-1001.slice/user@1001.service/user.slice/docker-{OUTER}.scope",
    "whatever is made inside it": f"0::/docker/{OUTER}/odd-{INNER}-name",
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
    "machined": "0::/machine.slice/machine-web.scope/payload",
    "LXC": "0::/lxc.payload.web/init.scope",
    "systemd-run": "0::/user.slice/user-1001.slice/user@1001.service/app.slice/run-r1a2b.scope",
    "a build": "0::/docker/buildkit/k9x0c8v2m1q7w3e5r6t4y8u0i",
    "a hash that is longer": f"0::/system.slice/docker-{OUTER}ab.scope",
    "upper case": f"0::/docker/{OUTER.upper()}",
}


@pytest.mark.parametrize("cgroup", HOST.values(), ids=HOST)
def test_everything_else_is_the_host(proc: Proc, cgroup: str) -> None:
    proc.add(50, cgroup)
    assert proc.look_up(50) == Process(container=None, user="1001", command="python")


STRANGE = {
    "another runtime": f"0::/system.slice/runtime9-{OUTER}.scope",
    "a suffix": f"0::/system.slice/docker-{OUTER}.service",
    "a unit that is named after it": f"0::/system.slice/{OUTER}-4f1a2b3c.service",
    "a mount unit": f"0::/system.slice/var-lib-docker-containers-{OUTER}-mounts-shm.mount",
    "behind an escape of systemd's": rf"0::/system.slice/odd\x2d{OUTER}.scope",
    "a pod itself": f"0::/machine.slice/machine-libpod_pod_{OUTER}.slice",
    "a container below it": f"0::/odd-{OUTER}.scope/docker/{INNER}",
}


@pytest.mark.parametrize("cgroup", STRANGE.values(), ids=STRANGE)
@pytest.mark.parametrize("known", [(), (OUTER,)], ids=["not listed", "listed"])
def test_an_id_in_a_form_that_is_not_understood_is_an_unknown_container(
    proc: Proc, cgroup: str, known: tuple[ContainerId, ...]
) -> None:
    proc.add(50, cgroup)
    process = proc.look_up(50, *known)
    assert process is not None
    assert isinstance(process.container, Unknown)
    assert OUTER[:12] in process.container.reason


def test_the_child_of_an_unknown_container_is_not_the_hosts(proc: Proc) -> None:
    proc.add(40, f"0::/odd-{OUTER}", started=10)
    proc.add(41, "0::/user.slice", parent=40, started=20)
    process = proc.look_up(41)
    assert process is not None
    assert isinstance(process.container, Unknown)


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


def test_a_parent_older_than_its_time_namespace_is_a_parent(proc: Proc) -> None:
    """Its start time is negative; the kernel wraps nanoseconds before it makes ticks of them."""
    wrapped_ns = (1 << 64) - 50_000 * 10**9
    ticks = wrapped_ns * os.sysconf("SC_CLK_TCK") // 10**9
    proc.add(40, f"0::/system.slice/docker-{OUTER}.scope", started=ticks)
    proc.add(41, "0::/", parent=40, started=6000)
    found = proc.look_up(41, ContainerId(OUTER))
    assert found is not None
    assert found.container == OUTER


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


# --- who is alive for the kernel --------------------------------------------------------------


def living(proc: Proc, *containers: ContainerId) -> Mapping[ContainerId, int] | Unknown:
    return Processes(proc=proc.root).find_living(frozenset(containers))


@pytest.mark.parametrize("cgroup", [*CGROUPS.values(), *STRANGE.values()])
def test_a_container_lives_while_a_process_names_it_in_any_form(proc: Proc, cgroup: str) -> None:
    proc.add(50, cgroup)
    assert living(proc, OUTER, ContainerId("c" * 64)) == {OUTER: 50}


USERS_OWN = "/user.slice/user-1001.slice/user@1001.service"


@pytest.mark.parametrize(
    "cgroup",
    [
        f"0::{USERS_OWN}/docker-{OUTER}.scope",
        f"0::{USERS_OWN}/app.slice/odd-{OUTER}.service/x",
        f"0::/../..{USERS_OWN}/docker/{OUTER}",
        f"12:pids:/user.slice\n1:name=systemd:{USERS_OWN}/docker-{OUTER}.scope\n0::/",
    ],
)
def test_a_cgroup_that_a_user_made_proves_nothing_of_the_systems_engine(
    proc: Proc, cgroup: str
) -> None:
    """Or anybody could keep every slot from being released."""
    proc.add(50, cgroup)
    mine = frozenset({OUTER})
    assert Processes(proc=proc.root, rootless=False).find_living(mine) == {}
    assert Processes(proc=proc.root, rootless=True).find_living(mine) == {OUTER: 50}
    proc.add(51, f"0::/system.slice/docker-{OUTER}.scope{USERS_OWN}/app.slice")
    assert Processes(proc=proc.root, rootless=False).find_living(mine) == {OUTER: 51}


def test_of_many_containers_each_is_found_as_of_one(proc: Proc) -> None:
    """Few are looked for by their text, many by the form of an ID."""
    there = [ContainerId(f"{number:064x}") for number in range(12)]
    for number, container in enumerate(there[::2]):
        proc.add(50 + number, f"0::/system.slice/docker-{container}.scope")
    proc.add(90, f"0::/a{there[1]}")  # longer than an ID
    expected = {container: 50 + number for number, container in enumerate(there[::2])}
    assert living(proc, *there) == expected
    for container in there:
        alone = {container: expected[container]} if container in expected else {}
        assert living(proc, container) == alone


@pytest.mark.parametrize(
    "parent",
    [
        f"/docker/{OUTER}",
        f"/x.slice/x-{OUTER}.slice",
        f"/system.slice/docker-{OUTER}.scope",
        f"/a/{OUTER}/b",
    ],
)
@pytest.mark.parametrize("own", [f"/{INNER}", f"/docker-{INNER}.scope", f"/docker-{INNER}.scope/x"])
def test_a_container_in_a_cgroup_named_after_another_keeps_nothing_of_it(
    proc: Proc, parent: str, own: str
) -> None:
    """`docker run --cgroup-parent`: any name that the maker of a container likes.

    One in a container's own engine is not known to the host's: then the outer one lives.
    """
    proc.add(50, f"0::{parent}{own}")
    both = frozenset({OUTER, INNER})
    for known in ({INNER}, {OUTER, INNER}):
        processes = Processes(proc=proc.root, is_known=known.__contains__)
        assert processes.find_living(both) == {INNER: 50}
    for known in (set[ContainerId](), {OUTER}):
        processes = Processes(proc=proc.root, is_known=known.__contains__)
        assert processes.find_living(both) == {OUTER: 50, INNER: 50}
    proc.add(51, f"0::{parent}")
    processes = Processes(proc=proc.root, is_known=both.__contains__)
    assert processes.find_living(both) == {OUTER: 51, INNER: 50}


@pytest.mark.parametrize(
    ("url", "rootless"),
    [
        ("unix:///run/docker.sock", False),
        ("unix:///run/user/1001/docker.sock", True),
        ("unix:///run/user/1001/podman/podman.sock", True),
        ("unix:///home/alice/docker.sock", True),
        ("tcp://127.0.0.1:2375", True),
    ],
)
def test_which_engines_may_be_a_users(url: str, rootless: bool) -> None:
    assert may_be_rootless(url) is rootless


def test_a_link_to_the_socket_of_a_users_engine(tmp_path: Path) -> None:
    link = tmp_path / "docker.sock"
    link.symlink_to("/run/user/1001/docker.sock")
    assert may_be_rootless(f"unix://{link}")
    link.unlink()
    link.symlink_to("/run/docker.sock")
    assert not may_be_rootless(f"unix://{link}")


@pytest.mark.parametrize("cgroup", HOST.values(), ids=HOST)
def test_a_container_that_no_process_names_does_not_live(proc: Proc, cgroup: str) -> None:
    proc.add(50, cgroup)
    assert living(proc, OUTER) == {}


@pytest.mark.parametrize(
    ("state", "threads", "lives"),
    [
        ("S", 1, True),
        ("D", 1, True),
        ("T", 1, True),
        ("Z", 1, False),
        ("X", 1, False),
        ("Z", 2, True),
    ],
)
def test_a_zombie_lives_only_while_a_thread_of_it_does(
    proc: Proc, state: str, threads: int, lives: bool
) -> None:
    proc.add(50, f"0::/docker/{OUTER}", state=state, threads=threads)
    assert living(proc, OUTER) == ({OUTER: 50} if lives else {})


def test_where_processes_are_hidden_nobody_knows_who_lives(proc: Proc) -> None:
    (proc.root / "1" / "cgroup").unlink()
    assert isinstance(living(proc, OUTER), Unknown)


def test_a_process_that_may_not_be_read_may_be_of_any_container(proc: Proc) -> None:
    proc.add(50, "0::/")
    (proc.root / "50" / "cgroup").unlink()
    (proc.root / "50" / "cgroup").mkdir()
    assert isinstance(living(proc, OUTER), Unknown)


class Reusing(Processes):
    """Gives the pid to another process whenever its uid was read."""

    starts = 1000

    def _read_uid(self, pid: int) -> int | None:
        uid = super()._read_uid(pid)
        Reusing.starts += 1
        Proc(self.proc).add(pid, f"0::/docker/{OUTER}", started=Reusing.starts)
        return uid


def test_a_pid_that_is_used_again_all_the_time_is_unknown(proc: Proc) -> None:
    proc.add(50, "0::/")
    container = Reusing(proc=proc.root).look_up([50])[50].container
    assert isinstance(container, Unknown)


class ReusedOnce(Processes):
    """Gives the pid to a process of a container once."""

    done = False

    def _read_uid(self, pid: int) -> int | None:
        uid = super()._read_uid(pid)
        if not self.done:
            self.done = True
            Proc(self.proc).add(pid, f"0::/docker/{OUTER}", started=2000, uid=1002)
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


@pytest.mark.parametrize("end", ["\r", "\x0b", "\x1d"])
def test_a_command_cannot_claim_another_user(proc: Proc, end: str) -> None:
    """The kernel escapes LF in the name that a process chose, and no other end of a line."""
    proc.add(50, "0::/", uid=1002, command=f"x{end}Uid:\t1001")
    process = proc.look_up(50)
    assert process is not None
    assert process.user == "1002"


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


FORMS = (
    f"docker-{OUTER}.scope",
    f"system.slice:docker:{OUTER}",
    f"kubepods-pod1.slice:cri-containerd:{OUTER}",
    f"libpod-payload-{OUTER}",
    f"kata_{OUTER}",
    f"odd-{OUTER}",
)


@pytest.fixture
def hierarchy() -> Iterator[Path]:
    """A cgroup of our own, wherever this host has cgroups (version 1, 2 or both)."""
    mounted = [Path("/sys/fs/cgroup/systemd"), Path("/sys/fs/cgroup")]
    top = next((one for one in mounted if (one / "cgroup.procs").exists()), None)
    if top is None or not os.access(top, os.W_OK):
        pytest.skip("needs root, and cgroups that may be made")
    folder = Path(tempfile.mkdtemp(prefix="ds01-test-", dir=top))
    yield folder
    folder.rmdir()  # what is in a cgroup goes with it


@pytest.mark.parametrize("form", FORMS)
def test_a_real_process_in_a_real_cgroup_is_of_that_container(hierarchy: Path, form: str) -> None:
    own = ContainerId(secrets.token_hex(32))  # others may try another form at the same time
    group = hierarchy / form.replace(OUTER, own)
    group.mkdir()
    processes = Processes(is_known=own.__eq__)
    with subprocess.Popen(["sleep", "60"]) as child:
        try:
            (group / "cgroup.procs").write_text(str(child.pid))
            container = processes.look_up([child.pid])[child.pid].container
            assert isinstance(container, Unknown) if form.startswith("odd") else container == own
            assert processes.find_living(frozenset({own, INNER})) == {own: child.pid}
            child.kill()
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
            assert processes.find_living(frozenset({own})) == {}, "a zombie does not live"
        finally:
            child.kill()
    group.rmdir()


@pytest.mark.docker
def test_processes_of_a_real_container_are_its_own(engine: PrivateEngine) -> None:
    container = ContainerId(engine.run("train._.1001"))
    first = engine.pid_of("train._.1001")
    enter = ["nsenter", "--target", str(first), "--all", "sleep", "60"]
    with subprocess.Popen(enter) as outsider:
        found = Processes(is_known=container.__eq__).look_up([first, outsider.pid, os.getpid()])
        outsider.kill()
    assert found[first].container == container
    assert found[outsider.pid].container is None, "it is in the namespaces, not in the container"
    assert found[os.getpid()].container is None


# --- in another PID namespace

LOOK = """
import os, sys
from contextlib import suppress
from ds01d.adapters.docker.http_client import HttpClient
from ds01d.adapters.host.processes import Processes
from ds01d.errors import EngineFailed
from ds01d.model.primitives import Unknown
client = HttpClient("unix://" + sys.argv[1], 10.0)
processes = Processes(is_hidden=lambda: client.is_hidden)
with suppress(EngineFailed):
    client.get("/info")
(found,) = processes.look_up([os.getpid()]).values()
told = client.is_hidden, found.container, processes.find_living(frozenset())
print(told[0], *(isinstance(one, Unknown) for one in told[1:]))
"""


@pytest.mark.parametrize(
    ("around", "told"),
    [((), "False False False"), (("unshare", "-pf", "--mount-proc"), "True True True")],
    ids=["the same", "another"],
)
def test_a_pid_from_another_namespace_is_nobodys_though_it_exists_here(
    tmp_path: Path, around: tuple[str, ...], told: str
) -> None:
    """ds01d in a container of its own, with Docker's socket mounted into it."""
    if around and subprocess.run([*around, "true"], check=False).returncode:
        pytest.skip("no PID namespace can be made here")
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(tmp_path / "docker.sock"))
        engine.listen()
        with subprocess.Popen(
            [*around, sys.executable, "-c", LOOK, str(tmp_path / "docker.sock")],
            stdout=subprocess.PIPE,
            text=True,
        ) as look:
            engine.settimeout(60)
            engine.accept()[0].close()
            assert look.communicate(timeout=60)[0].split("\n")[0] == told
