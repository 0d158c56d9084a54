"""Each user gets each notice once: of a hold that ends, of its end, of a quota."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from ds01d.adapters.notices.spool import NoticeSpool, read_spool
from ds01d.daemon.notices import REPEAT_S, Notices
from ds01d.errors import Ds01Error, WriteFailed
from ds01d.model.allocation import Allocated, Refusal, Rejected
from ds01d.model.drift import Finding, FindingKind
from ds01d.model.notice import Alert, GivenNotice, WrittenNotice
from ds01d.model.primitives import Boot, ContainerName, Now, SlotId, UserName, Wall
from ds01d.reconcile.report import Report
from tests.support.build import NAME, Life
from tests.support.repairs import life

ALICE = UserName("alice")


@dataclass
class Target:
    """Keeps what it is given, unless it is broken."""

    given: list[tuple[str, Alert]] = field(default_factory=list)
    broken_for: set[str] = field(default_factory=set)
    former: Sequence[GivenNotice] = ()

    def add(self, user: UserName, notices: Sequence[WrittenNotice], at: Wall) -> None:
        if user in self.broken_for:
            raise WriteFailed(f"{user}.json was not written: it is a symbolic link")
        self.given += [(user, Alert(one.kind.value, message)) for one, message in notices]

    def list_given(self) -> Sequence[GivenNotice]:
        return self.former

    def take(self) -> list[tuple[str, str]]:
        given, self.given = self.given, []
        return [(user, alert.type) for user, alert in given]


def notices(one: Life, target: Target) -> Notices:
    return Notices([target], (300.0,), one.host.world().clock.now)


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
    sender, off = notices(one, target), Notices([], (300.0,), one.host.world().clock.now)
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
    sender = Notices([target], (300.0,), lambda: Now(wall=Wall(0), boot=Boot(boot[0]), boot_id="b"))
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
    boot[0] += REPEAT_S
    sender.add_answer(refusal(), lambda _: (2, 2))
    assert target.take() == [("alice", "gpu_quota_refused")]


def test_a_quota_that_cannot_be_read_fails_no_booking() -> None:
    def broken(_: UserName) -> tuple[int, int | None]:
        raise Ds01Error("no limits")

    sender = Notices([Target()], (300.0,), lambda: Now(wall=Wall(0), boot=Boot(0), boot_id="b"))
    sender.add_answer(grant(), broken)
    assert sender.take_failure() == "no limits"


def test_of_several_warnings_each_comes_in_its_time_and_the_last_alone_to_who_is_late() -> None:
    one, target = life().stop(), Target()
    sender = Notices([target], (600.0, 120.0), one.host.world().clock.now)
    one.after(200.0)
    sender.add_report(one.sweep())
    assert target.take() == []
    one.after(200.0)  # 500 s are left
    for _ in range(2):
        sender.add_report(one.sweep())
    assert target.take() == [("alice", "gpu_hold_ending")]
    one.after(400.0)  # 100 s are left
    late = Target()
    for _ in range(2):
        sender.add_report(one.sweep())
    Notices([late], (600.0, 120.0), one.host.world().clock.now).add_report(one.sweep())
    assert target.take() == late.take() == [("alice", "gpu_hold_ending")]


def test_a_restart_repeats_none_and_a_hold_that_is_another_one_is_told(tmp_path: Path) -> None:
    spool = tmp_path / "notices"
    one = life().stop().after(660.0)
    for _ in range(3):
        sender = Notices([NoticeSpool(spool)], (300.0,), one.host.world().clock.now)
        sender.add_report(one.sweep())
        sender.add_report(one.sweep())
    assert [notice.kind for notice in read_spool(spool)] == ["gpu_hold_ending"]
    # While ds01d was away, it was started and stopped again.
    one.start_now("MIG-1-0")
    one.sweep()
    one.stop().after(660.0)
    sender = Notices([NoticeSpool(spool)], (300.0,), one.host.world().clock.now)
    sender.add_report(one.sweep())
    assert [notice.kind for notice in read_spool(spool)] == ["gpu_hold_ending"] * 2


def test_a_quota_is_not_told_again_after_a_restart(tmp_path: Path) -> None:
    boot = [0.0]

    def now() -> Now:
        return Now(wall=Wall(1e9 + boot[0]), boot=Boot(boot[0]), boot_id="b")

    for _ in range(3):
        Notices([NoticeSpool(tmp_path / "n")], (), now).add_answer(refusal(), lambda _: (2, 2))
    assert len([*read_spool(tmp_path / "n")]) == 1
    boot[0] = REPEAT_S + 1
    Notices([NoticeSpool(tmp_path / "n")], (), now).add_answer(refusal(), lambda _: (2, 2))
    assert len([*read_spool(tmp_path / "n")]) == 2


def test_a_target_that_fails_keeps_nothing_back_from_the_other() -> None:
    one, broken, target = life().stop(), Target(broken_for={"alice"}), Target()
    sender = Notices([broken, target], (300.0,), one.host.world().clock.now)
    one.after(660.0)
    sender.add_report(one.sweep())
    assert target.take() == [("alice", "gpu_hold_ending")]
    assert "symbolic link" in sender.take_failure()


def test_who_waited_and_has_it_is_told() -> None:
    target = Target()
    sender = Notices([target], (), lambda: Now(wall=Wall(0), boot=Boot(0), boot_id="b"))
    sender.add_answer(grant(), lambda _: (1, 2), has_waited=True)
    assert target.given == [
        ("alice", Alert("gpu_wait_over", "your turn has come: GPU 1.0 is booked for x"))
    ]
    sender.add_answer(grant(already=True), lambda _: (1, 2), has_waited=True)
    sender.add_answer(refusal(why=Refusal.NO_GPU_AVAILABLE), lambda _: (1, 2), has_waited=True)
    assert len(target.given) == 1


def with_findings(report: Report, *kinds: FindingKind) -> Report:
    """The report of a pass that has found these."""
    findings = tuple(
        Finding(
            kind=kind,
            container=ContainerName(NAME),
            slot=SlotId("1.0"),
            reason="as ever",
            slots=(SlotId("1.0"), SlotId("1.1")),
            user=ALICE,
            since=Wall(1e9),
        )
        for kind in kinds
    )
    return replace(report, decision=replace(report.decision, findings=findings))


def test_a_finding_about_a_container_is_told_once_however_the_readings_come_and_go() -> None:
    one, target = life(), Target()
    sender = notices(one, target)
    idle, lost = FindingKind.IDLE_HOLDER, FindingKind.DEVICE_LOST
    for kinds in ([idle], [], [idle, lost], [], [idle]):
        sender.add_report(with_findings(one.sweep(), *kinds, FindingKind.SHARED_SLOT))
        one.host.pass_time(60.0)
    assert target.take() == [("alice", "gpu_idle"), ("alice", "gpu_lost")]
    one.host.pass_time(REPEAT_S)
    sender.add_report(with_findings(one.sweep()))
    sender.add_report(with_findings(one.sweep(), idle))
    ((_, alert),) = target.given
    assert re.fullmatch(
        rf"container {NAME} holds GPU 1\.0, 1\.1 and has not used it since 2001-09-\d\d \d\d:\d\d;"
        rf" if you are done with it: docker rm -f {NAME}",
        alert.message,
    )


def test_a_notice_that_cannot_be_written_down_ends_no_call_and_keeps_back_no_other(
    tmp_path: Path,
) -> None:
    one = life()
    sender = Notices([NoticeSpool(tmp_path / "notices")], (), one.host.world().clock.now)
    # A login of a directory in Latin-1, as Python has it.
    for user in ("ren\udce9", "alice"):
        answer = Rejected(
            user=UserName(user),
            container=ContainerName(NAME),
            refusal=Refusal.USER_AT_LIMIT,
            detail="USER_AT_LIMIT (1/1)",
        )
        sender.add_answer(answer, lambda _: (1, 1))
    assert "internal error" in sender.take_failure()
    assert [notice.user for notice in read_spool(tmp_path / "notices")] == ["alice"]
