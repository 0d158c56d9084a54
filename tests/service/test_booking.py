"""For which process a booking is reserved, as the service finds it out."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from ds01d.model.books import Record
from ds01d.model.containers import State
from ds01d.model.primitives import ContainerName, Source, Unknown, Wall
from ds01d.model.reservation import BOOKING_LABEL, ProcessState, ReservingProcess
from ds01d.reconcile.docker_books import with_current_books
from ds01d.service.booking import BookingService
from ds01d.service.client import INTERFACE
from ds01d.service.dispatch import serve_call
from ds01d.service.requests import PendingCall
from ds01d.service.rules import Peer
from ds01d.service.varlink import MethodCall
from ds01d.service.waiting import WaitingQueue
from tests.reconcile.test_docker_books import fresh_life
from tests.service.test_status_calls import status
from tests.support.build import Life, books, config, slot, whole

ALICE = Peer(uid=1001, login="alice", pid=7, is_operator=False)
OLGA = Peer(uid=1009, login="olga", pid=8, is_operator=True)
FIRST = ReservingProcess(pid=10, started=1, boot_id="boot-1", command="docker")
SECOND = ReservingProcess(pid=20, started=2, boot_id="boot-1", command="docker")
NAME = ContainerName("train._.1001")
Json = dict[str, Any]


@pytest.fixture
def life() -> Life:
    life = fresh_life().after(60)
    life.host.asker = FIRST
    life.host.processes = {FIRST: ProcessState.RUNS, SECOND: ProcessState.RUNS}
    return life


def call(life: Life, peer: Peer, method: str, parameters: Json) -> Json:
    """What the service answers."""
    world = with_current_books(life.host.world(), life.config)
    service = BookingService(life.config, world, lambda: status(1), WaitingQueue())
    replies: list[bytes] = []
    message = MethodCall(
        method=f"{INTERFACE}.{method}", parameters=msgspec.Raw(json.dumps(parameters).encode())
    )
    request = PendingCall(peer, message, lambda data, _: replies.append(data))
    assert request.take()
    serve_call(request, service.handlers)
    reply: Json = json.loads(replies[-1].rstrip(b"\0"))
    return reply


def allocate(life: Life, **parameters: object) -> Json:
    return call(life, ALICE, "Allocate", parameters)


def release(life: Life, peer: Peer = ALICE, **parameters: object) -> Json:
    return call(life, peer, "Release", parameters)


def test_it_is_whom_the_kernel_shows(life: Life) -> None:
    booking = allocate(life, container=NAME, process=True)["parameters"]["booking"]
    record = life.host.records[NAME]
    assert isinstance(record, Record)
    assert record.processes == (FIRST,)
    assert booking["until"] == life.host.wall + life.config.policy.reservation_limit_s
    (entry, _) = [json.loads(line) for line in life.host.history]
    assert entry["reason"].endswith(": for process 10 (docker)")


@pytest.mark.parametrize("parameters", [{}, {"process": False}])
def test_nobody_gets_one_without_asking(life: Life, parameters: Json) -> None:
    booking = allocate(life, container=NAME, **parameters)["parameters"]["booking"]
    record = life.host.records[NAME]
    assert isinstance(record, Record)
    assert record.processes == ()
    assert booking["until"] == life.host.wall + life.config.policy.creation_grace_s


def test_who_cannot_be_told_has_the_time_of_every_reservation(life: Life) -> None:
    life.host.asker = None
    booking = allocate(life, container=NAME, process=True)["parameters"]["booking"]
    assert booking["until"] == life.host.wall + life.config.policy.creation_grace_s


def test_a_caller_that_has_ended_gets_nothing(life: Life) -> None:
    life.host.asker = Unknown(source=Source.NVML, reason="process 7 has ended")
    reply = allocate(life, container=NAME, process=True)
    assert reply["error"] == f"{INTERFACE}.Unavailable"
    assert life.host.records == {}


def test_what_an_ended_process_left_is_nobodys(life: Life) -> None:
    """Else the next call of that name would be given what is taken from it seconds later."""
    first = allocate(life, container=NAME, process=True)["parameters"]["booking"]
    life.host.processes[FIRST] = ProcessState.ENDED
    life.host.asker = SECOND
    life.host.pass_time(1.0)
    second = allocate(life, container=NAME, process=True)["parameters"]["booking"]
    assert (first["already"], second["already"]) == (False, False)
    assert second["id"] != first["id"]
    life.after(60)
    assert life.host.bookings() == {(NAME, second["slot"])}


def test_what_a_container_has_stays_its_own(life: Life) -> None:
    allocate(life, container=NAME, process=True)
    life.host.pass_time(1.0)
    life.run("GPU-0", name=NAME, created=Wall(life.host.wall))
    life.host.processes[FIRST] = ProcessState.ENDED
    life.host.asker = SECOND
    again = allocate(life, container=NAME, process=True)["parameters"]["booking"]
    assert (again["already"], again["slot"], again["until"]) == (True, "0", None)


@pytest.mark.parametrize("is_bound", [False, True], ids=["no pass since", "a pass has bound it"])
@pytest.mark.parametrize("has_label", [False, True], ids=["by its device", "by the label"])
@pytest.mark.parametrize("state", [State.CREATED, State.RUNNING])
def test_what_an_ended_process_left_to_a_container_is_given_to_nobody_else(
    state: State, *, has_label: bool, is_bound: bool
) -> None:
    slots = [slot(str(number), uuid=f"GPU-{number}") for number in range(3)]
    settings = config(whole_gpus="always")
    life = Life(settings, gpu=whole(3), state=books(*slots), passwd={1001: "alice"}).after(60)
    life.host.asker = FIRST
    life.host.processes = {FIRST: ProcessState.RUNS, SECOND: ProcessState.RUNS}
    first = allocate(life, container=NAME, process=True)["parameters"]["booking"]
    life.sweep()
    life.host.pass_time(1.0)
    now = Wall(life.host.wall)
    labels = {"aime.mlc.USER": "alice"} | ({BOOKING_LABEL: first["id"]} if has_label else {})
    started = now if state is State.RUNNING else None
    other = "project"
    life.run("GPU-0", name=other, labels=labels, created=now, state=state, started=started)
    life.host.processes[FIRST] = ProcessState.ENDED
    life.host.asker = SECOND
    life.host.pass_time(1.0)
    if is_bound:
        life.sweep()
    reply = allocate(life, container=NAME, process=True)
    assert reply["error"] == f"{INTERFACE}.Unavailable"
    assert "reserved by a process that has ended: " in reply["parameters"]["reason"]
    life.after(60)
    assert life.host.bookings() == {(other, "0")}


@pytest.mark.parametrize("peer", [ALICE, OLGA])
def test_a_release_by_name_and_id_leaves_the_next_booking_of_that_name(
    life: Life, peer: Peer
) -> None:
    first = allocate(life, container=NAME)["parameters"]["booking"]
    assert "error" not in release(life, container=NAME)
    second = allocate(life, container=NAME)["parameters"]["booking"]
    for booking in (first["id"], "r-ffffffffffff", "../x", ""):
        refused = release(life, peer, container=NAME, id=booking)
        assert refused["parameters"]["code"] == "NOT_ALLOCATED"
    assert life.host.bookings() == {(NAME, second["slot"])}
    assert "error" not in release(life, peer, container=NAME, id=second["id"])
    assert life.host.bookings() == set()


@pytest.mark.parametrize("peer", [ALICE, OLGA])
@pytest.mark.parametrize("state", [State.CREATED, State.RUNNING, State.EXITED])
def test_a_release_for_a_container_that_is_gone_is_refused_while_one_has_the_name(
    life: Life, state: State, peer: Peer
) -> None:
    booking = allocate(life, container=NAME)["parameters"]["booking"]
    life.run(name=NAME, state=state, created_ago=0)
    refused = release(life, peer, container=NAME, id=booking["id"], if_gone=True)
    assert refused["parameters"]["code"] == "NOT_POSSIBLE"
    life.fail(Source.DOCKER)
    refused = release(life, peer, container=NAME, id=booking["id"], if_gone=True)
    assert refused["error"] == f"{INTERFACE}.Unavailable"
    life.mend().remove()
    assert "error" not in release(life, peer, container=NAME, id=booking["id"], if_gone=True)
    assert life.host.bookings() == set()
