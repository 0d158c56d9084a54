"""Idle holders: each reading and its verdict, and which runs of readings are reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ds01d.config import READING_S
from ds01d.model.checkpoint import IdleRun
from ds01d.model.containers import State
from ds01d.model.drift import Finding, FindingKind
from ds01d.model.keep_alive import LONGEST_S, KeepAlive, find_keep_alive
from ds01d.model.limits import IDLE_TIMEOUT, Exemption, IdleRule, Limits
from ds01d.model.primitives import DeviceUuid, SlotId, Source, Unknown, UserName, Wall
from ds01d.reconcile.checkpoint_store import CheckpointStore
from ds01d.reconcile.reconciler import Reconciler
from tests.support.build import (
    CREATED,
    HOUR,
    LABELS,
    LIMITS,
    NAME,
    OTHER,
    Life,
    books,
    config,
    gpu,
    process,
    slot,
    whole,
)

OWN = f"id-{NAME}"
WHOSE = Unknown(source=Source.NVML, reason="cannot tell whose")
AFTER_S = 1800.0
DAY = 86_400.0


def idle_config(**policy: Any) -> Any:
    return config(mode="observe", **({"idle_after_s": AFTER_S} | policy))


def on_mig(**policy: Any) -> Life:
    return Life(idle_config(**policy)).book("1.0").run("MIG-1-0")


def on_gpu(utilization: int | None = 0, **policy: Any) -> Life:
    devices = replace(whole(2), gpus=(gpu(0), gpu(1, utilization=utilization)))
    slots = books(slot("0"), slot("1"))
    return Life(idle_config(**policy), gpu=devices, state=slots).book("1").run("GPU-1")


def found(life: Life) -> list[Finding]:
    return [one for one in life.plan().findings if one.kind is FindingKind.IDLE_HOLDER]


# --- readings


@pytest.mark.parametrize(
    ("life", "is_idle"),
    [
        (on_gpu(), True),
        (on_gpu(0).use("GPU-1", OWN), True),
        (on_gpu(1).use("GPU-1", OWN), False),
        (on_gpu(4, idle_utilization=5).use("GPU-1", OWN), True),
        (on_gpu(6, idle_utilization=5).use("GPU-1", OWN), False),
        (on_gpu(None).use("GPU-1", OWN), False),
        (on_gpu(None), True),
        (on_gpu(70), False),
        (on_gpu(70).use("GPU-1", "another"), True),
        (on_gpu(0).use("GPU-1", None), True),
        (on_gpu(70).use("GPU-1", None), False),
        (on_gpu(None).use("GPU-1", None), False),
        (on_gpu(0).use("GPU-1", WHOSE), False),
        (on_gpu(0).set_gpu(blind={DeviceUuid("GPU-1"): "lost"}), False),
        (on_mig(), True),
        (on_mig().use("MIG-1-0", OWN), False),
        (on_mig().use("MIG-1-1", OWN), True),
        (on_mig().use("MIG-1-0", "another"), True),
        (on_mig().use("MIG-1-0", None), False),
        (on_mig().use("MIG-1-0", WHOSE), False),
        (on_mig().set_gpu(blind={DeviceUuid("MIG-1-0"): "lost"}), False),
        (on_mig().fail(Source.NVML), False),
        (on_mig().fail(Source.DOCKER), False),
        (on_mig().change(state=State.PAUSED), True),
        (on_mig().change(state=State.RESTARTING), True),
        (on_mig().stop(started_ago=60.0), False),
        (on_mig().change(state=State.CREATED, started=None), False),
        (on_mig().remove(), False),
        (on_mig().change(labels={"ds01.managed": "false"}), True),
    ],
    ids=[
        "no process",
        "zero",
        "one percent",
        "under the threshold",
        "over the threshold",
        "utilization unknown",
        "utilization unknown, no process",
        "busy, and no process is listed",
        "busy with another container",
        "process of the host on an idle GPU",
        "process of the host on a busy GPU: a client of MPS is not listed",
        "process of the host, utilization unknown",
        "process of nobody known",
        "process list unknown",
        "MIG: no process",
        "MIG without utilization: its process is use",
        "MIG: its process elsewhere",
        "MIG: process of another container",
        "MIG: process of the host",
        "MIG: process of nobody known",
        "MIG: process list unknown",
        "no NVML",
        "no Docker",
        "paused",
        "restarting",
        "stopped",
        "never started",
        "gone",
        "booked, whatever its label says",
    ],
)
def test_each_reading_is_idle_or_not(life: Life, is_idle: bool) -> None:
    life.after(AFTER_S)
    assert bool(found(life)) is is_idle


def test_the_server_of_mps_in_a_container_may_compute_for_the_holder() -> None:
    for command, is_idle in (("nvidia-cuda-mps-server", False), ("python", True)):
        by_other = replace(process("GPU-1", "another"), command=command)
        life = on_gpu(50).set_gpu(processes=(by_other,)).after(AFTER_S)
        assert bool(found(life)) is is_idle


def test_a_container_that_uses_one_of_its_slots_is_not_idle() -> None:
    life = Life(idle_config()).book("1.0", "1.1").run("MIG-1-0", "MIG-1-1")
    life.use("MIG-1-1", OWN).after(AFTER_S)
    assert found(life) == []
    (finding,) = found(life.set_gpu(processes=()).after(AFTER_S))
    assert (finding.slot, finding.slots) == (SlotId("1.0"), (SlotId("1.0"), SlotId("1.1")))


# --- runs of readings


@dataclass(frozen=True)
class Step:
    """What is read after so many seconds."""

    seconds: float
    reading: str


READINGS: dict[str, Callable[[Life], object]] = {
    "idle": lambda life: life.set_gpu(processes=()),
    "used": lambda life: life.set_gpu(processes=(process("MIG-1-0", OWN),)),
    "unknown process": lambda life: life.set_gpu(processes=(process("MIG-1-0", WHOSE),)),
    "no NVML": lambda life: life.fail(Source.NVML),
    "no Docker": lambda life: life.fail(Source.DOCKER),
}


@settings(max_examples=60)
@given(
    st.lists(
        st.builds(
            Step,
            seconds=st.sampled_from([30.0, 60.0, READING_S, READING_S + 1, 2 * HOUR]),
            reading=st.sampled_from(["idle"] * 12 + [*READINGS]),
        ),
        min_size=4,
        max_size=14,
    )
)
def test_nothing_is_reported_while_a_reading_of_the_time_was_unknown_or_of_use(
    steps: list[Step],
) -> None:
    """By an independent count: only time between two idle readings, close to each other, counts."""
    life = on_mig(idle_after_s=600.0).after(0.0)
    seen_s, was_idle = 0.0, True
    for step in steps:
        life.host.pass_time(step.seconds)
        READINGS[step.reading](life.mend().set_gpu(blind={}))
        is_idle = step.reading == "idle"
        follows = is_idle and was_idle and step.seconds <= READING_S
        seen_s, was_idle = (seen_s + step.seconds if follows else 0.0), is_idle
        report = life.sweep()
        reported = [one for one in report.findings if one.kind is FindingKind.IDLE_HOLDER]
        assert bool(reported) is (seen_s >= 600.0)


def test_one_spike_begins_the_time_again() -> None:
    life = on_mig().after(AFTER_S - 60)
    life.use("MIG-1-0", OWN).sweep()
    life.set_gpu(processes=()).after(AFTER_S - 60)
    assert found(life) == []
    assert found(life.after(120.0))


def test_a_use_that_only_a_pass_over_its_name_saw_counts() -> None:
    life = on_mig().after(AFTER_S)
    assert found(life)
    life.use("MIG-1-0", OWN)
    life.host.pass_time(10.0)
    Reconciler(life.host.world(), life.config).run(frozenset({NAME}))
    life.set_gpu(processes=())
    assert found(life.after(60.0)) == []


def test_a_pass_over_another_name_changes_nothing() -> None:
    life = on_mig().book("1.1", name=OTHER).run("MIG-1-1", name=OTHER).after(AFTER_S)
    Reconciler(life.host.world(), life.config).run(frozenset({OTHER}))
    assert {one.container for one in found(life)} == {NAME, OTHER}


def test_a_restart_of_the_container_begins_the_time_again() -> None:
    life = on_mig().after(AFTER_S)
    life.change(started=Wall(life.host.wall))
    assert found(life.after(60.0)) == []


def test_neither_the_wall_clock_nor_a_boot_makes_idle_time() -> None:
    life = on_mig().after(600.0).set_wall(DAY)
    assert found(life.after(60.0)) == []
    life.host.boot, life.host.boot_id = 50.0, "boot-2"
    assert found(life.after(AFTER_S - 60)) == []


def test_the_run_survives_a_restart_of_ds01d_and_no_damaged_checkpoint_stops_a_pass() -> None:
    """Each pass of a `Life` is a new process; what it knows is what the last one saved."""
    life = on_mig().after(AFTER_S)
    store = CheckpointStore(life.host.world().state_dir)
    kept, _ = store.load()
    ((container, run),) = kept.idle.items()
    assert (container, run.read_at) == (OWN, life.host.boot)
    far = replace(kept, idle={container: replace(run, began=Wall(1e300))})
    store.save(far)
    assert "an unknown time" in found(life)[0].reason
    ahead = IdleRun(since=run.since, began=run.began, read_at=run.read_at, started=None)
    store.save(replace(kept, idle={container: ahead}))
    assert found(life) == []


def test_what_it_says() -> None:
    life = on_mig().after(AFTER_S)
    began = life.host.wall - AFTER_S
    (finding,) = found(life)
    when = datetime.fromtimestamp(began, tz=timezone.utc)
    assert finding == Finding(
        kind=FindingKind.IDLE_HOLDER,
        container=NAME,
        slot=SlotId("1.0"),
        reason=f"it runs, and has used none of its slots (1.0) since {when:%Y-%m-%d %H:%M} UTC;"
        " reported after 30 m (policy.idle_after)",
        slots=(SlotId("1.0"),),
        user=UserName("alice"),
        since=Wall(began),
    )
    # The same text in each sweep, so that it is logged once.
    assert found(life.after(HOUR)) == [finding]


# --- after which time, and for whom not


def test_it_is_off_by_default_and_then_nothing_is_kept() -> None:
    life = Life(config(mode="observe")).book("1.0").run("MIG-1-0").after(HOUR)
    assert found(life) == []
    assert not CheckpointStore(life.host.world().state_dir).load()[0].idle


def limits(**fields: Any) -> Limits:
    return replace(LIMITS, **fields)


def rule(seconds: float | None) -> IdleRule:
    return IdleRule(seconds=seconds, source="groups.students.gpu_idle_report_after")


@pytest.mark.parametrize(
    ("policy_s", "changes", "reported"),
    [
        (0.0, {"idle_rules": {UserName("alice"): rule(600.0)}}, True),
        (600.0, {"idle_rules": {UserName("alice"): rule(None)}}, False),
        (600.0, {"idle_rules": {UserName("alice"): rule(DAY)}}, False),
        (600.0, {"idle_rules": {UserName("alice"): None}}, True),
        (600.0, {"idle_rules": {UserName("bob"): rule(None)}}, True),
        (600.0, {"default_idle_rule": rule(None)}, False),
        (0.0, {"default_idle_rule": rule(600.0)}, True),
        (0.0, {"idle_rules": {UserName("bob"): rule(600.0)}}, False),
    ],
)
def test_the_limits_of_its_user_come_before_the_policy(
    policy_s: float, changes: dict[str, Any], reported: bool
) -> None:
    life = on_mig(idle_after_s=policy_s)
    life.host.limits = limits(**changes)
    assert bool(found(life.after(900.0))) is reported


def test_nobody_is_reported_by_limits_that_cannot_be_read_and_the_time_goes_on() -> None:
    life = on_mig(idle_after_s=0.0)
    life.host.limits = limits(idle_rules={UserName("alice"): rule(600.0)})
    life.after(300.0).fail(Source.LIMITS).after(600.0)
    assert found(life) == []
    assert found(life.mend().after(0.0))


@pytest.mark.parametrize(("expires_in", "reported"), [(None, False), (HOUR, False), (300.0, True)])
def test_an_exemption_from_the_labs_idle_timeout_counts_here_too(
    expires_in: float | None, reported: bool
) -> None:
    life = on_mig(idle_after_s=600.0)
    expires = None if expires_in is None else Wall(life.host.wall + expires_in)
    alice = Exemption(user=UserName("alice"), key=IDLE_TIMEOUT, expires=expires)
    life.host.limits = limits(exemptions=(alice,))
    assert bool(found(life.after(900.0))) is reported


def test_a_label_keeps_it_until_its_end() -> None:
    life = on_mig(idle_after_s=600.0)
    end = datetime.fromtimestamp(life.host.wall + HOUR, tz=timezone.utc)
    life.change(labels={**LABELS, "ds01.keep_alive": f"{end:%Y-%m-%dT%H:%M:%SZ}"})
    assert found(life.after(HOUR - 60)) == []
    assert found(life.after(120.0))


def test_a_label_that_is_invalid_keeps_nothing_and_is_named() -> None:
    life = on_mig(idle_after_s=600.0).change(labels={**LABELS, "ds01.keep_alive": "for ever\x1b"})
    (finding,) = found(life.after(600.0))
    assert "its label ds01.keep_alive is invalid: expected a duration" in finding.reason
    assert "\x1b" not in finding.reason


@pytest.mark.parametrize(
    ("text", "after_s"),
    [
        ("72h", 72 * HOUR),
        ("3d", 3 * DAY),
        (" 1h30m ", 1.5 * HOUR),
        ("366d", LONGEST_S),
        ("9999-12-31", LONGEST_S),
        ("9999-12-31T23:59:59-23:59", LONGEST_S),
        ("", None),
        ("true", None),
        ("-1h", None),
        ("367d", None),
        ("2027-01-15T09:00", None),
        ("2027-01-15T09:00:00 Z", None),
        ("2027-02-30", None),
        ("2027-01-15T25:00Z", None),
        ("9" * 100_000 + "h", None),
        ("٣d", None),
    ],
)
def test_how_a_label_may_be_written(text: str, after_s: float | None) -> None:
    label = find_keep_alive({"ds01.keep_alive": text}, CREATED)
    assert label is not None
    assert label.until == (None if after_s is None else CREATED + after_s)
    assert bool(label.problem) is (after_s is None)


def test_a_day_lasts_until_its_end_and_a_time_has_a_zone() -> None:
    def until(text: str) -> str:
        label = find_keep_alive({"ds01.keep_alive": text}, Wall(1_800_000_000.0))
        assert label is not None
        assert label.until is not None
        return datetime.fromtimestamp(label.until, tz=timezone.utc).isoformat()

    assert until("2027-01-17") == "2027-01-18T00:00:00+00:00"
    assert until("2027-01-17T18:00+02:00") == "2027-01-17T16:00:00+00:00"
    assert until("2027-01-17T18:00:30z") == "2027-01-17T18:00:30+00:00"


@given(st.text(), st.floats(min_value=1.0, max_value=4e9))
def test_no_label_is_worth_more_than_thirty_days(text: str, created: float) -> None:
    label = find_keep_alive({"ds01.keep_alive": text}, Wall(created))
    assert label is not None
    assert (label.until is None) is bool(label.problem)
    assert label.until is None or label.until <= created + LONGEST_S


def test_without_a_label_or_a_creation_time_nothing_is_kept() -> None:
    assert find_keep_alive({}, CREATED) is None
    label = find_keep_alive({"ds01.keep_alive": "3d"}, None)
    assert label == KeepAlive(problem="Docker has no valid time of its creation")


def test_without_a_state_nothing_is_reported() -> None:
    life = on_mig().after(AFTER_S).fail(Source.STATE).after(60.0)
    assert found(life) == []
