"""Each user gets each notice once: of a hold that ends, of its end, of a quota."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from ds01d.daemon.notices import REPEAT_QUOTA_S, Notices
from ds01d.errors import Ds01Error, WriteFailed
from ds01d.model.allocation import Allocated, Refusal, Rejected
from ds01d.model.notice import Alert
from ds01d.model.primitives import Boot, ContainerName, Now, SlotId, UserName, Wall
from tests.support.build import NAME, Life
from tests.support.repairs import life

ALICE = UserName("alice")


@dataclass
class Target:
    """Keeps what it is given, unless it is broken."""

    given: list[tuple[str, Alert]] = field(default_factory=list)
    broken_for: set[str] = field(default_factory=set)

    def add(self, user: UserName, alerts: Sequence[Alert], at: Wall) -> None:
        if user in self.broken_for:
            raise WriteFailed(f"{user}.json was not written: it is a symbolic link")
        self.given += [(user, alert) for alert in alerts]

    def take(self) -> list[tuple[str, str]]:
        given, self.given = self.given, []
        return [(user, alert.type) for user, alert in given]


def notices(one: Life, target: Target) -> Notices:
    return Notices(target, 300.0, one.host.world().clock.now)


def test_a_hold_that_ends_soon_and_the_slot_that_it_had_are_told_once_each() -> None:
    one, target = life().stop(), Target()
    sender = notices(one, target)
    for minute in range(20):
        sender.add_report(one.sweep())
        if minute < 10:
            assert target.given == []
        one.host.pass_time(60.0)
    assert target.take() == [("alice", "gpu_hold_ending"), ("alice", "gpu_released")]
    assert one.host.bookings() == set()


def test_the_texts_name_container_slot_and_moment() -> None:
    one, target = life().stop(), Target()
    sender = notices(one, target)
    one.after(660.0)
    sender.add_report(one.sweep())
    ((_, ending),) = target.given
    assert ending.message.startswith(f"container {NAME} is stopped and holds GPU 1.0 until 20")
    assert ending.message.endswith(f"; keep it: docker start {NAME}")
    for _ in range(6):
        one.host.pass_time(60.0)
        sender.add_report(one.sweep())
    _, (_, released) = target.given
    assert released.message.startswith(f"GPU 1.0 of stopped container {NAME} was released: ")


def test_a_container_that_starts_again_is_told_again_the_next_time() -> None:
    one, target = life().stop(), Target()
    sender = notices(one, target)
    one.after(660.0)
    sender.add_report(one.sweep())
    one.start_now("MIG-1-0")
    sender.add_report(one.sweep())
    one.stop().after(660.0)
    sender.add_report(one.sweep())
    assert target.take() == [("alice", "gpu_hold_ending")] * 2


def test_a_hold_that_is_over_and_waits_for_an_admin_is_told() -> None:
    one, target = life().stop(), Target()
    sender = notices(one, target)
    one.use("MIG-1-0", by=f"id-{NAME}")
    for _ in range(20):
        one.host.pass_time(60.0)
        sender.add_report(one.sweep())
    assert target.take() == [("alice", "gpu_hold_ending"), ("alice", "gpu_hold_ended")]


def test_a_hold_that_is_over_and_stays_in_force_is_told() -> None:
    one, target = life().stop(), Target()
    policy = msgspec.structs.replace(one.config.policy, expired_holds="report")
    one.config = msgspec.structs.replace(one.config, policy=policy)
    sender = notices(one, target)
    for _ in range(20):
        one.host.pass_time(60.0)
        sender.add_report(one.sweep())
    assert [kind for _, (kind, _) in target.given] == ["gpu_hold_ending", "gpu_hold_ended"]
    _, ended = target.given[1]
    assert ended.message == (
        f"container {NAME} is stopped and its hold on GPU 1.0 is over (docker rm {NAME} frees it)"
    )


def test_nothing_is_told_in_mode_observe_or_where_it_is_off() -> None:
    one, target = Life().book("1.0").run("MIG-1-0").after(120.0).stop(), Target()
    sender, off = notices(one, target), Notices(None, 300.0, one.host.world().clock.now)
    for _ in range(20):
        one.host.pass_time(60.0)
        sender.add_report(one.sweep())
        off.add_report(one.sweep())
    assert target.given == []


def test_a_target_that_fails_is_named_and_gets_it_later() -> None:
    one, target = life().stop(), Target(broken_for={"alice"})
    sender = notices(one, target)
    one.after(660.0)
    sender.add_report(one.sweep())
    assert "symbolic link" in sender.take_failure()
    assert sender.take_failure() == ""
    sender.add_report(one.sweep())  # not again at once
    assert sender.take_failure() == ""
    target.broken_for.clear()
    one.host.pass_time(61.0)
    sender.add_report(one.sweep())
    assert target.take() == [("alice", "gpu_hold_ending")]


def refusal(user: str = "alice", why: Refusal = Refusal.USER_AT_LIMIT) -> Rejected:
    return Rejected(container=ContainerName("x"), user=UserName(user), refusal=why, detail="2/2")


def grant(user: str = "alice", *, already: bool = False) -> Allocated:
    return Allocated(
        container=ContainerName("x"),
        user=UserName(user),
        slot=SlotId("1.0"),
        docker_id="MIG-1-0",
        already=already,
    )


def test_a_quota_is_told_when_it_is_reached_and_when_it_refuses() -> None:
    boot, target = [0.0], Target()
    sender = Notices(target, 300.0, lambda: Now(wall=Wall(0), boot=Boot(boot[0]), boot_id="b"))
    sender.add_answer(grant(), lambda _: (1, 2))
    sender.add_answer(grant(), lambda _: (1, None))
    sender.add_answer(grant(already=True), lambda _: (2, 2))
    sender.add_answer(refusal(why=Refusal.NO_GPU_AVAILABLE), lambda _: (2, 2))
    assert target.given == []
    for _ in range(5):
        sender.add_answer(grant(), lambda _: (2, 2))
        sender.add_answer(refusal(), lambda _: (2, 2))
        sender.add_answer(refusal("bob"), lambda _: (2, 2))
        boot[0] += 60.0
    messages = [alert.message for _, alert in target.given]
    assert messages[0] == "you hold 2 of 2 GPUs: your quota is reached"
    assert "USER_AT_LIMIT (2/2)" in messages[1]
    kinds = ["gpu_quota_reached", "gpu_quota_refused"]
    assert target.take() == [*(("alice", kind) for kind in kinds), ("bob", "gpu_quota_refused")]
    boot[0] += REPEAT_QUOTA_S
    sender.add_answer(refusal(), lambda _: (2, 2))
    assert target.take() == [("alice", "gpu_quota_refused")]


def test_a_quota_that_cannot_be_read_fails_no_booking() -> None:
    def broken(_: UserName) -> tuple[int, int | None]:
        raise Ds01Error("no limits")

    sender = Notices(Target(), 300.0, lambda: Now(wall=Wall(0), boot=Boot(0), boot_id="b"))
    sender.add_answer(grant(), broken)
    assert sender.take_failure() == "no limits"
