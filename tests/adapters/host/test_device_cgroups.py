"""Device rules as cgroup v1 shows them, and access as it is tried; on real cgroups where there are.

What cgroup v2 does is tried on a machine: tests/machine/test_device_access.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ds01d.adapters.host.device_cgroups import HIERARCHY, DeviceCgroups, parse_rules
from ds01d.adapters.host.device_probe import find_denied_nodes
from ds01d.model.device_access import DeviceAccess, DeviceRule
from ds01d.model.primitives import ContainerId, Unknown

# Of this process alone: real cgroups are found by it, also those of tests beside this one.
ID, OTHER = ContainerId(f"{os.getpid():016x}" * 4), ContainerId("b2" * 32)
# As Docker writes them, and systemd after a reload (nvidia-container-toolkit 251).
DOCKER = "b *:* m\nc *:* m\nc 1:3 rwm\nc 136:* rwm\nc 195:0 rw\nc 195:255 rw\n"
RELOADED = "c 1:3 rwm\nc 195:* m\nc 136:* rwm\n"

needs_v1 = pytest.mark.skipif(
    os.geteuid() != 0 or not (HIERARCHY / "devices.list").exists(),
    reason="needs root and the controller devices of cgroup v1",
)


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        (DOCKER, {0, 255}),
        (RELOADED, set()),
        ("c 195:* rw\n", {0, 1, 255}),
        ("c *:* rwm\n", {0, 1, 255}),
        ("c 195:0 r\nc 195:1 w\n", set()),
        ("b 195:0 rwm\n", set()),
        ("", set()),
    ],
)
def test_what_rules_allow(text: str, allowed: set[int]) -> None:
    access = parse_rules(text)
    assert access is not None
    assert {minor for minor in (0, 1, 255) if access.allows(195, minor)} == allowed
    assert access.allows(1, 3) is ("c 1:3" in text or "c *:*" in text)


@pytest.mark.parametrize("text", ["a *:* rwm\n", "c 195:x rw\n", "c 195:0 rw\nnonsense\n", "\xff"])
def test_what_does_not_show_what_is_denied_is_unknown(text: str) -> None:
    assert parse_rules(text) is None


def test_cgroups_are_found_by_the_name_of_their_container(tmp_path: Path) -> None:
    def make(path: str, text: str = DOCKER) -> None:
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path / "devices.list").write_text(text)

    make(f"docker/{ID}")
    make(f"docker/{ID}/nested/{OTHER}")
    make(f"system.slice/docker-{OTHER}.scope", RELOADED)
    ids = {ID, OTHER, ContainerId("c3" * 32)}
    found = DeviceCgroups(tmp_path).read_access(ids)
    assert found.keys() == {ID, OTHER}
    assert found[OTHER] == DeviceAccess(rules=frozenset({DeviceRule(1, 3), DeviceRule(136, None)}))
    assert DeviceCgroups(tmp_path).read_access({ID}).keys() == {ID}
    # Somebody names a parent cgroup after another container.
    make(f"mine/{ID}", "c *:* rwm\n")
    assert DeviceCgroups(tmp_path).read_access(ids).keys() == {OTHER}
    assert DeviceCgroups(tmp_path / "none").read_access(ids) == {}


# --- on a real device cgroup


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A cgroup of the controller devices, called like a container's."""
    parent = HIERARCHY / f"ds01-devices-{os.getpid()}"
    folder = parent / f"docker-{ID}.scope"
    folder.mkdir(parents=True)
    yield folder
    for path in (folder, parent):
        path.rmdir()


@pytest.fixture
def member(cgroup: Path) -> Iterator[int]:
    """A process in it, in the place of a container's first."""
    join = f"open({str(cgroup / 'cgroup.procs')!r}, 'w').write('0'); print('in', flush=True)"
    code = f"import sys; {join}; sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"in\n"
            yield process.pid
        finally:
            process.stdin.close()
            process.wait(60)


@needs_v1
def test_a_real_cgroup_that_loses_a_device(cgroup: Path, member: int, tmp_path: Path) -> None:
    os.mknod(gpu := tmp_path / "nvidia0", 0o20600, os.makedev(195, 0))
    os.mknod(control := tmp_path / "nvidiactl", 0o20600, os.makedev(195, 255))
    nodes = [str(gpu), str(control), "/dev/null"]
    reader = DeviceCgroups()

    # As it is made it allows everything, and then shows no exception.
    (cgroup / "devices.deny").write_text("c 195:0 rw")
    assert reader.read_access({ID}) == {}
    assert find_denied_nodes(ID, member, nodes) == [str(gpu)]

    (cgroup / "devices.deny").write_text("a")
    for rule in DOCKER.splitlines():
        (cgroup / "devices.allow").write_text(rule)
    access = reader.read_access({ID})[ID]
    assert [access.allows(195, minor) for minor in (0, 1, 255)] == [True, False, True]
    assert find_denied_nodes(ID, member, nodes) == []

    (cgroup / "devices.deny").write_text("c 195:0 rw")
    access = reader.read_access({ID})[ID]
    assert [access.allows(195, minor) for minor in (0, 1, 255)] == [False, False, True]
    assert find_denied_nodes(ID, member, nodes) == [str(gpu)]
    # Nothing of ours stays in there.
    assert (cgroup / "cgroup.procs").read_text().split() == [str(member)]


@pytest.mark.parametrize("line_end", ["\x0b", "\x85", "\u2028", "\r"])
def test_a_cgroup_that_is_named_like_a_line_leads_nowhere_else(
    tmp_path: Path, line_end: str
) -> None:
    """Root in a container may make cgroups below its own, called as it likes but for "/" and LF."""
    elsewhere = tmp_path / "cgroups" / "system.slice" / str(ID)
    elsewhere.mkdir(parents=True)
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "cgroup").write_text(f"0::/docker/{ID}/x{line_end}0::/system.slice/{ID}\n")
    told = find_denied_nodes(ID, 7, ["/dev/null"], proc=tmp_path, cgroups=tmp_path / "cgroups")
    assert isinstance(told, Unknown)
    assert not (elsewhere / "cgroup.procs").exists()


@needs_v1
def test_what_cannot_be_tried_is_unknown(cgroup: Path, member: int, tmp_path: Path) -> None:
    def reason(answer: object) -> str:
        assert isinstance(answer, Unknown)
        return answer.reason

    gone = str(tmp_path / "nvidia7")
    assert reason(find_denied_nodes(ID, member, [gone])) == f"{gone} cannot be opened here"
    assert "does not name it" in reason(find_denied_nodes(OTHER, member, ["/dev/null"]))
    assert "No such file" in reason(find_denied_nodes(ID, 4194304, ["/dev/null"]))
    (proc := tmp_path / "proc" / "7").mkdir(parents=True)
    (proc / "cgroup").write_text(f"5:devices:/gone/{ID}\n0::/\n")
    told = reason(find_denied_nodes(ID, 7, ["/dev/null"], proc=tmp_path / "proc"))
    assert told.startswith("its cgroup cannot be joined: FileNotFoundError")
