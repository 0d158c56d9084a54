"""The metrics themselves: names, labels, zeros, and what they say of a status."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from itertools import product

import msgspec
import pytest

from ds01d.daemon.fleet_status_builder import build_fleet_status
from ds01d.model.books import SlotType
from ds01d.model.checkpoint import Freeze
from ds01d.model.drift import Action, FindingKind, Kind, Outcome, WaitReason
from ds01d.model.fleet_books import NodeId
from ds01d.model.fleet_drift import (
    FleetAction,
    FleetDrift,
    FleetDriftKind,
    FleetFinding,
    FleetFindingKind,
    GatedFleetDrift,
    Membership,
    MembershipState,
)
from ds01d.model.notice import DeliveryRecord, DeliveryTarget
from ds01d.model.primitives import (
    LOCAL_SOURCES,
    Boot,
    ContainerName,
    Now,
    SlotId,
    Source,
    UserName,
    Wall,
)
from ds01d.reconcile.fleet_report import FleetReport, HostView
from ds01d.reporting.fleet_status import FleetStatus
from ds01d.reporting.metric_values import MetricsSnapshot, OpenDrift, Result, Scope, Totals
from ds01d.reporting.metrics import Metrics
from ds01d.reporting.status import Holder, SlotStatus, Status
from tests.support.fleet_store import make_entry
from tests.support.metrics import families, samples, value
from tests.support.status import published


def reading(status: Status | None = None, *drifts: OpenDrift, **totals: int) -> MetricsSnapshot:
    return MetricsSnapshot(
        status=status,
        drifts=drifts,
        totals=Totals(**totals),
        depth=0,
        running_s=0.0,
        stream_open=False,
        inventory_frozen=False,
    )


def slot(
    place: str, *states: str, profile: str | None = "1g.10gb", foreign: str = ""
) -> SlotStatus:
    return SlotStatus(
        id=SlotId(place),
        type=SlotType.MIG if profile is not None else SlotType.PHYSICAL,
        profile=profile,
        holders=tuple(
            Holder(container=ContainerName(f"c{n}"), user=UserName("u"), state=state)
            for n, state in enumerate(states)
        ),
        foreign=(foreign,) if foreign else (),
    )


def test_every_series_is_there_from_the_start_at_zero() -> None:
    text = Metrics("1.2.3").render(reading())
    told = {
        series: number
        for series, number in samples(text).items()
        if not series[0].startswith(("ds01d_process_", "ds01d_build_info"))
    }
    assert set(told.values()) == {0.0}
    names = {name for name, _ in told}
    wanted = {
        *product(["ds01d_drifts"], Kind, ["due", "held", "failed"]),
        *product(["ds01d_drifts_settled_total"], Kind, ["done", "failed"]),
        *product(["ds01d_findings"], FindingKind),
        *product(["ds01d_drifts_held"], WaitReason),
        *product(["ds01d_source_up"], LOCAL_SOURCES),
        *product(["ds01d_reconcile_total"], Scope, Result),
        *product(["ds01d_actions_total"], set(Action) - {Action.NOTHING}, ["done", "failed"]),
    }
    there = {(name, *(v for _, v in sorted(labels))) for name, labels in told}
    assert {tuple(map(str, one)) for one in wanted if len(one) == 2} <= there
    for name in {one[0] for one in wanted}:
        assert sum(one[0] == name for one in wanted) == sum(n == name for n, _ in told), name
    assert "ds01d_slots" not in names  # which slots there are, only the host knows


def test_the_names_are_as_prometheus_wants_them() -> None:
    for name, family in families(Metrics("1").render(reading())).items():
        assert re.fullmatch(r"ds01d(_[a-z]+)+", name)
        assert family.documentation.endswith(".")
        assert (family.type == "counter") == name.endswith("_total")


def test_promtool_has_nothing_to_say() -> None:
    text = Metrics("1").render(reading(published()))
    assert shutil.which("promtool"), "make setup installs it"
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_slots_are_counted_by_who_has_them() -> None:
    metrics = Metrics("1")
    slots = (
        slot("0.0", "running"),
        slot("0.1", "exited", "dead"),
        slot("0.2", "exited", "running"),
        slot("0.3"),
        slot("1.0", profile="2g.20gb", foreign="web"),
        slot("2", "absent", profile=None),
    )
    text = metrics.render(reading(published(slots=slots)))

    def of(gpu: str, profile: str) -> list[float]:
        states = ("allocated", "held", "free", "foreign")
        return [value(text, "slots", gpu=gpu, profile=profile, state=one) for one in states]

    assert of("0", "1g.10gb") == [2, 1, 1, 0]
    assert of("1", "2g.20gb") == [0, 0, 0, 1]
    assert of("2", "whole") == [1, 0, 0, 0]
    # The GPU is cut anew: what is gone is not told any more.
    text = metrics.render(reading(published(slots=(slot("0.0", profile="7g.80gb"),))))
    assert {dict(labels)["profile"] for name, labels in samples(text) if name == "ds01d_slots"} == {
        "7g.80gb"
    }


def test_the_longest_idle_holder_of_each_gpu_and_profile() -> None:
    def idle(place: str, *since: float | None) -> SlotStatus:
        one = slot(place, *("running" for _ in since))
        holders = [
            msgspec.structs.replace(holder, idle_since=at and Wall(at))
            for holder, at in zip(one.holders, since, strict=True)
        ]
        return msgspec.structs.replace(one, holders=tuple(holders))

    metrics = Metrics("1")

    def render(*slots: SlotStatus) -> dict[str, float]:
        text = metrics.render(reading(published(slots=slots)))
        name = "ds01d_slots_idle_since_timestamp_seconds"
        return {dict(labels)["gpu"]: number for (one, labels), number in samples(text).items()
                if one == name}  # fmt: skip

    busy = idle("1.0", None)
    assert render(idle("0.0", 70.0, 50.0), idle("0.1", 60.0), busy) == {"0": 50.0, "1": 0.0}
    assert render(idle("0.0", None), busy) == {"0": 0.0, "1": 0.0}
    assert render(busy) == {"1": 0.0}


@pytest.mark.parametrize(
    ("place", "profile", "gpu", "shown"),
    [
        ("12.3", "1c.3g.20gb", "12", "1c.3g.20gb"),
        ("1:2", "1g.10gb+me", "1", "1g.10gb+me"),
        ("0.1", "1g.24gb+me.all", "0", "1g.24gb+me.all"),
        ('x"} 1\n', 'alice"\n', "other", "other"),
        ("99999", "", "other", "other"),
        ("1evil", "1g.10gb+" + "a" * 99, "other", "other"),
    ],
)
def test_what_books_say_of_a_slot_becomes_no_label_unless_it_is_one(
    place: str, profile: str, gpu: str, shown: str
) -> None:
    text = Metrics("1").render(reading(published(slots=(slot(place, profile=profile),))))
    assert value(text, "slots", gpu=gpu, profile=shown, state="free") == 1


def test_the_status_is_told() -> None:
    freezes = tuple(
        Freeze(subject=subject, by="root", reason="", since=Wall(1.0))
        for subject in ("*", "a", "b")
    )
    status = published(freezes=freezes, engine_trusted=False, mode="observe", degraded=("a", "b"))
    text = Metrics("1").render(reading(status))
    assert status.last_sweep is not None
    assert value(text, "ready") == 1
    assert value(text, "observe_only") == 1
    assert value(text, "engine_changed") == 1
    assert value(text, "troubles") == 2
    assert value(text, "freezes", subject="everything") == 1
    assert value(text, "freezes", subject="one") == 2
    assert value(text, "source_up", source="docker") == 1
    assert value(text, "source_up", source="nvml") == 0
    assert value(text, "source_last_success_timestamp_seconds", source="nvml") == 0
    docker = status.sources[Source.DOCKER].last_success
    assert value(text, "source_last_success_timestamp_seconds", source="docker") == docker
    assert value(text, "last_sweep_timestamp_seconds") == status.last_sweep.at
    assert value(text, "last_sweep_duration_seconds") == 0.05
    assert value(text, "next_sweep_timestamp_seconds") == status.next_sweep
    assert value(text, "findings", kind="shared-slot") == 1
    assert (value(text, "pace_releases"), value(text, "pace_limit")) == (1, 2)


def test_open_drifts_are_counted_by_kind_and_gate_and_the_oldest_is_told() -> None:
    def drift(age_s: float, gate: WaitReason | None = None) -> OpenDrift:
        verdict = Outcome.DUE if gate is None else Outcome.WAITING
        return OpenDrift(kind=Kind.WRONG_SLOT, verdict=verdict, gate=gate, age_s=age_s)

    text = Metrics("1").render(
        reading(None, drift(3), drift(9, WaitReason.PACE), drift(4, WaitReason.PACE))
    )
    assert value(text, "drifts", kind="wrong-slot", verdict="due") == 1
    assert value(text, "drifts", kind="wrong-slot", verdict="held") == 2
    assert value(text, "drifts_held", gate="pace") == 2
    assert value(text, "drift_oldest_age_seconds", kind="wrong-slot") == 9
    assert value(text, "drift_oldest_age_seconds", kind="wrong-count") == 0


def test_what_others_count_is_counted_on() -> None:
    metrics = Metrics("1")
    metrics.render(reading(adds=5, received=7))
    text = metrics.render(reading(adds=6, received=7, lost=2, retries=3, reconnects=4))
    counts = ("workqueue_adds", "events_received", "events_lost", "workqueue_retries")
    assert [value(text, f"{name}_total") for name in counts] == [6, 7, 2, 3]
    assert value(text, "event_stream_reconnects_total") == 4


def test_a_pass_is_counted_and_timed() -> None:
    metrics = Metrics("1")
    metrics.count_pass(Scope.SWEEP, Result.SUCCESS, 0.02)
    metrics.count_pass(Scope.NAMES, Result.ERROR, 70.0)
    metrics.count_panic(Scope.NAMES)
    text = metrics.render(reading())
    assert value(text, "reconcile_total", scope="sweep", result="success") == 1
    assert value(text, "reconcile_errors_total", scope="sweep") == 0
    assert value(text, "reconcile_errors_total", scope="names") == 1
    assert value(text, "reconcile_panics_total", scope="names") == 1
    assert value(text, "reconcile_time_seconds_bucket", scope="sweep", le="0.025") == 1
    assert value(text, "reconcile_time_seconds_bucket", scope="sweep", le="0.01") == 0
    assert value(text, "reconcile_time_seconds_bucket", scope="names", le="60.0") == 0
    assert value(text, "reconcile_time_seconds_bucket", scope="names", le="+Inf") == 1


def test_what_was_done_is_counted() -> None:
    metrics = Metrics("1")
    metrics.count_repair(Kind.STALE_ALLOCATION, Action.RELEASE, Outcome.DONE)
    metrics.count_repair(Kind.WRONG_COUNT, Action.RECOUNT, Outcome.FAILED)
    metrics.count_releases(2, paced=True)
    text = metrics.render(reading())
    assert value(text, "actions_total", action="release", result="done") == 1
    assert value(text, "actions_total", action="recount", result="failed") == 1
    assert value(text, "drifts_settled_total", kind="stale-allocation", result="done") == 1
    assert value(text, "releases_total", paced="yes") == 2
    assert value(text, "releases_total", paced="no") == 0


def test_notices_are_counted_by_what_ds01d_notify_has_recorded() -> None:
    metrics = Metrics("1")

    def shown(sent: int, failed: int = 0, dropped: int = 0) -> list[float]:
        record = DeliveryRecord(sent=sent, failed=failed, dropped=dropped, is_failing=True)
        text = metrics.render(replace(reading(), deliveries={DeliveryTarget.MAIL: record}))
        results = ("sent", "failed", "dropped")
        numbers = [value(text, "notices_total", target="mail", result=one) for one in results]
        return [*numbers, value(text, "notices_failing", target="mail")]

    assert shown(sent=3, failed=1) == [3, 1, 0, 1]
    assert shown(sent=5, failed=1, dropped=2) == [5, 1, 2, 1]
    # The record was lost, and a counter does not fall.
    assert shown(sent=1) == [6, 1, 2, 1]


def test_a_fleet_has_series_once_there_is_one() -> None:
    metrics = Metrics("1")
    assert b"ds01d_fleet" not in metrics.render(reading(published()))
    fleet = make_fleet_status(hosts=2, findings=1)
    status = msgspec.structs.replace(published(), fleet=fleet)
    for _ in range(2):
        there = samples(metrics.render(reading(status)))
        counts = {name: number for name, number in there.items() if "fleet" in name[0]}
        assert {
            dict(labels)["state"]: n for (name, labels), n in counts.items() if "hosts" in name
        } == {
            "alive": 1.0,
            "unseen": 1.0,
        }
        assert sum(counts.values()) == 3.0


def test_a_fleet_is_counted_whole_though_the_status_shows_a_part() -> None:
    fleet = make_fleet_status(hosts=700, findings=500)
    assert (len(fleet.hosts), len(fleet.drifts), len(fleet.findings)) == (200, 200, 200)
    status = msgspec.structs.replace(published(), fleet=fleet)
    shown = samples(Metrics("1").render(reading(status)))
    counts = {
        (name, *sorted(dict(labels).values())): number
        for (name, labels), number in shown.items()
        if "fleet" in name and number
    }
    assert counts == {
        ("ds01d_fleet_hosts", "alive"): 350.0,
        ("ds01d_fleet_hosts", "unseen"): 350.0,
        ("ds01d_fleet_drifts", "held", "unreported-booking"): 250.0,
        ("ds01d_fleet_findings", "over-quota"): 500.0,
    }


def make_fleet_status(*, hosts: int, findings: int) -> FleetStatus:
    """Every second host without a heartbeat, every second drift repaired."""
    membership = Membership(state=MembershipState.MEMBER, since=Wall(0.0))
    drift = FleetDrift(
        kind=FleetDriftKind.UNREPORTED_BOOKING,
        action=FleetAction.REPORT,
        entry=make_entry(),
        reason="x",
    )
    report = FleetReport(
        at=Wall(1.0),
        membership=membership,
        node=NodeId("n1"),
        hosts=tuple(
            HostView(
                node=NodeId(f"n{number}"),
                host=f"gpu{number}",
                version="1",
                slots=2,
                unseen_since=Wall(1.0) if number % 2 else None,
            )
            for number in range(hosts)
        ),
        drifts=tuple(
            GatedFleetDrift(
                drift=drift,
                outcome=Outcome.DONE if number % 2 else Outcome.WAITING,
                first_seen=Boot(1.0),
            )
            for number in range(findings - findings % 2)
        ),
        findings=(FleetFinding(kind=FleetFindingKind.OVER_QUOTA, subject="alice", reason="3 of 2"),)
        * findings,
    )
    return build_fleet_status(
        membership, report, NodeId("n1"), Now(wall=Wall(1.0), boot=Boot(1.0), boot_id="b")
    )
