"""Whose a container may be: what says so, in order of trust, and what of it is only a guess."""

from __future__ import annotations

from typing import Any

import pytest

from ds01d.decide.bookings import count_bookings
from ds01d.model.allocation import Allocated
from ds01d.model.books import MISSING, AllocatorState, Record, Unreadable
from ds01d.model.limits import HoldRule, Limits
from ds01d.model.primitives import ContainerId, ContainerName, UserName
from ds01d.reconcile.allocator import Allocator
from ds01d.reconcile.docker_books import with_current_books
from tests.support.build import Life, config, whole, with_docker_books

ALICE = UserName("alice")
CAMPUS = "c.demo@campus.example"
LONG = "a-very-long-login-of-a-guest-from-elsewhere@campus.example"
LISTED = ("alice", "bob", CAMPUS, "c_demo", LONG, "k.l", "k+l")
RULE = HoldRule(seconds=900.0, source="groups.student")
LIMITS = Limits(
    holds={UserName(login): RULE for login in LISTED},
    unknown_user=RULE,
    default_quota=1,
)
ID = "c" * 64


def host(**fields: Any) -> Life:
    known: dict[str, Any] = {
        "gpu": whole(3),
        "state": Unreadable(reason="no such file", digest=MISSING),
        "passwd": {1001: "alice", 1002: "bob", 1003: "anna-maria", 1004: "maria"},
        "limits": LIMITS,
    }
    return Life(with_docker_books(config()), **(known | fields))


def owner(life: Life, name: str) -> tuple[str, str, bool] | None:
    index = life.plan().decision.index
    assert index is not None
    found = index.find_owner(ContainerName(name))
    return None if found is None else (found.user, found.source.value, found.is_guess)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({}, None, id="nothing says"),
        pytest.param({"name": "x._.1001"}, ("alice", "name", False), id="the uid in the name"),
        pytest.param(
            {
                "name": "x._.1001",
                "labels": {"ds01.user": "bob"},
                "cgroup_parent": "ds01-s-bob.slice",
            },
            ("alice", "name", False),
            id="the name against label and slice",
        ),
        pytest.param(
            {"labels": {"ds01.user": "alice"}}, ("alice", "label", True), id="a label alone"
        ),
        pytest.param(
            {"labels": {"aime.mlc.USER": "alice"}}, ("alice", "label", True), id="the older label"
        ),
        pytest.param(
            {"labels": {"ds01.user": "alice"}, "cgroup_parent": "ds01-student-alice.slice"},
            ("alice", "label", False),
            id="a label, in the slice of that user",
        ),
        pytest.param(
            {"labels": {"ds01.user": "alice"}, "cgroup_parent": "ds01-student-bob.slice"},
            ("alice", "label", True),
            id="a label, in the slice of another user",
        ),
        pytest.param(
            {"labels": {"ds01.user": "maria"}, "cgroup_parent": "ds01-student-anna-maria.slice"},
            ("maria", "label", True),
            id="a label, in the slice of one whose name ends alike",
        ),
        pytest.param(
            {"labels": {"ds01.user": CAMPUS}, "cgroup_parent": "ds01-student-c_demo.slice"},
            (CAMPUS, "label", False),
            id="a login of a directory",
        ),
        pytest.param(
            {
                "labels": {"ds01.user": LONG},
                "cgroup_parent": "/ds01.slice/ds01-s-a_very_long_login_of_a_gues_e6ac.slice",
            },
            (LONG, "label", False),
            id="a long login, as Python writes it",
        ),
        pytest.param(
            {"cgroup_parent": "ds01-s-a_very_long_login_of_a_gues-e6ac.slice"},
            (LONG, "slice", True),
            id="a long login, as the shell writes it",
        ),
        pytest.param(
            {"cgroup_parent": "ds01-student-bob.slice", "homes": ("alice",)},
            ("bob", "slice", True),
            id="the slice before the folder",
        ),
        pytest.param(
            {"cgroup_parent": "ds01-s-c_demo.slice"},
            (CAMPUS, "slice", True),
            id="a slice whose name the limits list too",
        ),
        pytest.param({"cgroup_parent": "ds01-s-k_l.slice"}, None, id="a slice that two logins fit"),
        pytest.param({"cgroup_parent": "ds01-s-nobody1.slice"}, None, id="a slice of no login"),
        pytest.param({"cgroup_parent": "user-alice.slice"}, None, id="another slice"),
        pytest.param({"homes": ("alice",)}, ("alice", "folder", True), id="a home folder"),
        pytest.param({"homes": ("shared",)}, None, id="a folder of no user"),
        pytest.param({"homes": ("alice", "bob")}, None, id="folders of two users"),
        pytest.param(
            {"labels": {"ds01.user": "a|b"}, "homes": ("alice",)},
            ("alice", "folder", True),
            id="a label that is no login says nothing",
        ),
        pytest.param(
            {"name": ID, "id": ID, "labels": {"ds01.user": "bob"}, "homes": ("alice",)},
            None,
            id="a name that gave way to its ID",
        ),
    ],
)
def test_whose_it_is_and_what_says_so(
    fields: dict[str, Any], expected: tuple[str, str, bool] | None
) -> None:
    known: dict[str, Any] = {"name": "plain", "labels": {}}
    life = host().run("GPU-1", **(known | fields))
    assert owner(life, {**known, **fields}["name"]) == expected


def test_the_owners_file_comes_after_a_label_and_before_all_else() -> None:
    life = host(owners={ContainerId("id-plain"): UserName("bob")})
    life.run("GPU-1", name="plain", labels={}, id="id-plain", cgroup_parent="ds01-s-alice.slice")
    assert owner(life, "plain") == ("bob", "owners-file", True)
    life.change("plain", labels={"ds01.user": "alice"})
    assert owner(life, "plain") == ("alice", "label", False)


def test_a_booking_is_no_guess() -> None:
    life = host()
    made = Allocator(with_current_books(life.host.world(), life.config), life.config).allocate(
        ALICE, ContainerName("plain")
    )
    assert isinstance(made, Allocated)
    assert owner(life, "plain") == ("alice", "booking", False)
    life.run(made.device or "", name="plain", labels={"ds01.user": "alice"}, created_ago=0.0)
    life.after(300.0)
    # Only the record makes it more than a label, so it stays as long as the container.
    assert owner(life, "plain") == ("alice", "booking", False)
    assert isinstance(life.host.records[ContainerName("plain")], Record)


GUESSES: list[dict[str, Any]] = [
    {"labels": {"ds01.user": "alice"}},
    {"cgroup_parent": "ds01-student-alice.slice"},
    {"homes": ("alice",)},
]


@pytest.mark.parametrize("marks", GUESSES, ids=str)
def test_no_guess_fills_a_quota_or_takes_a_slot_from_the_container(marks: dict[str, Any]) -> None:
    life = host()
    for place in ("0", "1"):
        life.run(f"GPU-{place}", name=f"m{place}", **({"labels": {}} | marks))
    snapshot = life.after(60).plan().decision.snapshot
    assert isinstance(snapshot.state, AllocatorState)
    assert isinstance(snapshot.metadata, dict)
    assert count_bookings(ALICE, snapshot.state, snapshot.metadata) == 0
    allocator = Allocator(with_current_books(life.host.world(), life.config), life.config)
    answer = allocator.allocate(ALICE, ContainerName("mine._.1001"))
    assert isinstance(answer, Allocated)
    assert answer.slot == "2"


def test_what_is_more_than_a_guess_fills_it() -> None:
    life = host().run(
        "GPU-0",
        name="run",
        labels={"ds01.user": "alice"},
        cgroup_parent="ds01-student-alice.slice",
    )
    allocator = Allocator(with_current_books(life.host.world(), life.config), life.config)
    answer = allocator.allocate(ALICE, ContainerName("mine._.1001"))
    assert not isinstance(answer, Allocated)
    assert answer.reason == "USER_AT_LIMIT (1/1)"


@pytest.mark.parametrize(
    ("marks", "user"),
    [(GUESSES[0], "alice"), (GUESSES[1], None), (GUESSES[2], None)],
    ids=["label", "slice", "folder"],
)
def test_of_the_guesses_only_a_label_gives_rights(marks: dict[str, Any], user: str | None) -> None:
    life = host().run("GPU-0", name="plain", **({"labels": {}} | marks)).after(60)
    index = life.plan().decision.index
    assert index is not None
    assert index.find_user(ContainerName("plain")) == user
