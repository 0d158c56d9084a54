"""Names of users: the file first, the directory service in the background."""

from __future__ import annotations

import os
import pwd
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ds01d.adapters.host.users import UserDatabase

FILE = """root:x:0:0::/root:/bin/sh
+@staff::::::
# comment:x:7:7
broken
ada:x:1001:1001:Ada:/home/ada:/bin/bash
second:x:1001:1001::/:/bin/sh
"""


class Directory:
    """A directory service that can be made to hang."""

    def __init__(self) -> None:
        self.users = {5001: "grace", 5002: "edsger"}
        self.asked: list[int] = []
        self.answers = threading.Event()
        self.answers.set()

    def look_up(self, uid: int) -> str:
        self.asked.append(uid)
        self.answers.wait(30)
        return self.users[uid]

    def look_up_name(self, name: str) -> int:
        self.answers.wait(30)
        if "\0" in name:
            raise ValueError("embedded null byte")
        users = {"grace": 5001, "second": 1001}
        return users[name]


@pytest.fixture
def directory() -> Iterator[Directory]:
    directory = Directory()
    yield directory
    directory.answers.set()


@pytest.fixture
def clock() -> list[float]:
    return [0.0]


@pytest.fixture
def passwd(tmp_path: Path, directory: Directory, clock: list[float]) -> UserDatabase:
    file = tmp_path / "passwd"
    file.write_text(FILE)
    return UserDatabase(
        file=file,
        look_up=directory.look_up,
        look_up_name=directory.look_up_name,
        clock=lambda: clock[0],
        wait_s=10,
    )


def ask(passwd: UserDatabase, *uids: int) -> dict[int, str]:
    return dict(passwd.find_logins(frozenset(uids)))


def until_told(passwd: UserDatabase, uid: int, name: str) -> None:
    """Ask until the background has brought that name."""
    deadline = time.monotonic() + 60
    while ask(passwd, uid) != {uid: name}:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_local_users_need_no_directory(passwd: UserDatabase, directory: Directory) -> None:
    assert ask(passwd, 0, 1001) == {0: "root", 1001: "ada"}
    assert directory.asked == []


def test_the_file_is_read_again_when_it_changed(passwd: UserDatabase, tmp_path: Path) -> None:
    assert ask(passwd, 1001) == {1001: "ada"}
    (tmp_path / "new").write_text("bob:x:1001:1001::/:/bin/sh\n")
    (tmp_path / "new").replace(tmp_path / "passwd")
    assert ask(passwd, 1001) == {1001: "bob"}
    (tmp_path / "passwd").unlink()
    assert ask(passwd, 1001) == {}


def test_others_are_asked_of_the_directory_and_remembered(
    passwd: UserDatabase, directory: Directory, clock: list[float]
) -> None:
    for _ in range(3):
        assert ask(passwd, 1001, 5001, 5002) == {1001: "ada", 5001: "grace", 5002: "edsger"}
    assert directory.asked == [5001, 5002]
    clock[0] += 4000
    directory.users[5001] = "hopper"
    until_told(passwd, 5001, "hopper")
    assert directory.asked == [5001, 5002, 5001]


def test_nobody_is_remembered_for_a_short_time(
    passwd: UserDatabase, directory: Directory, clock: list[float]
) -> None:
    assert ask(passwd, 9999) == {}
    directory.users[9999] = "new"
    assert ask(passwd, 9999) == {}
    clock[0] += 61
    until_told(passwd, 9999, "new")


def test_a_directory_that_hangs_is_waited_for_once_and_heard_later(
    passwd: UserDatabase, directory: Directory
) -> None:
    directory.answers.clear()
    passwd._wait_s = 0.1
    begin = time.monotonic()
    assert ask(passwd, 1001, 5001) == {1001: "ada"}
    assert time.monotonic() - begin > 0.05
    passwd._wait_s = 3600.0
    threads = threading.active_count()  # other tests may have left some
    for _ in range(100):
        assert ask(passwd, 1001, 5001) == {1001: "ada"}
    assert threading.active_count() <= threads
    assert directory.asked == [5001]
    directory.answers.set()
    until_told(passwd, 5001, "grace")


def test_a_name_that_grew_old_is_told_while_the_directory_hangs(
    passwd: UserDatabase, directory: Directory, clock: list[float]
) -> None:
    assert ask(passwd, 5001) == {5001: "grace"}
    clock[0] += 4000
    directory.answers.clear()
    assert ask(passwd, 5001) == {5001: "grace"}


def test_the_host_is_asked_by_default() -> None:
    passwd = UserDatabase(file=Path("/nonexistent"), wait_s=10)
    names = passwd.find_logins(frozenset({os.getuid(), 2**40}))
    assert names == {os.getuid(): pwd.getpwuid(os.getuid()).pw_name}


def test_the_uid_of_a_name_is_asked_as_the_name_of_a_uid_is(
    passwd: UserDatabase, directory: Directory
) -> None:
    """An alias of the file too: of the two names of a uid the second one is asked of the host."""
    names = frozenset({"ada", "second", "grace", "nobody-has-this"})
    assert dict(passwd.find_uids(names)) == {"ada": 1001, "second": 1001, "grace": 5001}
    assert dict(passwd.find_uids(frozenset({"a\0b"}))) == {}


def test_what_labels_claim_does_not_fill_the_memory(
    passwd: UserDatabase, directory: Directory, clock: list[float]
) -> None:
    for start in range(0, 11_000, 1_000):
        passwd.find_uids(frozenset(f"made-up-{n}" for n in range(start, start + 1_000)))
    clock[0] = 3_700.0
    passwd.find_uids(frozenset({"grace"}))
    assert len(passwd._entries) <= 1


def test_a_membership_that_grew_old_is_asked_again() -> None:
    clock, members, answers = [0.0], {("ada", "operators")}, threading.Event()
    answers.set()

    def look_up_member(login: str, group: str) -> bool:
        answers.wait(30)
        return (login, group) in members

    passwd = UserDatabase(wait_s=5.0, look_up_member=look_up_member, clock=lambda: clock[0])
    assert passwd.is_member("ada", "operators")
    members.clear()
    clock[0] = 61.0
    assert not passwd.is_member("ada", "operators")
