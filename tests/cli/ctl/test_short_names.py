"""Wherever a container is named, its short name will do, where it can mean only one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ds01d.cli.base.context import Environment
from ds01d.model.containers import State
from ds01d.model.creation import Caller, Person
from tests.support.commands import Desk
from tests.support.sample_host import GONE, TRAIN, container

OTHER = "train._.1002"


class OwnDesk(Desk):
    """Alice's."""

    def environment(self) -> Environment:
        alice = Caller(person=Person(uid=1001, name="alice"), root=False)
        return replace(super().environment(), find_caller=lambda: alice)


@pytest.fixture
def desk(desk: Desk, tmp_path: Path) -> Desk:
    return OwnDesk(host=desk.host, state_dir=tmp_path)


def frozen_subjects(desk: Desk) -> set[str]:
    return {freeze["subject"] for freeze in desk.json("status")["freezes"]}


def add_other(desk: Desk) -> None:
    """Let bob have one that is called alike."""
    desk.host.run(container(OTHER, 9, "bob", State.RUNNING, "MIG-1-3"))


def test_explain_takes_the_only_one(desk: Desk) -> None:
    assert desk.json("explain", "train")["subject"] == TRAIN
    assert desk.json("explain", "gone")["subject"] == GONE


def test_explain_refuses_several_and_lists_them(desk: Desk) -> None:
    add_other(desk)
    result = desk.call("explain", "train")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f'ds01ctl: "train" is ambiguous: expected {TRAIN} or {OTHER}\n'
    assert desk.json("explain", OTHER)["subject"] == OTHER


def test_a_slot_is_no_short_name(desk: Desk) -> None:
    desk.host.run(container("1.0._.1001", 8, "alice", State.RUNNING, "MIG-1-3"))
    assert desk.json("explain", "1.0")["type"] == "slot"


def test_a_freeze_is_of_the_whole_name_and_is_logged_so(desk: Desk) -> None:
    assert desk.call("freeze", "train").exit_code == 0
    assert frozen_subjects(desk) == {TRAIN}
    assert desk.host.operations[-1].container == TRAIN
    assert desk.call("thaw", "train").exit_code == 0
    assert frozen_subjects(desk) == set()
    add_other(desk)
    result = desk.call("freeze", "train")
    # Docker is asked only for what is not in the books: the other one is not there.
    assert result.exit_code == 0


def test_thaw_refuses_several(desk: Desk) -> None:
    add_other(desk)
    for name in (TRAIN, OTHER):
        assert desk.call("freeze", name).exit_code == 0
    result = desk.call("thaw", "train")
    assert result.exit_code == 1
    assert f"expected {TRAIN} or {OTHER}" in result.stderr
    assert frozen_subjects(desk) == {TRAIN, OTHER}


def test_release_takes_ones_own_and_nobody_elses(desk: Desk) -> None:
    mine: Any = desk.json("release", "train")
    assert mine == {"released": True, "container": TRAIN, "user": "alice", "slots": ["1.0"]}
    other = desk.call("release", "gone")
    assert (other.exit_code, other.stdout) == (3, "gone holds no slot\n")
    assert desk.call("release", "train").exit_code == 3


def test_history_takes_the_short_name_of_what_it_has(desk: Desk) -> None:
    desk.call("reconcile", "--wait")
    entries = desk.json("history", "gone")["entries"]
    assert {entry["container"] for entry in entries} == {GONE}
    assert entries == desk.json("history", GONE)["entries"]
    assert desk.json("history", "gon")["entries"] == []
