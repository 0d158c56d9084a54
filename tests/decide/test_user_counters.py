"""The counters of a slot follow from who is in it, whatever they were."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ds01d.decide.user_counters import recount_users
from ds01d.model.primitives import UserName

USERS = st.sampled_from([UserName(user) for user in ("alice", "bob", "carol")])
COUNTERS = st.dictionaries(USERS, st.integers(-3, 9), max_size=3)
OWNERS = st.lists(st.one_of(st.none(), USERS), max_size=6)


@given(COUNTERS, OWNERS)
def test_everybody_who_is_known_counts_once_and_nobody_else_without_a_claim(
    before: dict[str, int], owners: list[UserName | None]
) -> None:
    counts = recount_users(before, owners)
    for user in {*before, *counts}:
        known = owners.count(UserName(user))
        assert counts.get(user, 0) >= known
        if counts.get(user, 0) > known:
            assert before[user] > known, "only whom the slot counted without a container"
    assert sum(counts.values()) <= len(owners)
    assert all(count > 0 for count in counts.values())


@given(COUNTERS, OWNERS)
def test_a_second_count_changes_nothing(
    before: dict[str, int], owners: list[UserName | None]
) -> None:
    once = recount_users(before, owners)
    assert list(recount_users(once, owners).items()) == list(once.items())


@given(OWNERS.filter(lambda owners: None not in owners), st.permutations(["alice", "bob", "carol"]))
def test_the_order_of_the_file_is_kept(owners: list[UserName | None], order: list[str]) -> None:
    counts = recount_users(dict.fromkeys(order, 1), owners)
    assert list(counts) == [user for user in order if user in counts]
