"""A short name means the one container that has it, one's own first, and never one of several."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01d.decide.short_names import SEPARATOR, find_by_name, split_name
from ds01d.errors import Refused
from ds01d.model.primitives import ContainerName

NAMES = frozenset(
    map(
        ContainerName,
        ("train._.1001", "train._.1002", "eval._.1002", "web", "eval", "x._.y", "train-2._.1001"),
    )
)


@pytest.mark.parametrize(
    ("text", "uid", "name"),
    [
        ("train._.1001", 1002, "train._.1001"),
        ("train", 1001, "train._.1001"),
        ("train", 1002, "train._.1002"),
        ("train-2", 7, "train-2._.1001"),
        ("eval", 1002, "eval"),  # a whole name before a short one
        ("web", None, "web"),
        ("x", None, None),  # its end is no uid
        ("tra", 1001, None),  # no prefix
        ("train._", None, None),
        ("", None, None),
    ],
)
def test_what_a_text_means(text: str, uid: int | None, name: str | None) -> None:
    assert find_by_name(text, NAMES, uid) == name


@pytest.mark.parametrize("uid", [None, 0, 1003])
def test_of_several_none_is_taken_and_all_are_listed(uid: int | None) -> None:
    with pytest.raises(Refused, match=r"is ambiguous: expected train\._\.1001 or train\._\.1002$"):
        find_by_name("train", NAMES, uid)
    many = [ContainerName(f"a{SEPARATOR}{number}") for number in range(200)]
    with pytest.raises(Refused, match=r"or 190 others$"):
        find_by_name("a", many, 1001)


_NAMES = st.one_of(
    st.text(alphabet="ab._1\n", max_size=8),
    st.builds(lambda short, uid: f"{short}._.{uid}", st.text("ab", max_size=2), st.integers(0, 3)),
)


@given(_NAMES, st.frozensets(_NAMES, max_size=8), st.none() | st.integers(0, 3))
def test_what_is_found_has_that_name_and_no_other_could_be_meant(
    text: str, names: frozenset[str], uid: int | None
) -> None:
    known = {ContainerName(name) for name in names}
    alike = [name for name in known if split_name(name)[0] == text and name != text]
    try:
        found = find_by_name(text, known, uid)
    except Refused:
        assert text not in known
        assert len(alike) > 1
        return
    if found is None:
        assert text not in known
        assert not alike
    elif found != text:
        assert alike == [found] or split_name(found)[1] == uid
