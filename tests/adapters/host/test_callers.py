"""Who a process is: by its uid; what sudo's environment says is a claim beside it."""

from __future__ import annotations

import os
import pwd

import pytest

from tests.support.scripts import output

PROGRAM = """
import os
from ds01d.adapters.host.callers import current_actor
from ds01d.model.actor import Actor
one = current_actor()
print(one.uid, one.login, one.pid == os.getpid(), one.sudo_uid, one.sudo_login)
"""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def told(monkeypatch: pytest.MonkeyPatch, *, uid: int | None = None, sudo: str = "") -> str:
    """What a process of that uid says of itself, with sudo's variables as given."""
    monkeypatch.setenv("SUDO_UID", sudo)
    monkeypatch.setenv("SUDO_USER", "mallory")
    become = "" if uid is None else f"os.setuid({uid})\n"
    return output(
        PROGRAM.replace("one = current_actor()", f"{become}one = current_actor()")
    ).strip()


@needs_root
def test_root_behind_sudo_is_root_and_the_claim_stands_beside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    daemon = pwd.getpwnam("daemon")
    assert told(monkeypatch, sudo=str(daemon.pw_uid)) == f"0 root True {daemon.pw_uid} daemon"


@needs_root
@pytest.mark.parametrize("sudo", ["", "x", "-1", "1" * 30, "١"])
def test_a_claim_that_is_no_uid_is_none(monkeypatch: pytest.MonkeyPatch, sudo: str) -> None:
    assert told(monkeypatch, sudo=sudo) == "0 root True None"


@needs_root
@pytest.mark.parametrize("sudo", ["0", "2"])
def test_who_is_not_root_cannot_claim_to_be_behind_sudo(
    monkeypatch: pytest.MonkeyPatch, sudo: str
) -> None:
    daemon = pwd.getpwnam("daemon")
    assert told(monkeypatch, uid=daemon.pw_uid, sudo=sudo) == f"{daemon.pw_uid} daemon True None"


@needs_root
def test_it_is_who_began_also_after_taking_on_another_uid() -> None:
    program = (
        "import os\nfrom ds01d.adapters.host.callers import current_actor\ncurrent_actor()\n"
        "os.setresuid(65534, 65534, 65534)\nprint(current_actor().uid)\n"
    )
    assert output(program).strip() == "0"
