"""Containers of a type that keeps nothing once it has stopped: `api` and `orchestration`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ds01d.decide.bookings import count_bookings
from ds01d.model.allocation import Allocated, Rejected
from ds01d.model.books import MISSING, AllocatorState, Unreadable
from ds01d.model.container_labels import ContainerType
from ds01d.model.containers import State
from ds01d.model.limits import HoldRule, Limits
from ds01d.model.primitives import ContainerName, UserName
from ds01d.reconcile.allocator import Allocator
from ds01d.reconcile.docker_books import with_current_books
from tests.support.build import Life, config, whole, with_docker_books

BOT = UserName("bot")
RULE = HoldRule(seconds=900.0, source="groups.student")
LIMITS = Limits(
    holds={BOT: RULE},
    unknown_user=RULE,
    default_quota=1,
    freed_types=frozenset((ContainerType.API, ContainerType.ORCHESTRATION)),
)
API = {"ds01.managed": "true", "ds01.user": "bot", "ds01.interface": "api"}


def host(**fields: object) -> Life:
    nothing = Unreadable(reason="no such file", digest=MISSING)
    known = {"gpu": whole(8), "state": nothing, "passwd": {1001: "bot"}, "limits": LIMITS}
    return Life(with_docker_books(config()), **(known | fields))


def held(life: Life) -> set[str]:
    state = life.plan().decision.snapshot.state
    assert isinstance(state, AllocatorState)
    return {slot.id for slot in state.slots.values() if slot.containers}


def charged(life: Life) -> int:
    snapshot = life.plan().decision.snapshot
    assert isinstance(snapshot.state, AllocatorState)
    assert isinstance(snapshot.metadata, dict)
    return count_bookings(BOT, snapshot.state, snapshot.metadata)


def allocate(life: Life, name: str = "next._.1001") -> str:
    allocator = Allocator(with_current_books(life.host.world(), life.config), life.config)
    answer = allocator.allocate(BOT, ContainerName(name))
    return answer.slot if isinstance(answer, Allocated) else answer.reason


@pytest.mark.parametrize(
    ("labels", "slots"),
    [
        (API, set()),
        ({**API, "ds01.interface": "orchestration"}, set()),
        ({"ds01.user": "bot", "ds01.container_type": "api"}, set()),
        ({"ds01.user": "bot", "ds01.container_type": "docker"}, {"0"}),
        ({**API, "ds01.interface": "atomic"}, {"0"}),
    ],
    ids=str,
)
def test_what_it_keeps_after_its_stop(labels: dict[str, str], slots: set[str]) -> None:
    life = host().run("GPU-0", name="job._.1001", labels=labels).after(300)
    assert held(life) == {"0"}
    life.stop("job._.1001").sweep()
    life.host.pass_time(10.0)
    life.sweep()
    assert held(life) == slots


def test_it_counts_for_no_quota_from_its_stop_on() -> None:
    """A job has ended, nobody removed it, and the next one is asked for in the same second."""
    life = host().run("GPU-0", name="job._.1001", labels=API).after(300)
    assert allocate(life) == "USER_AT_LIMIT (1/1)"
    life.stop("job._.1001")
    assert (charged(life), held(life)) == (0, {"0"})
    assert allocate(life) == "1"
    assert [c.name for c in life.host.containers.values()] == ["job._.1001"]


def test_another_stopped_container_counts_while_its_hold_lasts() -> None:
    life = host().run("GPU-0", name="job._.1001", labels={"ds01.user": "bot"}).after(300)
    life.stop("job._.1001").after(60)
    assert allocate(life) == "USER_AT_LIMIT (1/1)"


def test_no_pace_holds_them_back() -> None:
    """Docker reported each stop; the pace is for what was inferred."""
    life = host()
    for number in range(6):
        life.run(f"GPU-{number}", name=f"job{number}._.1001", labels=API)
    life.after(300)
    for number in range(6):
        life.stop(f"job{number}._.1001")
    life.sweep()
    life.host.pass_time(10.0)
    life.sweep()
    assert held(life) == set()


def test_one_that_is_alive_keeps_its_slot_whatever_docker_says() -> None:
    life = host().run("GPU-0", name="job._.1001", labels=API).after(300).stop("job._.1001")
    life.host.living = {"id-job._.1001": 77}  # type: ignore[dict-item]
    assert held(life.after(300)) == {"0"}
    life.host.living = {}
    assert held(life.after(60)) == set()


def test_one_that_never_ran_is_still_being_created() -> None:
    life = host()
    life.run("GPU-0", name="job._.1001", labels=API).after(0)

    life.change("job._.1001", state=State.CREATED, started=None, created_ago=0.0).after(300)
    assert (charged(life), held(life)) == (1, {"0"})
    assert held(life.after(700)) == set()


def test_limits_that_cannot_be_read_free_nothing() -> None:
    life = host().run("GPU-0", name="job._.1001", labels=API).after(300)
    life.host.limits = replace(LIMITS, problem="resource-limits.yaml: not valid YAML")
    life.stop("job._.1001").after(600)
    assert (charged(life), held(life)) == (1, {"0"})


def test_they_are_released_also_where_other_holds_that_are_over_are_only_reported() -> None:
    life = host()
    life.config = with_docker_books(config(expired_holds="report"))
    life.run("GPU-0", name="job._.1001", labels=API).run("GPU-1", name="own._.1001", labels={})
    life.after(300).stop("job._.1001").stop("own._.1001").after(1800)
    assert held(life) == {"1"}
    assert {finding.kind.value for finding in life.plan().findings} == {"overdue-hold"}
    assert charged(life) == 1
    life.remove("own._.1001").after(60)
    assert held(life) == set()


def test_a_refusal_says_what_holds() -> None:
    life = host().run("GPU-0", "GPU-2", name="own._.1001", labels={})
    life.run("GPU-1", name="job._.1001", labels=API).after(300).stop("job._.1001")
    allocator = Allocator(with_current_books(life.host.world(), life.config), life.config)
    answer = allocator.allocate(BOT, ContainerName("next._.1001"))
    assert isinstance(answer, Rejected)
    assert answer.reason == "USER_AT_LIMIT (2/1)"
    assert answer.holdings == "bot holds 0 (own._.1001), 2 (own._.1001)"
