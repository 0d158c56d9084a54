"""What is in use, and by whom: the request of everything that lives counts, booked or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01d.config import AllocatorConfig, ExemptConfig
from ds01d.decide.allocation import choose_slot
from ds01d.decide.device_resolution import index_devices
from ds01d.decide.published_use import join_uses, known_requests
from ds01d.decide.slot_offers import Pool
from ds01d.decide.usage import find_uses, find_without_devices, slot_devices, users_by_slot
from ds01d.model.allocation import Allocated, AllocationRequest
from ds01d.model.books import AllocatorState
from ds01d.model.containers import NO_REQUEST, State
from ds01d.model.primitives import (
    ContainerId,
    ContainerName,
    DeviceUuid,
    Source,
    Unknown,
    UserName,
    Wall,
)
from ds01d.model.usage import DeviceUse, PublishedUse, Running
from tests.support.build import (
    ALL,
    ALWAYS_UNLIMITED,
    HOUR,
    NAME,
    Life,
    books,
    config,
    container,
    count,
    four_slots,
    gpu,
    inventory,
    mig,
    named,
    slot,
    two_by_two,
)

NOW = Wall(1_800_000_000.0)


def used(life: Life) -> dict[str, tuple[str, ...]]:
    """Who is on a slot without being booked there, as a sweep publishes it."""
    decision = life.plan().decision
    uses = find_uses(decision.snapshot, decision.checkpoint, life.config)
    assert isinstance(decision.snapshot.state, AllocatorState)
    slots = slot_devices(decision.snapshot.state, decision.snapshot.gpu)
    return {str(s): who for s, who in users_by_slot(uses, slots, decision.snapshot.gpu).items()}


def given_slot(life: Life, **wish: Any) -> str | None:
    """What somebody who asks now would get."""
    state = life.host.state
    assert isinstance(state, AllocatorState)
    defaults: dict[str, Any] = {
        "container": ContainerName("new._.1003"),
        "user": UserName("carol"),
        "max_slots": None,
        "priority": 10,
    }
    pool = Pool(
        state=state,
        records={},
        gpu=life.host.gpu,
        limits=ALWAYS_UNLIMITED,
        now=NOW,
        foreign_users=used(life),  # type: ignore[arg-type]
        sharing="never",
    )
    answer = choose_slot(AllocationRequest(**{**defaults, **wish}), pool)
    return answer.slot if isinstance(answer, Allocated) else None


OFF = config(mode="observe", adopt="off")


@pytest.mark.parametrize(
    "life",
    [
        pytest.param(lambda: Life().run("MIG-0-0"), id="never booked"),
        pytest.param(lambda: Life(OFF).run("MIG-0-0"), id="adoption is off"),
        pytest.param(lambda: Life().run("MIG-0-0", state=State.PAUSED), id="paused"),
        pytest.param(lambda: Life().run("MIG-0-0", state=State.RESTARTING), id="restarting"),
        pytest.param(
            lambda: Life().run("MIG-0-0", state=State.CREATED, created_ago=1.0), id="about to start"
        ),
        pytest.param(lambda: Life().run("MIG-0-0", name="web", labels={}), id="foreign"),
        pytest.param(lambda: Life().run("MIG-0-0", labels={"ds01.protected": "true"}), id="pinned"),
        pytest.param(lambda: Life().run("0:0"), id="by an index from before ds01d"),
        pytest.param(
            lambda: Life().run("0:0").fail(Source.NVML).after(0).mend(), id="NVML was down"
        ),
        pytest.param(lambda: Life().book("1.1").run("MIG-0-0"), id="booked elsewhere"),
    ],
)
def test_a_slot_in_the_request_of_something_alive_is_taken(life: Callable[[], Life]) -> None:
    """It computes nothing at the moment, and nobody booked it for what has it."""
    host = life().after(0)
    assert used(host)["0.0"] == (next(iter(host.host.containers.values())).name,)
    assert given_slot(host) == "0.1"


@pytest.mark.parametrize(
    "life",
    [
        pytest.param(lambda: Life().run("MIG-0-0").stop(), id="stopped"),
        pytest.param(lambda: Life().run("MIG-0-0", state=State.CREATED), id="created long ago"),
        pytest.param(lambda: Life().run(name="web", labels={}), id="without a GPU"),
        pytest.param(lambda: Life().book("0.0", name="x").list_in("0.1"), id="no container"),
    ],
)
def test_others_take_no_slot(life: Callable[[], Life]) -> None:
    assert used(life().after(0)) == {}


def test_who_asks_gets_what_it_has() -> None:
    """A running container whose booking was released by hand asks again."""
    life = Life().run("MIG-1-0").after(0)
    assert given_slot(life) == "0.0"
    assert given_slot(life, container=NAME) == "1.0"


def test_what_an_index_meant_at_the_start_counts_where_that_is_known() -> None:
    life = Life().after(HOUR)
    life.start_now("0:0", name="web", labels={}).after(0)
    swapped = (gpu(0, mig=True), gpu(1, mig=True), mig(0, 0, "MIG-0-1"), mig(0, 1, "MIG-0-0"))
    life.host.gpu = inventory(*swapped, mig(1, 0), mig(1, 1))
    life.host.state = books(
        slot("0.0", uuid="MIG-0-1"), slot("0.1", uuid="MIG-0-0"), slot("1.0"), slot("1.1")
    )
    assert used(life.after(0)) == {"0.1": ("web",)}


@pytest.mark.parametrize("request_", [named("0"), count(1), named("/dev/nvidia0"), named("GPU-0")])
def test_a_whole_gpu_takes_its_mig_devices(request_: Any) -> None:
    """A container that lives keeps GPU 0 whole, and GPU 0 was divided: its slots are not free."""
    life = Life().run(name="web", labels={}, request=request_).after(0)
    assert used(life) == {"0.0": ("web",), "0.1": ("web",)}
    assert given_slot(life) == "1.0"


def test_the_holder_of_a_gpu_that_was_divided_keeps_its_new_slots_from_others() -> None:
    life = Life(state=books(slot("0"), slot("1")), gpu=inventory(gpu(0), gpu(1)))
    life.config = config()
    life.book("0").run("GPU-0").after(60.0)
    life.host.gpu = two_by_two()
    life.after(300.0)
    assert isinstance(life.host.state, AllocatorState)
    assert {"0", "0.0", "0.1"} <= set(life.host.state.slots)
    assert given_slot(life) == "1.0"
    assert given_slot(life.stop()) == "0.0"


def test_a_mig_device_takes_the_whole_gpu_and_not_its_neighbour() -> None:
    life = Life(state=books(slot("0"), slot("0.0"), slot("0.1")))
    assert used(life.run("MIG-0-0", name="web", labels={}).after(0)) == {
        "0": ("web",),
        "0.0": ("web",),
    }


def test_one_with_all_gpus_takes_what_it_computes_on() -> None:
    life = Life().run(name="dcgm", labels={}, id="d", request=ALL).after(0)
    assert used(life) == {}
    assert used(life.use("MIG-0-0", "d")) == {"0.0": ("dcgm",)}
    life.config = msgspec.structs.replace(life.config, allocator=AllocatorConfig(all_gpus="always"))
    assert set(used(life)) == {"0.0", "0.1", "1.0", "1.1"}
    assert given_slot(life) is None


def test_what_is_exempt_takes_what_it_computes_on_and_a_ds01_container_never_is() -> None:
    exempt = ExemptConfig(names=("*",), labels=("app",))
    life = Life(msgspec.structs.replace(config(mode="observe"), exempt=exempt))
    life.run("MIG-0-0", name="watch", labels={}, id="w").run("MIG-1-0").after(0)
    assert used(life) == {"1.0": (NAME,)}
    assert used(life.use("MIG-0-1", "w")) == {"0.1": ("watch",), "1.0": (NAME,)}


def test_processes_of_nobody_known_take_a_slot_and_those_of_holders_do_not() -> None:
    life = Life().book("0.0").run("MIG-0-0").use("MIG-0-0", f"id-{NAME}").use("MIG-0-1", None)
    life.use("MIG-1-0", "f" * 64).after(0)
    assert used(life) == {
        "0.1": ("process 4007 (python)",),
        "1.0": (f"process 4007 (python) of container {'f' * 12}",),
    }


# --- what the allocator knows --------------------------------------------------------------------

INDEX = index_devices(two_by_two(), four_slots())
DOWN = Unknown(source=Source.DOCKER, reason="no permission")
SETTINGS = config()


def use(name: str, *devices: str, exact: bool = True) -> DeviceUse:
    return DeviceUse(
        user=name,
        devices=tuple(map(DeviceUuid, devices)),
        container=ContainerName(name),
        id=ContainerId(f"id-{name}".ljust(64, "0")),
        exact=exact,
    )


HOST_PROCESS = DeviceUse(user="process 7 (x)", devices=(DeviceUuid("MIG-1-1"),))


def join(published: PublishedUse | None, running: Running | Unknown | None) -> tuple[Any, str]:
    return join_uses(published, running, INDEX, SETTINGS, NOW)


def test_docker_is_newer_than_what_was_published() -> None:
    """One stopped since, one started since, one was renamed since."""
    published = PublishedUse(uses=(use("a", "MIG-0-0"), use("b", "MIG-0-1"), HOST_PROCESS))
    new = container("new", named("1:0"), labels={})
    names = {use("b").id: ContainerName("c"), new.id: new.name}
    uses, problem = join(published, Running(names=names, containers=(new,)))  # type: ignore[arg-type]
    assert problem == ""
    assert {(item.user, item.devices) for item in uses} == {
        ("c", ("MIG-0-1",)),
        ("new", ("MIG-1-0",)),
        ("process 7 (x)", ("MIG-1-1",)),
    }


def test_where_docker_cannot_be_asked_the_last_word_counts_and_its_age_is_told() -> None:
    fresh = PublishedUse(uses=(use("a", "MIG-0-0"), HOST_PROCESS))
    assert join(fresh, DOWN) == (fresh.uses, "")
    old = PublishedUse(uses=fresh.uses, outdated="its status is 3 h old")
    uses, problem = join(old, DOWN)
    assert uses == fresh.uses
    assert problem.endswith("is not known for sure: no permission; its status is 3 h old")
    assert join(None, DOWN)[0] == ()
    assert "ds01d has published nothing" in join(None, DOWN)[1]


def test_a_host_without_docker_and_ds01d_warns_of_nothing() -> None:
    gone = Unknown(source=Source.DOCKER, reason="no such socket", missing=True)
    assert join(None, gone) == ((), "")
    assert join(PublishedUse(outdated="old"), gone)[1] != ""


def test_processes_that_were_told_long_ago_are_asked_of_nvml_instead() -> None:
    old = PublishedUse(uses=(HOST_PROCESS, use("a", "MIG-0-0")), outdated="old")
    uses, _ = join(old, Running(names={use("a").id: ContainerName("a")}))  # type: ignore[dict-item]
    assert [item.user for item in uses] == ["a"]


def test_whose_request_is_known_for_good_needs_no_inspect() -> None:
    uses = (use("a", "MIG-0-0"), use("b", "MIG-0-1", exact=False), HOST_PROCESS)
    fresh = PublishedUse(uses=uses, without_devices=frozenset({"0" * 12}))
    assert known_requests(fresh) == {"0" * 12, "id-a00000000"}
    old = PublishedUse(uses=uses, without_devices=frozenset({"0" * 12}), outdated="old")
    assert known_requests(old) == {"0" * 12}
    assert known_requests(None) == set()


def test_those_without_devices_are_published_and_what_is_not_known_is_not() -> None:
    life = Life().run(name="a", labels={}, id="a" * 64, request=NO_REQUEST)
    life.run("MIG-0-0", name="b", labels={}, id="b" * 64)
    life.run(name="c", labels={}, id="c" * 64, request=DOWN)
    life.run(name="d", labels={}, id="d" * 64).stop("d").after(0)
    decision = life.plan().decision
    uses = find_uses(decision.snapshot, decision.checkpoint, life.config)
    assert find_without_devices(decision.snapshot, uses, life.config) == {"a" * 12}
    assert [use.user for use in uses] == ["b"]


DEVICES = st.sampled_from(["MIG-0-0", "MIG-0-1", "MIG-1-0", "MIG-1-1", "GPU-0", "0", "1", "0:1"])
REQUESTS = st.one_of(
    st.lists(DEVICES, min_size=1, max_size=3).map(lambda d: named(*d)),
    st.integers(1, 3).map(count),
)


@given(st.lists(st.tuples(REQUESTS, st.booleans(), st.booleans()), max_size=4))
def test_no_slot_is_given_that_something_alive_asks_for(
    there: list[tuple[Any, bool, bool]],
) -> None:
    """By what was published, by Docker, or by both: never a slot that one of them has."""
    running, published, taken = [], [], set[str]()
    index = INDEX
    assert index is not None
    for number, (request, told, asked) in enumerate(there):
        if not (told or asked):
            continue
        item = container(f"c{number}", request, labels={}, id=f"{number:064x}")
        uses, _ = join(None, Running(names={item.id: item.name}, containers=(item,)))
        taken |= {device for use in uses for device in use.devices}
        if told:
            published.extend(uses)
        running.append((item, asked))
    names = {item.id: item.name for item, _ in running}
    listed = tuple(item for item, asked in running if asked)
    uses, _ = join(PublishedUse(uses=tuple(published)), Running(names=names, containers=listed))
    gpu_now, state = two_by_two(), four_slots()
    foreign = users_by_slot(uses, slot_devices(state, gpu_now), gpu_now)
    wish = AllocationRequest(container=NAME, user=UserName("a"), max_slots=None, priority=1)
    pool = Pool(
        state=state,
        records={},
        gpu=gpu_now,
        limits=ALWAYS_UNLIMITED,
        now=NOW,
        foreign_users=foreign,
    )
    answer = choose_slot(wish, pool)
    if isinstance(answer, Allocated):
        part = next(m for m in gpu_now.migs if m.uuid == answer.device)
        assert part.uuid not in taken
        assert part.gpu not in taken
