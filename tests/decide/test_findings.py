"""Each finding alone: what it tells, and where it keeps quiet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from ds01d.config import ExemptConfig
from ds01d.decide.decision import decide
from ds01d.model.books import AllocatorState
from ds01d.model.checkpoint import Repair
from ds01d.model.containers import DeviceRef, GpuRequestKind, RefKind, Request, State
from ds01d.model.drift import Finding, FindingKind, RepairKey, drift_key
from ds01d.model.limits import HoldRule
from ds01d.model.primitives import (
    Boot,
    ContainerName,
    DeviceUuid,
    SlotId,
    Source,
    Unknown,
    UserName,
)
from ds01d.reconcile.checkpoint_store import CheckpointStore
from ds01d.reconcile.reconciler import Reconciler
from tests.support.build import (
    ALL,
    HOUR,
    LIMITS,
    NAME,
    OTHER,
    Life,
    books,
    config,
    count,
    gpu,
    inventory,
    mig,
    slot,
)

TRAIN = f"id-{NAME}"
EXPORTER = "nvcr.io/nvidia/k8s/dcgm-exporter:3.3.5-3.4.0-ubuntu22.04"
ODD = Request(ask=GpuRequestKind.UNCLEAR, unclear=("mount /var/run/nvidia-container-devices/0",))
Told = tuple[str | None, str | None, str]


def found(life: Life, kind: FindingKind) -> list[Finding]:
    return [finding for finding in life.plan().findings if finding.kind is kind]


def told(life: Life, kind: FindingKind) -> Told:
    (finding,) = found(life, kind)
    return finding.container, finding.slot, finding.reason


def booked(*devices: str, **fields: Any) -> Life:
    life = Life().book("1.0").run(*(devices or ("MIG-1-0",)), **fields)
    return life.after(60.0)


def plain() -> Life:
    """Everything is as it should be."""
    life = booked().book("1.1", name=OTHER).run("MIG-1-1", name=OTHER)
    return life.use("MIG-1-0", TRAIN).after(60.0)


def test_a_host_where_all_is_well_has_nothing_to_report() -> None:
    assert plain().plan().findings == ()


def test_a_pass_over_one_name_reports_nothing() -> None:
    life = booked("MIG-1-1")
    report = Reconciler(life.host.world(), life.config).plan(frozenset({NAME}))
    assert report.findings == ()


# --- shared-slot ------------------------------------------------------------------------------


def test_two_containers_in_one_slot() -> None:
    life = booked().book("1.0", name=OTHER).run("MIG-1-0", name=OTHER)
    assert told(life, FindingKind.SHARED_SLOT) == (
        None,
        "1.0",
        f"held by 2 containers: {NAME}, {OTHER}",
    )


def test_one_container_listed_twice_shares_with_nobody() -> None:
    life = Life()
    life.host.state = books(slot("1.0", NAME, NAME))
    assert found(life, FindingKind.SHARED_SLOT) == []


# --- rogue-process ----------------------------------------------------------------------------


def test_a_process_of_a_container_on_a_slot_it_does_not_hold() -> None:
    container, place, reason = told(booked().use("MIG-0-0", TRAIN), FindingKind.ROGUE_PROCESS)
    assert (container, place) == (NAME, "0.0")
    assert all(word in reason for word in ("4007", "python", NAME))


def test_a_process_of_the_host() -> None:
    container, place, reason = told(booked().use("MIG-0-0", None), FindingKind.ROGUE_PROCESS)
    assert (container, place) == (None, "0.0")
    assert "the host" in reason


def test_a_process_of_a_container_that_the_engine_does_not_list() -> None:
    _, place, reason = told(booked().use("MIG-0-0", "f" * 64), FindingKind.ROGUE_PROCESS)
    assert place == "0.0"
    assert "f" * 12 in reason
    assert "does not list" in reason


def test_a_process_of_nobody_known_on_a_slot_that_nobody_holds() -> None:
    """Whosever it is: it takes the slot from allocation, and something has to say so."""
    life = booked().use("MIG-0-0", Unknown(source=Source.NVML, reason="its cgroup path is odd"))
    container, place, reason = told(life, FindingKind.ROGUE_PROCESS)
    assert (container, place) == (None, "0.0")
    assert "process 4007 (python) uses 0.0, which is not booked" in reason
    assert "its cgroup path is odd" in reason


@pytest.mark.parametrize(
    "life",
    [
        pytest.param(lambda: booked().use("MIG-1-0", TRAIN), id="on its own slot"),
        pytest.param(
            lambda: booked().use("MIG-1-0", Unknown(source=Source.NVML, reason="hidepid")),
            id="it may be the holder's",
        ),
        pytest.param(
            lambda: booked().set_gpu(blind={"MIG-0-0": "not supported"}).use("MIG-0-0", TRAIN),
            id="the device cannot be looked into",
        ),
        pytest.param(lambda: booked().use("MIG-0-0", TRAIN).fail(Source.NVML), id="no NVML"),
        pytest.param(
            lambda: booked().run(name="vscode", labels={}, id="v").use("MIG-0-0", "v"),
            id="a foreign container: that is foreign-use",
        ),
    ],
)
def test_no_rogue_process(life: Callable[[], Life]) -> None:
    assert found(life(), FindingKind.ROGUE_PROCESS) == []


# --- foreign-use ------------------------------------------------------------------------------


def foreign(*devices: str, **fields: Any) -> Life:
    life = Life().after(HOUR)
    life.start_now(*devices, name="vscode", labels={}, id="v", **fields)
    return life.after(0)


def test_a_foreign_container_by_its_request() -> None:
    container, place, reason = told(foreign("MIG-0-1"), FindingKind.FOREIGN_USE)
    assert (container, place) == ("vscode", "0.1")
    assert "vscode" in reason


def test_a_foreign_container_that_asks_for_an_index() -> None:
    assert told(foreign("0:1"), FindingKind.FOREIGN_USE)[1] == "0.1"


def test_a_foreign_container_with_all_gpus_is_one_finding_not_one_for_each_slot() -> None:
    life = foreign(request=ALL)
    (finding,) = life.plan().findings
    assert (finding.kind, finding.container, finding.slot) == ("broad-request", "vscode", None)
    assert finding.reason == (
        "foreign container vscode (v) asks for all GPUs, computes on none, takes none"
    )


def test_one_with_all_gpus_that_computes_uses_that_slot() -> None:
    life = foreign(request=ALL).use("MIG-1-1", "v")
    assert told(life, FindingKind.BROAD_REQUEST)[2].endswith("asks for all GPUs, computes on 1.1")
    assert told(life, FindingKind.FOREIGN_USE)[:2] == ("vscode", "1.1")


def test_a_foreign_container_with_a_number_of_gpus_is_one_finding() -> None:
    (finding,) = foreign(request=count(2)).plan().findings
    assert (finding.kind, finding.container) == ("broad-request", "vscode")


@pytest.mark.parametrize(
    ("table", "fields"),
    [
        ({}, {"labels": {"ds01.protected": "true"}}),
        ({"labels": ("app=dcgm*",)}, {"labels": {"app": "dcgm-exporter"}}),
        ({"images": ("nvcr.io/nvidia/k8s/dcgm-exporter",)}, {"image": EXPORTER}),
        ({"images": ("*/dcgm-exporter:3.*",)}, {"image": EXPORTER}),
        ({"names": ("vs?ode",)}, {}),
    ],
)
def test_monitoring_is_exempt_by_label_image_or_name(
    table: Mapping[str, Any], fields: Mapping[str, Any]
) -> None:
    life = Life(msgspec.structs.replace(config(mode="observe"), exempt=ExemptConfig(**table)))
    life.after(HOUR).start_now(name="vscode", id="v", request=ALL, **{"labels": {}, **fields})
    life.after(0)
    assert life.plan().findings == ()
    computing = life.use("MIG-1-1", "v").plan().findings
    assert [(finding.kind, finding.slot) for finding in computing] == [("foreign-use", "1.1")]


def test_a_foreign_container_by_its_processes() -> None:
    assert told(foreign().use("MIG-1-1", "v"), FindingKind.FOREIGN_USE)[:2] == ("vscode", "1.1")


@pytest.mark.parametrize(
    "life",
    [
        pytest.param(foreign, id="one without a GPU"),
        pytest.param(lambda: foreign("MIG-0-1").stop("vscode"), id="one that is stopped"),
        pytest.param(booked, id="a booked one"),
        pytest.param(lambda: Life().run("MIG-1-0", labels={}), id="one that is named like ours"),
        pytest.param(lambda: foreign("MIG-0-1").fail(Source.DOCKER), id="Docker is down"),
    ],
)
def test_no_foreign_use(life: Callable[[], Life]) -> None:
    assert found(life(), FindingKind.FOREIGN_USE) == []


# --- requests and bookings --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "says"),
    [(ALL, "asks for all GPUs, booked is 1.0"), (count(2), "asks for 2 GPUs, booked is 1.0")],
    ids=["all", "a count"],
)
def test_a_broad_request(request_: Any, says: str) -> None:
    life = booked(request=request_)
    assert told(life, FindingKind.BROAD_REQUEST) == (NAME, "1.0", says)
    assert found(life, FindingKind.BOOKING_WITHOUT_DEVICE) == []


def test_a_broad_request_without_a_booking() -> None:
    life = Life().run(request=ALL)
    assert told(life, FindingKind.BROAD_REQUEST) == (
        NAME,
        None,
        "asks for all GPUs, booked is nothing",
    )
    assert found(life, FindingKind.NOT_ADOPTED) == []


def test_a_stopped_container_asks_for_nothing() -> None:
    assert booked(request=ALL).stop().plan().findings == ()


def test_a_booking_of_a_container_without_a_gpu() -> None:
    life = Life().book("1.0").run().after(0)
    assert told(life, FindingKind.BOOKING_WITHOUT_DEVICE) == (
        NAME,
        "1.0",
        "it runs, but has no GPU by its request",
    )


def test_a_booking_of_another_device() -> None:
    reason = told(booked("MIG-1-1"), FindingKind.BOOKING_WITHOUT_DEVICE)[2]
    assert reason == "it asks for MIG-1-1, which is not the device of 1.0"


def test_a_booking_of_a_container_that_names_an_index_from_before_ds01d() -> None:
    reason = told(booked("1:0"), FindingKind.BOOKING_WITHOUT_DEVICE)[2]
    assert "is not known" in reason


def test_a_booking_of_a_slot_whose_device_is_gone() -> None:
    life = booked().stop()
    life.host.gpu = inventory(gpu(0, mig=True), gpu(1, mig=True), mig(0, 0), mig(0, 1), mig(1, 1))
    life.after(180.0)
    assert told(life, FindingKind.BOOKING_WITHOUT_DEVICE) == (NAME, "1.0", "MIG-1-0 is gone")


def test_a_device_without_a_slot() -> None:
    life = booked("GPU-0")
    assert told(life, FindingKind.DEVICE_WITHOUT_SLOT) == (
        NAME,
        None,
        "it has GPU-0, which has no slot",
    )


@pytest.mark.parametrize(
    ("life", "says"),
    [
        pytest.param(
            lambda: Life(config(mode="observe", adopt="off")).run("MIG-1-0").after(0),
            'policy.adopt = "off"',
            id="adoption is off",
        ),
        pytest.param(lambda: Life().run("1:0").after(0), "which GPU is unknown", id="an index"),
    ],
)
def test_who_is_not_adopted(life: Callable[[], Life], says: str) -> None:
    name, place, reason = told(life(), FindingKind.NOT_ADOPTED)
    assert (name, place) == (NAME, None)
    assert says in reason


def test_who_can_be_adopted_is_no_finding() -> None:
    assert Life().run("MIG-1-0").after(0).plan().findings == ()


# --- label-contradiction ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ({"ds01.user": "bob"}, "label names user bob, but the booking is for alice"),
        ({"aime.mlc.USER": "bob"}, "label names user bob, but the booking is for alice"),
        ({"ds01.gpu.slots": "0.0, 0.1"}, "label names slot 0.0, 0.1, booked is 1.0"),
        ({"ds01.gpu.allocated": "0.0"}, "label names slot 0.0, booked is 1.0"),
    ],
)
def test_a_label_that_says_otherwise(labels: dict[str, str], says: str) -> None:
    life = booked(labels={"aime.mlc": "alice", **labels})
    assert told(life, FindingKind.LABEL_CONTRADICTION) == (NAME, "1.0", says)


@pytest.mark.parametrize(
    "labels",
    [{"ds01.user": "alice"}, {"ds01.gpu.slots": "1.0,1.1"}, {"ds01.gpu.allocated": "1.0"}, {}],
    ids=str,
)
def test_a_label_that_agrees(labels: dict[str, str]) -> None:
    assert found(booked(labels=labels), FindingKind.LABEL_CONTRADICTION) == []


def test_a_pinned_container_that_runs_elsewhere() -> None:
    life = booked("MIG-0-0", labels={"aime.mlc": "alice", "ds01.protected": "true"})
    assert told(life, FindingKind.LABEL_CONTRADICTION) == (
        NAME,
        "1.0",
        "it is pinned and has 0.0, booked is 1.0",
    )


def test_a_pinned_container_keeps_what_its_hold_would_have_ended() -> None:
    """Whoever makes a container can pin it: nothing is taken, and it is told."""
    labels = {"aime.mlc": "alice", "ds01.protected": "true"}
    life = booked("MIG-1-0", labels=labels).stop().after(899.0)
    assert found(life, FindingKind.LABEL_CONTRADICTION) == []
    life.after(2.0)
    assert told(life, FindingKind.LABEL_CONTRADICTION) == (
        NAME,
        "1.0",
        (
            "it is pinned and exited: the hold of its user (groups.students) is over, and 1.0 stays"
            " booked"
        ),
    )
    assert life.after(HOUR).host.bookings() == {(NAME, "1.0")}


# --- unhealthy-gpu ----------------------------------------------------------------------------


def test_a_gpu_that_the_driver_complains_about() -> None:
    gpus = inventory(gpu(0, mig=True), gpu(1, mig=True, health=("is lost",)), mig(0, 0), mig(1, 0))
    life = Life(gpu=gpus, state=books(slot("0.0"), slot("1.0")))
    assert told(life, FindingKind.UNHEALTHY_GPU) == (None, "1.0", "GPU 1 (GPU-1): is lost")


def test_a_gpu_that_the_kernel_complains_about() -> None:
    gpus = inventory(gpu(0, pci="0000:3b:00"), gpu(1, pci="0000:5e:00"))
    life = Life(gpu=gpus, state=books(slot("0"), slot("1")))
    decision = life.plan().decision
    snapshot = replace(decision.snapshot, faults={"0000:5e:00": "XID 79: fell off the bus"})
    (finding,) = decide(snapshot, decision.checkpoint, life.config).findings
    assert (finding.kind, finding.slot) == (FindingKind.UNHEALTHY_GPU, "1")
    assert finding.reason == "GPU 1 (GPU-1): XID 79: fell off the bus"


def test_a_gpu_whose_processes_are_not_known() -> None:
    """Once for one reason, however many of its devices it is about."""
    gpus = replace(
        inventory(gpu(0, mig=True), gpu(1, mig=True), mig(0, 0), mig(1, 0), mig(1, 1)),
        blind={DeviceUuid(f"MIG-1-{index}"): "its list is corrupt" for index in (0, 1)},
    )
    life = Life(gpu=gpus, state=books(slot("0.0"), slot("1.0"), slot("1.1")))
    assert told(life, FindingKind.UNHEALTHY_GPU) == (
        None,
        "1.0",
        "GPU 1 (GPU-1): its list is corrupt",
    )


def test_a_failed_gpu_is_told_once() -> None:
    sick = gpu(1, mig=True, health=("Unknown Error",), failed="Unknown Error")
    gpus = replace(
        inventory(gpu(0, mig=True), sick, mig(0, 0), mig(1, 0)),
        blind={
            DeviceUuid(finding): "its processes cannot be listed: Unknown Error"
            for finding in ("GPU-1", "MIG-1-0")
        },
    )
    life = Life(gpu=gpus, state=books(slot("0.0"), slot("1.0")))
    assert told(life, FindingKind.UNHEALTHY_GPU) == (None, "1.0", "GPU 1 (GPU-1): Unknown Error")


def test_a_gpu_that_does_not_say_which_one_it_is() -> None:
    gpus = replace(inventory(gpu(0, mig=True), mig(0, 0)), incomplete={1: "Unknown Error"})
    life = Life(gpu=gpus, state=books(slot("0.0"), slot("1.0")))
    assert told(life, FindingKind.UNHEALTHY_GPU) == (None, "1.0", "GPU 1: Unknown Error")


def test_a_container_on_a_gpu_that_does_not_say_which_one_it_is_is_not_at_fault() -> None:
    gpus = replace(inventory(gpu(0)), incomplete={1: "Unknown Error"})
    life = Life(gpu=gpus, state=books(slot("0"), slot("1"))).book("1").run("GPU-1").after(60.0)
    assert {finding.kind for finding in life.plan().findings} == {FindingKind.UNHEALTHY_GPU}
    assert ("train._.1001", "1") in life.host.bookings()


# --- other-writer -----------------------------------------------------------------------------


@pytest.mark.parametrize(("times", "told_of"), [(1, False), (2, False), (3, True), (9, True)])
def test_a_repair_made_again_and_again(times: int, told_of: bool) -> None:
    life = plain()
    store = CheckpointStore(life.host.world().state_dir)
    memory, _ = store.load()
    repair = Repair(times=times, last=Boot(life.host.boot), not_before=Boot(0.0))
    store.save(
        replace(
            memory, repairs={RepairKey(drift_key("wrong-slot", NAME, SlotId("1.0")), "f|g"): repair}
        )
    )
    named_ = [(f.container, f.slot) for f in found(life, FindingKind.OTHER_WRITER)]
    assert named_ == ([(NAME, "1.0")] if told_of else [])


# --- unclear-limits ---------------------------------------------------------------------------


def test_limits_that_do_not_say_what_they_mean() -> None:
    life = booked()
    unclear = HoldRule(seconds=None, source="groups.students", problem="groups.students: 0")
    life.host.limits = replace(LIMITS, holds={UserName("alice"): unclear})
    assert told(life, FindingKind.UNCLEAR_LIMITS) == (
        NAME,
        "1.0",
        "hold of alice: groups.students: 0",
    )


def with_rules(life: Life, *, unnamed: HoldRule, unknown: HoldRule, **fields: Any) -> Life:
    life.host.limits = replace(LIMITS, holds={}, unnamed=unnamed, unknown_user=unknown, **fields)
    return life


CLEAR = HoldRule(seconds=900.0, source="groups.students")
ASSUMED = HoldRule(seconds=900.0, source="groups.students", problem="the default is assumed")


def test_a_user_in_the_default_group_is_no_finding() -> None:
    life = with_rules(booked().stop().after(60.0), unnamed=CLEAR, unknown=ASSUMED)
    assert found(life, FindingKind.UNCLEAR_LIMITS) == []


def anonymous(**fields: Any) -> Life:
    """A booking whose record is missing, of a container whose labels name nobody."""
    labels = {"ds01.managed": "true"}
    life = Life().list_in("1.0", name="train").run("MIG-1-0", name="train", labels=labels, **fields)
    return with_rules(life.after(HOUR), unnamed=CLEAR, unknown=ASSUMED)


def test_metadata_that_is_missing_makes_nothing_unclear_while_the_container_runs() -> None:
    assert found(anonymous(), FindingKind.UNCLEAR_LIMITS) == []
    gone = with_rules(Life().list_in("1.0").after(60.0), unnamed=CLEAR, unknown=ASSUMED)
    assert found(gone, FindingKind.UNCLEAR_LIMITS) == []


def test_a_stopped_container_whose_user_is_not_known_is_one() -> None:
    life = anonymous().stop(name="train").after(60.0)
    assert told(life, FindingKind.UNCLEAR_LIMITS) == (
        "train",
        "1.0",
        "hold of an unknown user: the default is assumed",
    )


def test_a_key_that_is_not_read_is_one_finding_however_many_it_holds() -> None:
    why = "limits.yaml: defaults.gpu_hold_after_stop_h: is not read; did you mean …?"
    never = HoldRule(seconds=None, source="", problem=f"{why}; the hold does not end")
    life = plain().stop().stop(name=OTHER).after(60.0)
    with_rules(life, unnamed=never, unknown=never, passed_over=(why,))
    assert told(life, FindingKind.UNCLEAR_LIMITS) == (None, None, why)


def test_a_hold_that_the_limits_may_not_end_yet_is_told() -> None:
    life = booked().stop().after(60.0)
    life.host.limits = replace(LIMITS, holds={UserName("alice"): replace(CLEAR, seconds=1.0)})
    assert found(life, FindingKind.UNCLEAR_LIMITS) == []
    life.host.limits = replace(life.host.limits, version="new")
    name, place, reason = told(life, FindingKind.UNCLEAR_LIMITS)
    assert (name, place) == (NAME, "1.0")
    assert reason == ("hold of alice: over, but the limits changed a moment ago: kept for 5 s more")
    assert found(life.after(5.0), FindingKind.UNCLEAR_LIMITS) == []


def test_limits_that_cannot_be_read_are_a_source_that_fails_and_no_finding() -> None:
    life = booked().fail(Source.LIMITS)
    assert found(life, FindingKind.UNCLEAR_LIMITS) == []
    assert life.plan().sources[Source.LIMITS] != "ok"


def test_findings_need_no_books_that_are_right() -> None:
    """A finding looks at what is, also where drift is about to be settled."""
    life = booked("MIG-1-1").list_in("1.0", name=OTHER)
    kinds = {finding.kind for finding in life.plan().findings}
    assert {FindingKind.SHARED_SLOT, FindingKind.BOOKING_WITHOUT_DEVICE} <= kinds


# --- unclear-request --------------------------------------------------------------------------


def short(text: str) -> Request:
    return Request(
        ask=GpuRequestKind.NAMED, devices=(DeviceRef(kind=RefKind.SHORT_UUID, text=text),)
    )


@pytest.mark.parametrize(
    ("life", "who", "place"),
    [
        pytest.param(lambda: booked(request=ODD), NAME, "1.0", id="a booked one that runs"),
        pytest.param(lambda: booked(request=ODD).stop(), NAME, "1.0", id="a booked one, stopped"),
        pytest.param(
            lambda: booked(request=ODD, state=State.CREATED), NAME, "1.0", id="one never started"
        ),
        pytest.param(lambda: Life().run(request=ODD).after(0), NAME, None, id="one not booked"),
        pytest.param(lambda: foreign(request=ODD), "vscode", None, id="a foreign one"),
    ],
)
def test_a_request_that_is_not_understood_is_a_finding_that_says_what(
    life: Callable[[], Life], who: str, place: str | None
) -> None:
    container, slot_id, reason = told(life(), FindingKind.UNCLEAR_REQUEST)
    assert (container, slot_id) == (who, place)
    assert "not understood: mount /var/run/nvidia-container-devices/0" in reason


def test_a_foreign_request_that_fits_no_device_or_several_is_one() -> None:
    several = told(foreign(request=short("MIG-1")), FindingKind.UNCLEAR_REQUEST)[2]
    assert several == "asks for MIG-1, which fits several devices: MIG-1-0, MIG-1-1"
    none = told(foreign(request=short("GPU-9")), FindingKind.UNCLEAR_REQUEST)[2]
    assert none == "asks for GPU-9, which fits no device there is now"
    assert found(foreign(request=short("MIG-1-1")), FindingKind.UNCLEAR_REQUEST) == []


def test_stopped_foreign_ones_and_monitoring_are_none() -> None:
    assert foreign(request=ODD).stop("vscode").plan().findings == ()
    life = Life(
        msgspec.structs.replace(config(mode="observe"), exempt=ExemptConfig(names=("vscode",)))
    )
    life.run(name="vscode", labels={}, request=ODD)
    assert life.after(0).plan().findings == ()


# --- booking-without-device of those that do not run ---------------------------------------------


def made_anew(life: Life) -> Life:
    """MIG device 1.0 is destroyed and created again: same place, another UUID."""
    again = (gpu(0, mig=True), gpu(1, mig=True), mig(0, 0), mig(0, 1))
    life.host.gpu = inventory(*again, mig(1, 0, "MIG-new"), mig(1, 1))
    return life.after(180.0)


@pytest.mark.parametrize("state", ["running", "exited", "created"])
def test_a_holder_of_a_device_that_was_made_anew_runs_or_not(state: str) -> None:
    settings = config()  # repairs: the slot's UUID is refreshed, and what was gone is forgotten
    made: dict[str, Any] = {"created_ago": 0.0} if state == "created" else {}
    life = Life(settings).book("1.0").run("MIG-1-0", state=State(state), **made).after(60.0)
    if state == "exited":
        life.change(finished=life.host.wall)
    made_anew(life).after(60.0)
    assert isinstance(life.host.state, AllocatorState)
    assert life.host.state.slots[SlotId("1.0")].uuid == "MIG-new"
    place, reason = told(life, FindingKind.BOOKING_WITHOUT_DEVICE)[1:]
    assert place == "1.0"
    if state == "running":
        assert reason == "it asks for MIG-1-0, which is not the device of 1.0"
    else:
        assert reason == "it is stopped and asks for MIG-1-0; MIG-1-0 is gone"


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (
            "1:1",
            (
                "it is stopped and asks for 1:1, which today is not the device of 1.0;"
                " what it means at the next start is not known"
            ),
        ),
        ("MIG-1-1", "it is stopped and asks for MIG-1-1, which is not the device of 1.0"),
        ("1:7", "it is stopped and asks for 1:7, which fits no device, or several, today"),
    ],
)
def test_a_stopped_holder_says_no_more_than_is_known(request_: str, says: str) -> None:
    assert told(booked(request_).stop(), FindingKind.BOOKING_WITHOUT_DEVICE)[2] == says


@pytest.mark.parametrize(
    "life",
    [
        pytest.param(lambda: booked("MIG-1-0").stop(), id="by UUID, and it is there"),
        pytest.param(lambda: booked("1:0").stop(), id="by index, and that is its device today"),
        pytest.param(
            lambda: booked("1:1").stop().fail(Source.NVML), id="what there is, is unknown"
        ),
        pytest.param(lambda: booked(request=ALL).stop(), id="all of them"),
    ],
)
def test_a_stopped_holder_that_may_use_it_is_none(life: Callable[[], Life]) -> None:
    assert found(life(), FindingKind.BOOKING_WITHOUT_DEVICE) == []


# --- long-name --------------------------------------------------------------------------------


def test_a_name_that_no_file_can_have() -> None:
    """It is booked, and at rest without metadata; nothing is due or fails for ever."""
    name = ContainerName("x" * 260 + "._.1001")
    life = Life(config(pace_count=9)).run("MIG-1-0", name=name).after(60.0)
    assert life.host.bookings() == {(name, "1.0")}
    assert life.host.records == {}
    report = life.plan()
    assert report.drifts == ()
    (finding,) = report.findings
    assert (finding.kind, finding.container, finding.slot) == (FindingKind.LONG_NAME, name, "1.0")
    assert finding.reason == (
        "its name has 267 characters, a metadata file takes 250: booked without one, until it is"
        " renamed"
    )
    life.stop(name).after(2 * HOUR)
    assert life.host.bookings() == set()
    assert found(life, FindingKind.LONG_NAME) == []


def test_one_that_just_fits_has_a_record() -> None:
    name = ContainerName("x" * 243 + "._.1001")
    life = Life(config(pace_count=9)).run("MIG-1-0", name=name).after(60.0)
    assert name in life.host.records
    assert found(life, FindingKind.LONG_NAME) == []


# --- stuck-removal ----------------------------------------------------------------------------


@pytest.mark.parametrize("state", [State.REMOVING, State.DEAD])
def test_a_removal_that_does_not_end(state: State) -> None:
    life = booked().after(60.0)
    life.change(state=state, finished_ago=0).after(119.0)
    assert found(life, FindingKind.STUCK_REMOVAL) == []
    life.after(60.0)
    assert told(life, FindingKind.STUCK_REMOVAL) == (
        NAME,
        "1.0",
        f"it is {state} and stays so, and can never be started again: docker rm -f {NAME}",
    )


def test_its_booking_ends_with_its_hold_also_where_docker_has_no_time() -> None:
    life = Life(config(pace_count=9)).book("1.0").run("MIG-1-0").after(60.0)
    life.change(state=State.REMOVING).after(840.0)
    assert life.host.bookings() == {(NAME, "1.0")}
    life.after(120.0)
    assert life.host.bookings() == set()
    assert told(life, FindingKind.STUCK_REMOVAL)[1] is None


def test_a_removal_that_ends_is_none() -> None:
    life = booked().after(60.0)
    life.change(state=State.REMOVING, finished_ago=0).after(60.0).remove().after(300.0)
    assert found(life, FindingKind.STUCK_REMOVAL) == []


# --- overdue-hold -----------------------------------------------------------------------------


def overdue(**policy: Any) -> Life:
    life = Life(config(**({"expired_holds": "report"} | policy))).book("1.0").run("MIG-1-0")
    return life.after(60.0).stop().after(1200.0)


def test_a_hold_that_is_over_is_reported_and_ends_with_the_container() -> None:
    life = overdue()
    assert life.host.bookings() == {(NAME, "1.0")}
    assert told(life, FindingKind.OVERDUE_HOLD) == (
        NAME,
        "1.0",
        (
            "its hold after the stop is over, and it keeps 1.0"
            f' (policy.expired_holds = "report"): docker rm {NAME}'
        ),
    )
    life.remove().after(60.0)
    assert life.host.bookings() == set()
    assert found(life, FindingKind.OVERDUE_HOLD) == []


def test_it_is_released_where_an_administrator_decided_so() -> None:
    life = overdue(expired_holds="release")
    assert life.host.bookings() == set()
    assert found(life, FindingKind.OVERDUE_HOLD) == []


def test_a_hold_that_lasts_is_not_overdue() -> None:
    life = Life(config(expired_holds="report")).book("1.0").run("MIG-1-0").after(60.0)
    assert found(life.stop().after(600.0), FindingKind.OVERDUE_HOLD) == []


def test_what_lost_its_booking_gets_it_back_by_no_hold_that_is_over() -> None:
    life = overdue()
    life.host.state = books(slot("0.0"), slot("0.1"), slot("1.0"), slot("1.1"))
    life.after(300.0)
    assert life.host.bookings() == set()
