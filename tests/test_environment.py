"""Tests get the environment that tests/support/environment.py defines, whatever the caller has."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import environment
from tests.support.keeper import MARK

HOSTILE = {
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONPATH": "/somewhere/else",
    "PIP_NO_INDEX": "1",
    "PIP_FIND_LINKS": "/opt/wheels",
    "DOCKER_HOST": "tcp://127.0.0.1:1",
    "DOCKER_CONFIG": "/nowhere",
    "NOTIFY_SOCKET": "/run/nobody",
    "WATCHDOG_USEC": "1",
    "STATE_DIRECTORY": "/var/lib/elsewhere",
    "JOURNAL_STREAM": "8:1",
    "SUDO_UID": "1000",
    "SUDO_USER": "ada",
    "DS01D_CONFIG": "/etc/passwd",
    "LD_PRELOAD": "libnothing.so",
    "XDG_CONFIG_HOME": "/nowhere",
    "HOME": "/nowhere",
    "LANG": "tr_TR.UTF-8",
    "LC_ALL": "C",
    "LANGUAGE": "tr",
    "TZ": "Asia/Kathmandu",
    "COLUMNS": "20",
    "NO_COLOR": "1",
    "TERM": "xterm",
}
OURS = {
    *("HOME", "XDG_CACHE_HOME", "TERM", "LANG", "TZ", "PYTHONPATH"),
    *("GIT_CONFIG_COUNT", "GIT_CONFIG_KEY_0", "GIT_CONFIG_VALUE_0", MARK),
}


def test_nothing_else_is_in_the_environment_of_this_test() -> None:
    assert {name for name in os.environ if not environment.is_inherited(name)} <= OURS
    assert os.environ["PYTHONPATH"] == str(environment.ROOT)
    home = Path(os.environ["HOME"])
    assert home != Path(pwd.getpwuid(os.getuid()).pw_dir)
    # Other tests of this run may have left something there; nothing of that configures a program.
    assert not {".docker", ".config", ".bashrc", ".gitconfig", ".netrc"} & {
        one.name for one in home.iterdir()
    }


@pytest.mark.parametrize("kind", environment.ENVIRONMENTS)
def test_what_the_caller_has_set_changes_nothing(kind: str, tmp_path: Path) -> None:
    chosen = {"PATH": "/bin", environment.CHOICE: kind}
    defined = environment.defined({**HOSTILE, **chosen}, tmp_path)
    assert defined == environment.defined(chosen, tmp_path)
    assert defined["PATH"] == "/bin"
    assert defined["HOME"] == str(tmp_path)


def test_how_packages_are_reached_is_the_callers_affair(tmp_path: Path) -> None:
    theirs = {"https_proxy": "http://a:1", "NO_PROXY": "b", "PIP_INDEX_URL": "http://c", "CI": "1"}
    assert theirs.items() <= environment.defined(theirs, tmp_path).items()


def test_a_kind_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        environment.defined({environment.CHOICE: "alien"}, tmp_path)


PROBE = """
import os, time
from tests.support import environment
environment.enter()
before = os.umask(0o022)
print(f"{before:03o}", time.tzname[0], os.environ["LANG"], os.path.isdir(os.environ["HOME"]))
print(sorted(name for name in os.environ if not environment.is_inherited(name)))
"""


def test_the_foreign_one_is_in_force_once_it_is_entered() -> None:
    whole = HOSTILE | {"PATH": os.environ["PATH"], environment.CHOICE: "foreign"}
    whole["LD_PRELOAD"] = ""
    printed = subprocess.run(
        (sys.executable, "-c", PROBE),
        env=whole | {"PYTHONPATH": str(environment.ROOT)},
        cwd=environment.ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    first, second = printed.splitlines()
    assert first == "077 CET de_DE.UTF-8 True"
    assert second == str(sorted(OURS - {MARK}))


def test_local_times_are_those_of_the_environment() -> None:
    assert time.tzname == subprocess_zone()


def subprocess_zone() -> tuple[str, str]:
    """The zone as a process has it that was started with our environment."""
    command = (sys.executable, "-c", "import time; print(*time.tzname)")
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    summer, winter = printed.split()
    return summer, winter
