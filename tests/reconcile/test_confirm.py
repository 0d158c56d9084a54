"""What a fresh look contradicts right before the write is not repaired; nothing else waits."""

from __future__ import annotations

from ds01d.model.containers import State
from ds01d.model.drift import Kind, Outcome
from ds01d.model.primitives import Source, Wall
from tests.support.build import NAME, OTHER, Life, config, container, named
from tests.support.repairs import at_look_up, history, life, only, stale


def test_a_container_that_is_back_before_the_write_keeps_its_booking() -> None:
    one = stale()
    report = at_look_up(
        one, lambda: one.host.run(container(NAME, named("MIG-1-0"), id="two"))
    ).run()
    gated = only(report)
    assert gated.outcome is Outcome.WAITING
    assert "the container exists" in gated.reason
    assert one.host.bookings() == {(NAME, "1.0")}
    assert not one.host.history or history(one)[-1].kind != "stale-allocation"


def test_the_same_container_under_another_name_before_the_write_keeps_it() -> None:
    one = life().remove(told=False)
    gone = container(OTHER, named("MIG-1-0"), id=f"id-{NAME}")
    one.sweep()
    one.host.pass_time(121.0)
    gated = only(at_look_up(one, lambda: one.host.run(gone)).run())
    assert gated.outcome is Outcome.WAITING
    assert one.host.bookings() == {(NAME, "1.0")}


def test_an_engine_that_goes_down_before_the_write_proves_nothing() -> None:
    one = stale()
    gated = only(at_look_up(one, lambda: one.fail(Source.DOCKER)).run())
    assert gated.outcome is Outcome.FAILED
    assert "cannot be verified" in gated.reason
    assert one.host.bookings() == {(NAME, "1.0")}


def test_a_stopped_container_that_starts_before_the_write_keeps_its_booking() -> None:
    one = life().stop().after(900.0)
    one.host.pass_time(6.0)
    assert [d.kind for d in one.plan().decision.due_drifts] == [Kind.EXPIRED_HOLD]
    started = Wall(one.host.wall)
    report = at_look_up(one, lambda: one.change(state=State.RUNNING, started=started)).run()
    assert only(report).reason == "it changed meanwhile"
    assert one.host.bookings() == {(NAME, "1.0")}


def test_a_duplicate_of_a_container_that_restarts_meanwhile_stays() -> None:
    one = life().list_in("1.1")
    one.sweep()
    one.host.pass_time(6.0)
    report = at_look_up(one, lambda: one.change(started=Wall(one.host.wall))).run()
    assert only(report).reason == "it changed meanwhile"
    assert one.host.bookings() == {(NAME, "1.0"), (NAME, "1.1")}


def test_the_old_name_that_is_taken_again_before_the_write_keeps_its_booking() -> None:
    one = life().rename(NAME, OTHER)
    one.sweep()
    one.host.pass_time(6.0)
    assert [d.kind for d in one.plan().decision.due_drifts] == [Kind.RENAMED_CONTAINER]
    twin = container(NAME, named("MIG-1-0"), id="two")
    gated = only(at_look_up(one, lambda: one.host.run(twin)).run())
    assert gated.outcome is Outcome.WAITING
    assert (NAME, "1.0") in one.host.bookings()


def test_one_refuted_release_does_not_hold_up_another() -> None:
    one = Life(config(pace_count=9)).book("1.0").run("MIG-1-0")
    one.book("0.0", name=OTHER).run("MIG-0-0", name=OTHER).after(120.0)
    one.remove(told=False).remove(OTHER, told=False).after(100.0)
    one.host.pass_time(30.0)
    back = container(NAME, named("MIG-1-0"), id="two")
    report = at_look_up(one, lambda: one.host.run(back)).run()
    outcomes = {g.drift.container: g.outcome for g in report.drifts}
    assert outcomes == {NAME: Outcome.WAITING, OTHER: Outcome.DONE}
    assert one.host.bookings() == {(NAME, "1.0")}
