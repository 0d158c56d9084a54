"""`status -o`, --user, --free: other forms and parts of the same status."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from ds01d.model.books import SlotType
from ds01d.model.primitives import ContainerName, DeviceUuid, SlotId, Source, UserName, Wall
from ds01d.reporting.status import Holder, SlotStatus, Status
from ds01d.reporting.status_file import write_status
from tests.support.commands import Desk
from tests.support.status import published

GIB = 2**30
HOSTILE = "a\x1b[31m\nb\u202e"


def holder(name: str, user: str, **fields: Any) -> Holder:
    return Holder(container=ContainerName(name), user=UserName(user), state="running", **fields)


def with_readings(age_s: float | None = 7200) -> Status:
    """A whole GPU that works, a MIG device, one that only a stranger uses, and two free ones."""
    return published(
        readings_at=None if age_s is None else Wall(time.time() - age_s),
        slots=(
            SlotStatus(
                id=SlotId("0"),
                type=SlotType.PHYSICAL,
                uuid=DeviceUuid("GPU-0"),
                holders=(
                    holder("train._.1001", "alice", processes=2, memory_used=3 * GIB),
                    holder("look._.1002", "bob"),
                ),
                memory_used=4 * GIB,
                memory_total=80 * GIB,
                utilization=0,
                processes=3,
            ),
            SlotStatus(
                id=SlotId("1.0"),
                type=SlotType.MIG,
                uuid=DeviceUuid("MIG-1"),
                profile="1g.10gb",
                holders=(holder("idle._.1001", "alice", processes=0, memory_used=0),),
                memory_total=10 * GIB,
                processes=0,
            ),
            SlotStatus(
                id=SlotId("1.1"),
                type=SlotType.MIG,
                profile="1g.10gb",
                foreign=("web",),
                foreign_holders=(holder("web", "bob"),),
            ),
            SlotStatus(id=SlotId("1.2"), type=SlotType.MIG, profile="1g.10gb"),
            SlotStatus(id=SlotId(HOSTILE), type=SlotType.MIG, profile="1g.10gb"),
        ),
    )


@pytest.fixture
def published_desk(desk: Desk) -> Desk:
    desk.host.failing.add(Source.STATE)  # else it is the state that says who is booked
    write_status(with_readings(), desk.state_dir)
    return desk


def rows(desk: Desk, *words: str) -> list[list[str]]:
    result = desk.call("status", *words)
    assert result.exit_code == 0, result.output
    return [line.split() for line in result.stdout.splitlines()]


def test_the_wide_table_has_the_readings_behind_the_columns_of_the_other(
    published_desk: Desk,
) -> None:
    narrow, wide = rows(published_desk), rows(published_desk, "-o", "wide")
    head = next(row for row in wide if row[:1] == ["SLOT"])
    assert head == [
        *next(row for row in narrow if row[:1] == ["SLOT"]),
        *("UTIL", "MEMORY", "PROCESSES", "UUID"),
    ]
    shown = [row[-5:] for row in wide if row[:1] in (["0"], ["1.0"], ["1.1"])]
    assert shown == [
        ["0%", "3.0/80.0", "GiB", "2", "GPU-0"],
        # Unknown is not none: NVML lists processes whose container is not known.
        ["0%", "-/80.0", "GiB", "-", "GPU-0"],
        ["-", "0.0/10.0", "GiB", "0", "MIG-1"],
        ["bob", "-", "-", "-", "-"],
    ]
    assert ["readings", "of", "NVML:", "2", "h", "ago"] in wide


def test_without_readings_the_reason_is_shown(published_desk: Desk) -> None:
    write_status(with_readings(None), published_desk.state_dir)
    assert ["no", "readings", "of", "NVML:", "no", "driver"] in rows(published_desk, "-o", "wide")


def test_the_slots_of_a_user_are_those_held_or_used(published_desk: Desk) -> None:
    shown = published_desk.call("status", "--user", "bob").stdout.splitlines()
    assert [line.split()[:4] for line in shown[1:3]] == [
        ["0", "physical_gpu", "look._.1002", "bob"],
        ["1.1", "1g.10gb", "-", "-"],
    ]
    assert shown[-1] == "2 slots of 5 held or used by bob"
    assert "train" not in "".join(shown)
    nobody = published_desk.call("status", "--user", HOSTILE)
    assert nobody.exit_code == 0
    assert nobody.stdout == "0 slots of 5 held or used by a\\x1b[31m\\nb\\u202e\n"


def test_free_slots_are_those_that_nobody_holds_or_uses(published_desk: Desk) -> None:
    shown = published_desk.call("status", "--free").stdout.splitlines()
    assert [line.split()[0] for line in shown[1:3]] == ["1.2", "a\\x1b[31m\\nb\\u202e"]
    assert shown[-1] == "2 slots of 5 free"
    names = published_desk.call("status", "--free", "-o", "name")
    assert names.stdout.splitlines() == ["1.2", "a\\x1b[31m\\nb\\u202e"]


def test_names_are_one_a_line_and_doubts_go_to_stderr(desk: Desk) -> None:
    result = desk.call("status", "-o", "name")
    assert result.stdout.splitlines() == ["1.0", "1.1", "1.2", "1.3"]
    assert result.stderr.startswith("ds01ctl: ds01d is not running (")


def test_json_is_the_same_by_both_options_and_has_the_readings(published_desk: Desk) -> None:
    long = json.loads(published_desk.call("status", "-o", "json").stdout)
    assert long.pop("schema") == "status/1.1"
    assert long == published_desk.json("status")
    first = long["slots"][0]
    assert (first["utilization"], first["processes"]) == (0, 3)
    assert [h["processes"] for h in first["holders"]] == [2, None]
    assert [h["memory_used"] for h in first["holders"]] == [3 * GIB, None]
    assert long["daemon"]["readings_at"].endswith("+00:00")
    mine = published_desk.json("status", "--user", "bob")
    assert [slot["slot"] for slot in mine["slots"]] == ["0", "1.1"]
    assert mine.keys() == long.keys()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--user", "bob", "--free"), "--user and --free contradict"),
        (("--json", "-o", "wide"), "--json and -o wide contradict"),
        (("--watch", "--interval", "0.01s"), "expected 0.1s to 24h"),
        (("--watch", "--interval", "often"), "often"),
        (("-o", "yaml"), "'yaml' is not one of 'wide', 'name', 'json'"),
    ],
)
def test_what_contradicts_is_refused(desk: Desk, words: tuple[str, ...], text: str) -> None:
    result = desk.call("status", *words)
    assert result.exit_code == 1
    assert text in result.stderr
