"""`freeze` and `thaw` change what the next pass may do, and refuse what makes no sense."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import replace

import pytest

from ds01d.errors import WriteFailed
from ds01d.model.primitives import Source
from ds01d.reconcile.ports import World
from tests.support.commands import Desk, by_sudo
from tests.support.sample_host import GONE, TRAIN
from tests.support.world import IDENTITY, Host


def due(desk: Desk) -> None:
    desk.call("reconcile")
    desk.host.pass_time(130)


def test_a_freeze_holds_everything_until_it_is_thawed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    due(desk)
    by_sudo(monkeypatch)
    result = desk.call("freeze", "--reason", "MIG work")
    assert result.stdout == "Frozen: everything, by root (sudo ada), until thawed: MIG work\n"
    held = desk.call("reconcile")
    assert "frozen by root (sudo ada): MIG work" in held.stdout
    assert (GONE, "1.1") in desk.host.bookings()
    assert (
        desk.call("thaw").stdout == "Thawed: everything, frozen by root (sudo ada) now: MIG work\n"
    )
    assert desk.call("reconcile").exit_code == 0


@pytest.mark.parametrize("subject", [GONE, "1.1"])
def test_a_container_or_a_slot_can_be_frozen_alone(desk: Desk, subject: str) -> None:
    due(desk)
    desk.call("freeze", subject)
    assert desk.call("reconcile").exit_code == 2
    desk.call("thaw", subject)
    assert desk.call("reconcile").exit_code == 0


def test_a_freeze_ends_by_itself(desk: Desk) -> None:
    due(desk)
    assert "thaws in 2 h" in desk.call("freeze", "--for", "2h").stdout
    assert desk.call("reconcile").exit_code == 2
    desk.host.pass_time(2 * 3600 + 1)
    assert desk.call("thaw").exit_code == 1  # it has ended
    assert desk.call("reconcile", "--wait").exit_code == 0


def test_a_step_of_the_wall_clock_ends_no_freeze_and_prolongs_none(desk: Desk) -> None:
    due(desk)
    desk.call("freeze", "--for", "2h")
    desk.host.wall += 3 * 3600
    assert desk.call("reconcile").exit_code == 2
    desk.host.wall -= 9 * 3600
    desk.host.pass_time(2 * 3600 + 1)
    assert desk.call("reconcile", "--wait").exit_code == 0


def test_a_freeze_lasts_over_a_reboot_and_no_longer_than_it_was_meant_to(desk: Desk) -> None:
    due(desk)
    desk.call("freeze", "--for", "2h", "--reason", "disks")
    desk.host.boot_id, desk.host.boot = "boot-2", 30.0
    desk.host.wall -= 365 * 86400  # a host without a battery, before NTP answers
    assert desk.json("status")["freezes"][0]["reason"] == "disks"
    desk.call("reconcile")
    desk.host.pass_time(2 * 3600 - 190)
    desk.call("reconcile")
    desk.host.pass_time(130)
    assert {one["gate"] for one in desk.json("reconcile")["drifts"]} == {"freeze"}
    desk.host.pass_time(61)
    assert desk.json("status")["freezes"] == []
    assert desk.call("reconcile", "--wait").exit_code == 0


def test_thawing_what_is_not_frozen_says_what_is(desk: Desk) -> None:
    assert desk.call("thaw").stderr == "ds01ctl: nothing is frozen\n"
    desk.call("freeze", TRAIN)
    result = desk.call("thaw")
    assert result.stderr == f"ds01ctl: everything is not frozen; frozen: {TRAIN}\n"
    assert result.exit_code == 1
    assert desk.call("thaw", "1.0").stderr == f"ds01ctl: 1.0 is not frozen; frozen: {TRAIN}\n"


def test_without_permission_it_says_who_may(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> AbstractContextManager[World]:
        raise WriteFailed("/x/lock was not written: Permission denied") from PermissionError()

    desk.open_world = refuse
    monkeypatch.setattr(os, "geteuid", lambda: 1001)
    result = desk.call("freeze")
    assert result.exit_code == 1
    assert result.stderr == ("ds01ctl: only root can freeze repairs (try: sudo ds01ctl freeze)\n")


def test_a_subject_that_nobody_knows_is_refused(desk: Desk) -> None:
    result = desk.call("freeze", "trai")
    assert 'no slot or container "trai"' in result.stderr
    assert "1.0, 1.1, 1.2, 1.3" in result.stderr
    assert result.exit_code == 1
    assert desk.host.memory is None


def test_a_subject_is_frozen_unseen_while_docker_does_not_answer(desk: Desk) -> None:
    desk.host.failing.add(Source.DOCKER)
    result = desk.call("freeze", "train._.7")
    assert result.exit_code == 0
    assert 'cannot check that "train._.7" exists: docker does not answer' in result.stderr


@pytest.mark.parametrize("words", [("--for", "0s"), ("--for", "2"), ("--reason", "a\x1bb")])
def test_nonsense_is_refused_with_what_would_be_right(desk: Desk, words: tuple[str, str]) -> None:
    result = desk.call("freeze", *words)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "\x1b" not in result.stderr


def test_another_engine_is_trusted_by_word_alone(desk: Desk, host: Host) -> None:
    due(desk)
    host.identity = replace(IDENTITY, id="OTHER", inode=8)
    held = desk.call("reconcile")
    assert "ds01ctl thaw --engine" in held.stdout
    assert held.exit_code == 2
    assert desk.call("thaw", "--engine").stdout == "Trusted: engine OTHER at /var/lib/docker\n"
    assert desk.call("reconcile", "--wait").exit_code == 0


def test_there_is_nothing_to_trust_where_the_engine_is_the_same(desk: Desk) -> None:
    assert "no pass has run yet" in desk.call("thaw", "--engine").stderr
    desk.call("reconcile")
    result = desk.call("thaw", "--engine")
    assert "the last pass found the trusted engine" in result.stderr
    assert result.exit_code == 1
    assert desk.call("thaw", "--engine", "1.0").exit_code == 1


def test_a_broken_memory_is_set_aside_and_the_freeze_stands(desk: Desk) -> None:
    desk.host.memory = b"no json"
    result = desk.call("freeze")
    assert "cannot be used" in result.stderr
    assert result.exit_code == 0
    assert desk.json("status")["freezes"][0]["subject"] is None
