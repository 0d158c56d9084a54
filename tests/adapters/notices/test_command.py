"""A command: bounded in time, nothing of it left behind, and no word of users as an argument."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ds01d.adapters.notices.command import NoticeCommand, describe_in_environment
from ds01d.errors import DeliveryFailed
from tests.support.living import is_alive
from tests.support.notices import AT, HOSTILE, LOGIN, notice
from tests.support.scripts import output, write_script


def script(folder: Path, text: str) -> Path:
    return write_script(folder / "command", text)


def test_it_has_the_notice_in_its_environment_and_nothing_else(tmp_path: Path) -> None:
    path = script(tmp_path, f'/usr/bin/env -0 > {tmp_path}/env; echo "$#" > {tmp_path}/count')
    os.environ["DS01_TEST_SECRET"] = "sesame"
    try:
        NoticeCommand(path, "gpu01").send(notice(until=AT + 300, slots=("1.0", "1.1")))
    finally:
        del os.environ["DS01_TEST_SECRET"]
    entries = (tmp_path / "env").read_text().split("\0")
    environ = dict(entry.split("=", 1) for entry in entries if entry)
    assert {key: value for key, value in environ.items() if key.startswith("DS01_")} == {
        "DS01_NOTICE_ID": notice().id,
        "DS01_NOTICE_KIND": "gpu_hold_ending",
        "DS01_NOTICE_TIME": f"{AT:.0f}",
        "DS01_NOTICE_USER": LOGIN,
        "DS01_NOTICE_CONTAINER": "train._.1001",
        "DS01_NOTICE_SLOTS": "1.0 1.1",
        "DS01_NOTICE_UNTIL": f"{AT + 300:.0f}",
        "DS01_NOTICE_MESSAGE": notice().message,
        "DS01_NOTICE_HOST": "gpu01",
    }
    assert (tmp_path / "count").read_text() == "0\n"


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_reach_it_as_one_printable_line(tmp_path: Path, text: str) -> None:
    hostile = notice(user=text[:999], container=text[:999], message=text[:999])
    path = script(tmp_path, f'printf %s "$DS01_NOTICE_MESSAGE" > {tmp_path}/message')
    NoticeCommand(path, "gpu01").send(hostile)
    assert (tmp_path / "message").read_text().isprintable()
    assert all(value.isprintable() for value in describe_in_environment(hostile, "h").values())


@pytest.mark.parametrize(
    ("text", "message", "is_final"),
    [
        ("echo no such room >&2; exit 1", "exit status 1: no such room", True),
        ("exit 75", "exit status 75", False),
        ("kill -9 $$", "signal 9", True),
        (r"printf '\033[2J' >&2; exit 3", r"exit status 3: \\x1b\[2J", True),
    ],
)
def test_its_failure_is_told_and_tried_again_where_it_asks_for_it(
    tmp_path: Path, text: str, message: str, is_final: bool
) -> None:
    with pytest.raises(DeliveryFailed, match=message) as caught:
        NoticeCommand(script(tmp_path, text), "gpu01").send(notice())
    assert caught.value.is_final is is_final


def test_one_that_cannot_be_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeliveryFailed, match="cannot run /no/such: No such file") as caught:
        NoticeCommand(Path("/no/such"), "gpu01").send(notice())
    assert not caught.value.is_final
    path = script(tmp_path, "")
    path.chmod(0o644)
    with pytest.raises(DeliveryFailed, match=r"cannot run .*: Permission denied"):
        NoticeCommand(path, "gpu01").send(notice())


def test_what_it_says_without_end_fills_nothing(tmp_path: Path) -> None:
    path = script(tmp_path, "yes x >&2 & yes y & sleep 0.2; exit 1")
    with pytest.raises(DeliveryFailed) as caught:
        NoticeCommand(path, "gpu01").send(notice())
    assert len(str(caught.value)) < 2000


DRIVER = """
import sys, time
from pathlib import Path
from ds01d.adapters.notices.command import NoticeCommand
from ds01d.adapters.notices.programs import adopt_orphans
from ds01d.errors import DeliveryFailed
from tests.support.notices import notice
adopt_orphans()
command = NoticeCommand(Path(sys.argv[1]), "gpu01", timeout_s=float(sys.argv[2]))
try:
    command.send(notice())
except DeliveryFailed as error:
    print(error)
"""


@pytest.mark.parametrize("ends", ["exit 0", "sleep 600"], ids=["ends", "hangs"])
def test_nothing_is_left_of_one_that_hangs_or_forks(tmp_path: Path, ends: str) -> None:
    path = script(
        tmp_path,
        f"""
        trap '' TERM HUP
        sleep 600 & echo $! > {tmp_path}/child
        setsid sh -c 'trap "" TERM HUP; echo $$ > {tmp_path}/daemon; sleep 600 & wait' &
        until [ -s {tmp_path}/daemon ]; do sleep 0.05; done
        {ends}
        """,
    )
    began = time.monotonic()
    # In a process of its own, as ds01d-notify has one: that is who adopts what is left.
    printed = output(DRIVER, path, 40.0 if ends == "exit 0" else 10.0)
    assert time.monotonic() - began < 50.0
    assert printed == (
        "" if ends == "exit 0" else f"{path} did not end within 10 s and was killed\n"
    )
    pids = [int((tmp_path / name).read_text()) for name in ("child", "daemon")]
    assert not any(map(is_alive, pids))


def test_without_descriptors_it_is_tried_again() -> None:
    program = """
import os, resource
from pathlib import Path
from ds01d.adapters.notices.command import NoticeCommand
from ds01d.errors import DeliveryFailed
from tests.support.notices import notice
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (8, hard))
taken = []
try:
    while True:
        taken.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
try:
    NoticeCommand(Path("/bin/true"), "gpu01").send(notice())
except DeliveryFailed as error:
    print(error.is_final, error)
"""
    assert output(program).startswith("False cannot run /bin/true: Too many open files")
