"""`reconcile` makes the same pass as the daemon; `--wait` stays for what time alone settles."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

import msgspec
import pytest

from ds01d.config import DaemonConfig
from ds01d.errors import LockTimeout
from ds01d.model.primitives import ContainerName, Source
from ds01d.reconcile.ports import World
from tests.support.commands import Desk
from tests.support.sample_host import GONE
from tests.support.world import Host


def test_a_pass_that_leaves_something_held_ends_with_2(desk: Desk) -> None:
    assert desk.call("reconcile").exit_code == 2
    assert (GONE, "1.1") in desk.host.bookings()


def test_what_is_due_is_done_and_said(desk: Desk) -> None:
    desk.call("reconcile")
    desk.host.pass_time(130)
    told = desk.json("reconcile")
    assert [drift["verdict"] for drift in told["drifts"]] == ["done"]
    assert told["consistent"] is True
    assert (GONE, "1.1") not in desk.host.bookings()
    assert desk.call("reconcile").stdout == "the books are consistent\n"


def test_waiting_sleeps_from_moment_to_moment_until_nothing_is_left(desk: Desk) -> None:
    result = desk.call("reconcile", "--wait")
    assert result.exit_code == 0
    assert "stale-allocation  gone._.1002  1.1   release  done" in result.stdout
    assert result.stdout.endswith("1 drift: 1 done\n")
    # Two minutes of absence, watched as a sweep would: never longer without a look.
    assert desk.pauses == [60.0, 60.0]


def test_a_destroyed_container_waits_for_the_settle_time_only(desk: Desk) -> None:
    desk.call("reconcile")
    desk.host.remove("rest._.1003", told=True)
    desk.call("reconcile", "--wait")
    assert desk.pauses[0] == pytest.approx(5.0)


def test_what_was_done_before_the_last_pass_is_told_too(desk: Desk) -> None:
    desk.call("reconcile")
    desk.host.pass_time(60)
    desk.host.remove("rest._.1003", told=False)
    told = json.loads(desk.call("reconcile", "--wait", "--json").stdout)
    assert sorted(drift["container"] for drift in told["drifts"]) == [GONE, "rest._.1003"]
    assert {drift["verdict"] for drift in told["drifts"]} == {"done"}


def test_no_waiting_where_the_timeout_ends_first(desk: Desk) -> None:
    result = desk.call("reconcile", "--wait", "--timeout", "90s")
    assert result.exit_code == 2
    assert desk.pauses == []


def test_no_waiting_for_what_time_does_not_end(desk: Desk) -> None:
    desk.call("freeze")
    result = desk.call("reconcile", "--wait")
    assert "frozen by" in result.stdout
    assert result.exit_code == 2
    assert desk.pauses == []


def test_no_waiting_without_a_needed_source(desk: Desk) -> None:
    desk.call("reconcile")
    desk.host.failing.add(Source.METADATA)
    assert desk.call("reconcile", "--wait").exit_code == 1
    assert desk.pauses == []


def test_observe_mode_waits_and_ends_with_what_would_be_due(desk: Desk) -> None:
    desk.config = msgspec.structs.replace(
        desk.config, daemon=DaemonConfig(state_dir=desk.state_dir, mode="observe")
    )
    result = desk.call("reconcile", "--wait")
    assert result.exit_code == 2
    assert "1 drift: 1 due" in result.stdout
    assert (GONE, "1.1") in desk.host.bookings()


def test_a_moment_that_has_passed_makes_nobody_spin(desk: Desk) -> None:
    """The container is back whenever it is looked up: postponed again and again."""
    desk.call("reconcile")
    desk.host.pass_time(130)
    back = replace(next(iter(desk.host.containers.values())), name=ContainerName(GONE))

    class Flickering(type(desk.host.world().engine)):  # type: ignore[misc]
        def look_up(self, name: str, known_id: object) -> object:
            return back

    @contextmanager
    def flickering(_: object) -> Iterator[World]:
        world = desk.host.world()
        yield replace(world, engine=Flickering(desk.host))

    desk.open_world = flickering
    result = desk.call("reconcile", "--wait", "--timeout", "60s")
    assert result.exit_code == 2
    assert min(desk.pauses) > 4.9
    assert sum(desk.pauses) <= 60


def test_a_write_that_fails_is_said_and_ends_with_2(desk: Desk) -> None:
    desk.call("reconcile")
    desk.host.pass_time(130)
    desk.host.unwritable.add("state")
    result = desk.call("reconcile")
    assert "failed" in result.stdout
    assert "no space left on device" in result.stdout
    assert result.exit_code == 2


def test_a_pass_that_does_not_end_is_named(desk: Desk) -> None:
    def taken() -> AbstractContextManager[None]:
        raise LockTimeout("/x/lock was not free within 30 s: held by pid 7 (ds01d)")

    @contextmanager
    def locked(_: object) -> Iterator[World]:
        world = desk.host.world()
        world.state_dir.lock = taken  # type: ignore[method-assign]
        yield world

    desk.open_world = locked
    result = desk.call("reconcile")
    assert result.stderr == "ds01ctl: /x/lock was not free within 30 s: held by pid 7 (ds01d)\n"
    assert result.exit_code == 1


def test_ctrl_c_ends_the_waiting_with_130(desk: Desk) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    desk.meanwhile = interrupted
    assert desk.call("reconcile", "--wait").exit_code == 130


def test_a_dry_run_is_a_plan_and_has_nothing_to_wait_for(desk: Desk, host: Host) -> None:
    assert desk.call("reconcile", "--dry-run").stdout == desk.call("plan").stdout
    assert host.memory is None
    assert desk.call("reconcile", "--dry-run", "--wait").exit_code == 1


def test_what_it_waits_for_is_shown_on_stderr(desk: Desk) -> None:
    result = desk.call("reconcile", "--wait", "--json")
    assert json.loads(result.stdout)["consistent"] is True
    lines = result.stderr.splitlines()
    assert len(lines) == len(desk.pauses)
    assert lines[0].endswith(": 1 drift: 1 waiting: stale-allocation gone._.1002 (proof)")


def test_waiting_ends_when_the_same_failure_repeats(desk: Desk) -> None:
    desk.host.unwritable |= {"memory", "history"}
    result = desk.call("reconcile", "--wait")
    assert result.exit_code == 2
    assert "no space left on device" in result.stdout
    assert "1 drift: 1 failed" in result.stdout
    assert "failed: checkpoint: memory was not written" in result.stderr.splitlines()[-1]
    assert sum(desk.pauses) < 150, "it waited on though nothing could change"


def test_a_failure_is_tried_once_more(desk: Desk) -> None:
    desk.call("reconcile")
    desk.host.pass_time(130)
    desk.host.unwritable.add("state")
    desk.meanwhile = desk.host.unwritable.clear
    result = desk.call("reconcile", "--wait")
    assert (result.exit_code, len(desk.pauses)) == (0, 1)
    assert "1 drift: 1 done" in result.stdout
