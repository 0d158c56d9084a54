"""Who had a client ask: real scripts, and a process table that is written by hand."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ds01d.adapters.host.asking_process import find_asking_process
from ds01d.adapters.host.processes import Processes
from ds01d.adapters.host.reserving_processes import ReservingProcesses
from ds01d.model.primitives import Unknown
from ds01d.model.reservation import ProcessState, ReservingProcess
from tests.support.daemon import ROOT

CLIENT = """\
import json, os, sys
from ds01d.adapters.host.processes import Processes
from ds01d.adapters.host.reserving_processes import ReservingProcesses
asker = ReservingProcesses(Processes()).find_asker(os.getpid(), os.getuid())
print(json.dumps(None if asker is None else [asker.pid, asker.command]))
"""


def run(tmp_path: Path, script: str, *, interpreter: str = "bash", **settings: str) -> list[object]:
    """Run a script that calls $CLIENT; its pid, and what the client found."""
    file = tmp_path / "creator"
    file.write_text(f"#!{shutil.which(interpreter)}\n{script}\n", encoding="utf-8")
    file.chmod(0o755)
    source = tmp_path / "client.py"
    source.write_text(CLIENT, encoding="utf-8")
    # A script of its own, which becomes Python: the path of Python may contain blanks.
    client = tmp_path / "client"
    words = shlex.join((sys.executable, str(source)))
    client.write_text(f"#!/bin/sh\nexec {words}\n", encoding="utf-8")
    client.chmod(0o755)
    process = subprocess.Popen(
        [str(file)],
        env={
            **os.environ,
            "CLIENT": str(client),
            "PYTHONPATH": str(ROOT),
            **settings,
        },
        stdout=subprocess.PIPE,
        text=True,
    )
    output, _ = process.communicate(timeout=60)
    return [process.pid, json.loads(output.splitlines()[-1])]


@pytest.mark.parametrize(
    "line",
    [
        "text=$($CLIENT 2>&1); echo $text",
        'ask() { local x=1; $CLIENT; }; text=$(ask); echo "$text"',
        "text=$(cd /; $CLIENT | cat; true); echo $text",
        "(($CLIENT; true); true)",
        "sh -c '$CLIENT; true'",
        "sh -c \"bash -e -c '$CLIENT; true'; true\"",
        "flock . $CLIENT; true",
        "timeout 30 $CLIENT; true",
        "text=$(timeout 30 sh -c '$CLIENT; true'); echo $text",
    ],
)
def test_it_is_the_script(tmp_path: Path, line: str) -> None:
    pid, found = run(tmp_path, line)
    assert found == [pid, "creator"]


def test_it_is_the_python_script_that_has_a_shell_call(tmp_path: Path) -> None:
    lines = "import os\nos.system(os.environ['CLIENT'] + '; true')"
    pid, found = run(tmp_path, lines, interpreter="python3")
    assert isinstance(found, list)
    assert found[0] == pid


def test_it_stays_the_same_process_where_it_becomes_another_program(tmp_path: Path) -> None:
    script = "text=$($CLIENT); exec echo $text"
    pid, found = run(tmp_path, script)
    assert isinstance(found, list)
    assert found[0] == pid


def test_it_is_the_script_that_calls_it_by_sudo(tmp_path: Path) -> None:
    sudo = tmp_path / "sudo"
    shutil.copy(shutil.which("timeout") or "", sudo)  # it waits for its command, as sudo does
    pid, found = run(tmp_path, f"{sudo} 30 $CLIENT; true")
    assert found == [pid, "creator"]


def test_it_cannot_be_told_where_a_session_was_begun_for_it(tmp_path: Path) -> None:
    _, found = run(tmp_path, "setsid -w $CLIENT; true")
    assert found is None


def test_a_line_of_cron_is_who_asks(tmp_path: Path) -> None:
    """Not cron itself, which never ends."""
    script = "setsid -w sh -c '$CLIENT; true'; true"
    pid, found = run(tmp_path, script)
    assert isinstance(found, list)
    assert found[1] == "sh"
    assert found[0] != pid


def write_process(
    proc: Path, pid: int, parent: int, words: tuple[str, ...] = ("bash", "x"), **fields: object
) -> None:
    """A process of uid 1001 in session 1, that was started in the order of its pid."""
    given = {"command": "bash", "uid": 1001, "flags": 0, "session": 1, "started": pid, **fields}
    rest = ["S", parent, pid, given["session"], 0, -1, given["flags"], *[0] * 10, 1, 0]
    folder = proc / str(pid)
    folder.mkdir()
    text = f"{pid} ({given['command']}) {' '.join(map(str, rest))} {given['started']} 0"
    (folder / "stat").write_text(text)
    text = f"Name:\t{given.get('name', 'x')}\nUid:\t{given['uid']}\t0\t0\t0\n"
    (folder / "status").write_bytes(text.encode())
    (folder / "cmdline").write_text("\0".join(words))
    (folder / "cgroup").write_text("0::/\n")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    write_process(tmp_path, 1, 0, command="systemd", uid=0)
    (tmp_path / "sys/kernel/random").mkdir(parents=True)
    (tmp_path / "sys/kernel/random/boot_id").write_text("boot-1\n")
    return tmp_path


def find(proc: Path, client: int = 50, uid: int = 1001) -> int | None:
    found = find_asking_process(proc, client, uid)
    return None if found is None else found.pid


class TestParents:
    def test_root_who_became_somebody(self, proc: Path) -> None:
        write_process(proc, 10, 1, uid=0, command="spawner")
        write_process(proc, 50, 10)
        assert find(proc) == 10

    def test_somebody_elses_process_is_nobodys(self, proc: Path) -> None:
        write_process(proc, 10, 1, uid=1002)
        write_process(proc, 50, 10)
        assert find(proc) is None

    @pytest.mark.parametrize("end", ["\r", "\x0b", "\x1d"])
    def test_a_name_that_claims_a_uid_claims_nothing(self, proc: Path, end: str) -> None:
        """prctl(PR_SET_NAME) takes any 15 bytes, of which the kernel escapes only LF here."""
        write_process(proc, 10, 1, uid=1002, name=f"x{end}Uid:\t1001")
        write_process(proc, 50, 10)
        assert find(proc) is None

    def test_a_fork_of_somebody_elses_is_the_fork(self, proc: Path) -> None:
        """A server's worker that took on a user's uid."""
        write_process(proc, 10, 1, uid=1002)
        write_process(proc, 20, 10, flags=0x40)
        write_process(proc, 50, 20)
        assert find(proc) == 20

    @pytest.mark.parametrize("command", ["sudo", "doas", "pkexec"])
    def test_root_by_sudo(self, proc: Path, command: str) -> None:
        write_process(proc, 10, 1)
        write_process(proc, 20, 10, uid=0, command=command)
        write_process(proc, 21, 20, uid=0, command=command, flags=0x40, session=21)
        write_process(proc, 50, 21, uid=0, session=21)
        assert find(proc, uid=0) == 10

    def test_sudo_of_nobody(self, proc: Path) -> None:
        write_process(proc, 20, 1, uid=0, command="sudo")
        write_process(proc, 50, 20, uid=0)
        assert find(proc, uid=0) is None

    @pytest.mark.parametrize("manager", [{"command": "systemd"}, {"command": "init"}])
    def test_whom_a_manager_adopted(self, proc: Path, manager: dict[str, Any]) -> None:
        parent = 1 if manager["command"] == "init" else 5
        if parent != 1:
            write_process(proc, 5, 1, **manager)
        write_process(proc, 50, parent)
        assert find(proc) is None

    def test_a_fork_whose_script_has_ended(self, proc: Path) -> None:
        write_process(proc, 20, 1, flags=0x40)
        write_process(proc, 50, 20)
        assert find(proc) == 20

    def test_a_pid_that_is_used_again_is_no_parent(self, proc: Path) -> None:
        write_process(proc, 10, 1, started=60)
        write_process(proc, 50, 10)
        with pytest.raises(ProcessLookupError):
            find(proc)
        asker = ReservingProcesses(Processes(proc=proc)).find_asker(50, 1001)
        assert isinstance(asker, Unknown)

    def test_a_client_that_has_ended(self, proc: Path) -> None:
        assert isinstance(ReservingProcesses(Processes(proc=proc)).find_asker(50, 1001), Unknown)

    def test_a_long_line_of_forks_ends(self, proc: Path) -> None:
        for pid in range(100, 200):
            write_process(proc, pid, pid - 1 if pid > 100 else 1, flags=0x40)
        write_process(proc, 300, 199)
        assert find(proc, 300) == 199 - 63


class TestState:
    def find_state(self, proc: Path, **changes: object) -> ProcessState:
        process = ReservingProcess(
            **{"pid": 10, "started": 10, "boot_id": "boot-1", **changes}  # type: ignore[arg-type]
        )
        return ReservingProcesses(Processes(proc=proc)).find_states([process])[process]

    def test_it_runs_until_it_ends(self, proc: Path) -> None:
        write_process(proc, 10, 1)
        assert ReservingProcesses(Processes(proc=proc)).find_asker(10, 1001) is None
        assert self.find_state(proc) is ProcessState.RUNS
        shutil.rmtree(proc / "10")
        assert self.find_state(proc) is ProcessState.ENDED

    def test_another_with_its_pid_is_another(self, proc: Path) -> None:
        write_process(proc, 10, 1, started=11)
        assert self.find_state(proc) is ProcessState.ENDED

    def test_a_reboot_ends_it(self, proc: Path) -> None:
        write_process(proc, 10, 1)
        assert self.find_state(proc, boot_id="boot-0") is ProcessState.ENDED

    def test_a_zombie_has_ended(self, proc: Path) -> None:
        write_process(proc, 10, 1)
        stat = proc / "10" / "stat"
        stat.write_text(stat.read_text().replace(") S ", ") Z "))
        assert self.find_state(proc) is ProcessState.ENDED

    @pytest.mark.parametrize("broken", ["", "10 (bash) S", "10 (bash) S x y"])
    def test_what_cannot_be_read_has_not_ended(self, proc: Path, broken: str) -> None:
        write_process(proc, 10, 1)
        (proc / "10" / "stat").write_text(broken)
        assert self.find_state(proc) is ProcessState.UNKNOWN

    def test_what_is_hidden_has_not_ended(self, proc: Path) -> None:
        shutil.rmtree(proc / "1")  # hidepid: the processes of others look as if they were not there
        assert self.find_state(proc) is ProcessState.UNKNOWN
        assert ReservingProcesses(Processes(proc=proc)).find_asker(50, 1001) is None

    def test_what_is_hidden_from_now_on_has_not_ended(self, proc: Path) -> None:
        write_process(proc, 10, 1)
        process = ReservingProcess(pid=10, started=10, boot_id="boot-1")
        processes = ReservingProcesses(Processes(proc=proc))
        assert processes.find_states([process])[process] is ProcessState.RUNS
        shutil.rmtree(proc / "1")  # mount -o remount,hidepid=invisible /proc
        shutil.rmtree(proc / "10")
        assert processes.find_states([process])[process] is ProcessState.UNKNOWN

    def test_without_a_boot_nothing_has_ended(self, proc: Path) -> None:
        (proc / "sys/kernel/random/boot_id").unlink()
        assert self.find_state(proc) is ProcessState.UNKNOWN
