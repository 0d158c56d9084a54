"""What passes tell: each thing when it begins and when it ends, and nothing again and again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatch

import pytest

from ds01d.model.drift import Kind
from ds01d.model.primitives import LOCAL_SOURCES, ContainerName, Source
from ds01d.reporting.message_ids import MESSAGES, Event
from tests.decide.test_diff import Place, host_with, places, running
from tests.reporting.test_catalog import ENTRIES, documented_fields
from tests.support.build import NAME, Life, config
from tests.support.telling import Entries, Watched, collected, everything

HOURS = 300  # sweeps, one a minute
BY_THE_DAEMON = {
    (event, "")
    for event in Event
    if event.startswith(("daemon.", "config.", "log.", "library.", "service.", "status.dump"))
}


@pytest.fixture
def told() -> Iterator[Entries]:
    with collected() as entries:
        yield entries


def events(told: Entries) -> list[str]:
    return [one["DS01_EVENT"] for one in told.all]


def one_running() -> tuple[Watched, Place]:
    life = host_with(1)
    (place,) = places(life, [Kind.STALE_ALLOCATION])
    running(place)
    watched = Watched(life)
    watched.sweeps(20)
    return watched, place


# --- everything, as documented ------------------------------------------------------------------


def test_each_entry_has_the_fields_that_are_documented_and_explained(told: Entries) -> None:
    everything()
    ids = {entry["MESSAGE_ID"] for entry in told.all}
    assert ids == {m.id for key, m in MESSAGES.items() if key not in BY_THE_DAEMON}
    fields, explained = documented_fields(), dict(ENTRIES)
    for entry in told.all:
        for field in (name for name in entry if name.startswith("DS01_")):
            assert any(fnmatch(entry["DS01_EVENT"], one) for one in fields[field]), (field, entry)
        for field in explained[entry["MESSAGE_ID"]].fields:
            # journalctl shows the bare name of a field that is missing, or longer than this.
            assert 0 < len(entry[field].encode()) <= 256, (field, entry)
        assert "?" not in entry["MESSAGE"]


# --- sources ------------------------------------------------------------------------------------


def test_a_source_that_is_silent_for_an_hour_is_two_entries(told: Entries) -> None:
    watched, _ = one_running()
    for source in LOCAL_SOURCES:
        told.all.clear()
        watched.life.fail(source)
        watched.sweeps(60)
        watched.life.mend()
        watched.sweeps(5)
        down, up = told.all
        assert (down["DS01_EVENT"], down["PRIORITY"]) == ("source.down", "4")
        assert (up["DS01_EVENT"], up["PRIORITY"]) == ("source.up", "5")
        assert up["DS01_SOURCE"] == source
        assert up["DS01_SECONDS"] == "3600"


def test_a_source_that_comes_and_goes_for_hours_is_a_handful_of_entries(told: Entries) -> None:
    watched, _ = one_running()
    told.all.clear()
    for minute in range(HOURS):
        watched.host.failing = {Source.DOCKER} if minute % 3 == 0 else set()
        watched.sweep()
    assert 10 < len(told.all) < 30
    assert set(events(told)) == {"source.down", "source.up"}
    assert events(told)[-1] == "source.down", "it counts as silent until it is steady"


# --- drifts -------------------------------------------------------------------------------------


def test_what_is_settled_as_soon_as_it_may_be_is_one_entry(told: Entries) -> None:
    watched, place = one_running()
    watched.life.remove(place.name)
    watched.sweep(1)
    watched.sweep(5)
    (entry,) = told.all
    assert (entry["DS01_EVENT"], entry["DS01_ACTION"]) == ("drift.settled", "release")
    assert "DS01_SECONDS" not in entry


def test_what_has_to_wait_is_two(told: Entries) -> None:
    watched, place = one_running()
    watched.life.remove(place.name, told=False)
    watched.sweeps(10)
    found, settled = told.all
    assert (found["DS01_EVENT"], found["DS01_GATE"]) == ("drift.found", "proof")
    assert (settled["DS01_EVENT"], settled["DS01_CONTAINER"]) == ("drift.settled", place.name)
    assert settled["DS01_SECONDS"] == "120"
    assert settled["MESSAGE"].endswith("after 2 m")


def test_a_writer_at_work_is_no_news(told: Entries) -> None:
    """The state is written, the record is not yet: a pass in between sees drift, and is silent."""
    watched, place = one_running()
    record = watched.host.records.pop(place.name)
    watched.sweep(1)
    watched.host.records[place.name] = record
    watched.sweep(2)
    assert told.all == []


def test_a_drift_that_goes_by_itself_is_told_to_be_gone(told: Entries) -> None:
    watched, place = one_running()
    (container,) = watched.host.containers.values()
    watched.life.remove(place.name, told=False)
    watched.sweep()
    watched.host.run(container)
    watched.sweeps(3)
    assert events(told) == ["drift.found", "drift.gone"]


def test_a_pass_over_some_names_ends_nothing_of_the_others(told: Entries) -> None:
    watched, place = one_running()
    watched.life.remove(place.name, told=False)
    watched.sweep()
    watched.sweep(1, frozenset({ContainerName("other._.1")}))
    watched.sweep(1)
    assert events(told) == ["drift.found"]


def test_observing_tells_what_it_would_do_once(told: Entries) -> None:
    life = Life(config(mode="observe")).book("1.0")
    watched = Watched(life)
    watched.sweeps(300)
    (found,) = told.of("drift.found")
    assert (found["DS01_CONTAINER"], found["DS01_DRIFT"]) == (NAME, "stale-allocation")


def test_a_repair_that_fails_for_hours_is_told_once_and_when_it_works(told: Entries) -> None:
    watched, place = one_running()
    watched.host.unwritable = {"state"}
    watched.life.remove(place.name)
    watched.sweeps(180)
    watched.host.unwritable.clear()
    watched.sweep()
    failed, settled = told.all
    assert (failed["DS01_EVENT"], failed["PRIORITY"]) == ("drift.failed", "3")
    assert settled["DS01_SECONDS"] == str(180 * 60)


def test_many_that_fail_for_one_reason_are_one_entry(told: Entries) -> None:
    life = host_with(9)
    everywhere = [
        replace(place, name=ContainerName(f"c{place.g}._.1001"))
        for place in places(life, [Kind.STALE_ALLOCATION] * 9)
    ]
    for place in everywhere:
        running(place)
    watched = Watched(life)
    watched.sweeps(20)
    watched.host.unwritable = {"state"}
    for place in everywhere:
        life.remove(place.name)
    watched.sweeps(60)
    (failed,) = told.all
    assert failed["DS01_COUNT"] == "9"
    assert "stale-allocation c8._.1001 8.0" in failed["DS01_EVIDENCE"]


def test_without_a_history_that_alone_is_told(told: Entries) -> None:
    watched, place = one_running()
    watched.host.unwritable = {"history"}
    watched.life.remove(place.name)
    watched.sweeps(180)
    watched.host.unwritable.clear()
    watched.sweeps(2)
    assert events(told) == ["history.failed", "drift.settled", "history.works"]


def test_a_drift_that_somebody_brings_back_for_hours_is_bounded(told: Entries) -> None:
    """The back-off spaces the repairs; the finding tells once who is at work."""
    watched, place = one_running()
    told.all.clear()
    for _ in range(HOURS):
        place.write_slot(place.first, users={"alice": 5})
        watched.sweep()
    assert len(told.of("finding.new")) == 1
    assert set(events(told)) == {"drift.settled", "finding.new"}
    assert len(told.all) < 50


def test_a_drift_that_comes_and_goes_for_hours_is_bounded(told: Entries) -> None:
    watched, place = one_running()
    (container,) = watched.host.containers.values()
    for minute in range(HOURS):
        if minute % 4 == 0:
            watched.life.remove(place.name, told=False)
        elif minute % 4 == 1:
            watched.host.run(container)
        watched.sweep(50)
    assert set(events(told)) == {"drift.found", "drift.gone"}
    assert len(told.all) < 30


# --- what holds many ----------------------------------------------------------------------------


def test_while_the_pace_holds_it_is_told_once(told: Entries) -> None:
    """Also where passes over some names come in between."""
    life = host_with(9)
    everywhere = [
        replace(place, name=ContainerName(f"c{place.g}._.1001"))
        for place in places(life, [Kind.STALE_ALLOCATION] * 9)
    ]
    life.config = config(pace_count=2)
    for place in everywhere:
        running(place)
    watched = Watched(life)
    watched.sweeps(20)
    for place in everywhere:
        life.remove(place.name, told=False)
    for _ in range(60):
        watched.sweep(30)
        watched.sweep(30, frozenset({everywhere[0].name}))
    assert len(told.of("pace.reached")) == len(told.of("pace.over")) == 1
    assert len(told.of("drift.found")) == len(told.of("drift.settled")) == 9
    assert len(told.all) == 20


def test_a_change_of_the_gpus_from_before_the_start_is_no_news(told: Entries) -> None:
    watched, _ = one_running()
    life = watched.life
    assert life.host.gpu is not None
    life.set_gpu(migs=life.host.gpu.migs[:1])
    watched.sweeps(10)
    assert events(told)[0] == "inventory.changed"
    told.all.clear()
    again = Watched(life)
    again.sweeps(10)
    assert told.all == []


# --- findings -----------------------------------------------------------------------------------


def test_foreign_containers_that_come_and_go_on_a_slot_are_one_finding(told: Entries) -> None:
    watched, place = one_running()
    for number in range(HOURS):
        name = f"build-{number}"
        watched.life.run(place.uuid, name=name, labels={})
        watched.sweep()
        watched.life.remove(name)
    (entry,) = told.all
    assert (entry["DS01_FINDING"], entry["DS01_CONTAINER"]) == ("foreign-use", "build-0")


def test_a_gpu_whose_error_count_grows_is_told_once_and_a_second_trouble_too(
    told: Entries,
) -> None:
    watched, _ = one_running()
    assert watched.host.gpu is not None
    (gpu,) = watched.host.gpu.gpus
    for errors in range(1, 100):
        watched.life.set_gpu(gpus=(replace(gpu, health=(f"{errors} uncorrected ECC errors",)),))
        watched.sweep()
    (first,) = told.all
    assert (first["DS01_FINDING"], first["PRIORITY"]) == ("unhealthy-gpu", "3")
    watched.life.set_gpu(gpus=(replace(gpu, health=("100 uncorrected ECC errors", "is lost")),))
    watched.sweep()
    assert told.all[1]["MESSAGE"].endswith("is lost")


# --- troubles -----------------------------------------------------------------------------------


def test_a_log_that_cannot_be_written_is_told_once(told: Entries) -> None:
    watched, _ = one_running()
    now = watched.host.world().clock.now
    for number in range(300):
        watched.teller.log_warning(f"status.json was not written by {number}: no space", now().boot)
        watched.sweep()
    watched.sweeps(20)
    assert events(told) == ["degraded.begin", "degraded.over"]


def test_passes_that_fail_for_hours_are_two_entries(told: Entries) -> None:
    watched, _ = one_running()
    for _ in range(100):
        watched.host.pass_time(300)
        now = watched.host.world().clock.now().boot
        watched.teller.log_failed_pass(OSError(30, "Read-only file system"), now, expected=False)
    watched.sweep()
    assert events(told) == ["pass.failed", "pass.works"]
    assert "Read-only" in told.all[0]["DS01_TRACEBACK"]
    assert "DS01_TRACEBACK" not in told.all[1]
