"""Quotas in GPU-equivalents: exact weights, every slot once, and no way to more."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01d.decide.allocation import choose_slot
from ds01d.decide.bookings import Bookings
from ds01d.decide.slot_offers import Pool
from ds01d.decide.user_quota import check_limits, measure_booked, weigh_slot
from ds01d.model.allocation import Allocated, AllocationRequest, Refusal, Rejected
from ds01d.model.books import AllocatorState, Slot
from ds01d.model.limits import GpuQuota
from ds01d.model.primitives import ContainerName, SlotId, Source, Unknown, UserName, Wall
from tests.support.build import ALWAYS_UNLIMITED, books, record, slot

ME = UserName("alice")
NAME = ContainerName("new._.1001")
PROFILES = ("1g.5gb", "1g.10gb+me", "2g.10gb", "3g.20gb", "4g.20gb", "7g.40gb", "1c.2g.10gb")


def table(*slots: str) -> AllocatorState:
    """Slots as "0" (a whole GPU) or "1.0 3g.20gb", with their containers after it."""
    entries = []
    for text in slots:
        id_, *words = text.split()
        profile = words.pop(0) if "." in id_ and words else None
        entries.append(replace(slot(id_, *words), profile=profile))
    return books(*entries)


def pool(state: AllocatorState) -> Pool:
    """Everything is booked by alice."""
    records = {
        name: record(name, entry.id, user=ME)
        for entry in state.slots.values()
        for name in entry.containers
    }
    return Pool(
        state=state, records=records, gpu=None, limits=ALWAYS_UNLIMITED, now=Wall(1.0),
        sharing="never", whole_gpus="always",
    )  # fmt: skip


def wish(quota: GpuQuota | None = None, **fields: Any) -> AllocationRequest:
    return AllocationRequest(
        container=NAME, user=ME, max_slots=None, priority=10, quota=quota, **fields
    )


def answer(state: AllocatorState, quota: GpuQuota, **fields: Any) -> str:
    given_ = choose_slot(wish(quota, **fields), pool(state))
    if isinstance(given_, Rejected):
        return given_.reason
    return ",".join(one.slot for one in given_.all_slots)


def gpus(amount: float | Fraction, **fields: Any) -> GpuQuota:
    return GpuQuota(gpus=Fraction(amount), **fields)


@pytest.mark.parametrize(
    ("profile", "sevenths"),
    [("1g.5gb", 1), ("2g.20gb", 2), ("3g.40gb", 3), ("4g.40gb", 4), ("7g.80gb", 7),
     ("1g.10gb+me", 1), ("1c.3g.20gb", 1), (None, 7), ("", 7), ("9g.1gb", 7), ("mig", 7)],
)  # fmt: skip
def test_the_weight_of_a_mig_device(profile: str | None, sevenths: int) -> None:
    """One whose profile is not known counts as a whole GPU: rather too much than too little."""
    assert weigh_slot(slot("1.0"), profile) == Fraction(sevenths, 7)
    assert weigh_slot(slot("1"), profile) == 1


def test_seven_sevenths_are_one_and_not_a_little_more() -> None:
    state = table(*(f"0.{i} 1g.5gb" for i in range(7)), "1.0 1g.5gb")
    assert answer(state, gpus(1), count=7) == "0.0,0.1,0.2,0.3,0.4,0.5,0.6"
    assert answer(state, gpus(1), count=8) == "USER_AT_LIMIT (0/1, 8 more asked for)"
    assert answer(state, gpus(0.142857142857)) == "0.0"


def test_a_slot_counts_once_however_many_containers_of_a_user_it_has() -> None:
    state = table("0 a b", "1", "2")
    assert measure_booked(ME, state, pool(state).records, lambda _: Fraction(1)) == 1
    assert answer(state, gpus(2)) == "1"
    assert answer(table("0 a b", "1 c", "2"), gpus(2)) == "USER_AT_LIMIT (2/2)"


@pytest.mark.parametrize(
    ("quota", "fields", "reason"),
    [
        (gpus(4, aggregate=Fraction(2)), {}, "AGGREGATE_GPU_QUOTA_EXCEEDED (2+1>2)"),
        (gpus(2, aggregate=Fraction(2)), {}, "AGGREGATE_GPU_QUOTA_EXCEEDED (2+1>2)"),
        (gpus(2, aggregate=Fraction(4)), {}, "USER_AT_LIMIT (2/2)"),
        (gpus(4, slots_per_container=1), {"count": 2}, "EXCEEDS_CONTAINER_LIMIT (2>1)"),
        (gpus(4, slots_per_container=0), {}, "EXCEEDS_CONTAINER_LIMIT (1>0)"),
        (gpus(0), {}, "USER_AT_LIMIT (2/0)"),
        (gpus(2.5), {}, "USER_AT_LIMIT (2/2.5)"),
    ],
)
def test_refusals(quota: GpuQuota, fields: dict[str, Any], reason: str) -> None:
    assert answer(table("0 a", "1 b", "2", "3"), quota, **fields) == reason


def test_the_slots_of_a_container_count_with_those_it_has() -> None:
    state = table(f"0 {NAME}", "1", "2")
    quota = gpus(4, slots_per_container=2)
    assert answer(state, quota, additional=True) == "1"
    reason = answer(state, quota, additional=True, count=2)
    assert reason == "EXCEEDS_CONTAINER_LIMIT (3>2)"


def test_whole_gpus_come_first_and_what_exceeds_the_quota_last() -> None:
    state = table("0.0 3g.20gb", "0.1 1g.5gb", "1", "2 a")
    assert answer(state, gpus(2)) == "1"
    assert answer(state, gpus(1.5)) == "0.1"  # the lightest, where the best is too much
    assert answer(state, gpus(1.5), slot=SlotId("1")) == "USER_AT_LIMIT (1/1.5)"
    assert answer(state, gpus(1.5), slot=SlotId("0.0")) == "0.0"


def test_who_may_have_no_whole_gpu_gets_none() -> None:
    quota = gpus(4, whole_gpus=False)
    assert answer(table("0", "1.0 1g.5gb"), quota) == "1.0"
    reason = answer(table("0", "1"), quota)
    assert reason == "FULL_GPU_NOT_ALLOWED (only whole GPUs, and allow_full_gpu is false)"
    assert answer(table("0", "1"), quota, slot=SlotId("0")).startswith("FULL_GPU_NOT_ALLOWED (0 is")
    assert answer(table("0", "1.0 1g.5gb a"), quota).startswith("NO_GPU_AVAILABLE (2 slots: 1 held")


def test_nobody_waits_for_more_than_the_quota() -> None:
    state = table("0 a", "1", "2", "3")
    for quota in (gpus(2), gpus(4, aggregate=Fraction(2))):
        for count, is_lasting in ((2, False), (3, True)):
            refused = choose_slot(wish(quota, count=count), pool(state))
            assert isinstance(refused, Rejected)
            assert refused.is_lasting == is_lasting


def test_before_nvml_is_asked_an_unknown_profile_weighs_least() -> None:
    state = table("0.0", "0.1")
    assert check_limits(wish(gpus(0.5)), state, {}) is None
    refused = check_limits(wish(gpus(0.1)), state, {})
    assert refused is not None
    assert refused.refusal is Refusal.USER_AT_LIMIT


def test_without_nvml_a_missing_profile_is_no_full_quota() -> None:
    failed = Unknown(source=Source.NVML, reason="driver not loaded")
    there = replace(pool(table("0.0 - a", "0.1")), gpu=failed)
    refused = choose_slot(wish(gpus(0.5)), there)
    assert isinstance(refused, Rejected)
    assert refused.refusal is Refusal.INVENTORY_UNKNOWN


def test_a_limit_in_slots_counts_bookings_as_ever() -> None:
    state = table("0 a b", "1")
    request = replace(wish(), max_slots=2)
    refused = check_limits(request, state, pool(state).records)
    assert refused is not None
    assert refused.reason == "USER_AT_LIMIT (2/2)"


slots_of_hosts = st.lists(st.sampled_from(("0",) * 3 + PROFILES), min_size=1, max_size=8).map(
    lambda kinds: tuple(
        replace(slot(f"{i}"), profile=None)
        if kind == "0"
        else replace(slot(f"{i}.0"), profile=kind)
        for i, kind in enumerate(kinds)
    )
)
amounts = st.none() | st.fractions(0, 4, max_denominator=7)


@given(
    slots_of_hosts,
    st.builds(
        GpuQuota,
        gpus=amounts,
        aggregate=amounts,
        slots_per_container=st.none() | st.integers(0, 3),
        whole_gpus=st.booleans(),
    ),
    st.lists(st.tuples(st.integers(1, 3), st.booleans()), max_size=6),
)
def test_no_sequence_of_requests_gets_more(
    slots: tuple[Slot, ...], quota: GpuQuota, counts: list[tuple[int, bool]]
) -> None:
    state = books(*slots)
    for number, (count, additional) in enumerate(counts):
        there = pool(state)
        name = ContainerName("c0" if additional else f"c{number}")
        request = replace(wish(quota, count=count, additional=additional), container=name)
        given_ = choose_slot(request, there)
        if isinstance(given_, Allocated) and not given_.already:
            for one in given_.all_slots:
                state = Bookings(state=state, records=there.records).with_booking(
                    name, one.slot, ME
                )
    held = [entry for entry in state.slots.values() if entry.containers]
    total = sum((weigh_slot(entry, entry.profile) for entry in held), Fraction(0))
    for limit in (quota.gpus, quota.aggregate):
        assert limit is None or total <= limit
    if quota.slots_per_container is not None:
        names = {name for entry in held for name in entry.containers}
        assert all(len(state.find_slots(name)) <= quota.slots_per_container for name in names)
    assert quota.whole_gpus or all(entry.profile for entry in held)
