"""Which slot a request gets, or why none: a table of cases, and what holds for all of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01d.decide.allocation import choose_slot
from ds01d.decide.bookings import count_bookings
from ds01d.decide.slot_offers import Pool, find_reservations
from ds01d.model.allocation import Allocated, AllocationRequest, Refusal, Rejected
from ds01d.model.books import AllocatorState
from ds01d.model.devices import Inventory
from ds01d.model.limits import Reservation
from ds01d.model.primitives import (
    ContainerName,
    DeviceUuid,
    SlotId,
    Source,
    Unknown,
    UserName,
    Wall,
)
from tests.support.build import (
    ALWAYS_UNLIMITED,
    books,
    four_slots,
    gpu,
    inventory,
    mig,
    process,
    record,
    slot,
    two_by_two,
    whole,
)

ME, OTHER = UserName("alice"), UserName("bob")
NAME = ContainerName("new._.1001")
NOW = Wall(1_800_000_000.0)
DAY = 86_400.0


def wish(**fields: Any) -> AllocationRequest:
    defaults: dict[str, Any] = {"container": NAME, "user": ME, "max_slots": None, "priority": 10}
    return AllocationRequest(**(defaults | fields))


def pool(state: AllocatorState, gpu: Inventory | Unknown | None = None, **fields: Any) -> Pool:
    """The records follow from the slots: each container is bob's, with priority 10."""
    priorities = fields.pop("priorities", {})
    records = {
        name: record(name, listed.id, user=OTHER, priority=priorities.get(name, 10))
        for listed in state.slots.values()
        for name in listed.containers
    }
    defaults: dict[str, Any] = {"records": records, "limits": ALWAYS_UNLIMITED, "now": NOW}
    return Pool(state=state, gpu=gpu, **(defaults | fields))


def given_slot(answer: Allocated | Rejected) -> str:
    assert isinstance(answer, Allocated), answer
    return answer.slot


def refusal(answer: Allocated | Rejected) -> Refusal:
    assert isinstance(answer, Rejected), answer
    return answer.refusal


# --- the choice ----------------------------------------------------------------------------------


def test_the_first_free_slot_of_equals() -> None:
    answer = choose_slot(wish(), pool(four_slots(_0_0="a"), two_by_two()))
    assert isinstance(answer, Allocated)
    assert (answer.slot, answer.docker_id) == ("0.1", "MIG-0-1")
    assert not answer.already


def test_of_free_slots_the_one_with_least_memory_in_use() -> None:
    gpus = inventory(
        *(gpu(i, memory_used=used, memory_total=100) for i, used in enumerate((9, 3, 5)))
    )
    answer = choose_slot(wish(), pool(books(slot("0"), slot("1"), slot("2")), gpus))
    assert isinstance(answer, Allocated)
    assert (answer.slot, answer.docker_id, answer.device) == ("1", "1", "GPU-1")


def test_a_full_pool_is_shared_where_fewest_of_higher_priority_are_then_fewest() -> None:
    state = four_slots(_0_0="high", _0_1="low1 low2", _1_0="low3 low4 low5", _1_1="high2 low6")
    priorities = {"high": 90, "high2": 90}
    answer = choose_slot(wish(), pool(state, two_by_two(), priorities=priorities))
    assert isinstance(answer, Allocated)
    assert (answer.slot, answer.shared_with) == ("0.1", ("low1", "low2"))
    with_more = choose_slot(wish(priority=95), pool(state, two_by_two(), priorities=priorities))
    assert given_slot(with_more) == "0.0"  # nobody is above: the fewest


def test_sharing_is_a_choice_of_the_configuration() -> None:
    full = four_slots(_0_0="a", _0_1="b", _1_0="c", _1_1="d")
    answer = choose_slot(wish(), pool(full, two_by_two(), sharing="never"))
    assert refusal(answer) is Refusal.NO_GPU_AVAILABLE
    assert isinstance(answer, Rejected)
    assert answer.reason == "NO_GPU_AVAILABLE (4 slots: 4 held)"
    assert given_slot(choose_slot(wish(), pool(full, two_by_two()))) == "0.0"


def test_who_has_a_slot_is_told_again() -> None:
    state = four_slots(_1_0=NAME)
    answer = choose_slot(wish(max_slots=0), pool(state, two_by_two()))
    assert isinstance(answer, Allocated)
    assert (answer.already, answer.slot, answer.user) == (True, "1.0", OTHER)


def test_the_limit_counts_bookings_by_their_records() -> None:
    state = four_slots(_0_0="a", _0_1="b")
    mine = {n: record(n, user=ME) for n in map(ContainerName, ("a", "b"))}
    answer = choose_slot(wish(max_slots=2), pool(state, two_by_two(), records=mine))
    assert isinstance(answer, Rejected)
    assert answer.reason == "USER_AT_LIMIT (2/2)"
    assert (
        given_slot(choose_slot(wish(max_slots=3), pool(state, two_by_two(), records=mine))) == "1.0"
    )


def test_a_phantom_in_the_counters_counts_for_nobody() -> None:
    state = books(slot("0.0", users={"alice": 3}), slot("0.1"))
    assert count_bookings(ME, state, {}) == 0
    lost = books(slot("0.0", "a", users={"alice": 1}), slot("0.1"))
    assert count_bookings(ME, lost, {}) == 1  # its metadata is lost: the counter knew


# --- what is never handed out --------------------------------------------------------------------


def test_unknown_is_not_empty() -> None:
    down = Unknown(source=Source.NVML, reason="driver not loaded")
    answer = choose_slot(wish(), pool(four_slots(), down))
    assert isinstance(answer, Rejected)
    assert answer.reason == "GPU_INVENTORY_UNKNOWN (driver not loaded)"
    broken = Unknown(source=Source.LIMITS, reason="limits.yaml: line 3")
    answer = choose_slot(wish(), pool(four_slots(), two_by_two(), limits=broken))
    assert refusal(answer) is Refusal.LIMITS_UNREADABLE
    none = replace(broken, missing=True)
    assert given_slot(choose_slot(wish(), pool(four_slots(), two_by_two(), limits=none))) == "0.0"


def test_a_dead_uuid_and_a_vanished_slot() -> None:
    state = books(slot("0.0", uuid="MIG-dead"), slot("7.0"), slot("1.1"))
    answer = choose_slot(wish(), pool(state, two_by_two()))
    assert given_slot(answer) == "1.1"
    answer = choose_slot(wish(), pool(books(slot("0.0", uuid="MIG-dead")), two_by_two()))
    assert refusal(answer) is Refusal.NO_GPU_AVAILABLE
    booked = books(slot("0.0", NAME, uuid="MIG-dead"))
    answer = choose_slot(wish(), pool(booked, two_by_two()))
    assert refusal(answer) is Refusal.SLOT_UNUSABLE  # no dead DOCKER_ID is printed again


def test_a_lost_gpu_and_its_mig_devices() -> None:
    gpus = inventory(gpu(0, mig=True, failed="it is lost"), gpu(1, mig=True), mig(0, 0), mig(1, 0))
    answer = choose_slot(wish(), pool(books(slot("0.0"), slot("1.0")), gpus))
    assert given_slot(answer) == "1.0"


def test_a_gpu_that_does_not_say_what_it_is_leaves_the_others() -> None:
    gpus = replace(inventory(gpu(1, mig=True), mig(1, 0)), incomplete={0: "Unknown Error"})
    state = books(slot("0.0"), slot("1.0"))
    assert given_slot(choose_slot(wish(), pool(state, gpus))) == "1.0"
    wished = choose_slot(wish(slot=SlotId("0.0")), pool(state, gpus))
    assert isinstance(wished, Rejected)
    assert wished.reason == "SLOT_UNUSABLE (GPU 0: Unknown Error)"


@pytest.mark.parametrize("holders", [(), ("a",)])
def test_a_device_whose_processes_are_not_known_is_not_handed_out(holders: tuple[str, ...]) -> None:
    gpus = replace(two_by_two(), blind={DeviceUuid("MIG-0-0"): "its list is corrupt"})
    state = books(slot("0.0", *holders), slot("1.0", "b", "c"))
    assert given_slot(choose_slot(wish(), pool(state, gpus))) == "1.0", "rather a full one"
    wished = choose_slot(wish(slot=SlotId("0.0")), pool(state, gpus))
    assert isinstance(wished, Rejected)
    assert wished.reason == "SLOT_UNUSABLE (0.0: its list is corrupt)"
    again = books(slot("0.0", NAME))
    assert given_slot(choose_slot(wish(), pool(again, gpus))) == "0.0", "who has it is told again"


def test_a_whole_gpu_beside_mig_devices() -> None:
    state = books(slot("0"), slot("1.0", "a"))
    gpus = inventory(gpu(0), gpu(1, mig=True), mig(1, 0))
    without = choose_slot(wish(), pool(state, gpus, sharing="never"))
    assert refusal(without) is Refusal.NO_GPU_AVAILABLE
    always = choose_slot(wish(), pool(state, gpus, whole_gpus="always"))
    assert given_slot(always) == "0"
    divided = inventory(gpu(0, mig=True), gpu(1, mig=True), mig(1, 0))
    answer = choose_slot(wish(), pool(state, divided, whole_gpus="always", sharing="never"))
    assert refusal(answer) is Refusal.NO_GPU_AVAILABLE


def test_a_slot_that_a_stranger_uses_counts_as_taken() -> None:
    foreign = {SlotId("0.0"): ("vscode",)}
    answer = choose_slot(wish(), pool(four_slots(), two_by_two(), foreign_users=foreign))
    assert given_slot(answer) == "0.1"
    using = inventory(*two_by_two().gpus, *two_by_two().migs, processes=(process("MIG-0-0", None),))
    assert given_slot(choose_slot(wish(), pool(four_slots(), using))) == "0.1"
    everywhere = dict.fromkeys(four_slots().slots, ("vscode",))
    answer = choose_slot(wish(), pool(four_slots(), two_by_two(), foreign_users=everywhere))
    assert isinstance(answer, Rejected)
    assert answer.reason == "NO_GPU_AVAILABLE (4 slots: 4 used by others)"


def test_two_slots_of_one_device_are_one() -> None:
    state = books(slot("0.0", "a"), slot("0.1", uuid="MIG-0-0"), slot("1.0"))
    assert given_slot(choose_slot(wish(), pool(state, two_by_two()))) == "1.0"


def test_the_oldest_format_gets_its_device_by_its_place() -> None:
    state = books(slot("1:0", uuid=None))
    answer = choose_slot(wish(), pool(state, two_by_two()))
    assert isinstance(answer, Allocated)
    assert (answer.slot, answer.docker_id) == ("1:0", "MIG-1-0")
    without = choose_slot(wish(), pool(state, None))
    assert isinstance(without, Allocated)
    assert without.docker_id == "1:0"


# --- reservations --------------------------------------------------------------------------------


def limits(*reservations: Reservation) -> Any:
    return replace(ALWAYS_UNLIMITED, reservations=reservations)


def kept(*gpus: str, user: UserName = OTHER, **fields: Any) -> Reservation:
    return Reservation(user=user, gpus=frozenset(gpus), **fields)


@pytest.mark.parametrize(
    ("start", "end", "in_force"),
    [
        (None, None, True),
        (NOW - DAY, NOW + DAY, True),
        (NOW, NOW, True),
        (NOW + 1, None, False),
        (None, NOW - 1, False),
    ],
)
def test_a_reservation_keeps_others_out_while_it_lasts(
    start: Wall | None, end: Wall | None, *, in_force: bool
) -> None:
    rules = limits(kept("0.0", "0.1", "1.0", start=start, end=end))
    answer = choose_slot(wish(), pool(four_slots(), two_by_two(), limits=rules))
    assert given_slot(answer) == ("1.1" if in_force else "0.0")


def test_a_gpu_stands_for_its_mig_devices() -> None:
    rules = limits(kept("0"))
    assert given_slot(choose_slot(wish(), pool(four_slots(), two_by_two(), limits=rules))) == "1.0"
    theirs = choose_slot(wish(user=OTHER), pool(four_slots(_0_0="a"), two_by_two(), limits=rules))
    assert given_slot(theirs) == "0.1"


def test_a_reserved_slot_is_shared_with_nobody() -> None:
    full = four_slots(_0_0="a", _0_1="b", _1_0="c", _1_1="d d2")
    rules = limits(kept("0", "1.0"))
    assert given_slot(choose_slot(wish(), pool(full, two_by_two(), limits=rules))) == "1.1"
    answer = choose_slot(wish(), pool(full, two_by_two(), limits=limits(kept("0", "1"))))
    assert isinstance(answer, Rejected)
    assert answer.reason == "NO_GPU_AVAILABLE (4 slots: 4 reserved)"


def test_a_user_gets_the_own_reservation_first() -> None:
    rules = limits(kept("1.1", user=ME))
    assert given_slot(choose_slot(wish(), pool(four_slots(), two_by_two(), limits=rules))) == "1.1"


def test_the_state_reserves_too() -> None:
    first = replace(slot("0.0"), reserved_for=OTHER, reserved_until="soon", reserved_end=None)
    state = books(first, slot("0.1"))
    assert given_slot(choose_slot(wish(), pool(state, two_by_two()))) == "0.1"
    over = books(replace(first, reserved_end=Wall(NOW - 1)), slot("0.1"))
    assert given_slot(choose_slot(wish(), pool(over, two_by_two()))) == "0.0"
    assert given_slot(choose_slot(wish(user=OTHER), pool(state, two_by_two()))) == "0.0"


# --- a wished slot -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wished", "why"),
    [
        ("9.9", Refusal.NO_SUCH_SLOT),
        ("0.0", Refusal.SLOT_TAKEN),
        ("0.1", Refusal.SLOT_RESERVED),
        ("1.0", Refusal.SLOT_IN_USE),
        ("1.1", Refusal.SLOT_UNUSABLE),
        ("0.2", None),
    ],
)
def test_a_wished_slot_or_the_reason(wished: str, why: Refusal | None) -> None:
    state = books(
        *(slot(place) for place in ("0.1", "1.0", "0.2")),
        slot("0.0", "a"),
        slot("1.1", uuid="MIG-dead"),
    )
    answer = choose_slot(
        wish(slot=SlotId(wished)),
        pool(
            state,
            inventory(*two_by_two().gpus, *two_by_two().migs, mig(0, 2)),
            limits=limits(kept("0.1")),
            foreign_users={SlotId("1.0"): ("vscode",)},
        ),
    )
    assert (answer.refusal if isinstance(answer, Rejected) else None) == why
    if why is None:
        assert given_slot(answer) == wished


# --- what always holds ---------------------------------------------------------------------------

PLACES = ("0.0", "0.1", "1.0", "1.1", "2")
names = st.sampled_from([ContainerName(f"c{number}") for number in range(8)])


@st.composite
def pools(draw: st.DrawFn) -> Pool:
    """Any pool of some slots, devices that may be others, and holders of any priority."""
    uuids = st.sampled_from(["", "MIG-0-0", "MIG-dead", None])
    slots = []
    for place in draw(st.lists(st.sampled_from(PLACES), unique=True)):
        listed = slot(place, *draw(st.lists(names, unique=True, max_size=3)), uuid=draw(uuids))
        if draw(st.booleans()):
            end = draw(st.sampled_from([None, Wall(NOW - 1), Wall(NOW + 1)]))
            whom = draw(st.sampled_from([ME, OTHER]))
            listed = replace(listed, reserved_for=whom, reserved_end=end)
        slots.append(listed)
    devices = draw(st.sets(st.sampled_from(["MIG-0-0", "MIG-0-1", "MIG-1-0", "MIG-1-1"])))
    migs = [listed for listed in two_by_two().migs if listed.uuid in devices]
    gpus = inventory(
        gpu(0, mig=True),
        gpu(1, mig=draw(st.booleans()), failed=draw(st.sampled_from(["", "lost"]))),
        gpu(2),
        *migs,
        processes=tuple(process(uuid, None) for uuid in draw(st.sets(st.sampled_from(PLACES)))),
    )
    reservations = draw(
        st.lists(st.sampled_from([kept("0"), kept("1.0"), kept("0.0", user=ME)]), max_size=2)
    )
    return pool(
        books(*slots),
        draw(st.sampled_from([None, gpus])),
        priorities=draw(st.dictionaries(names, st.integers(0, 100))),
        limits=limits(*reservations),
        foreign_users=draw(
            st.dictionaries(st.sampled_from(list(map(SlotId, PLACES))), st.just(("x",)))
        ),
        sharing=draw(st.sampled_from(["when-full", "never"])),
        whole_gpus=draw(st.sampled_from(["without-mig", "always"])),
    )


@given(pools(), st.integers(0, 100))
def test_what_is_given_may_be_given(there: Pool, priority: int) -> None:
    answer = choose_slot(wish(priority=priority), there)
    if isinstance(answer, Rejected):
        assert answer.refusal is Refusal.NO_GPU_AVAILABLE
        return
    chosen = there.state.slots[answer.slot]
    whom = find_reservations(chosen, there.limits, there.now)
    assert not whom or ME in whom
    assert answer.slot not in there.foreign_users
    if isinstance(there.gpu, Inventory):
        alive = {g.uuid for g in there.gpu.gpus} | {m.uuid for m in there.gpu.migs}
        assert answer.device in alive
        if chosen.mig_index is not None:
            assert answer.docker_id in alive
    if answer.shared_with:
        assert there.sharing == "when-full"
    else:
        assert chosen.containers == ()


@given(pools(), st.integers(0, 100))
def test_nobody_shares_while_a_slot_is_free(there: Pool, priority: int) -> None:
    answer = choose_slot(wish(priority=priority), there)
    if isinstance(answer, Allocated) and answer.shared_with:
        alone = choose_slot(wish(priority=priority), replace(there, sharing="never"))
        assert refusal(alone) is Refusal.NO_GPU_AVAILABLE


@given(pools(), st.integers(0, 100))
def test_a_slot_gone_from_the_pool_is_no_gain(there: Pool, priority: int) -> None:
    """What is not chosen does not matter: without any other slot the answer stays."""
    answer = choose_slot(wish(priority=priority), there)
    if isinstance(answer, Rejected):
        return
    for name in there.state.slots:
        if name != answer.slot and not there.state.slots[name].containers:
            left = {key: listed for key, listed in there.state.slots.items() if key != name}
            if SlotId("2") in (name, answer.slot):
                continue  # a whole GPU beside MIG devices: the layout is another one then
            fewer = replace(there, state=replace(there.state, slots=left))
            assert given_slot(choose_slot(wish(priority=priority), fewer)) == answer.slot


def test_whole_gpus_need_no_uuid() -> None:
    answer = choose_slot(wish(), pool(books(slot("0", "a"), slot("1")), whole(2)))
    assert isinstance(answer, Allocated)
    assert (answer.docker_id, answer.device) == ("1", DeviceUuid("GPU-1"))


# --- several at once -----------------------------------------------------------------------------


def all_given(answer: Allocated | Rejected) -> list[str]:
    assert isinstance(answer, Allocated), answer
    return [one.slot for one in answer.all_slots]


def test_several_are_the_best_ones_in_their_order() -> None:
    there = pool(four_slots(_0_0="a"), two_by_two())
    assert all_given(choose_slot(wish(count=3), there)) == ["0.1", "1.0", "1.1"]


@pytest.mark.parametrize("most", [0, 1, 2, 3, None])
def test_all_slots_or_none(most: int | None) -> None:
    """Of the quota, too: each slot counts."""
    answer = choose_slot(wish(count=2, max_slots=most), pool(four_slots(), two_by_two()))
    if most is None or most >= 2:
        assert len(all_given(answer)) == 2
    else:
        assert isinstance(answer, Rejected)
        assert answer.reason == f"USER_AT_LIMIT (0/{most}, 2 more asked for)"


def test_what_is_held_fills_up_where_sharing_is_allowed() -> None:
    there = pool(four_slots(_0_0="a", _0_1="b", _1_0="c"), two_by_two())
    assert len(all_given(choose_slot(wish(count=2), there))) == 2
    alone = choose_slot(wish(count=2), replace(there, sharing="never"))
    assert isinstance(alone, Rejected)
    assert alone.detail == "2 asked for, 1 free; 4 slots: 3 held"


@pytest.mark.parametrize(("count", "is_lasting"), [(1, False), (4, False), (5, True)])
def test_nobody_waits_for_more_than_there_is(count: int, is_lasting: bool) -> None:
    """Who did would keep all others in the queue from what is free."""
    there = pool(four_slots(_0_0="a", _0_1="b", _1_0="c", _1_1="d"), sharing="never")
    answer = choose_slot(wish(count=count), there)
    assert isinstance(answer, Rejected)
    assert (answer.refusal, answer.is_lasting) == (Refusal.NO_GPU_AVAILABLE, is_lasting)


def test_one_device_is_given_once() -> None:
    """After a renumbering two slots can mean the same one."""
    state = books(slot("0.0", uuid="MIG-0-0"), slot("0.1", uuid="MIG-0-0"))
    there = pool(state, inventory(gpu(0, mig=True), mig(0, 0)))
    assert all_given(choose_slot(wish(), there)) == ["0.0"]
    assert refusal(choose_slot(wish(count=2), there)) is Refusal.NO_GPU_AVAILABLE


@given(pools(), st.integers(1, 5), st.integers(0, 6))
def test_several_are_all_different_free_first_and_within_the_quota(
    there: Pool, count: int, most: int
) -> None:
    answer = choose_slot(wish(count=count, max_slots=most), there)
    if isinstance(answer, Rejected):
        return
    given = all_given(answer)
    assert len(given) == len(set(given)) == count <= most
    devices = [one.device or one.slot for one in answer.all_slots]
    assert len(set(devices)) == count
    if there.sharing == "never":
        assert not any(one.shared_with for one in answer.all_slots)


@pytest.mark.parametrize(
    ("profile", "given"),
    [("1g.10gb", ["0.0"]), ("2g.20gb", ["0.1"]), ("physical_gpu", ["2"])],
)
def test_only_slots_of_the_profile_are_given(profile: str, given: list[str]) -> None:
    listed = (
        replace(slot("0.0"), profile="1g.10gb"),
        replace(slot("0.1"), profile="2g.20gb"),
        slot("2"),
    )
    there = pool(books(*listed), None, whole_gpus="always")
    assert all_given(choose_slot(wish(profile=profile), there)) == given
    more = choose_slot(wish(profile=profile, count=2), there)
    assert isinstance(more, Rejected)
    assert more.detail.startswith("2 asked for, 1 free; 3 slots: 2 of another profile")
    wrong = choose_slot(wish(profile="7g.80gb"), there)
    assert isinstance(wrong, Rejected)
    assert wrong.reason == "NO_SUCH_PROFILE (7g.80gb; there are 1g.10gb, 2g.20gb, physical_gpu)"
    other = choose_slot(wish(profile=profile, slot=SlotId("9.9")), there)
    assert refusal(other) is Refusal.NO_SUCH_SLOT


def test_a_slot_of_another_profile_is_refused_by_name() -> None:
    there = pool(books(replace(slot("0.0"), profile="1g.10gb"), slot("0.1")), None)
    answer = choose_slot(wish(profile="2g.20gb", slot=SlotId("0.0")), there)
    assert isinstance(answer, Rejected)
    assert answer.reason == "NO_SUCH_PROFILE (0.0 is 1g.10gb)"


def test_asked_again_for_more_than_it_has() -> None:
    state = four_slots(_0_0=NAME, _1_0=NAME)
    assert all_given(choose_slot(wish(count=2), pool(state, two_by_two()))) == ["0.0", "1.0"]
    answer = choose_slot(wish(count=3), pool(state, two_by_two()))
    assert refusal(answer) is Refusal.FEWER_SLOTS_BOOKED
