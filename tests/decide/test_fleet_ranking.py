"""Which hosts are asked, in which order: a hint that can cost a refusal, and nothing else."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01d.decide.fleet_ranking import (
    count_fitting,
    describe_no_room,
    find_ties,
    rank_hosts,
    select_hosts,
)
from ds01d.errors import Refused
from ds01d.model.fleet import (
    FleetHolder,
    FleetHost,
    FleetSlot,
    HostName,
    HostState,
    HostStatus,
    HostWish,
)
from ds01d.model.primitives import ContainerName, SlotId, Wall

HELD = (FleetHolder(container=ContainerName("x"), user=None, state="running"),)


def make_host(name: str, free: int, held: int = 0, *, unknown: bool = False) -> FleetHost:
    slots = tuple(
        FleetSlot(
            id=SlotId(str(number)),
            type="mig_instance",
            profile="1g" if number % 2 else "2g",
            holders=() if number < free else HELD,
        )
        for number in range(free + held)
    )
    return FleetHost(
        name=HostName(name),
        state=HostState.UNKNOWN if unknown else HostState.OK,
        status=HostStatus(published_at=Wall(0), next_at=None, version="", slots=slots),
        reason="refused" if unknown else "",
    )


hosts_strategy = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 3), st.booleans()), max_size=8
).map(lambda rows: [make_host(f"h{n}", f, h, unknown=u) for n, (f, h, u) in enumerate(rows)])


@given(hosts=hosts_strategy, count=st.integers(0, 4), images=st.sets(st.integers(0, 7)))
def test_a_ranking_has_every_host_that_fits_and_no_other(
    hosts: list[FleetHost], count: int, images: set[int]
) -> None:
    with_image = {HostName(f"h{number}") for number in images}
    ranked = rank_hosts(hosts, count, None, with_image)
    assert {host.name for host in ranked} == {
        host.name for host in hosts if host.state is HostState.OK and len(host.free) >= count
    }
    keys = [(len(host.free), host.name not in with_image) for host in ranked]
    assert keys == sorted(keys)
    # The same view gives the same order; equal hosts stay as the configuration lists them.
    assert rank_hosts(hosts, count, None, with_image) == ranked
    for first, second in itertools.pairwise(ranked):
        if (len(first.free), first.name in with_image) == (
            len(second.free),
            second.name in with_image,
        ):
            assert hosts.index(first) < hosts.index(second)


@given(hosts=hosts_strategy, seed=st.integers())
def test_an_image_only_decides_between_hosts_with_equally_many(
    hosts: list[FleetHost], seed: int
) -> None:
    ranked = rank_hosts(hosts, 1)
    ties = find_ties(ranked)
    assert len(ties) != 1
    with_image = random.Random(seed).sample(ties, len(ties) // 2)
    again = rank_hosts(hosts, 1, None, with_image)
    assert [len(host.free) for host in again] == [len(host.free) for host in ranked]
    if with_image:
        assert again[0].name in with_image


def test_a_profile_counts_only_slots_of_it() -> None:
    host = make_host("a", 3)
    assert [count_fitting(host, profile) for profile in (None, "1g", "2g", "3g")] == [3, 1, 2, 0]
    assert rank_hosts([host], 2, "1g") == []
    assert rank_hosts([host], 2, "2g") == [host]


def test_what_no_host_has_room_for_is_explained_with_the_unknown_ones() -> None:
    hosts = [make_host("a", 1, 3), make_host("b", 4, unknown=True)]
    assert describe_no_room(hosts, 2) == (
        "no host is known to have 2 free slots; free: a 1; unknown: b (refused)"
    )


NAMES = (HostName("a"), HostName("b"), HostName("c"))


@pytest.mark.parametrize(
    ("only", "without", "left"),
    [
        ((), (), ("a", "b", "c")),
        (("c", "a"), (), ("a", "c")),
        ((), ("b",), ("a", "c")),
    ],
)
def test_hosts_are_chosen_from_the_configuration(
    only: tuple[HostName, ...], without: tuple[HostName, ...], left: tuple[str, ...]
) -> None:
    assert select_hosts(NAMES, HostWish(only=only, without=without)) == left


def test_a_host_that_is_not_configured_is_never_asked() -> None:
    with pytest.raises(Refused, match='no host "-oProxyCommand=x" in the configuration'):
        select_hosts(NAMES, HostWish(only=(HostName("-oProxyCommand=x"),)))
    with pytest.raises(Refused, match="excludes all"):
        select_hosts(NAMES, HostWish(without=NAMES))
