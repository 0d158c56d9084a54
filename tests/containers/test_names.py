"""Names that a container may have, and whose it is."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01d.containers.names import check_owner, full_name, resolve_name
from ds01d.decide.short_names import split_name
from ds01d.errors import Refused
from ds01d.model.containers import Container, State
from ds01d.model.creation import Caller, Person
from ds01d.model.primitives import ContainerId, ContainerName

ALICE = Caller(person=Person(uid=1001, name="alice"), root=False)
ROOT = Caller(person=Person(uid=0, name="root"), root=True)


def container(name: str, labels: Mapping[str, str] | None = None) -> Container:
    return Container(
        id=ContainerId("f" * 64),
        name=ContainerName(name),
        state=State.RUNNING,
        labels=labels or {},
    )


@pytest.mark.parametrize("text", ["train", "train._.1001", "a.b-c_1"])
def test_a_name_is_the_callers(text: str) -> None:
    assert full_name(text, ALICE) == f"{text.removesuffix('._.1001')}._.1001"


def test_root_may_name_anybodys() -> None:
    assert full_name("train._.1722830498", ROOT) == "train._.1722830498"
    assert full_name("train", ROOT) == "train._.0"
    with pytest.raises(Refused, match="only that user and root"):
        full_name("train._.1002", ALICE)


@pytest.mark.parametrize(
    "text", ["", "-x", ".x", "a/b", "a#b", "a b", "ä", "a\n", "x" * 101, "a._.b", "a._.1._.1001"]
)
def test_no_other_sign_and_no_other_form(text: str) -> None:
    with pytest.raises(Refused, match="invalid container name"):
        full_name(text, ALICE)


@given(st.text(max_size=20))
def test_whatever_is_accepted_is_a_plain_name_of_the_caller(text: str) -> None:
    try:
        name = full_name(text, ALICE)
    except Refused:
        return
    assert name.isascii()
    assert "/" not in name
    assert split_name(name)[1] == 1001


@pytest.mark.parametrize(
    ("one", "mine"),
    [
        (container("a._.1001"), True),
        (container("a._.1001", {"ds01.user": "root"}), True),  # sudo leaves that
        (container("a._.1002", {"ds01.user": "alice"}), False),
        (container("a", {"aime.mlc": "alice"}), True),
        (container("a", {"ds01.user": "bob", "aime.mlc": "alice"}), False),
        (container("a", {"ds01.managed": "true"}), False),
        (container("a"), False),
    ],
)
def test_whose_a_container_is(one: Container, mine: bool) -> None:
    if mine:
        check_owner(one, ALICE)
    else:
        with pytest.raises(Refused):
            check_owner(one, ALICE)


def test_root_touches_any_but_foreign_ones() -> None:
    check_owner(container("a._.1002"), ROOT)
    with pytest.raises(Refused, match="is not a DS01 container"):
        check_owner(container("a"), ROOT)


def resolve(text: str, caller: Caller, *names: str) -> str:
    there = {name: container(name) for name in names}
    return resolve_name(text, caller, there.get, lambda: [c.name for c in there.values()])


@pytest.mark.parametrize(
    ("text", "names", "resolved"),
    [
        ("train", ("train._.1001",), "train._.1001"),
        ("train", ("train._.0", "train._.1001"), "train._.0"),  # one's own first
        ("train", ("train", "train._.1001"), "train"),  # an exact name before a short one
        ("train", (), "train._.0"),  # which Docker then does not have
        ("train._.1002", ("train._.1001",), "train._.1002"),
    ],
)
def test_root_means_the_only_one_of_a_short_name(
    text: str, names: tuple[str, ...], resolved: str
) -> None:
    assert resolve(text, ROOT, *names) == resolved


def test_root_gets_the_list_of_several() -> None:
    with pytest.raises(Refused, match=r"ambiguous: expected train\._\.1001 or train\._\.1002$"):
        resolve("train", ROOT, "train._.1002", "train._.1001")


def test_a_user_never_means_anybody_elses() -> None:
    assert resolve("train", ALICE, "train._.1002") == "train._.1001"
