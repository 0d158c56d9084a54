"""Whose container it is: its booking's record, else the uid in its name, else its labels."""

from __future__ import annotations

import pytest

from ds01d.model.allocation import Allocated
from ds01d.model.books import AllocatorState, Record
from ds01d.model.drift import FindingKind
from ds01d.model.holding import Holds
from ds01d.model.limits import HoldRule, Limits
from ds01d.model.primitives import ContainerName, UserName
from ds01d.reconcile.allocator import Allocator
from tests.support.build import HOUR, Life, config

ALICE, MALLORY = UserName("alice"), UserName("mallory")
MINE = ContainerName("mine._.1001")
USERS = {1001: "alice", 1004: "mallory"}
CLAIMS = {"aime.mlc": "alice", "aime.mlc.USER": "alice", "ds01.user": "alice"}
RULES = Limits(
    holds={
        ALICE: HoldRule(seconds=48 * HOUR, source="user_overrides.alice"),
        MALLORY: HoldRule(seconds=60.0, source="user_overrides.mallory"),
    },
    unknown_user=HoldRule(seconds=60.0, source="defaults"),
    default_quota=1,
)


def host(passwd: dict[int, str] | None = None) -> Life:
    life = Life(config(pace_count=100), limits=RULES)
    life.host.passwd = USERS if passwd is None else passwd
    return life


def user(life: Life, name: str) -> str | None:
    view = life.plan().decision.index
    assert view is not None
    return view.find_user(ContainerName(name))


@pytest.mark.parametrize(
    ("name", "labels", "passwd", "expected"),
    [
        pytest.param("x._.1004", CLAIMS, USERS, "mallory", id="the uid, not the label"),
        pytest.param("x._.1004", CLAIMS, {1001: "alice"}, None, id="a label of another's uid"),
        pytest.param("x._.1004", CLAIMS, {}, "alice", id="a directory that fails refutes nothing"),
        pytest.param("x._.1004", {"aime.mlc": "root"}, USERS, "mallory", id="sudo"),
        pytest.param("x._.1004", {}, {}, None, id="nobody knows"),
        pytest.param("x._.0", {"aime.mlc": "root"}, {0: "root"}, "root", id="root's own"),
        pytest.param("x._.0", CLAIMS, {0: "root", 1001: "alice"}, "root", id="root's, labelled"),
        pytest.param("vs", CLAIMS, USERS, "alice", id="no uid: the label"),
        pytest.param("x._.1004", {"ds01.user": "a" * 99_999}, {}, None, id="a label of no user"),
    ],
)
def test_whose_it_is(
    name: str, labels: dict[str, str], passwd: dict[int, str], expected: str | None
) -> None:
    assert user(host(passwd).run("MIG-1-0", name=name, labels=labels), name) == expected


@pytest.mark.parametrize("recorded", ["bob", "alice"])
def test_the_record_of_its_booking_comes_first(recorded: str) -> None:
    life = host().book("1.0", name="x._.1004", user=UserName(recorded))
    assert user(life.run("MIG-1-0", name="x._.1004", labels=CLAIMS), "x._.1004") == recorded


@pytest.mark.parametrize("recorded", ["root", "unknown"])
def test_but_not_what_sudo_left_there(recorded: str) -> None:
    life = host().book("1.0", name="x._.1004", user=UserName(recorded))
    assert user(life.run("MIG-1-0", name="x._.1004", labels=CLAIMS), "x._.1004") == "mallory"


def test_labels_fill_nobody_elses_quota() -> None:
    """Three adopted containers of mallory claim alice; she still gets what is hers."""
    life = host()
    names = [f"x{n}._.1004" for n in range(3)]
    for name, device in zip(names, ("MIG-0-0", "MIG-0-1", "MIG-1-0"), strict=True):
        life.run(device, name=name, labels=CLAIMS)
    life.after(120.0)
    for name in names:
        record = life.host.records[ContainerName(name)]
        assert isinstance(record, Record)
        assert record.user == MALLORY
    assert isinstance(life.host.state, AllocatorState)
    users = [dict(slot.users) for slot in life.host.state.slots.values() if slot.containers]
    assert users == [{"mallory": 1}] * 3
    answer = Allocator(life.host.world(), life.config).allocate(ALICE, MINE)
    assert isinstance(answer, Allocated)
    assert answer.slot == "1.1"


def test_the_hold_is_that_of_the_uid() -> None:
    """No record tells whose it is: mallory's minute, not alice's two days."""
    life = host().run("MIG-1-0", name="x._.1004", labels=CLAIMS).after(60.0)
    del life.host.records[ContainerName("x._.1004")]
    verdict = life.stop("x._.1004").plan().decision.verdicts[ContainerName("x._.1004")]
    assert isinstance(verdict, Holds)
    assert verdict.user == MALLORY
    life.after(300.0)
    assert life.host.bookings() == set()


@pytest.mark.parametrize(
    ("passwd", "owner"), [(USERS, "mallory"), ({1001: "alice"}, "another user")]
)
def test_a_label_against_the_name_is_reported(passwd: dict[int, str], owner: str) -> None:
    life = host(passwd).run("MIG-1-0", name="x._.1004", labels=CLAIMS)
    found = [f for f in life.plan().findings if f.kind is FindingKind.LABEL_CONTRADICTION]
    assert [f.reason for f in found] == [
        f"label names user alice, but uid 1004 in its name is {owner}"
    ]


def test_also_where_a_booking_has_believed_the_label() -> None:
    life = host().book("1.0", name="x._.1004", user=ALICE)
    life.run("MIG-1-0", name="x._.1004", labels=CLAIMS)
    found = [f for f in life.plan().findings if f.kind is FindingKind.LABEL_CONTRADICTION]
    assert [f.reason for f in found] == [
        "label names user alice, but uid 1004 in its name is mallory"
    ]


FORGED = "bob\n2026-11-28 23:59:59|release|bob|train._.1001|1.1|done|"


@pytest.mark.parametrize(
    ("name", "label", "reason"),
    [
        ("vs", FORGED, f"label names user {FORGED}, which is no login"),
        ("vs", "a|b", "label names user a|b, which is no login"),
        ("vs", "a" * 257, f"label names user {'a' * 80}, which is no login"),
        (
            "x._.99999999999",
            "alice",
            "label names user alice, but the number in its name is no uid",
        ),
    ],
    ids=["lines", "a field", "long", "a number that no uid can be"],
)
def test_a_label_that_can_name_nobody(name: str, label: str, reason: str) -> None:
    life = host().run("MIG-1-0", name=name, labels={"ds01.managed": "true", "ds01.user": label})
    assert user(life, name) is None
    found = [f for f in life.plan().findings if f.kind is FindingKind.LABEL_CONTRADICTION]
    assert [f.reason for f in found] == [reason]
    life.after(120.0)
    record = life.host.records[ContainerName(name)]
    assert isinstance(record, Record)
    assert record.user == "unknown"


@pytest.mark.parametrize("login", ["DOMAIN\\alice", "alice smith", "alice@example.org", "ümit"])
def test_logins_of_directories_are_logins(login: str) -> None:
    labels = {"ds01.managed": "true", "ds01.user": login}
    assert user(host().run("MIG-1-0", name="vs", labels=labels), "vs") == login


def test_a_name_that_gave_way_to_the_id_makes_no_claim() -> None:
    """Its name may have ended in any uid."""
    ident = "c" * 64
    life = host().run("MIG-1-0", name=ident, id=ident, labels=CLAIMS)
    assert user(life, ident) is None
    (finding,) = [f for f in life.plan().findings if f.kind is FindingKind.LONG_NAME]
    assert finding.container == ident
    assert "docker rename cccccccccccc NAME" in finding.reason


def test_a_container_that_says_it_is_none_of_ours_is_not_booked() -> None:
    labels = {"ds01.managed": "false", "aime.mlc": "alice", "ds01.user": "alice"}
    life = host().run("MIG-1-0", name="vs", labels=labels).after(120.0)
    assert life.host.bookings() == set()
    kinds = {f.kind for f in life.plan().findings}
    assert kinds == {FindingKind.FOREIGN_USE}
