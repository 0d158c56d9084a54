"""`ds01ctl allocate` and `release`: exit codes, sentences and JSON."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from click.testing import CliRunner

from ds01d.cli.ctl.main import main as ds01ctl
from ds01d.config import AllocatorConfig, Config
from ds01d.documents.values import DisplayTime
from ds01d.model.books import Record
from ds01d.model.creation import Caller, Person
from ds01d.model.primitives import ContainerName, Wall
from tests.support.commands import Desk
from tests.support.sample_host import TRAIN
from tests.support.world import Host

NEW = ContainerName("new._.1001")


def test_a_slot_is_booked_and_given_back(desk: Desk, host: Host) -> None:
    result = desk.call("allocate", "alice", NEW, "--max", "2", "--priority", "5")
    assert result.exit_code == 0
    assert result.stdout == f"{NEW} holds 1.3 (MIG-1-3) as alice\n"
    again = desk.call("allocate", "bob", NEW, "--max", "2")
    assert (again.exit_code, again.stdout) == (0, f"{NEW} already holds 1.3 (MIG-1-3) as alice\n")
    result = desk.call("release", NEW)
    assert (result.exit_code, result.stdout) == (0, f"{NEW} gave back 1.3\n")
    result = desk.call("release", NEW)
    assert (result.exit_code, result.stdout) == (3, f"{NEW} holds no slot\n")
    assert [line.split("|")[0] for line in host.allocations] == ["ALLOCATED", "RELEASED"]


def test_a_refusal_has_its_own_code(desk: Desk) -> None:
    result = desk.call("allocate", "alice", NEW, "--max", "1")
    assert result.exit_code == 3
    assert result.stdout == f"{NEW} gets no slot: USER_AT_LIMIT (1/1)\n"
    result = desk.call("allocate", "alice", NEW, "--max", "9", "--slot", "1.0")
    assert result.exit_code == 3
    assert f"SLOT_TAKEN (1.0 is held by {TRAIN})" in result.stdout
    assert desk.call("allocate", "alice", NEW, "--max", "9", "--slot", "1.3").exit_code == 0


def test_json_tells_it_all(desk: Desk, host: Host) -> None:
    document = desk.json("allocate", "alice", NEW, "--max", "9")
    record = host.records[NEW]
    assert isinstance(record, Record)
    assert document == {
        "id": record.booking,
        "until": DisplayTime(Wall(host.wall + 900.0)).to_utc(),
        "host": None,
        "slots": [{"slot": "1.3", "docker_id": "MIG-1-3"}],
        "allocated": True,
        "already": False,
        "container": NEW,
        "user": "alice",
        "slot": "1.3",
        "docker_id": "MIG-1-3",
        "shared_with": [],
        "refusal": None,
        "reason": "",
        "notify_until": None,
    }
    refused = desk.json("allocate", "alice", "other._.1001", "--max", "2")
    assert (refused["allocated"], refused["slot"]) == (False, None)
    assert (refused["refusal"], refused["reason"]) == ("USER_AT_LIMIT", "USER_AT_LIMIT (2/2)")
    assert desk.json("release", NEW)["slots"] == ["1.3"]
    assert desk.json("release", NEW) == {
        "released": False,
        "container": NEW,
        "user": None,
        "slots": [],
    }


def test_faults_are_errors_and_a_failed_log_is_none(desk: Desk, host: Host) -> None:
    host.unwritable.add("allocations")
    result = desk.call("allocate", "alice", NEW, "--max", "9")
    assert result.exit_code == 0
    assert result.stderr == "ds01ctl: allocations was not written: no space left on device\n"
    host.unwritable.add("state")
    assert desk.call("release", NEW).exit_code == 1
    assert desk.call("allocate", "alice", "a/b").exit_code == 1


@pytest.mark.parametrize(
    "words",
    [
        ("allocate",),
        ("allocate", "a", "--slot", "1.3", "--count", "2"),
        ("release",),
        ("allocate", "a", "b", "c"),
    ],
)
def test_a_wrong_call(desk: Desk, words: tuple[str, ...]) -> None:
    desk.config = Config()
    assert desk.call(*words).exit_code == 1


def test_a_reservation_without_a_container_is_given_back_by_its_id(desk: Desk, host: Host) -> None:
    host.passwd[1001] = "alice"
    result = desk.call("allocate", "alice", "--max", "9", "--reason", "a course")
    booked, reservation = result.stdout.splitlines()
    (name,) = {name for name in host.records if name.startswith("r-")}
    record = host.records[name]
    assert isinstance(record, Record)
    assert name == f"{record.booking}._.1001"
    assert booked == f"{name} holds 1.3 (MIG-1-3) as alice"
    assert reservation.startswith(f"reservation {record.booking} ends in ")
    assert f"ds01.booking={record.booking}" in reservation
    assert host.allocations[-1].endswith("; reason: a course")
    assert f"container {name}" in desk.call("explain", str(record.booking)).stdout
    result = desk.call("release", str(record.booking))
    assert (result.exit_code, result.stdout) == (0, f"{name} gave back 1.3\n")
    assert name not in host.records
    result = desk.call("release", str(record.booking))
    assert (result.exit_code, result.stdout) == (3, f"{record.booking} holds no slot\n")


def test_several_slots_at_once_or_none(desk: Desk, host: Host) -> None:
    desk.config = msgspec.structs.replace(desk.config, allocator=AllocatorConfig(sharing="never"))
    words = ("allocate", "alice", NEW, "--max", "9", "--count")
    refused = desk.call(*words, "2")
    assert refused.exit_code == 3
    assert refused.stdout.startswith(
        f"{NEW} gets no slot: NO_GPU_AVAILABLE (2 asked for, 1 free; 4 slots: "
    )
    assert NEW not in host.records
    desk.call("release", "gone._.1002")
    result = desk.call(*words, "2")
    assert result.stdout == f"{NEW} holds 1.1 (MIG-1-1), 1.3 (MIG-1-3) as alice\n"
    assert (
        desk.call(*words, "3").stdout
        == f"{NEW} gets no slot: FEWER_SLOTS_BOOKED ({NEW} holds only 1.1, 1.3)\n"
    )
    assert desk.call("release", NEW).stdout == f"{NEW} gave back 1.1, 1.3\n"


def test_a_profile_that_no_slot_has(desk: Desk) -> None:
    result = desk.call("allocate", "alice", NEW, "--max", "9", "--profile", "7g.80gb")
    assert result.exit_code == 3
    assert "NO_SUCH_PROFILE (7g.80gb; there are " in result.stdout


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (("--wait",), 1, "--wait and --notify exclude each other"),
        (("--host", "gpu02"), 1, "--notify is for this host alone"),
        ((), 1, "without ds01d (is it running?)"),
    ],
)
def test_a_notice_is_ds01ds_alone(
    desk: Desk, host: Host, words: tuple[str, ...], code: int, reason: str
) -> None:
    before = host.bookings()
    result = desk.call("allocate", "alice", NEW, "--max", "9", "--notify", *words)
    assert result.exit_code == code
    assert reason in result.stderr
    assert host.bookings() == before


@pytest.mark.parametrize(
    ("is_root", "words", "wanted"),
    [(False, (), None), (True, (), "alice"), (True, ("bob",), "bob"), (False, ("bob",), "bob")],
)
def test_requests_are_withdrawn_of_oneself_also_behind_sudo(
    desk: Desk, is_root: bool, words: tuple[str, ...], wanted: str | None
) -> None:
    asked: list[str | None] = []

    def withdraw(_: Config, user: str | None) -> tuple[()]:
        asked.append(user)
        return ()

    caller = Caller(person=Person(uid=1001, name="alice"), root=is_root)
    environment = replace(desk.environment(), find_caller=lambda: caller, withdraw_notices=withdraw)
    result = CliRunner().invoke(ds01ctl, ["withdraw", *words], obj=environment)
    assert (result.exit_code, result.stdout) == (0, "0 requests for a notice withdrawn\n")
    assert asked == [wanted]
